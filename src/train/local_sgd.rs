//! Local SGD / FedAvg (McMahan et al., 1602.05629): devices take steps of their own and average their parameters every
//! few steps, weighted by the samples that each has trained on since the last average.

use super::norm::l2_norm;
use crate::aggregate::add_scaled;
use crate::comm::{Communicator, Traffic};
use crate::error::Result;
use crate::optim::Optimizer;

/// Parameters and optimizer of each hosted device. Momentum stays with the device when parameters are averaged.
pub(crate) struct LocalSgd {
    steps: u64,
    last_step: u64,
    replicas: Vec<Replica>,
    longest_grad: f64,
}

struct Replica {
    params: Vec<f32>,
    optimizer: Optimizer,
    samples: u64,
}

impl LocalSgd {
    /// Averages every `steps` steps and after `last_step`, so that no planned step is lost; every device starts from
    /// `params`.
    pub fn new(steps: u64, last_step: u64, optimizers: Vec<Optimizer>, params: &[f32]) -> Self {
        let replicas = optimizers
            .into_iter()
            .map(|optimizer| Replica { params: params.to_vec(), optimizer, samples: 0 })
            .collect();
        Self { steps, last_step, replicas, longest_grad: 0.0 }
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
        self.longest_grad = if norm > self.longest_grad || norm.is_nan() { norm } else { self.longest_grad };
        if !norm.is_finite() {
            return Ok(false);
        }
        let replica = &mut self.replicas[device];
        replica.samples += samples as u64;
        replica.optimizer.step(&mut replica.params, grad, lr)?;
        Ok(true)
    }

    /// The longest gradient since this was last asked.
    pub fn take_longest_grad(&mut self) -> f64 {
        std::mem::take(&mut self.longest_grad)
    }

    /// Whether parameters are averaged after step number `step`, counted from 1.
    pub fn averages_after(&self, step: u64) -> bool {
        step.is_multiple_of(self.steps) || step == self.last_step
    }

    /// Replaces `average` and every device's parameters by the weighted average over all devices. Without any sample
    /// since the last one, nothing changes.
    pub fn average(&mut self, comm: &mut dyn Communicator, average: &mut [f32]) -> Result<Traffic> {
        let samples: Vec<f64> = self.replicas.iter().map(|replica| replica.samples as f64).collect();
        let mut all = vec![0.0; comm.world_size()];
        let mut traffic = comm.all_gather_scalars(&samples, &mut all)?;
        let total: f64 = all.iter().sum();
        if total == 0.0 {
            return Ok(traffic);
        }
        average.fill(0.0);
        for (rank, replica) in self.replicas.iter().enumerate() {
            add_scaled(rank, &replica.params, (replica.samples as f64 / total) as f32, average)?;
        }
        traffic += comm.all_reduce_sum(average)?;
        for replica in &mut self.replicas {
            replica.params.copy_from_slice(average);
            replica.samples = 0;
        }
        Ok(traffic)
    }
}
