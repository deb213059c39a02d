//! The engine on the CPU: every part of a step is done when its call returns.

use super::{ClusterStep, DeviceStep, Engine, StepOutcome};
use crate::comm::Communicator;
use crate::error::Result;
use crate::nn::{DropoutSeed, Executor, Packing, Plan};
use crate::ops::conv2d::CpuElement;
use crate::ops::simd::SimdLevel;
use crate::ops::softmax_xent::LossStats;
use crate::train::config::RunConfig;
use crate::train::device_batch::{DeviceBatch, Images};
use crate::train::update::{Update, Updated};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One network, its activations stored as `E`, over the threads of the current rayon pool, for all hosted devices in turn.
pub(crate) struct CpuEngine<E> {
    executor: Executor<E>,
    params: Vec<f32>,
    grad: Vec<f32>,
    /// Batch-norm running statistics of each hosted device.
    stats: Vec<Vec<f32>>,
    /// Those that evaluations use.
    evaluated_stats: Vec<f32>,
    update: Update,
    /// Of the step under way.
    outcome: StepOutcome,
    device_losses: Vec<LossStats>,
}

impl<E: CpuElement> CpuEngine<E> {
    /// `hosted` of `world_size` devices that start from `params` and `stats`.
    pub fn new(
        config: &RunConfig,
        plan: &Arc<Plan>,
        (params, stats): (Vec<f32>, Vec<f32>),
        hosted: usize,
        world_size: usize,
    ) -> Result<Self> {
        // One device: each filter is read once between updates.
        let packing = if hosted == 1 { Packing::OnUse } else { Packing::Kept };
        let mut executor = Executor::with_packing(Arc::clone(plan), packing)?;
        executor.load_params(&params)?;
        Ok(Self {
            executor,
            grad: vec![0.0; plan.num_params()],
            update: Update::new(config, plan, hosted, world_size, &params)?,
            params,
            evaluated_stats: stats.clone(),
            stats: vec![stats; hosted],
            outcome: StepOutcome::default(),
            device_losses: Vec::with_capacity(hosted),
        })
    }
}

impl<E: CpuElement> Engine for CpuEngine<E> {
    fn name(&self) -> &str {
        match (SimdLevel::current(), E::IS_BF16) {
            (SimdLevel::Avx512, false) => "CPU (AVX-512), f32",
            (SimdLevel::Avx512, true) => "CPU (AVX-512), bf16",
            (SimdLevel::Avx2, false) => "CPU (AVX2), f32",
            (SimdLevel::Avx2, true) => "CPU (AVX2), bf16",
            (SimdLevel::Portable, false) => "CPU, f32",
            (SimdLevel::Portable, true) => "CPU, bf16",
        }
    }

    fn new_batch(&self, max_batch: usize) -> Result<DeviceBatch> {
        let numel = max_batch * self.executor.plan().image().numel();
        Ok(DeviceBatch::new(Images::Ready(vec![0.0; numel]), max_batch))
    }

    fn begin_step(&mut self) -> Result<()> {
        self.outcome = StepOutcome::default();
        self.device_losses.clear();
        self.update.begin_step();
        if self.update.is_shared() {
            self.executor.load_params(&self.params)?;
        }
        Ok(())
    }

    fn train(&mut self, batch: &DeviceBatch, step: DeviceStep) -> Result<()> {
        let DeviceStep { index, dropout, .. } = step;
        let begin = Instant::now();
        let params = match self.update.own_params(index) {
            Some(params) => {
                self.executor.load_params(params)?;
                params
            }
            None => &self.params,
        };
        let x = ready(batch, &self.executor);
        let stats = &mut self.stats[index];
        let loss =
            self.executor.forward_backward(x, &batch.labels, params, stats, &mut self.grad, dropout)?;
        self.outcome.compute += begin.elapsed();
        self.outcome.loss = self.outcome.loss + loss;
        self.device_losses.push(loss);
        self.outcome.diverged |= !loss.loss_sum.is_finite();
        self.outcome.diverged |= !self.update.contribute(step, batch.labels.len(), &self.grad)?;
        Ok(())
    }

    fn end_step(&mut self, step: ClusterStep<'_>, comm: &mut dyn Communicator) -> Result<StepOutcome> {
        // Before the exchange, in which a process that left it out would be missed.
        self.outcome.diverged = comm.any(self.outcome.diverged)?;
        if self.outcome.diverged {
            return Ok(self.outcome);
        }
        let Updated { exchange, grad_norm, diverged } = self.update.finish(step, comm, &mut self.params)?;
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
        self.evaluated_stats.copy_from_slice(stats);
        Ok(self.executor.load_params(&self.params)?)
    }

    fn evaluate(&mut self, batch: &DeviceBatch) -> Result<LossStats> {
        let x = ready(batch, &self.executor);
        Ok(self.executor.evaluate(x, &batch.labels, &self.params, &self.evaluated_stats)?)
    }

    fn params(&self) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.params))
    }

    fn stats(&self, index: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.stats[index]))
    }

    fn measure(&mut self, n: usize) -> Result<f64> {
        const REPEATS: usize = 3;
        let (x, labels) = (vec![0.5; n * self.executor.plan().image().numel()], vec![0; n]);
        let (mut stats, mut best) = (self.evaluated_stats.clone(), Duration::MAX);
        for _ in 0..REPEATS {
            let begin = Instant::now();
            let dropout = DropoutSeed { seed: 0, index: 0 };
            let (params, grad) = (&self.params, &mut self.grad);
            self.executor.forward_backward(&x, &labels, params, &mut stats, grad, dropout)?;
            best = best.min(begin.elapsed());
        }
        Ok(best.as_secs_f64())
    }
}

/// The filled images of a batch that this engine made.
fn ready<'a, E: CpuElement>(batch: &'a DeviceBatch, executor: &Executor<E>) -> &'a [f32] {
    let Images::Ready(x) = &batch.images else { unreachable!("a batch of another engine") };
    &x[..batch.labels.len() * executor.plan().image().numel()]
}
