//! A trained network that only predicts.
//!
//! A batch norm with fixed statistics is `y = scale * x + offset` per channel. Where its input is a convolution's output that
//! nobody else reads, the scale goes into the filter and the offset into the bias, so that the layer costs nothing; its ReLU
//! moves into the convolution, its shortcut is added in one more pass. Activations live from their writer to their last
//! reader, and there are no gradients, so a network takes a fraction of the memory of training.

use super::aligned::Aligned;
use super::error::NnError;
use super::executor::{check_len, disjoint, round_into, rows};
use super::forward::{avg_pool_shape, max_pool_shape, pad_shape};
use super::memory::{Life, Slot, place};
use super::plan::{Layer, Op, Plan, TensorId};
use crate::ops::batchnorm2d::{self, EPS, Extent, Parameters, RunningStatistics};
use crate::ops::conv2d::CpuElement;
use crate::ops::{conv2d, elementwise, pad_shortcut, pool2d};
use std::ops::Range;
use std::sync::Arc;

/// Runs a network with running statistics and without dropout, faster than [`Executor::logits`](super::Executor::logits)
/// and in less memory.
///
/// After construction no call allocates. Results are the same bytes for any number of threads; they differ from the
/// executor's by rounding.
///
/// # Example
/// ```
/// use scadles::models::{self, ModelSpec};
/// use scadles::nn::Inference;
/// use std::sync::Arc;
///
/// let spec = ModelSpec { name: "resnet20".into(), width: 0.25, ..ModelSpec::default() };
/// let plan = Arc::new(models::plan(&spec, 8)?);
/// let mut network = Inference::<f32>::new(plan.clone(), &plan.init_params(1), &plan.init_stats())?;
/// let mut logits = vec![0.0; 2 * plan.classes()];
/// network.logits(&vec![0.5; 2 * plan.image().numel()], 2, &mut logits)?;
/// assert!(logits.iter().all(|logit| logit.is_finite()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Inference<E = f32> {
    plan: Arc<Plan>,
    steps: Vec<Step>,
    /// Of each tensor.
    slots: Vec<Slot>,
    arena: Aligned<E>,
    argmax: Aligned<u8>,
    packed: Aligned<f32>,
    bias: Vec<f32>,
    /// Gamma, beta, mean and variance of batch norms that stay.
    norms: Vec<f32>,
    folded: Vec<f32>,
    scratch: Aligned<f32>,
}

/// What is computed: a layer of the plan, or two that became one.
#[derive(Clone, Debug)]
enum Step {
    Conv(Conv),
    /// The batch norm number `layer` of the plan, whose numbers begin at `first`.
    Norm {
        layer: usize,
        first: usize,
    },
    /// The layer of this number, as it is.
    Plain(usize),
}

/// A convolution, with the batch norm behind it if it has one.
#[derive(Clone, Debug)]
struct Conv {
    layer: usize,
    norm: Option<usize>,
    algorithms: conv2d::Algorithms,
    packed: Range<usize>,
    bias: Range<usize>,
}

