//! Collects layers, parameters and statistics and turns them into a [`Plan`].

use super::error::NnError;
use super::memory::Memory;
use super::plan::{Layer, Op, Plan, TensorId, TensorShape};
use super::table::{Init, ParamEntry, ParamKind, StatsEntry, StatsKind};
use crate::ops::input::ImageShape;
use crate::ops::linear;
use crate::shape::Conv2dShape;

/// Builds a [`Plan`] layer by layer.
///
/// Parameters are numbered in the order of calls, which must be PyTorch's registration order; layers run in the order
/// of calls. Where the two differ (a batch norm that is registered before the shortcut it adds), call
/// [`Builder::register_batch_norm`] first and [`Builder::batch_norm`] later.
#[derive(Clone, Debug)]
pub struct Builder {
    tensors: Vec<TensorShape>,
    layers: Vec<Layer>,
    params: Vec<ParamEntry>,
    stats: Vec<StatsEntry>,
}

/// Numbers of a registered batch norm's tensors.
#[derive(Clone, Debug)]
pub struct BatchNormParams {
    name: String,
    gamma: usize,
    beta: usize,
    running_mean: usize,
    running_var: usize,
}

/// A square filter or window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub size: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Padding on each side.
    pub pad: usize,
}

impl Builder {
    /// A network on images of this shape.
    pub fn new(image: ImageShape) -> Self {
        let ImageShape { h, w, c } = image;
        Self {
            tensors: vec![TensorShape { h, w, c }],
            layers: Vec::new(),
            params: Vec::new(),
            stats: Vec::new(),
        }
    }

    /// The image.
    pub fn image(&self) -> TensorId {
        TensorId(0)
    }

    /// Extents of a tensor.
    pub fn shape(&self, id: TensorId) -> TensorShape {
        self.tensors[id.0]
    }

    /// A convolution to `k` channels; with `bias` (starting at 0) or without, with a ReLU or without.
    ///
    /// # Errors
    /// [`NnError::ImageTooSmall`] if the window does not fit, [`NnError::Shape`] if an extent is 0 or too large.
    pub fn conv2d(
        &mut self,
        name: &str,
        x: TensorId,
        k: usize,
        window: Window,
        bias_relu: (bool, bool),
        init: Init,
    ) -> Result<TensorId, NnError> {
        let TensorShape { h, w, c } = self.shape(x);
        self.check_window(name, x, window)?;
        let Window { size, stride, pad } = window;
        let shape = Conv2dShape { c, h, w, k, r: size, s: size, stride, pad, dilation: 1 };
        validate(name, &shape)?;
        let krsc = [k, size, size, c];
        let filter = self.param(name, "weight", vec![k, c, size, size], krsc, ParamKind::ConvFilter, init);
        let (bias, relu) = bias_relu;
        let bias = bias.then(|| self.vector(name, "bias", k, ParamKind::Bias, Init::Constant(0.0)));
        let y = TensorShape { h: shape.p(), w: shape.q(), c: k };
        Ok(self.layer(name, Op::Conv2d { shape, filter, bias, relu }, x, y))
    }

    /// A linear layer with bias on all elements of `x`, which PyTorch would flatten in C H W order. `init` is the
    /// filter's and the bias's.
    ///
    /// # Errors
    /// [`NnError::Shape`] if `k` is 0 or too large.
    pub fn linear(
        &mut self,
        name: &str,
        x: TensorId,
        k: usize,
        relu: bool,
        init: [Init; 2],
    ) -> Result<TensorId, NnError> {
        let TensorShape { h, w, c } = self.shape(x);
        let shape = linear::shape(h * w * c, k);
        validate(name, &shape)?;
        let dims = vec![k, c * h * w];
        let filter = self.param(name, "weight", dims, [k, h, w, c], ParamKind::LinearFilter, init[0]);
        let bias = Some(self.vector(name, "bias", k, ParamKind::Bias, init[1]));
        let y = TensorShape { h: 1, w: 1, c: k };
        Ok(self.layer(name, Op::Conv2d { shape, filter, bias, relu }, x, y))
    }

    /// Registers the parameters (gamma 1, beta 0) and statistics of a batch norm of `c` channels.
    pub fn register_batch_norm(&mut self, name: &str, c: usize) -> BatchNormParams {
        BatchNormParams {
            name: name.into(),
            gamma: self.vector(name, "weight", c, ParamKind::Gamma, Init::Constant(1.0)),
            beta: self.vector(name, "bias", c, ParamKind::Beta, Init::Constant(0.0)),
            running_mean: self.stat(name, "running_mean", c, StatsKind::RunningMean),
            running_var: self.stat(name, "running_var", c, StatsKind::RunningVar),
        }
    }

