//! The engine on a GPU: a step's work is queued, and the host waits once.
//!
//! It waits for loss, norms, gate values and sizes, before it decides what is sent and lets the parameters move; what
//! follows is queued, and runs while the host fills the next batches. Two kinds of steps wait once more: one whose gate is
//! closed or whose bytes choose the dense sum, for the norm of that sum, and one with devices in other processes. What has
//! no kernels (DGC, LARS) takes the gradient to the host after each pass; forward and backward stay on the GPU.

mod every_step;
mod exchange;
mod host;
mod local_sgd;
mod norm;
mod sgd;
mod update;

use super::{ClusterStep, DeviceStep, Engine, StepOutcome};
use crate::comm::Communicator;
use crate::device::cuda::{CudaDevice, DeviceBuffer, Element, PinnedBuffer, TimeMark};
use crate::error::Result;
use crate::nn::Plan;
use crate::nn::cuda::{CudaExecutor, HostBatch, HostHeader};
use crate::ops::input::Normalizer;
use crate::ops::softmax_xent::LossStats;
use crate::train::config::RunConfig;
use crate::train::device_batch::{DeviceBatch, Images};
use crate::train::update::Updated;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use update::CudaUpdate;

/// One network on one GPU, for all hosted devices in turn.
pub(crate) struct CudaEngine<E: Element> {
    name: String,
    device: Arc<CudaDevice>,
    executor: CudaExecutor<E>,
    /// One for each hosted device, and one for what has no device.
    headers: Vec<HostHeader>,
    /// Batch-norm running statistics of each hosted device.
    stats: Vec<DeviceBuffer<f32>>,
    evaluated_stats: DeviceBuffer<f32>,
    /// Loss sum, top-1, top-5.
    loss: PinnedBuffer<f64>,
    /// The same after the pass of each device of a step, those before it included.
    loss_after: Vec<PinnedBuffer<f64>>,
    device_losses: Vec<LossStats>,
    update: Box<dyn CudaUpdate<E>>,
    /// Begin and end of each pass of the step under way.
    passes: Vec<(TimeMark, TimeMark)>,
    /// Work may be queued that reads pinned memory.
    in_flight: bool,
    outcome: StepOutcome,
}

impl<E: Element> CudaEngine<E> {
    /// `hosted` of `world_size` devices that start from `params` and `stats`.
    pub fn new(
        config: &RunConfig,
        device: CudaDevice,
        plan: &Arc<Plan>,
        normalizer: Normalizer,
        (params, stats): (Vec<f32>, Vec<f32>),
        hosted: usize,
        world_size: usize,
    ) -> Result<Self> {
        let device = Arc::new(device);
        let mut executor = CudaExecutor::new(Arc::clone(&device), Arc::clone(plan), normalizer, config.seed)?;
        device.copy_from_host(&params, executor.params_and_grad().0)?;
        let header = || HostHeader::new(&device, plan.max_batch());
        Ok(Self {
            name: format!("{}, {}", device.name(), if E::IS_BF16 { "bf16" } else { "f32" }),
            headers: (0..=hosted).map(|_| header()).collect::<std::result::Result<_, _>>()?,
            stats: (0..hosted).map(|_| device.upload(&stats)).collect::<std::result::Result<_, _>>()?,
            evaluated_stats: device.upload(&stats)?,
            loss: device.pinned(3)?,
            loss_after: (0..hosted).map(|_| device.pinned(3)).collect::<std::result::Result<_, _>>()?,
            device_losses: Vec::with_capacity(hosted),
            update: update::open(config, &device, plan, hosted, world_size, params)?,
            passes: Vec::new(),
            in_flight: false,
            outcome: StepOutcome::default(),
            executor,
            device,
        })
    }

    /// Waits for what is queued, so that pinned memory may be written.
    fn wait(&mut self) -> Result<()> {
        self.device.synchronize()?;
        self.in_flight = false;
        Ok(())
    }

    fn begin_loss(&mut self) -> Result<()> {
        if self.in_flight {
            self.wait()?;
        }
        Ok(self.executor.clear_loss()?)
    }

    /// Queues the download of the loss sums; [`loss_sums`] reads them after the next wait.
    fn fetch_loss(&mut self) -> Result<()> {
        self.in_flight = true;
        // SAFETY: nobody reads the buffer before the next wait.
        Ok(unsafe { self.device.queue_download(self.executor.loss(), &mut self.loss) }?)
    }
}

