//! Local SGD on the GPU: parameters and velocity of each hosted device stay there; see [`crate::train::local_sgd`].

use super::exchange::all_reduce;
use super::norm::Norms;
use super::sgd::Sgd;
use super::update::CudaUpdate;
use crate::comm::{Communicator, Traffic};
use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, Element};
use crate::error::Result;
use crate::nn::cuda::CudaExecutor;
use crate::train::config::RunConfig;
use crate::train::engine::{ClusterStep, DeviceStep};
use crate::train::exchange::ExchangeReport;
use crate::train::local_sgd::{Averages, longer};
use crate::train::update::Updated;
use std::borrow::Cow;
use std::sync::Arc;

/// Parameters and optimizer of each hosted device, and their last average.
pub(super) struct LocalSgd {
    device: Arc<CudaDevice>,
    averages: Averages,
    sgd: Sgd,
    replicas: Vec<Replica>,
    average: DeviceBuffer<f32>,
    /// Of each device's gradient.
    norms: Norms,
    longest_grad: f64,
}

struct Replica {
    params: DeviceBuffer<f32>,
    velocity: DeviceBuffer<f32>,
    /// Trained on in the step under way.
    samples: usize,
}

impl LocalSgd {
    pub fn new(
        config: &RunConfig,
        steps: usize,
        device: &Arc<CudaDevice>,
        hosted: usize,
        params: &[f32],
    ) -> Result<Self> {
        let (numel, sgd) = (params.len(), Sgd::new(&config.optimizer));
        let replica = |_| -> std::result::Result<_, CudaError> {
            let velocity = sgd.velocity(device, numel)?;
            Ok(Replica { params: device.upload(params)?, velocity, samples: 0 })
        };
        Ok(Self {
            averages: Averages::new(steps as u64, config.run.steps as u64, hosted),
            replicas: (0..hosted).map(replica).collect::<std::result::Result<_, _>>()?,
            average: device.upload(params)?,
            norms: Norms::new(device, hosted, numel)?,
            longest_grad: 0.0,
            device: Arc::clone(device),
            sgd,
        })
    }

    /// Replaces `average` and every device's parameters by the weighted average over all devices.
    fn average(&mut self, comm: &mut dyn Communicator) -> Result<Traffic> {
        let (mut traffic, weights) = self.averages.take_weights(comm)?;
        let Some(weights) = weights else { return Ok(traffic) };
        self.device.fill_zero(self.average.view_mut())?;
        for (replica, weight) in self.replicas.iter().zip(weights) {
            self.device.add_scaled(self.average.view_mut(), replica.params.view(), weight)?;
        }
        traffic += all_reduce(&self.device, comm, &mut self.average)?;
        for replica in &mut self.replicas {
            self.device.copy(self.average.view(), replica.params.view_mut())?;
        }
        Ok(traffic)
    }
}

impl<E: Element> CudaUpdate<E> for LocalSgd {
    fn begin_step(&mut self, _: &mut CudaExecutor<E>) -> Result<()> {
        self.longest_grad = 0.0;
        self.replicas.iter_mut().for_each(|replica| replica.samples = 0);
        Ok(self.norms.clear(&self.device)?)
    }

    fn load_params(&mut self, index: usize, executor: &mut CudaExecutor<E>) -> Result<()> {
        self.device.copy(self.replicas[index].params.view(), executor.params_and_grad().0)?;
        Ok(executor.pack()?)
    }

    fn contribute(&mut self, step: DeviceStep, samples: usize, executor: &mut CudaExecutor<E>) -> Result<()> {
        let DeviceStep { index, local_lr, .. } = step;
        if samples == 0 {
            return Ok(());
        }
        self.norms.measure(&self.device, index, executor.grad())?;
        let Replica { params, velocity, samples: trained } = &mut self.replicas[index];
        *trained = samples;
        let guard = Some(self.norms.squared(index));
        Ok(self.sgd.step(&self.device, params.view_mut(), executor.grad(), velocity, local_lr, guard)?)
    }

    unsafe fn queue(&mut self, _: bool, _: &mut CudaExecutor<E>) -> Result<()> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.norms.queue_download(&self.device) }?)
    }

    fn is_finite(&mut self) -> Result<bool> {
        let mut all = true;
        for (index, replica) in self.replicas.iter().enumerate() {
            let norm = self.norms.get(index);
            self.longest_grad = longer(norm, self.longest_grad);
            match norm.is_finite() {
                true => self.averages.add(index, replica.samples),
                false => all = false,
            }
        }
        Ok(all)
    }

    fn finish(
        &mut self,
        step: ClusterStep<'_>,
        _: &mut CudaExecutor<E>,
        comm: &mut dyn Communicator,
    ) -> Result<Updated> {
        let mut exchange = ExchangeReport::of(self.average.len(), comm);
        if self.averages.are_due_after(step.step) {
            exchange.traffic = self.average(comm)?;
            exchange.sent_elements = (self.average.len() * comm.world_size()) as u64;
        }
        Ok(Updated { exchange, grad_norm: self.longest_grad, diverged: false })
    }

    fn load_shared(&self, executor: &mut CudaExecutor<E>) -> Result<()> {
        self.device.copy(self.average.view(), executor.params_and_grad().0)?;
        Ok(executor.pack()?)
    }

    fn params(&self, _: &CudaExecutor<E>) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(self.device.download(self.average.view())?))
    }
}