    /// A registered batch norm of `x`, plus `shortcut`, through a ReLU or not.
    pub fn batch_norm(
        &mut self,
        params: &BatchNormParams,
        x: TensorId,
        shortcut: Option<TensorId>,
        relu: bool,
    ) -> TensorId {
        let shape = self.shape(x);
        assert!(x != self.image(), "{}: a batch norm of the image has no gradient to write", params.name);
        let (found, added) = (self.params[params.gamma].numel(), shortcut.map(|id| self.shape(id)));
        assert_eq!(found, shape.c, "{}: registered channels and channels of x", params.name);
        assert!(added.is_none_or(|s| s == shape), "{}: adds a shortcut {added:?} to {shape:?}", params.name);
        let BatchNormParams { gamma, beta, running_mean, running_var, .. } = *params;
        let op = Op::BatchNorm2d { gamma, beta, running_mean, running_var, shortcut, relu };
        self.layer(&params.name, op, x, shape)
    }

    /// Largest element of each window.
    ///
    /// # Errors
    /// [`NnError::ImageTooSmall`] if the window does not fit.
    pub fn max_pool(&mut self, name: &str, x: TensorId, window: Window) -> Result<TensorId, NnError> {
        self.check_window(name, x, window)?;
        let TensorShape { h, w, c } = self.shape(x);
        let Window { size, stride, pad } = window;
        let out = |extent: usize| (extent + 2 * pad - size) / stride + 1;
        let y = TensorShape { h: out(h), w: out(w), c };
        Ok(self.layer(name, Op::MaxPool2d { window: size, stride, pad }, x, y))
    }

    /// Mean over windows that make an `h` x `w` map of any map.
    pub fn adaptive_avg_pool(&mut self, name: &str, x: TensorId, h: usize, w: usize) -> TensorId {
        let y = TensorShape { h, w, c: self.shape(x).c };
        self.layer(name, Op::AdaptiveAvgPool2d, x, y)
    }

    /// The parameter-free shortcut to `k` channels at half the resolution.
    pub fn pad_shortcut(&mut self, name: &str, x: TensorId, k: usize) -> TensorId {
        let TensorShape { h, w, c } = self.shape(x);
        assert!(k >= c, "{name}: a padded shortcut cannot drop channels, from {c} to {k}");
        let y = TensorShape { h: h.div_ceil(2), w: w.div_ceil(2), c: k };
        self.layer(name, Op::PadShortcut, x, y)
    }

    /// Zeroes elements with probability `p` while training.
    pub fn dropout(&mut self, name: &str, x: TensorId, p: f32) -> TensorId {
        let y = self.shape(x);
        let ordinal =
            self.layers.iter().filter(|layer| matches!(layer.op, Op::Dropout { .. })).count() as u64;
        self.layer(name, Op::Dropout { p, ordinal }, x, y)
    }

    /// The plan; the last layer's output are the logits.
    ///
    /// # Errors
    /// [`NnError::OutOfMemory`] if the arena's size overflows.
    pub fn finish(self, max_batch: usize) -> Result<Plan, NnError> {
        let Self { tensors, layers, params, stats } = self;
        let memory = Memory::plan(&tensors, &layers, max_batch).ok_or(NnError::OutOfMemory {
            what: "activations",
            bytes: tensors.iter().map(|t| t.numel() as u128).sum::<u128>() * max_batch as u128 * 4,
        })?;
        Ok(Plan { tensors, layers, params, stats, memory, max_batch })
    }

    fn check_window(&self, name: &str, x: TensorId, Window { size, pad, .. }: Window) -> Result<(), NnError> {
        let TensorShape { h, w, .. } = self.shape(x);
        if h.min(w) + 2 * pad >= size && h.min(w) > 0 {
            return Ok(());
        }
        Err(NnError::ImageTooSmall { layer: name.into(), image: self.tensors[0], h, w, window: size })
    }

    fn layer(&mut self, name: &str, op: Op, x: TensorId, y: TensorShape) -> TensorId {
        let id = TensorId(self.tensors.len());
        self.tensors.push(y);
        self.layers.push(Layer { name: name.into(), op, x, y: id });
        id
    }

    fn vector(&mut self, module: &str, name: &str, k: usize, kind: ParamKind, init: Init) -> usize {
        self.param(module, name, vec![k], [k, 1, 1, 1], kind, init)
    }

    fn param(
        &mut self,
        module: &str,
        name: &str,
        dims: Vec<usize>,
        krsc: [usize; 4],
        kind: ParamKind,
        init: Init,
    ) -> usize {
        let start = self.params.last().map_or(0, |entry| entry.range.end);
        let range = start..start + dims.iter().product::<usize>();
        self.params.push(ParamEntry { name: format!("{module}.{name}"), range, dims, krsc, kind, init });
        self.params.len() - 1
    }

    fn stat(&mut self, module: &str, name: &str, c: usize, kind: StatsKind) -> usize {
        let start = self.stats.last().map_or(0, |entry| entry.range.end);
        self.stats.push(StatsEntry { name: format!("{module}.{name}"), range: start..start + c, kind });
        self.stats.len() - 1
    }
}

fn validate(layer: &str, shape: &Conv2dShape) -> Result<(), NnError> {
    shape.validate().map_err(|source| NnError::Shape { layer: layer.into(), source: Box::new(source) })
}