impl<E: CpuElement> Inference<E> {
    /// The network of `plan` with these parameters and batch-norm running statistics, for up to [`Plan::max_batch`] images.
    ///
    /// # Errors
    /// Slices of the wrong length, or [`NnError::OutOfMemory`].
    pub fn new(plan: Arc<Plan>, params: &[f32], stats: &[f32]) -> Result<Self, NnError> {
        let (steps, sizes) = steps::<E>(&plan);
        let (slots, numel) = slots(&plan, &steps)
            .ok_or(NnError::OutOfMemory { what: "activations", bytes: u128::from(u64::MAX) })?;
        let mut this = Self {
            arena: Aligned::zeroed(numel, "activations")?,
            argmax: Aligned::zeroed(sizes.argmax, "max-pool positions")?,
            packed: Aligned::zeroed(sizes.packed, "packed filters")?,
            bias: vec![0.0; sizes.bias],
            norms: vec![0.0; sizes.norms],
            folded: vec![0.0; sizes.filter],
            scratch: Aligned::zeroed(sizes.scratch, "scratch")?,
            plan,
            steps,
            slots,
        };
        this.load(params, stats)?;
        Ok(this)
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of all its buffers at the largest batch; pages that no batch has reached are not yet taken.
    pub fn memory_bytes(&self) -> usize {
        let floats = [&self.bias, &self.norms, &self.folded].map(Vec::len).iter().sum::<usize>();
        let floats = floats + self.packed.len() + self.scratch.len();
        self.arena.len() * size_of::<E>() + floats * size_of::<f32>() + self.argmax.len()
    }

    /// Replaces parameters and statistics.
    ///
    /// # Errors
    /// Slices of the wrong length; nothing changes then.
    pub fn load(&mut self, params: &[f32], stats: &[f32]) -> Result<(), NnError> {
        check_len("params", self.plan.num_params(), params.len())?;
        check_len("stats", self.plan.num_stats(), stats.len())?;
        let Self { plan, steps, packed, bias, norms, folded, .. } = self;
        for step in steps {
            match step {
                Step::Conv(conv) => conv.load::<E>((plan, params, stats), folded, packed, bias),
                Step::Norm { layer, first } => {
                    let parts = norm_parts(plan, &plan.layers()[*layer], params, stats);
                    let len = parts[0].len();
                    for (i, part) in parts.into_iter().enumerate() {
                        norms[*first + i * len..][..len].copy_from_slice(part);
                    }
                }
                Step::Plain(_) => {}
            }
        }
        Ok(())
    }

    /// Logits `[n, classes]` of `n` images, written to `out`. `x` is NHWC.
    ///
    /// # Errors
    /// A slice of the wrong length, or a batch above the planned one; nothing is written then.
    pub fn logits(&mut self, x: &[f32], n: usize, out: &mut [f32]) -> Result<(), NnError> {
        if n > self.plan.max_batch() {
            return Err(NnError::BatchTooLarge { max: self.plan.max_batch(), found: n });
        }
        check_len("x", n * self.plan.image().numel(), x.len())?;
        check_len("out", n * self.plan.classes(), out.len())?;
        if n == 0 {
            return Ok(());
        }
        round_into(x, &mut self.arena[self.slots[0].range(n)]);
        self.run(n);
        let logits = &self.arena[self.slots[self.plan.logits().0].range(n)];
        out.iter_mut().zip(logits).for_each(|(out, logit)| *out = logit.to_f32());
        Ok(())
    }

    fn run(&mut self, n: usize) {
        let Self { plan, steps, slots, arena, argmax, packed, bias, norms, scratch, .. } = self;
        let range = |id: TensorId| slots[id.0].range(n);
        for step in steps {
            match step {
                Step::Conv(conv) => conv.run(plan, n, &range, arena, (packed, bias), scratch),
                Step::Norm { layer, first } => {
                    norm(plan, &plan.layers()[*layer], n, &range, arena, &norms[*first..]);
                }
                Step::Plain(layer) => plain(plan, &plan.layers()[*layer], n, &range, arena, argmax),
            }
        }
    }
}

impl Conv {
    fn load<E: CpuElement>(
        &self,
        (plan, params, stats): (&Plan, &[f32], &[f32]),
        folded: &mut [f32],
        packed: &mut [f32],
        bias: &mut [f32],
    ) {
        let Op::Conv2d { shape, filter, bias: own_bias, .. } = &plan.layers()[self.layer].op else { return };
        let filter = &params[plan.params()[*filter].range.clone()];
        let own_bias = own_bias.map(|index| &params[plan.params()[index].range.clone()]);
        let bias = &mut bias[self.bias.clone()];
        match own_bias {
            None => bias.fill(0.0),
            Some(own) => bias.copy_from_slice(own),
        }
        let folded = &mut folded[..filter.len()];
        folded.copy_from_slice(filter);
        if let Some(norm) = self.norm {
            let [gamma, beta, mean, var] = norm_parts(plan, &plan.layers()[norm], params, stats);
            let per_channel = filter.len() / shape.k.max(1);
            for (k, filter) in folded.chunks_exact_mut(per_channel.max(1)).enumerate() {
                let scale = gamma[k] / (var[k] + EPS).sqrt();
                filter.iter_mut().for_each(|weight| *weight *= scale);
                bias[k] = (bias[k] - mean[k]) * scale + beta[k];
            }
        }
        conv2d::passes::<E>(shape, self.algorithms).pack_fprop(folded, &mut packed[self.packed.clone()]);
    }

