//! Gradients aggregated in each step, and SGD on the sum; neither leaves the GPU.

use super::exchange::{CudaExchange, Summed};
use super::norm::Norms;
use super::sgd::Sgd;
use super::update::CudaUpdate;
use crate::comm::Communicator;
use crate::device::cuda::{CudaDevice, DeviceBuffer, Element};
use crate::error::Result;
use crate::nn::Plan;
use crate::nn::cuda::CudaExecutor;
use crate::train::config::RunConfig;
use crate::train::engine::{ClusterStep, DeviceStep};
use crate::train::update::Updated;
use std::borrow::Cow;
use std::sync::Arc;

/// The parameters are those of the executor.
pub(super) struct EveryStep {
    exchange: CudaExchange,
    sum: DeviceBuffer<f32>,
    norm: Norms,
    sgd: Sgd,
    velocity: DeviceBuffer<f32>,
}

impl EveryStep {
    pub fn new(config: &RunConfig, device: &Arc<CudaDevice>, plan: &Plan, hosted: usize) -> Result<Self> {
        let (numel, sgd) = (plan.num_params(), Sgd::new(&config.optimizer));
        Ok(Self {
            exchange: CudaExchange::new(config, device, plan, hosted)?,
            sum: device.zeros(numel, "the aggregated gradient")?,
            norm: Norms::new(device, 1, numel)?,
            velocity: sgd.velocity(device, numel)?,
            sgd,
        })
    }

    /// Queues the norm of the sum, and its download.
    ///
    /// # Safety
    /// The device is waited for before the norm is read or measured again.
    unsafe fn queue_norm(&mut self, device: &CudaDevice) -> Result<()> {
        self.norm.measure(device, 0, self.sum.view())?;
        // SAFETY: the caller's promise.
        Ok(unsafe { self.norm.queue_download(device) }?)
    }
}

impl<E: Element> CudaUpdate<E> for EveryStep {
    fn begin_step(&mut self, executor: &mut CudaExecutor<E>) -> Result<()> {
        executor.device().fill_zero(self.sum.view_mut())?;
        Ok(executor.pack()?)
    }

    fn contribute(&mut self, step: DeviceStep, _: usize, executor: &mut CudaExecutor<E>) -> Result<()> {
        let (weight, sum) = (step.agg_weight as f32, self.sum.view_mut());
        self.exchange.contribute(executor.device(), step.index, executor.grad(), weight, sum)
    }

    unsafe fn queue(&mut self, hosts_all: bool, executor: &mut CudaExecutor<E>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            self.exchange.queue(hosts_all, self.sum.view_mut())?;
            if hosts_all {
                self.queue_norm(executor.device())?;
            }
        }
        Ok(())
    }

    fn is_finite(&mut self) -> Result<bool> {
        self.exchange.is_finite()
    }

    fn finish(
        &mut self,
        step: ClusterStep<'_>,
        executor: &mut CudaExecutor<E>,
        comm: &mut dyn Communicator,
    ) -> Result<Updated> {
        if step.global_batch == 0 {
            return Ok(Updated::default());
        }
        let device = Arc::clone(executor.device());
        let (exchange, summed) = self.exchange.finish(&device, step.weights, comm, &mut self.sum)?;
        if summed == Summed::Anew {
            // SAFETY: the wait follows.
            unsafe { self.queue_norm(&device) }?;
            device.synchronize()?;
        }
        let grad_norm = self.norm.get(0);
        let diverged = !grad_norm.is_finite();
        if !diverged {
            let (params, _) = executor.params_and_grad();
            self.sgd.step(&device, params, self.sum.view(), &mut self.velocity, step.lr, None)?;
        }
        Ok(Updated { exchange, grad_norm, diverged })
    }

    fn start_epoch(&mut self) {
        self.exchange.start_epoch();
    }

    fn load_shared(&self, executor: &mut CudaExecutor<E>) -> Result<()> {
        Ok(executor.pack()?)
    }

    fn params(&self, executor: &CudaExecutor<E>) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(executor.device().download(executor.params())?))
    }
}
