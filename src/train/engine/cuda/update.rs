//! From gradients on the GPU to parameters: there, where there are kernels for it, else on the host.

use super::super::{ClusterStep, DeviceStep, StepOutcome};
use super::exchange::CudaExchange;
use crate::comm::Communicator;
use crate::compress::CompressError;
use crate::device::cuda::{
    CudaDevice, CudaError, DeviceBuffer, DeviceMomentum, Element, PinnedBuffer, SgdStep,
};
use crate::error::{Error, Result};
use crate::nn::Plan;
use crate::nn::cuda::CudaExecutor;
use crate::ops::norm;
use crate::train::config::{CompressionConfig, OptimizerKind, RunConfig, SyncConfig};
use crate::train::update::{Update, Updated, average_when_due, finish_every_step};
use std::borrow::Cow;
use std::sync::Arc;

/// How devices keep their parameters together.
pub(super) enum CudaUpdate {
    /// Gradients are aggregated in each step, all on the GPU.
    Device(Box<DeviceUpdate>),
    /// Compression, optimizer or averages on the host.
    Host(Box<HostUpdate>),
}

/// SGD on a gradient that never leaves the GPU.
pub(super) struct DeviceUpdate {
    exchange: CudaExchange,
    sum: DeviceBuffer<f32>,
    velocity: DeviceBuffer<f32>,
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
    squared_norm: DeviceBuffer<f64>,
    norm_scratch: DeviceBuffer<f64>,
    norm: PinnedBuffer<f64>,
}

/// What the CPU engine does with a gradient.
pub(super) struct HostUpdate {
    update: Update,
    params: Vec<f32>,
    grad: Vec<f32>,
}

impl CudaUpdate {
    pub fn new(
        config: &RunConfig,
        device: &Arc<CudaDevice>,
        plan: &Plan,
        hosted: usize,
        world_size: usize,
        params: Vec<f32>,
    ) -> Result<Self> {
        let on_host = config.sync != SyncConfig::EveryStep
            || config.optimizer.kind != OptimizerKind::Sgd
            || matches!(config.compression, CompressionConfig::Dgc(_));
        if on_host {
            let update = Update::new(config, plan, hosted, world_size, &params)?;
            let grad = vec![0.0; plan.num_params()];
            return Ok(Self::Host(Box::new(HostUpdate { update, params, grad })));
        }
        let (numel, optimizer) = (plan.num_params(), &config.optimizer);
        let momentum = optimizer.momentum as f32;
        Ok(Self::Device(Box::new(DeviceUpdate {
            exchange: CudaExchange::new(config, device, plan, hosted)?,
            sum: device.zeros(numel, "the aggregated gradient")?,
            velocity: device.zeros(if momentum > 0.0 { numel } else { 0 }, "momentum")?,
            momentum,
            nesterov: optimizer.nesterov,
            weight_decay: optimizer.weight_decay as f32,
            squared_norm: device.zeros(1, "the gradient's norm")?,
            norm_scratch: device.zeros(norm::cuda::scratch_len(numel), "the gradient's norm")?,
            norm: device.pinned(1)?,
        })))
    }

    /// Takes up the parameters as they are now.
    pub fn begin_step<E: Element>(
        &mut self,
        device: &CudaDevice,
        executor: &mut CudaExecutor<E>,
    ) -> Result<()> {
        match self {
            Self::Device(update) => {
                device.fill_zero(update.sum.view_mut())?;
                Ok(executor.pack()?)
            }
            Self::Host(update) => {
                if let Update::EveryStep { sum, .. } = &mut update.update {
                    sum.fill(0.0);
                    device.copy_from_host(&update.params, executor.params_and_grad().0)?;
                    executor.pack()?;
                }
                Ok(())
            }
        }
    }

    /// Parameters of a device that has its own.
    pub fn load_params<E: Element>(
        &self,
        index: usize,
        device: &CudaDevice,
        executor: &mut CudaExecutor<E>,
    ) -> Result<()> {
        if let Self::Host(update) = self
            && let Update::Local(local) = &update.update
        {
            device.copy_from_host(local.params(index), executor.params_and_grad().0)?;
            executor.pack()?;
        }
        Ok(())
    }

    /// The shared parameters, for an evaluation.
    pub fn load_shared_params<E: Element>(
        &self,
        device: &CudaDevice,
        executor: &mut CudaExecutor<E>,
    ) -> Result<()> {
        if let Self::Host(update) = self {
            device.copy_from_host(&update.params, executor.params_and_grad().0)?;
        }
        Ok(executor.pack()?)
    }