impl<E: Element> Engine for CudaEngine<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn new_batch(&self, max_batch: usize) -> Result<DeviceBatch> {
        let pixels = self.device.pinned(max_batch * self.executor.plan().image().numel())?;
        let placements = self.device.pinned(3 * max_batch)?;
        Ok(DeviceBatch::new(Images::Raw { pixels, placements }, max_batch))
    }

    fn begin_step(&mut self) -> Result<()> {
        self.outcome = StepOutcome::default();
        self.passes.clear();
        self.device_losses.clear();
        self.begin_loss()?;
        self.update.begin_step(&mut self.executor)
    }

    fn train(&mut self, batch: &DeviceBatch, step: DeviceStep) -> Result<()> {
        let DeviceStep { index, dropout, .. } = step;
        if !batch.labels.is_empty() {
            self.in_flight = true;
            let begin = self.device.mark_time()?;
            self.update.load_params(index, &mut self.executor)?;
            self.device.copy(self.stats[index].view(), self.executor.stats_mut())?;
            // SAFETY: `end_step` waits; where a step fails before that, the next one begins with a wait, before batches
            // and headers are written.
            unsafe {
                self.executor.forward_backward(host_batch(batch, dropout.index), &mut self.headers[index])
            }?;
            self.device.copy(self.executor.stats(), self.stats[index].view_mut())?;
            self.passes.push((begin, self.device.mark_time()?));
        }
        let after = &mut self.loss_after[self.device_losses.len()];
        self.in_flight = true;
        // SAFETY: `end_step` waits before it reads; where a step fails before that, the next one begins with a wait.
        unsafe { self.device.queue_download(self.executor.loss(), after) }?;
        self.device_losses.push(LossStats::default());
        self.update.contribute(step, batch.labels.len(), &mut self.executor)
    }

    fn end_step(&mut self, step: ClusterStep<'_>, comm: &mut dyn Communicator) -> Result<StepOutcome> {
        self.fetch_loss()?;
        // SAFETY: the wait follows.
        unsafe { self.update.queue(comm.hosts_all(), &mut self.executor) }?;
        self.wait()?;
        self.outcome.loss = loss_sums(&self.loss);
        let mut before = LossStats::default();
        for (device, after) in self.device_losses.iter_mut().zip(&self.loss_after) {
            let after = loss_sums(after);
            *device = LossStats {
                loss_sum: after.loss_sum - before.loss_sum,
                top1: after.top1.saturating_sub(before.top1),
                top5: after.top5.saturating_sub(before.top5),
            };
            before = after;
        }
        for (begin, end) in &self.passes {
            self.outcome.compute += begin.elapsed(end)?;
        }
        let is_finite = self.update.is_finite()?;
        // Before the exchange, in which a process that left it out would be missed.
        if comm.any(!is_finite || !self.outcome.loss.loss_sum.is_finite())? {
            return Ok(StepOutcome { diverged: true, ..self.outcome });
        }
        let Updated { exchange, grad_norm, diverged } = self.update.finish(step, &mut self.executor, comm)?;
        Ok(StepOutcome { exchange, grad_norm, diverged, ..self.outcome })
    }

    fn device_losses(&self) -> &[LossStats] {
        &self.device_losses
    }

    fn start_epoch(&mut self) -> Result<()> {
        self.update.start_epoch();
        Ok(())
    }

    fn begin_evaluation(&mut self, stats: &[f32]) -> Result<()> {
        if self.in_flight {
            self.wait()?;
        }
        self.device.copy_from_host(stats, self.evaluated_stats.view_mut())?;
        self.update.load_shared(&mut self.executor)
    }

    fn evaluate(&mut self, batch: &DeviceBatch) -> Result<LossStats> {
        self.begin_loss()?;
        self.device.copy(self.evaluated_stats.view(), self.executor.stats_mut())?;
        let header = self.headers.last_mut().expect("one header is for evaluations");
        self.in_flight = true;
        // SAFETY: the wait below ends before the batch is written again.
        unsafe { self.executor.evaluate(host_batch(batch, 0), header) }?;
        self.fetch_loss()?;
        self.wait()?;
        Ok(loss_sums(&self.loss))
    }

    fn params(&self) -> Result<Cow<'_, [f32]>> {
        self.update.params(&self.executor)
    }

    fn stats(&self, index: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(self.device.download(self.stats[index].view())?))
    }

    fn measure(&mut self, n: usize) -> Result<f64> {
        const REPEATS: usize = 3;
        // Two passes in each slot: one loads the kernels, one records them.
        const FIRST: usize = 4;
        let mut batch = self.new_batch(n)?;
        batch.labels.resize(n, 0);
        self.begin_loss()?;
        self.update.load_shared(&mut self.executor)?;
        let mut best = Duration::MAX;
        for pass in 0..FIRST + REPEATS {
            self.wait()?;
            let began = Instant::now();
            let header = self.headers.last_mut().expect("one header is for evaluations");
            self.in_flight = true;
            // SAFETY: the wait below ends before the batch is dropped.
            unsafe { self.executor.forward_backward(host_batch(&batch, 0), header) }?;
            self.wait()?;
            if pass >= FIRST {
                best = best.min(began.elapsed());
            }
        }
        Ok(best.as_secs_f64())
    }
}

/// The filled part of a batch that this engine made.
fn host_batch(batch: &DeviceBatch, dropout_index: u64) -> HostBatch<'_> {
    let Images::Raw { pixels, placements } = &batch.images else { unreachable!("a batch of another engine") };
    HostBatch { pixels, placements, labels: &batch.labels, dropout_index }
}

fn loss_sums(sums: &PinnedBuffer<f64>) -> LossStats {
    LossStats { loss_sum: sums[0], top1: sums[1] as u64, top5: sums[2] as u64 }
}
