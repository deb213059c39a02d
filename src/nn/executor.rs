//! Runs a [`Plan`] on the CPU, on rayon's current thread pool.

use super::aligned::Aligned;
use super::clock::{Clock, LayerTime, Pass};
use super::error::NnError;
use super::forward::Mode;
use super::plan::{Layer, Op, Plan};
use crate::element::Element;
use crate::ops::conv2d::CpuElement;
use crate::ops::softmax_xent::{self, LabelError, LossStats};
use crate::ops::{batchnorm2d, conv2d, linear};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Elements that one task rounds.
const TILE_LEN: usize = 32 * 1024;

/// Which dropout masks a step draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutSeed {
    /// Seed of the run.
    pub seed: u64,
    /// A number of its own for each call, such as `step * devices + device`.
    pub index: u64,
}

/// When filters are packed: brought into the order in which a pass reads them. Results are the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// By [`Executor::load_params`], all of them, for every pass until the parameters change: for several batches with the
    /// same parameters.
    #[default]
    Kept,
    /// By each pass that reads one, into memory for the largest: for one batch between updates. Takes the memory of one
    /// filter instead of two forms of all, and a filter is in the cache when it is read.
    OnUse,
}

/// A network's activations, packed filters and scratch memory on the CPU; activations and their gradients are stored as `E`,
/// f32 or bf16, and everything else is f32.
///
/// Parameters, statistics and the gradient belong to the caller, so one executor serves any number of simulated
/// devices in turn. After construction no call allocates. Results are the same bytes for any number of threads.
#[derive(Debug)]
pub struct Executor<E = f32> {
    pub(super) plan: Arc<Plan>,
    pub(super) arena: Aligned<E>,
    /// Of the largest batch, in f32 whatever the activations.
    logits: Vec<f32>,
    dlogits: Vec<f32>,
    pub(super) argmax: Aligned<u8>,
    /// Batch mean and inverse standard deviation, in the ranges of the running mean and variance.
    pub(super) saved: Vec<f32>,
    pub(super) packed: Aligned<f32>,
    pub(super) packing: Packing,
    pub(super) filters: Vec<PackedFilter>,
    pub(super) scratch: Aligned<f32>,
    pub(super) clock: Clock,
    loaded: bool,
}

/// How a convolution is computed, and where its filter lies in the packed filters; empty ranges for other layers.
#[derive(Clone, Debug, Default)]
pub(super) struct PackedFilter {
    pub(super) algorithms: conv2d::Algorithms,
    pub(super) fprop: Range<usize>,
    pub(super) dgrad: Range<usize>,
}

/// Arguments of a call, checked.
#[derive(Clone, Copy)]
struct Call<'a> {
    n: usize,
    x: &'a [f32],
    params: &'a [f32],
}

impl<E: CpuElement> Executor<E> {
    /// Memory for batches of up to [`Plan::max_batch`] images.
    ///
    /// # Errors
    /// [`NnError::OutOfMemory`] if a buffer cannot be allocated.
    pub fn new(plan: Arc<Plan>) -> Result<Self, NnError> {
        Self::with_packing(plan, Packing::default())
    }

    /// The same with a choice of when filters are packed.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_packing(plan: Arc<Plan>, packing: Packing) -> Result<Self, NnError> {
        // First: what fits into memory is far from overflowing the products below.
        let arena = Aligned::zeroed(plan.memory().numel, "activations")?;
        let (filters, packed_len) = packed_filters::<E>(&plan, packing);
        let scratch_len = plan.layers().iter().map(|layer| scratch_len::<E>(&plan, layer)).max().unwrap_or(0);
        let logits_len = plan.max_batch() * plan.classes();
        Ok(Self {
            arena,
            logits: vec![0.0; logits_len],
            dlogits: vec![0.0; logits_len],
            argmax: Aligned::zeroed(plan.memory().argmax_bytes, "max-pool positions")?,
            saved: vec![0.0; plan.num_stats()],
            packed: Aligned::zeroed(packed_len, "packed filters")?,
            packing,
            filters,
            scratch: Aligned::zeroed(scratch_len, "scratch")?,
            plan,
            clock: Clock::default(),
            loaded: false,
        })
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of all its buffers at the largest batch; pages that no batch has reached are not yet taken.
    pub fn memory_bytes(&self) -> usize {
        let floats = self.saved.len() + self.packed.len() + self.scratch.len() + 2 * self.logits.len();
        self.arena.len() * size_of::<E>() + floats * size_of::<f32>() + self.argmax.len()
    }