    /// Takes the gradient of a device's `samples` samples.
    pub fn contribute<E: Element>(
        &mut self,
        step: DeviceStep,
        samples: usize,
        device: &CudaDevice,
        executor: &mut CudaExecutor<E>,
        outcome: &mut StepOutcome,
    ) -> Result<()> {
        let DeviceStep { index, agg_weight, progress, local_lr, .. } = step;
        match self {
            Self::Device(update) => {
                let DeviceUpdate { exchange, sum, .. } = update.as_mut();
                exchange.contribute(device, index, executor.grad(), agg_weight as f32, sum.view_mut())
            }
            Self::Host(update) => {
                let HostUpdate { update, grad, .. } = update.as_mut();
                device.copy_to_host(executor.grad(), grad)?;
                match update {
                    Update::EveryStep { exchange, sum, .. } => {
                        match exchange.contribute(index, grad, agg_weight, progress, sum) {
                            Err(Error::Compress(CompressError::NotFinite { .. })) => outcome.diverged = true,
                            other => other?,
                        }
                    }
                    Update::Local(local) => {
                        outcome.diverged |= !local.step(index, grad, samples, local_lr)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Fetches what the host must know before the exchange.
    pub fn read(&mut self) -> Result<()> {
        match self {
            Self::Device(update) => update.exchange.read(),
            Self::Host(_) => Ok(()),
        }
    }

    /// Aggregates and moves the parameters.
    pub fn finish<E: Element>(
        &mut self,
        step: ClusterStep<'_>,
        device: &CudaDevice,
        executor: &mut CudaExecutor<E>,
        comm: &mut dyn Communicator,
    ) -> Result<Updated> {
        let ClusterStep { step, global_batch, weights, lr } = step;
        match self {
            Self::Device(_) if global_batch == 0 => Ok(Updated::default()),
            Self::Device(update) => update.finish(device, executor, weights, comm, lr),
            Self::Host(update) => {
                let HostUpdate { update, params, .. } = update.as_mut();
                match update {
                    Update::EveryStep { .. } if global_batch == 0 => Ok(Updated::default()),
                    Update::EveryStep { exchange, optimizer, sum } => {
                        finish_every_step(exchange, optimizer, sum, weights, comm, params, lr)
                    }
                    Update::Local(local) => average_when_due(local, step, comm, params),
                }
            }
        }
    }

    /// A pass over the data set is done.
    pub fn start_epoch(&mut self) {
        match self {
            Self::Device(update) => update.exchange.start_epoch(),
            Self::Host(update) => {
                if let Update::EveryStep { exchange, .. } = &mut update.update {
                    exchange.start_epoch();
                }
            }
        }
    }

    /// The shared parameters; under local SGD, the last average.
    pub fn params<'a, E: Element>(
        &'a self,
        device: &CudaDevice,
        executor: &CudaExecutor<E>,
    ) -> Result<Cow<'a, [f32]>> {
        match self {
            Self::Device(_) => Ok(Cow::Owned(device.download(executor.params())?)),
            Self::Host(update) => Ok(Cow::Borrowed(&update.params)),
        }
    }
}

impl DeviceUpdate {
    fn finish<E: Element>(
        &mut self,
        device: &CudaDevice,
        executor: &mut CudaExecutor<E>,
        weights: &[f64],
        comm: &mut dyn Communicator,
        lr: f64,
    ) -> Result<Updated> {
        let Some(exchange) = self.exchange.finish(device, weights, comm, &mut self.sum)? else {
            return Ok(Updated { diverged: true, grad_norm: f64::NAN, ..Updated::default() });
        };
        let scratch = self.norm_scratch.view_mut();
        norm::cuda::sum_of_squares(device, self.sum.view(), self.squared_norm.view_mut(), scratch)?;
        self.step(device, executor, lr)?;
        // SAFETY: the wait below ends before the buffer is read.
        unsafe { device.queue_download(self.squared_norm.view(), &mut self.norm) }?;
        device.synchronize()?;
        let grad_norm = self.norm[0].sqrt();
        Ok(Updated { exchange, grad_norm, diverged: !grad_norm.is_finite() })
    }

    fn step<E: Element>(
        &mut self,
        device: &CudaDevice,
        executor: &mut CudaExecutor<E>,
        lr: f64,
    ) -> std::result::Result<(), CudaError> {
        let (params, _) = executor.params_and_grad();
        let momentum = match (self.momentum > 0.0, self.nesterov) {
            (false, _) => DeviceMomentum::Plain,
            (true, false) => DeviceMomentum::Classic(self.velocity.view_mut(), self.momentum),
            (true, true) => DeviceMomentum::Nesterov(self.velocity.view_mut(), self.momentum),
        };
        let step = SgdStep { lr: lr as f32, weight_decay: self.weight_decay };
        device.sgd_guarded(params, self.sum.view(), momentum, step, self.squared_norm.view())
    }
}
