//! Convolutions on the CPU: the passes as a training step runs them, and their algorithms side by side.

mod bf16;

use super::rows::uniform;
use super::{Prepare, Row};
use crate::element::Element;
use crate::ops::conv2d::{self, Algorithm, Algorithms, Epilogue};
use crate::shape::Conv2dShape;
use serde_json::json;
use std::hint::black_box;
use std::ops::Range;

/// Images of a batch.
const N: usize = 64;

/// Batches that algorithms are compared at.
const BATCHES: [usize; 2] = [16, 64];

/// `conv2d`: each pass with the algorithm chosen for its shape, filters packed before; `conv2d-algorithm`: with every
/// algorithm, packing included.
pub fn rows() -> Vec<Row> {
    let layers = layers().into_iter().flat_map(|(name, shape)| {
        PASSES.map(|pass| {
            let setting = Setting { n: N, pass, algorithms: Algorithms::choose(&shape), packs: false };
            let Conv2dShape { c, h, k, r, stride, .. } = shape;
            let peer = json!({ "kind": "conv", "pass": pass.name(), "n": N, "c": c, "size": h, "k": k, "filter": r,
                "stride": stride, "dtype": "f32" });
            row("conv2d", format!("{name}-{}", pass.name()), shape, setting).beside([peer])
        })
    });
    let compared = compared().into_iter().flat_map(|shape| {
        BATCHES.into_iter().flat_map(move |n| {
            PASSES.into_iter().flat_map(move |pass| {
                Algorithm::ALL.map(|algorithm| {
                    let setting = Setting { n, pass, algorithms: Algorithms::all(algorithm), packs: true };
                    let Conv2dShape { c, h, k, .. } = shape;
                    let name = format!("{c}-{k}x{h}x{h}-b{n}-{}-{}", pass.name(), algorithm.name());
                    row("conv2d-algorithm", name, shape, setting)
                })
            })
        })
    });
    layers.chain(bf16_rows()).chain(compared).collect()
}

/// The layers again with activations in bf16, by the direct algorithms.
fn bf16_rows() -> impl Iterator<Item = Row> {
    layers().into_iter().flat_map(|(name, shape)| {
        PASSES.map(|pass| {
            let prepare = Prepare::host(move |seed| bf16::prepare(shape, N, pass, seed));
            let flops = 2.0 * (N * shape.macs()) as f64;
            Row::new("conv2d", format!("{name}-{}-bf16", pass.name()), Some((flops, "FLOP/s")), prepare)
        })
    })
}

fn shape(c: usize, hw: usize, k: usize, rs: usize) -> Conv2dShape {
    Conv2dShape { c, h: hw, w: hw, k, r: rs, s: rs, stride: 1, pad: rs / 2, dilation: 1 }
}

fn layers() -> [(&'static str, Conv2dShape); 8] {
    [
        ("resnet20-16x32x32", shape(16, 32, 16, 3)),
        ("resnet18-64x32x32", shape(64, 32, 64, 3)),
        ("resnet18-128x16x16", shape(128, 16, 128, 3)),
        ("resnet18-256x8x8", shape(256, 8, 256, 3)),
        ("resnet18-512x4x4", shape(512, 4, 512, 3)),
        ("vgg19-512x2x2", shape(512, 2, 512, 3)),
        ("resnet152-1x1-64-256x32x32", shape(64, 32, 256, 1)),
        ("resnet152-1x1-2048-512x4x4", shape(2048, 4, 512, 1)),
    ]
}

/// The 3x3 layers of ResNet-20, ResNet-18 and VGG-19 on CIFAR, and of 7x7 images.
fn compared() -> [Conv2dShape; 12] {
    [
        shape(16, 32, 16, 3),
        shape(32, 16, 32, 3),
        shape(64, 8, 64, 3),
        shape(64, 32, 64, 3),
        shape(64, 16, 128, 3),
        shape(128, 16, 128, 3),
        shape(128, 8, 256, 3),
        shape(256, 8, 256, 3),
        shape(256, 7, 256, 3),
        shape(256, 4, 512, 3),
        shape(512, 4, 512, 3),
        shape(512, 2, 512, 3),
    ]
}

#[derive(Clone, Copy)]
enum Pass {
    Fprop,
    Dgrad,
    Wgrad,
}

const PASSES: [Pass; 3] = [Pass::Fprop, Pass::Dgrad, Pass::Wgrad];

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Self::Fprop => "fprop",
            Self::Dgrad => "dgrad",
            Self::Wgrad => "wgrad",
        }
    }
}

#[derive(Clone, Copy)]
struct Setting {
    n: usize,
    pass: Pass,
    algorithms: Algorithms,
    /// Whether packing the filter is timed.
    packs: bool,
}

fn row(group: &'static str, name: String, shape: Conv2dShape, setting: Setting) -> Row {
    let flops = 2.0 * (setting.n * shape.macs()) as f64;
    Row::new(group, name, Some((flops, "FLOP/s")), Prepare::host(move |seed| setting.prepare(shape, seed)))
}

impl Setting {
    fn prepare(self, shape: Conv2dShape, seed: u64) -> Box<dyn FnMut()> {
        let Self { n, pass, algorithms, packs } = self;
        let conv = conv2d::passes(&shape, algorithms);
        let mut scratch = vec![0.0; conv.scratch_len(n)];
        let filter = uniform(seed + 1, shape.filter_len());
        match pass {
            Pass::Fprop => {
                let (x, mut y) = (uniform(seed, n * shape.x_len()), vec![0.0; n * shape.y_len()]);
                let (mut packed, range) = aligned(conv.packed_fprop_len());
                conv.pack_fprop(&filter, &mut packed[range.clone()]);
                Box::new(move || {
                    let conv = conv2d::passes(&shape, algorithms);
                    let packed = &mut packed[range.clone()];
                    if packs {
                        conv.pack_fprop(&filter, packed);
                    }
                    conv.fprop(n, &x, packed, Epilogue::default(), black_box(&mut y), &mut scratch);
                })
            }
            Pass::Dgrad => {
                let (dy, mut dx) = (uniform(seed, n * shape.y_len()), vec![0.0; n * shape.x_len()]);
                let (mut packed, range) = aligned(conv.packed_dgrad_len());
                conv.pack_dgrad(&filter, &mut packed[range.clone()]);
                Box::new(move || {
                    let conv = conv2d::passes(&shape, algorithms);
                    let packed = &mut packed[range.clone()];
                    if packs {
                        conv.pack_dgrad(&filter, packed);
                    }
                    conv.dgrad(n, &dy, packed, black_box(&mut dx), &mut scratch);
                })
            }
            Pass::Wgrad => {
                let (x, dy) = (uniform(seed, n * shape.x_len()), uniform(seed + 1, n * shape.y_len()));
                let mut dfilter = vec![0.0; shape.filter_len()];
                Box::new(move || {
                    let conv = conv2d::passes(&shape, algorithms);
                    conv.wgrad(n, &x, &dy, black_box(&mut dfilter), &mut scratch);
                })
            }
        }
    }
}

/// A vector and the part of it, `len` long, that begins at a cache line, as the executor's filters do.
fn aligned<E: Element>(len: usize) -> (Vec<E>, Range<usize>) {
    let memory = vec![E::default(); len + 64 / size_of::<E>()];
    let first = memory.as_ptr().align_offset(64).min(memory.len() - len);
    (memory, first..first + len)
}