    /// Whether steps note the time of each layer, for [`Self::layer_times`].
    pub fn clock_layers(&mut self, on: bool) {
        self.clock.run(on, self.plan.layers().len());
    }

    /// Passes of the last step in their order, if it was clocked.
    pub fn layer_times(&self) -> &[LayerTime] {
        self.clock.times()
    }

    /// Takes the parameters, and packs the filters if they are [`Packing::Kept`]; call after each change of the parameters.
    ///
    /// # Errors
    /// [`NnError::Length`].
    pub fn load_params(&mut self, params: &[f32]) -> Result<(), NnError> {
        check_len("params", self.plan.num_params(), params.len())?;
        self.loaded = true;
        if self.packing == Packing::OnUse {
            return Ok(());
        }
        for (layer, packed) in self.plan.layers().iter().zip(&self.filters) {
            if let Op::Conv2d { shape, filter, .. } = &layer.op {
                let filter = &params[self.plan.params()[*filter].range.clone()];
                let conv = conv2d::passes::<E>(shape, packed.algorithms);
                conv.pack_fprop(filter, &mut self.packed[packed.fprop.clone()]);
                if !packed.dgrad.is_empty() {
                    conv.pack_dgrad(filter, &mut self.packed[packed.dgrad.clone()]);
                }
            }
        }
        Ok(())
    }

    /// One training pass over `n = labels.len()` images: batch statistics, dropout, and the gradient of the *mean*
    /// loss, written to `grad`. Running statistics in `stats` are updated. With `n` = 0 the gradient is zero and
    /// `stats` stay.
    ///
    /// `x` is NHWC; `params` are those last given to [`Self::load_params`].
    ///
    /// # Errors
    /// A slice of the wrong length, a batch above the planned one, a label that is no class, or no parameters loaded;
    /// nothing is written then.
    pub fn forward_backward(
        &mut self,
        x: &[f32],
        labels: &[u32],
        params: &[f32],
        stats: &mut [f32],
        grad: &mut [f32],
        dropout: DropoutSeed,
    ) -> Result<LossStats, NnError> {
        let call = Call { n: labels.len(), x, params };
        self.check(call, stats)?;
        check_len("grad", self.plan.num_params(), grad.len())?;
        check_labels(labels, self.plan.classes())?;
        if call.n == 0 {
            grad.fill(0.0);
            return Ok(LossStats::default());
        }
        self.copy_image(call);
        self.clock.begin();
        self.forward(call.n, params, Mode::Train { stats, dropout });
        let loss = self.loss_gradient(labels)?;
        self.clock.end(self.plan.layers().len().saturating_sub(1), Pass::Loss);
        self.backward(call.n, params, grad, dropout);
        Ok(loss)
    }

    /// Loss and accuracy with running statistics and without dropout.
    ///
    /// # Errors
    /// As [`Self::forward_backward`].
    pub fn evaluate(
        &mut self,
        x: &[f32],
        labels: &[u32],
        params: &[f32],
        stats: &[f32],
    ) -> Result<LossStats, NnError> {
        let n = labels.len();
        self.infer(Call { n, x, params }, stats)?;
        let logits_len = self.widen_logits(n);
        Ok(softmax_xent::forward(n, self.plan.classes(), &self.logits[..logits_len], labels)?)
    }

    /// Logits `[n, classes]` of `n` images, with running statistics and without dropout.
    ///
    /// # Errors
    /// As [`Self::forward_backward`].
    pub fn logits(
        &mut self,
        x: &[f32],
        n: usize,
        params: &[f32],
        stats: &[f32],
        out: &mut [f32],
    ) -> Result<(), NnError> {
        check_len("out", n.saturating_mul(self.plan.classes()), out.len())?;
        self.infer(Call { n, x, params }, stats)?;
        let logits_len = self.widen_logits(n);
        out.copy_from_slice(&self.logits[..logits_len]);
        Ok(())
    }

    fn infer(&mut self, call: Call, stats: &[f32]) -> Result<(), NnError> {
        self.check(call, stats)?;
        if call.n > 0 {
            self.copy_image(call);
            self.clock.begin();
            self.forward(call.n, call.params, Mode::Eval { stats });
        }
        Ok(())
    }

