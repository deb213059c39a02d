//! The engine on a GPU: a step's work is queued, and the host waits at its end.
//!
//! The host waits for loss, norms and gate values before it decides what is sent, and for the norm of the aggregated
//! gradient, which the record holds; a compressed step waits for its payloads as well. The update itself looks at the norm
//! on the GPU. What has no kernels yet (DGC, LARS, local SGD) takes the gradient to the host after each pass; forward and
//! backward stay on the GPU.

mod exchange;
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
    update: CudaUpdate,
    /// Begin and end of the passes of the step under way.
    times: Option<(TimeMark, TimeMark)>,
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
            update: CudaUpdate::new(config, &device, plan, hosted, world_size, params)?,
            times: None,
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
        self.times = None;
        self.begin_loss()?;
        self.update.begin_step(&self.device, &mut self.executor)
    }

    fn train(&mut self, batch: &DeviceBatch, step: DeviceStep) -> Result<()> {
        if self.outcome.diverged || batch.labels.is_empty() {
            return Ok(()); // without samples a device has weight 0 and moves nothing
        }
        let DeviceStep { index, dropout, .. } = step;
        self.in_flight = true;
        let begin = match self.times.take() {
            Some((begin, _)) => begin,
            None => self.device.mark_time()?,
        };
        self.update.load_params(index, &self.device, &mut self.executor)?;
        self.device.copy(self.stats[index].view(), self.executor.stats_mut())?;
        // SAFETY: `end_step` waits; where a step fails before that, the next one begins with a wait, before batches and
        // headers are written.
        unsafe {
            self.executor.forward_backward(host_batch(batch, dropout.index), &mut self.headers[index])
        }?;
        self.device.copy(self.executor.stats(), self.stats[index].view_mut())?;
        self.times = Some((begin, self.device.mark_time()?));
        self.update.contribute(step, batch.labels.len(), &self.device, &mut self.executor, &mut self.outcome)
    }

    fn end_step(&mut self, step: ClusterStep<'_>, comm: &mut dyn Communicator) -> Result<StepOutcome> {
        self.fetch_loss()?;
        self.update.read()?;
        self.wait()?;
        self.outcome.loss = loss_sums(&self.loss);
        if let Some((begin, end)) = &self.times {
            self.outcome.compute = begin.elapsed(end)?;
        }
        if self.outcome.diverged || !self.outcome.loss.loss_sum.is_finite() {
            self.outcome.diverged = true;
            return Ok(self.outcome);
        }
        let updated = self.update.finish(step, &self.device, &mut self.executor, comm)?;
        self.outcome.exchange = updated.exchange;
        self.outcome.grad_norm = updated.grad_norm;
        self.outcome.diverged = updated.diverged;
        Ok(self.outcome)
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
        self.update.load_shared_params(&self.device, &mut self.executor)
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
        self.update.params(&self.device, &self.executor)
    }

    fn stats(&self, index: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(self.device.download(self.stats[index].view())?))
    }

    fn measure(&mut self, n: usize) -> Result<f64> {
        const REPEATS: usize = 3;
        let mut batch = self.new_batch(n)?;
        batch.labels.resize(n, 0);
        self.begin_loss()?;
        self.update.load_shared_params(&self.device, &mut self.executor)?;
        let mut best = Duration::MAX;
        // The first pass records the graph.
        for _ in 0..=REPEATS {
            self.wait()?;
            let began = Instant::now();
            let header = self.headers.last_mut().expect("one header is for evaluations");
            self.in_flight = true;
            // SAFETY: the wait below ends before the batch is dropped.
            unsafe { self.executor.forward_backward(host_batch(&batch, 0), header) }?;
            self.wait()?;
            best = best.min(began.elapsed());
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
