//! The static plan of a network: layers over tensors, parameter tables, memory. Plain data, the same for every device.

use super::memory::{Memory, Slot};
use super::table::{ParamEntry, ParamKind, StatsEntry};
use crate::shape::Conv2dShape;

/// Extents of an activation of one image: H, W, C; a vector has H = W = 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorShape {
    /// Height H.
    pub h: usize,
    /// Width W.
    pub w: usize,
    /// Channels C.
    pub c: usize,
}

impl TensorShape {
    /// Number of elements.
    pub const fn numel(&self) -> usize {
        self.h * self.w * self.c
    }
}

impl std::fmt::Display for TensorShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.h, self.w, self.c)
    }
}

/// An activation of the network; tensor 0 is the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorId(pub usize);

/// What a layer computes. Numbers of parameters and statistics index [`Plan::params`] and [`Plan::stats`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `y = relu?(conv(x, filter) + bias?)`; a linear layer is a convolution of a 1x1 map.
    Conv2d {
        /// Extents.
        shape: Conv2dShape,
        /// Parameter: filter.
        filter: usize,
        /// Parameter: bias.
        bias: Option<usize>,
        /// Whether negative outputs become 0.
        relu: bool,
    },
    /// `y = relu?(gamma * (x - mean) / sqrt(var + eps) + beta + shortcut?)` per channel.
    BatchNorm2d {
        /// Parameter: gamma.
        gamma: usize,
        /// Parameter: beta.
        beta: usize,
        /// Statistics: running mean.
        running_mean: usize,
        /// Statistics: running variance.
        running_var: usize,
        /// Added before the ReLU.
        shortcut: Option<TensorId>,
        /// Whether negative outputs become 0.
        relu: bool,
    },
    /// Largest element of each window.
    MaxPool2d {
        /// Window height and width.
        window: usize,
        /// Step of the window.
        stride: usize,
        /// Padding on each side, never chosen.
        pad: usize,
    },
    /// Mean over windows that cover the map for any input size; the output's extents are those of `y`.
    AdaptiveAvgPool2d,
    /// Every second row and column, channels padded with zeros on both sides (He et al., option A).
    PadShortcut,
    /// Zeroes elements with probability `p` and scales the others by `1 / (1 - p)`; training only.
    Dropout {
        /// Probability.
        p: f32,
        /// Which of the plan's dropout layers this is, from 0.
        ordinal: u64,
    },
}

/// One layer: `y = op(x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// torchvision's module name, as in `layer1.0.conv1`.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Input.
    pub x: TensorId,
    /// Output, written by this layer only.
    pub y: TensorId,
}

/// A layer in words and numbers, for printing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    /// torchvision's module name.
    pub name: String,
    /// Kind, as in `conv 3x3/2`.
    pub kind: String,
    /// Output of one image.
    pub output: TensorShape,
    /// Parameters of the layer.
    pub params: usize,
    /// Multiply-accumulates of one image's forward pass (convolutions and linear layers only).
    pub macs: usize,
}

/// A network ready to run: see the [module](crate::nn).
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(super) tensors: Vec<TensorShape>,
    pub(super) layers: Vec<Layer>,
    pub(super) params: Vec<ParamEntry>,
    pub(super) stats: Vec<StatsEntry>,
    pub(super) memory: Memory,
    pub(super) max_batch: usize,
}

impl Plan {
    /// Elements of the flat parameter vector, and of the gradient.
    pub fn num_params(&self) -> usize {
        self.params.last().map_or(0, |entry| entry.range.end)
    }

    /// Elements of the flat statistics vector.
    pub fn num_stats(&self) -> usize {
        self.stats.last().map_or(0, |entry| entry.range.end)
    }

    /// Parameter tensors in PyTorch's registration order; their ranges cover the flat vector without gaps.
    pub fn params(&self) -> &[ParamEntry] {
        &self.params
    }

    /// Statistics tensors in PyTorch's registration order; their ranges cover the flat vector without gaps.
    pub fn stats(&self) -> &[StatsEntry] {
        &self.stats
    }

    /// Layers in forward order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Extents of a tensor.
    pub fn tensor(&self, id: TensorId) -> TensorShape {
        self.tensors[id.0]
    }

    /// The image the network takes.
    pub fn image(&self) -> TensorShape {
        self.tensors[0]
    }

    /// Outputs of the head.
    pub fn classes(&self) -> usize {
        self.tensor(self.logits()).numel()
    }

    /// The tensor the loss is computed from.
    pub fn logits(&self) -> TensorId {
        self.layers.last().map_or(TensorId(0), |layer| layer.y)
    }

    /// Most images one call can take.
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Number of dropout layers.
    pub(super) fn dropout_layers(&self) -> u64 {
        self.layers.iter().filter(|layer| matches!(layer.op, Op::Dropout { .. })).count() as u64
    }

    /// Where activations and gradients lie.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Bytes of the arena that holds activations and their gradients at the largest batch.
    pub fn activation_bytes(&self) -> usize {
        self.memory.numel * size_of::<f32>()
    }

    /// Multiply-accumulates of one image's forward pass in convolutions and linear layers, padding counted.
    pub fn macs_per_image(&self) -> usize {
        self.layers.iter().map(Layer::macs).sum()
    }

    /// The layers in words and numbers.
    pub fn summary(&self) -> Vec<LayerSummary> {
        self.layers
            .iter()
            .map(|layer| LayerSummary {
                name: layer.name.clone(),
                kind: self.kind(layer),
                output: self.tensor(layer.y),
                params: layer.params().map(|index| self.params[index].numel()).sum(),
                macs: layer.macs(),
            })
            .collect()
    }

    fn kind(&self, layer: &Layer) -> String {
        let relu = |relu: &bool| if *relu { " + relu" } else { "" };
        match &layer.op {
            Op::Conv2d { filter, relu: r, .. } if self.params[*filter].kind == ParamKind::LinearFilter => {
                format!("linear{}", relu(r))
            }
            Op::Conv2d { shape, relu: r, .. } => {
                format!("conv {}x{}/{}{}", shape.r, shape.s, shape.stride, relu(r))
            }
            Op::BatchNorm2d { shortcut, relu: r, .. } => {
                format!("batch norm{}{}", if shortcut.is_some() { " + shortcut" } else { "" }, relu(r))
            }
            Op::MaxPool2d { window, stride, .. } => format!("max pool {window}x{window}/{stride}"),
            Op::AdaptiveAvgPool2d => "average pool".into(),
            Op::PadShortcut => "pad shortcut".into(),
            Op::Dropout { p, .. } => format!("dropout {p}"),
        }
    }

    /// Slot of a tensor in the arena.
    pub fn slot(&self, id: TensorId) -> Slot {
        self.memory.tensors[id.0]
    }
}

impl Layer {
    /// Numbers of this layer's parameters.
    pub fn params(&self) -> impl Iterator<Item = usize> {
        let (first, second) = match self.op {
            Op::Conv2d { filter, bias, .. } => (Some(filter), bias),
            Op::BatchNorm2d { gamma, beta, .. } => (Some(gamma), Some(beta)),
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }

    fn macs(&self) -> usize {
        match &self.op {
            Op::Conv2d { shape, .. } => shape.macs(),
            _ => 0,
        }
    }
}