    fn run<E: CpuElement>(
        &self,
        plan: &Plan,
        n: usize,
        range: &dyn Fn(TensorId) -> Range<usize>,
        arena: &mut [E],
        (packed, bias): (&[f32], &[f32]),
        scratch: &mut [f32],
    ) {
        let layer = &plan.layers()[self.layer];
        let Op::Conv2d { shape, relu, .. } = &layer.op else { return };
        let (y, shortcut, relu) = match self.norm.map(|norm| &plan.layers()[norm]) {
            Some(Layer { op: Op::BatchNorm2d { shortcut, relu, .. }, y, .. }) => (*y, *shortcut, *relu),
            _ => (layer.y, None, *relu),
        };
        let epilogue =
            conv2d::Epilogue { bias: Some(&bias[self.bias.clone()]), relu: relu && shortcut.is_none() };
        let conv = conv2d::passes(shape, self.algorithms);
        let filter = &packed[self.packed.clone()];
        match shortcut {
            None => {
                let [x, y] = disjoint(arena, [range(layer.x), range(y)]);
                conv.fprop(n, x, filter, epilogue, y, scratch);
            }
            Some(shortcut) => {
                let [x, shortcut, y] = disjoint(arena, [range(layer.x), range(shortcut), range(y)]);
                conv.fprop(n, x, filter, epilogue, y, scratch);
                match relu {
                    true => elementwise::add_relu_inplace(y, shortcut),
                    false => elementwise::add_inplace(y, shortcut),
                }
            }
        }
    }
}

fn norm<E: CpuElement>(
    plan: &Plan,
    layer: &Layer,
    n: usize,
    range: &dyn Fn(TensorId) -> Range<usize>,
    arena: &mut [E],
    numbers: &[f32],
) {
    let Op::BatchNorm2d { shortcut, relu, .. } = layer.op else { return };
    let extent = Extent { rows: rows(plan, layer, n), c: plan.tensor(layer.y).c };
    let part = |i: usize| &numbers[i * extent.c..(i + 1) * extent.c];
    let parameters = Parameters { gamma: part(0), beta: part(1) };
    let statistics = RunningStatistics { mean: part(2), var: part(3) };
    match shortcut {
        None => {
            let [x, y] = disjoint(arena, [range(layer.x), range(layer.y)]);
            let epilogue = batchnorm2d::Epilogue { shortcut: None, relu };
            batchnorm2d::forward_eval(extent, x, parameters, statistics, epilogue, y);
        }
        Some(id) => {
            let [x, shortcut, y] = disjoint(arena, [range(layer.x), range(id), range(layer.y)]);
            let epilogue = batchnorm2d::Epilogue { shortcut: Some(shortcut), relu };
            batchnorm2d::forward_eval(extent, x, parameters, statistics, epilogue, y);
        }
    }
}

/// Layers without parameters.
fn plain<E: CpuElement>(
    plan: &Plan,
    layer: &Layer,
    n: usize,
    range: &dyn Fn(TensorId) -> Range<usize>,
    arena: &mut [E],
    argmax: &mut [u8],
) {
    let [x, y] = disjoint(arena, [range(layer.x), range(layer.y)]);
    match layer.op {
        Op::MaxPool2d { .. } => {
            let argmax = &mut argmax[..y.len()];
            pool2d::max_forward(&max_pool_shape(plan, layer), n, x, y, argmax);
        }
        Op::AdaptiveAvgPool2d => pool2d::adaptive_avg_forward(&avg_pool_shape(plan, layer), n, x, y),
        Op::PadShortcut => pad_shortcut::forward(&pad_shape(plan, layer), n, x, y),
        Op::Dropout { .. } => y.copy_from_slice(x),
        Op::Conv2d { .. } | Op::BatchNorm2d { .. } => unreachable!("{} has parameters", layer.name),
    }
}

/// Gamma, beta, mean, variance.
fn norm_parts<'a>(plan: &Plan, layer: &Layer, params: &'a [f32], stats: &'a [f32]) -> [&'a [f32]; 4] {
    let Op::BatchNorm2d { gamma, beta, running_mean, running_var, .. } = layer.op else {
        unreachable!("{} is no batch norm", layer.name)
    };
    let [gamma, beta] = [gamma, beta].map(|index| &params[plan.params()[index].range.clone()]);
    let [mean, var] = [running_mean, running_var].map(|index| &stats[plan.stats()[index].range.clone()]);
    [gamma, beta, mean, var]
}