    fn check(&self, Call { n, x, params }: Call, stats: &[f32]) -> Result<(), NnError> {
        if n > self.plan.max_batch() {
            return Err(NnError::BatchTooLarge { max: self.plan.max_batch(), found: n });
        }
        check_len("x", n * self.plan.image().numel(), x.len())?;
        check_len("params", self.plan.num_params(), params.len())?;
        check_len("stats", self.plan.num_stats(), stats.len())?;
        if self.loaded { Ok(()) } else { Err(NnError::NoParams) }
    }

    fn copy_image(&mut self, Call { n, x, .. }: Call) {
        round_into(x, &mut self.arena[self.plan.memory().tensors[0].range(n)]);
    }

    /// Copies the logits of `n` images from the arena; returns their number.
    fn widen_logits(&mut self, n: usize) -> usize {
        let logits = &self.arena[self.plan.slot(self.plan.logits()).range(n)];
        self.logits.iter_mut().zip(logits).for_each(|(to, from)| *to = from.to_f32());
        logits.len()
    }

    /// Loss of the logits; writes their gradient.
    fn loss_gradient(&mut self, labels: &[u32]) -> Result<LossStats, NnError> {
        let n = labels.len();
        let len = self.widen_logits(n);
        let Some(last) = self.plan.memory().layers.last() else { return Ok(LossStats::default()) };
        let (logits, dlogits) = (&self.logits[..len], &mut self.dlogits[..len]);
        let loss = softmax_xent::forward_backward(n, self.plan.classes(), logits, labels, dlogits)?;
        round_into(dlogits, &mut self.arena[last.dy.range(n)]);
        Ok(loss)
    }
}

/// Parts of a buffer that the plan keeps apart.
pub(super) fn disjoint<E, const N: usize>(buffer: &mut [E], ranges: [Range<usize>; N]) -> [&mut [E]; N] {
    buffer.get_disjoint_mut(ranges).expect("slots alive at the same time overlap")
}

/// Stores `from` as `to`'s elements; the lengths are equal.
pub(super) fn round_into<E: Element>(from: &[f32], to: &mut [E]) {
    (from.par_chunks(TILE_LEN), to.par_chunks_mut(TILE_LEN))
        .into_par_iter()
        .for_each(|(from, to)| from.iter().zip(to).for_each(|(from, to)| *to = E::from_f32(*from)));
}

/// Images times pixels.
pub(super) fn rows(plan: &Plan, layer: &Layer, n: usize) -> usize {
    let y = plan.tensor(layer.y);
    n * y.h * y.w
}

pub(super) fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), NnError> {
    if expected == found { Ok(()) } else { Err(NnError::Length { what, expected, found }) }
}

/// Before anything is written; the loss itself would notice only after the forward pass.
fn check_labels(labels: &[u32], classes: usize) -> Result<(), NnError> {
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(row) => Err(NnError::Label(LabelError { row, label: labels[row], classes })),
    }
}

/// Ranges of each layer's packed filters, and the length of their memory. The first layer has no input gradient.
fn packed_filters<E: CpuElement>(plan: &Plan, packing: Packing) -> (Vec<PackedFilter>, usize) {
    let (mut end, mut memory_len) = (0, 0);
    let mut next = |len: usize| {
        let start = end;
        memory_len = memory_len.max(start + len);
        if packing == Packing::Kept {
            end = (start + len).next_multiple_of(16);
        }
        start..start + len
    };
    let filters = plan
        .layers()
        .iter()
        .map(|layer| match &layer.op {
            Op::Conv2d { shape, .. } => {
                let algorithms = conv2d::Algorithms::choose::<E>(shape);
                let conv = conv2d::passes::<E>(shape, algorithms);
                PackedFilter {
                    algorithms,
                    fprop: next(conv.packed_fprop_len()),
                    dgrad: if layer.x.0 == 0 { 0..0 } else { next(conv.packed_dgrad_len()) },
                }
            }
            _ => PackedFilter::default(),
        })
        .collect();
    (filters, memory_len)
}

/// Scratch of a layer at the largest batch.
fn scratch_len<E: CpuElement>(plan: &Plan, layer: &Layer) -> usize {
    let rows = rows(plan, layer, plan.max_batch());
    match &layer.op {
        Op::Conv2d { shape, bias, .. } => {
            let algorithms = conv2d::Algorithms::choose::<E>(shape);
            let conv = conv2d::passes::<E>(shape, algorithms).scratch_len(plan.max_batch());
            conv.max(bias.map_or(0, |_| linear::bias_scratch_len(rows, shape.k)))
        }
        Op::BatchNorm2d { .. } => batchnorm2d::scratch_len(rows, plan.tensor(layer.y).c),
        _ => 0,
    }
}
