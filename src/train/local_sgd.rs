//! Local SGD / FedAvg (McMahan et al., 1602.05629): devices take steps of their own and average their parameters every
//! few steps, weighted by the samples that each has trained on since the last average.

use super::norm::l2_norm;
use crate::aggregate::add_scaled;
use crate::comm::{Communicator, Traffic};
use crate::error::Result;
use crate::optim::Optimizer;

/// When parameters are averaged, and how much each hosted device counts.
#[derive(Clone, Debug)]
pub(crate) struct Averages {
    steps: u64,
    last_step: u64,
    /// Trained on by each device since the last average.
    samples: Vec<u64>,
}

impl Averages {
    /// Every `steps` steps and after `last_step`, so that no planned step is lost.
    pub fn new(steps: u64, last_step: u64, hosted: usize) -> Self {
        Self { steps, last_step, samples: vec![0; hosted] }
    }

    /// A device took a step on `samples` samples.
    pub fn add(&mut self, device: usize, samples: usize) {
        self.samples[device] += samples as u64;
    }

    /// Whether one is due after step number `step`, counted from 1.
    pub fn are_due_after(&self, step: u64) -> bool {
        step.is_multiple_of(self.steps) || step == self.last_step
    }

    /// Weights of the hosted devices, from their shares of the samples of all devices since the last average; `None` if
    /// there were none at all.
    pub fn take_weights(&mut self, comm: &mut dyn Communicator) -> Result<(Traffic, Option<Vec<f32>>)> {
        let samples: Vec<f64> = self.samples.iter().map(|&samples| samples as f64).collect();
        let mut all = vec![0.0; comm.world_size()];
        let traffic = comm.all_gather_scalars(&samples, &mut all)?;
        let total: f64 = all.iter().sum();
        if total == 0.0 {
            return Ok((traffic, None));
        }
        self.samples.fill(0);
        Ok((traffic, Some(samples.iter().map(|samples| (samples / total) as f32).collect())))
    }
}

/// The longer of two gradients' norms; NaN is longer than any.
pub(crate) fn longer(norm: f64, other: f64) -> f64 {
    if norm.is_nan() || norm > other { norm } else { other }
}

/// Parameters and optimizer of each hosted device. Momentum stays with the device when parameters are averaged.
pub(crate) struct LocalSgd {
    averages: Averages,
    replicas: Vec<Replica>,
    longest_grad: f64,
}

struct Replica {
    params: Vec<f32>,
    optimizer: Optimizer,
}

impl LocalSgd {
    /// Devices that start from `params`, one for each optimizer.
    pub fn new(averages: Averages, optimizers: Vec<Optimizer>, params: &[f32]) -> Self {
        let replicas =
            optimizers.into_iter().map(|optimizer| Replica { params: params.to_vec(), optimizer }).collect();
        Self { averages, replicas, longest_grad: 0.0 }
    }

    /// Starts a step: no gradient is seen yet.
    pub fn begin_step(&mut self) {
        self.longest_grad = 0.0;
    }

    /// Parameters of the hosted device number `device`.
    pub fn params(&self, device: usize) -> &[f32] {
        &self.replicas[device].params
    }

    /// One step of one device on the mean gradient of `samples` samples; false if the gradient is not finite, then
    /// nothing changes.
    pub fn step(&mut self, device: usize, grad: &[f32], samples: usize, lr: f64) -> Result<bool> {
        if samples == 0 {
            return Ok(true);
        }
        let norm = l2_norm(grad);
        self.longest_grad = longer(norm, self.longest_grad);
        if !norm.is_finite() {
            return Ok(false);
        }
        let replica = &mut self.replicas[device];
        replica.optimizer.step(&mut replica.params, grad, lr)?;
        self.averages.add(device, samples);
        Ok(true)
    }

    /// Norm of the longest gradient of the step.
    pub fn longest_grad(&self) -> f64 {
        self.longest_grad
    }

    /// Whether parameters are averaged after step number `step`, counted from 1.
    pub fn averages_after(&self, step: u64) -> bool {
        self.averages.are_due_after(step)
    }

    /// Replaces `average` and every device's parameters by the weighted average over all devices. Without any sample
    /// since the last one, nothing changes.
    pub fn average(&mut self, comm: &mut dyn Communicator, average: &mut [f32]) -> Result<Traffic> {
        let (mut traffic, weights) = self.averages.take_weights(comm)?;
        let Some(weights) = weights else { return Ok(traffic) };
        average.fill(0.0);
        for (rank, (replica, weight)) in self.replicas.iter().zip(weights).enumerate() {
            add_scaled(rank, &replica.params, weight, average)?;
        }
        traffic += comm.all_reduce_sum(average)?;
        for replica in &mut self.replicas {
            replica.params.copy_from_slice(average);
        }
        Ok(traffic)
    }
}
