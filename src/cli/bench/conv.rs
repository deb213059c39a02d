//! Convolutions on the CPU: the passes as a training step runs them, and their algorithms side by side.

use super::rows::{dtype, uniform};
use super::{Prepare, Row};
use crate::ops::conv2d::{self, Algorithm, Algorithms, CpuElement, Epilogue};
use crate::shape::Conv2dShape;
use half::bf16;
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
    let of = [layer_rows::<f32>(), layer_rows::<bf16>(), compared_rows::<f32>(), compared_rows::<bf16>()];
    of.into_iter().flatten().collect()
}

fn layer_rows<E: CpuElement>() -> Vec<Row> {
    let rows = layers().into_iter().flat_map(|(name, shape)| {
        PASSES.map(|pass| {
            let setting = Setting { n: N, pass, algorithms: Algorithms::choose::<E>(&shape), packs: false };
            let Conv2dShape { c, h, k, r, stride, .. } = shape;
            let peer = json!({ "kind": "conv", "pass": pass.name(), "n": N, "c": c, "size": h, "k": k, "filter": r,
                "stride": stride, "dtype": dtype::<E>() });
            row::<E>("conv2d", format!("{name}-{}", pass.name()), shape, setting).beside([peer])
        })
    });
    rows.collect()
}

fn compared_rows<E: CpuElement>() -> Vec<Row> {
    let rows = compared().into_iter().flat_map(|shape| {
        BATCHES.into_iter().flat_map(move |n| {
            PASSES.into_iter().flat_map(move |pass| {
                Algorithm::ALL.map(|algorithm| {
                    let setting = Setting { n, pass, algorithms: Algorithms::all(algorithm), packs: true };
                    let Conv2dShape { c, h, k, .. } = shape;
                    let name = format!("{c}-{k}x{h}x{h}-b{n}-{}-{}", pass.name(), algorithm.name());
                    row::<E>("conv2d-algorithm", name, shape, setting)
                })
            })
        })
    });
    rows.collect()
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

fn row<E: CpuElement>(group: &'static str, name: String, shape: Conv2dShape, setting: Setting) -> Row {
    let flops = 2.0 * (setting.n * shape.macs()) as f64;
    let name = if E::IS_BF16 { format!("{name}-bf16") } else { name };
    Row::new(
        group,
        name,
        Some((flops, "FLOP/s")),
        Prepare::host(move |seed| setting.prepare::<E>(shape, seed)),
    )
}

impl Setting {
    fn prepare<E: CpuElement>(self, shape: Conv2dShape, seed: u64) -> Box<dyn FnMut()> {
        let Self { n, pass, algorithms, packs } = self;
        let conv = conv2d::passes::<E>(&shape, algorithms);
        let mut scratch = vec![0.0; conv.scratch_len(n)];
        let filter = uniform(seed + 1, shape.filter_len());
        match pass {
            Pass::Fprop => {
                let (x, mut y) =
                    (stored::<E>(seed, n * shape.x_len()), vec![E::default(); n * shape.y_len()]);
                let (mut packed, range) = aligned(conv.packed_fprop_len());
                conv.pack_fprop(&filter, &mut packed[range.clone()]);
                Box::new(move || {
                    let conv = conv2d::passes::<E>(&shape, algorithms);
                    let packed = &mut packed[range.clone()];
                    if packs {
                        conv.pack_fprop(&filter, packed);
                    }
                    conv.fprop(n, &x, packed, Epilogue::default(), black_box(&mut y), &mut scratch);
                })
            }
            Pass::Dgrad => {
                let (dy, mut dx) =
                    (stored::<E>(seed, n * shape.y_len()), vec![E::default(); n * shape.x_len()]);
                let (mut packed, range) = aligned(conv.packed_dgrad_len());
                conv.pack_dgrad(&filter, &mut packed[range.clone()]);
                Box::new(move || {
                    let conv = conv2d::passes::<E>(&shape, algorithms);
                    let packed = &mut packed[range.clone()];
                    if packs {
                        conv.pack_dgrad(&filter, packed);
                    }
                    conv.dgrad(n, &dy, packed, black_box(&mut dx), &mut scratch);
                })
            }
            Pass::Wgrad => {
                let (x, dy) =
                    (stored::<E>(seed, n * shape.x_len()), stored::<E>(seed + 1, n * shape.y_len()));
                let mut dfilter = vec![0.0; shape.filter_len()];
                Box::new(move || {
                    let conv = conv2d::passes::<E>(&shape, algorithms);
                    conv.wgrad(n, &x, &dy, black_box(&mut dfilter), &mut scratch);
                })
            }
        }
    }
}

fn stored<E: CpuElement>(seed: u64, len: usize) -> Vec<E> {
    uniform(seed, len).into_iter().map(E::from_f32).collect()
}

/// A vector and the part of it, `len` long, that begins at a cache line, as the executor's filters do.
fn aligned(len: usize) -> (Vec<f32>, Range<usize>) {
    let memory = vec![0.0; len + 16];
    let first = memory.as_ptr().align_offset(64).min(16);
    (memory, first..first + len)
}