/// Lengths of buffers.
#[derive(Default)]
struct Sizes {
    packed: usize,
    bias: usize,
    norms: usize,
    filter: usize,
    scratch: usize,
    argmax: usize,
}

/// The work in its order: a convolution stands where its batch norm did.
fn steps<E: CpuElement>(plan: &Plan) -> (Vec<Step>, Sizes) {
    let mut sizes = Sizes::default();
    let mut steps = Vec::with_capacity(plan.layers().len());
    let conv = |index: usize, norm: Option<usize>, sizes: &mut Sizes| {
        let Op::Conv2d { shape, .. } = &plan.layers()[index].op else { unreachable!("a convolution") };
        let algorithms = conv2d::Algorithms::choose::<E>(shape);
        let passes = conv2d::passes::<E>(shape, algorithms);
        let packed = sizes.packed..sizes.packed + passes.packed_fprop_len();
        let bias = sizes.bias..sizes.bias + shape.k;
        (sizes.packed, sizes.bias) = (packed.end.next_multiple_of(16), bias.end);
        sizes.filter = sizes.filter.max(shape.filter_len());
        sizes.scratch = sizes.scratch.max(passes.fprop_scratch_len(plan.max_batch()));
        Step::Conv(Conv { layer: index, norm, algorithms, packed, bias })
    };
    for (index, layer) in plan.layers().iter().enumerate() {
        match layer.op {
            Op::Conv2d { .. } if norm_of(plan, layer).is_some() => {}
            Op::Conv2d { .. } => steps.push(conv(index, None, &mut sizes)),
            Op::BatchNorm2d { .. } => match conv_of(plan, index) {
                Some(before) => steps.push(conv(before, Some(index), &mut sizes)),
                None => {
                    steps.push(Step::Norm { layer: index, first: sizes.norms });
                    sizes.norms += 4 * plan.tensor(layer.y).c;
                }
            },
            Op::MaxPool2d { .. } => {
                sizes.argmax = sizes.argmax.max(plan.max_batch() * plan.tensor(layer.y).numel());
                steps.push(Step::Plain(index));
            }
            Op::AdaptiveAvgPool2d | Op::PadShortcut | Op::Dropout { .. } => steps.push(Step::Plain(index)),
        }
    }
    (steps, sizes)
}

/// The batch norm that is the only reader of a convolution without a ReLU.
fn norm_of(plan: &Plan, conv: &Layer) -> Option<usize> {
    if !matches!(conv.op, Op::Conv2d { relu: false, .. }) {
        return None;
    }
    let reads = |layer: &Layer| {
        let shortcut = matches!(layer.op, Op::BatchNorm2d { shortcut: Some(id), .. } if id == conv.y);
        usize::from(layer.x == conv.y) + usize::from(shortcut)
    };
    let readers: usize = plan.layers().iter().map(reads).sum();
    let is_norm = |layer: &Layer| layer.x == conv.y && matches!(layer.op, Op::BatchNorm2d { .. });
    plan.layers().iter().position(is_norm).filter(|_| readers == 1)
}

/// The convolution that goes into the batch norm number `norm`.
fn conv_of(plan: &Plan, norm: usize) -> Option<usize> {
    plan.layers().iter().position(|layer| norm_of(plan, layer) == Some(norm))
}

/// Slots of the tensors that exist, and the elements they take.
fn slots(plan: &Plan, steps: &[Step]) -> Option<(Vec<Slot>, usize)> {
    let mut lives = vec![Life { per_image: 0, first: 0, last: 0 }; plan.tensors.len()];
    lives[0].per_image = plan.image().numel();
    for (now, step) in steps.iter().enumerate() {
        let (first, last) = match step {
            Step::Conv(conv) => (conv.layer, conv.norm.unwrap_or(conv.layer)),
            Step::Norm { layer, .. } | Step::Plain(layer) => (*layer, *layer),
        };
        lives[plan.layers()[first].x.0].last = now;
        let last = &plan.layers()[last];
        if let Op::BatchNorm2d { shortcut: Some(id), .. } = last.op {
            lives[id.0].last = now;
        }
        lives[last.y.0] = Life { per_image: plan.tensor(last.y).numel(), first: now, last: now };
    }
    lives[plan.logits().0].last = steps.len();
    place(&lives, plan.max_batch())
}
