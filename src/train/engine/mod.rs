//! What computes the steps of the hosted devices: network, compression, optimizer, and all state that they need.
//!
//! The trainer asks for a step in three parts: [`Engine::begin_step`], [`Engine::train`] for each device with its batch,
//! [`Engine::end_step`]. An engine may only queue work in the first two; results come with the last.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use super::device_batch::DeviceBatch;
use super::exchange::ExchangeReport;
use crate::comm::Communicator;
use crate::device::Device;
use crate::device::cuda::CudaError;
use crate::error::{Error, Result};
use crate::nn::{DropoutSeed, Plan};
use crate::ops::input::Normalizer;
use crate::ops::softmax_xent::LossStats;
use crate::train::config::{Precision, RunConfig};
use cpu::CpuEngine;
use cuda::CudaEngine;
use half::bf16;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// One hosted device in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceStep {
    /// Which of the hosted devices.
    pub index: usize,
    /// Weight of its gradient.
    pub agg_weight: f64,
    /// Share of the run that is done, in [0, 1].
    pub progress: f64,
    /// Learning rate of a step of its own, for local SGD.
    pub local_lr: f64,
    pub dropout: DropoutSeed,
}

/// All devices in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterStep<'a> {
    /// Its number, from 1.
    pub step: u64,
    /// Samples of all devices.
    pub global_batch: usize,
    /// Weight of each rank's gradient.
    pub weights: &'a [f64],
    pub lr: f64,
}

/// What a step gave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepOutcome {
    /// Sums over the samples of the hosted devices.
    pub loss: LossStats,
    /// Measured time of all forward and backward passes.
    pub compute: Duration,
    /// A loss or gradient is not finite: parameters were left alone.
    pub diverged: bool,
    pub exchange: ExchangeReport,
    /// Euclidean norm of the aggregated gradient; under local SGD of the device with the longest one.
    pub grad_norm: f64,
}

/// Trains one network for the hosted devices of a cluster.
pub(crate) trait Engine: Send {
    /// What computes, in words.
    fn name(&self) -> &str;

    /// Room for a batch of up to `max_batch` images, where the engine can read it best.
    fn new_batch(&self, max_batch: usize) -> Result<DeviceBatch>;

    /// Takes up the parameters as they are now.
    fn begin_step(&mut self) -> Result<()>;

    /// Forward and backward over a device's batch; its gradient goes to the exchange, or moves the device's own
    /// parameters. A device without samples has weight 0: it contributes nothing and keeps what it held back.
    ///
    /// Where the loss or the gradient is not finite the step has diverged, whichever device it was: nothing is sent, no
    /// shared parameter moves, and [`Engine::end_step`] says so. The next step may go on: a compressor that met such a
    /// gradient has forgotten what it held back, those of other devices hold their gradients back until then. Batch-norm
    /// running statistics have seen the batch.
    fn train(&mut self, batch: &DeviceBatch, step: DeviceStep) -> Result<()>;

    /// Aggregates, updates, and tells what happened. Without any sample in the cluster nothing changes but parameters
    /// that are due to be averaged.
    fn end_step(&mut self, step: ClusterStep<'_>, comm: &mut dyn Communicator) -> Result<StepOutcome>;

    /// Loss and accuracy sums of each device of the last step, in the order of its [`Engine::train`] calls.
    fn device_losses(&self) -> &[LossStats];

    /// A pass over the data set is done.
    fn start_epoch(&mut self) -> Result<()>;

    /// Takes up the parameters and these batch-norm statistics for [`Engine::evaluate`].
    fn begin_evaluation(&mut self, stats: &[f32]) -> Result<()>;

    /// Loss and accuracy sums over a batch.
    fn evaluate(&mut self, batch: &DeviceBatch) -> Result<LossStats>;

    /// The shared parameters; under local SGD, the last average.
    fn params(&self) -> Result<Cow<'_, [f32]>>;

    /// Batch-norm running statistics of a hosted device.
    fn stats(&self, index: usize) -> Result<Cow<'_, [f32]>>;

    /// Seconds of one forward and backward over `n` images, the best of a few; changes no parameters or statistics.
    fn measure(&mut self, n: usize) -> Result<f64>;
}

/// The engine of the configured device, hosting `hosted` devices of the cluster, and why it is not that of the GPU that is
/// there, if so; the devices start from `params` and `stats`. `normalizer` is for engines that take images as they came.
///
/// # Errors
/// The device cannot be used, or has no room.
pub(crate) fn open(
    config: &RunConfig,
    plan: &Arc<Plan>,
    normalizer: &Normalizer,
    start: (Vec<f32>, Vec<f32>),
    hosted: usize,
) -> Result<(Box<dyn Engine>, Option<CudaError>)> {
    let (cluster, devices) = (&config.cluster, config.cluster.devices);
    let normalizer = normalizer.clone();
    let mut passed_over_gpu = None;
    let engine: Box<dyn Engine> = match (Device::open(cluster.device)?, cluster.precision) {
        (Device::Cpu { passed_over }, precision) => {
            passed_over_gpu = passed_over;
            match precision {
                Precision::F32 => Box::new(CpuEngine::<f32>::new(config, plan, start, hosted, devices)?),
                Precision::Bf16 => Box::new(CpuEngine::<bf16>::new(config, plan, start, hosted, devices)?),
            }
        }
        (Device::Cuda(gpu), Precision::F32) => {
            let engine = CudaEngine::<f32>::new(config, gpu, plan, normalizer, start, hosted, devices);
            Box::new(engine.map_err(advise_bf16)?)
        }
        (Device::Cuda(gpu), Precision::Bf16) => {
            Box::new(CudaEngine::<bf16>::new(config, gpu, plan, normalizer, start, hosted, devices)?)
        }
    };
    Ok((engine, passed_over_gpu))
}

/// Adds to the error of an engine in f32 that bf16 takes less room, if room is what it lacks.
fn advise_bf16(mut error: Error) -> Error {
    if let Error::Cuda(CudaError::OutOfMemory { bf16_halves, .. }) = &mut error {
        *bf16_halves = true;
    }
    error
}
