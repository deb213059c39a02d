//! From gradients on the GPU to parameters: on the GPU, where there are kernels for it, else on the host.

use super::every_step::EveryStep;
use super::host::HostUpdate;
use super::local_sgd::LocalSgd;
use crate::comm::Communicator;
use crate::device::cuda::{CudaDevice, Element};
use crate::error::Result;
use crate::nn::Plan;
use crate::nn::cuda::CudaExecutor;
use crate::train::config::{CompressionConfig, OptimizerKind, RunConfig, SyncConfig};
use crate::train::engine::{ClusterStep, DeviceStep};
use crate::train::update::Updated;
use std::borrow::Cow;
use std::sync::Arc;

/// What a step does with the gradients. The engine calls the methods in their order here, and waits for the GPU once,
/// between [`CudaUpdate::queue`] and [`CudaUpdate::is_finite`].
pub(super) trait CudaUpdate<E: Element>: Send {
    /// Starts a step: the executor takes up the shared parameters as they are now, if there are any.
    fn begin_step(&mut self, executor: &mut CudaExecutor<E>) -> Result<()>;

    /// The executor takes up the parameters of the hosted device number `index`, if it has its own.
    fn load_params(&mut self, _index: usize, _executor: &mut CudaExecutor<E>) -> Result<()> {
        Ok(())
    }

    /// Takes the gradient of a device's `samples` samples; without samples there is none in the executor.
    fn contribute(&mut self, step: DeviceStep, samples: usize, executor: &mut CudaExecutor<E>) -> Result<()>;

    /// Queues what the host must know to decide, and what it need not decide.
    ///
    /// # Safety
    /// The device is waited for before anything else is called.
    unsafe fn queue(&mut self, hosts_all: bool, executor: &mut CudaExecutor<E>) -> Result<()>;

    /// Whether every gradient was finite; what is held back of another is forgotten.
    fn is_finite(&mut self) -> Result<bool>;

    /// Aggregates and moves the parameters.
    fn finish(
        &mut self,
        step: ClusterStep<'_>,
        executor: &mut CudaExecutor<E>,
        comm: &mut dyn Communicator,
    ) -> Result<Updated>;

    /// A pass over the data set is done.
    fn start_epoch(&mut self) {}

    /// The executor takes up the shared parameters, for an evaluation.
    fn load_shared(&self, executor: &mut CudaExecutor<E>) -> Result<()>;

    /// The shared parameters; under local SGD, the last average.
    fn params(&self, executor: &CudaExecutor<E>) -> Result<Cow<'_, [f32]>>;
}

/// The update that `config` describes for `hosted` of `world_size` devices that start from `params`.
pub(super) fn open<E: Element>(
    config: &RunConfig,
    device: &Arc<CudaDevice>,
    plan: &Plan,
    hosted: usize,
    world_size: usize,
    params: Vec<f32>,
) -> Result<Box<dyn CudaUpdate<E>>> {
    let has_kernels = config.optimizer.kind == OptimizerKind::Sgd
        && !matches!(config.compression, CompressionConfig::Dgc(_));
    Ok(match config.sync {
        _ if !has_kernels => Box::new(HostUpdate::new(config, plan, hosted, world_size, params)?),
        SyncConfig::EveryStep => Box::new(EveryStep::new(config, device, plan, hosted)?),
        SyncConfig::Local { steps } => Box::new(LocalSgd::new(config, steps, device, hosted, &params)?),
    })
}
