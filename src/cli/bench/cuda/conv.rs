//! Convolutions and linear layers at the shapes of ResNet and VGG on 32 x 32 images.

use super::data::{Stored, random, wrong};
use super::{FMA, Gpu};
use crate::cli::bench::{Failure, Row, Timed};
use crate::device::cuda::{Batch, CudaError, DeviceBuffer};
use crate::ops::conv2d::cuda::{self as conv2d, Epilogue, Pass};
use crate::rng::{Philox, Stream};
use crate::shape::Conv2dShape;
use half::bf16;

/// C, H and W, K, R and S, stride.
const SHAPES: [[usize; 5]; 12] = [
    [64, 32, 64, 3, 1],
    [128, 16, 128, 3, 1],
    [256, 8, 256, 3, 1],
    [512, 4, 512, 3, 1],
    [512, 2, 512, 3, 1],
    [64, 32, 128, 3, 2],
    [3, 32, 64, 3, 1],
    [64, 32, 256, 1, 1],
    [256, 32, 64, 1, 1],
    [1024, 8, 256, 1, 1],
    [256, 8, 1024, 1, 1],
    [2048, 4, 512, 1, 1],
];
/// Inputs and outputs of linear layers.
const LINEAR: [[usize; 2]; 3] = [[512, 10], [2048, 10], [2048, 1000]];
const PASSES: [(Pass, &str); 3] =
    [(Pass::Fprop, "fwd"), (Pass::Dgrad, "bwd_data"), (Pass::Wgrad, "bwd_weight")];
/// Results that are compared with the definition.
const CHECKED: u32 = 64;

pub(super) fn rows(gpu: &Gpu) -> Vec<Row> {
    let mut rows = Vec::new();
    for [c, hw, k, rs, stride] in SHAPES.into_iter().take(gpu.size(SHAPES.len(), 7)) {
        let shape = Conv2dShape { c, h: hw, w: hw, k, r: rs, s: rs, stride, pad: rs / 2, dilation: 1 };
        let strided = if stride == 2 { "/2" } else { "" };
        let tag = |n: usize| format!("conv {rs}x{rs}{strided} {n}x{c}x{hw}x{hw}->{k}");
        for (pass, name) in PASSES {
            if pass == Pass::Dgrad && c == 3 {
                continue; // nobody asks for the gradient of an image
            }
            let (few, many) = (gpu.size(64, 2), gpu.size(512, 3));
            rows.push(row::<bf16>(gpu, shape, many, pass, format!("{} {name}", tag(many))));
            rows.push(row::<bf16>(gpu, shape, few, pass, format!("{} {name}", tag(few))));
            rows.push(row::<f32>(gpu, shape, few, pass, format!("{} {name}", tag(few))));
        }
    }
    for [c, k] in LINEAR.into_iter().take(gpu.size(LINEAR.len(), 1)) {
        let shape = Conv2dShape { c, h: 1, w: 1, k, r: 1, s: 1, stride: 1, pad: 0, dilation: 1 };
        let n = gpu.size(512, 4);
        rows.push(row::<bf16>(gpu, shape, n, Pass::Fprop, format!("linear fwd {n}x{c}->{k}")));
    }
    rows
}

fn row<E: Stored>(gpu: &Gpu, shape: Conv2dShape, n: usize, pass: Pass, name: String) -> Row {
    let flop = 2.0 * (n * shape.macs()) as f64;
    let filter_bytes = shape.filter_len() * if pass == Pass::Wgrad { 4 } else { size_of::<E>() };
    let bytes = n * (shape.x_len() + shape.y_len()) * size_of::<E>() + filter_bytes;
    let multiplying = if E::IS_BF16 { gpu.matrix() } else { FMA };
    let bounds = vec![(flop, multiplying), (bytes as f64, super::COPY)];
    gpu.row(format!("{name} {}", E::NAME), (flop, "FLOP/s"), bounds, move |gpu, seed| {
        prepare::<E>(gpu, seed, shape, n, pass, bytes)
    })
}

/// Buffers of one launch; the result of the pass is poisoned.
struct Tensors<E> {
    x: DeviceBuffer<E>,
    filter: DeviceBuffer<E>,
    dfilter: DeviceBuffer<f32>,
    y: DeviceBuffer<E>,
}

fn prepare<E: Stored>(
    gpu: &Gpu,
    seed: u64,
    shape: Conv2dShape,
    n: usize,
    pass: Pass,
    bytes: usize,
) -> Result<Timed, Failure> {
    let x: Vec<E> = random(seed, n * shape.x_len());
    let filter: Vec<E> = random(seed + 1, shape.filter_len());
    let dy: Vec<E> = random(seed + 2, n * shape.y_len());
    let mut sets = Vec::new();
    for _ in 0..gpu.sets(bytes) {
        let is = |result: Pass| pass == result;
        sets.push(Tensors {
            x: if is(Pass::Dgrad) { gpu.poisoned(x.len())? } else { gpu.upload(&x)? },
            filter: gpu.upload(&filter)?,
            dfilter: gpu.poisoned(if is(Pass::Wgrad) { filter.len() } else { 0 })?,
            y: if is(Pass::Fprop) { gpu.poisoned(dy.len())? } else { gpu.upload(&dy)? },
        });
    }
    let mut scratch = gpu.zeros::<f32>(conv2d::scratch_len::<E>(&gpu.device, &shape, n))?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let mut launch = move |set: &mut Tensors<E>| -> Result<(), CudaError> {
        let batch = Batch { bucket: n, count: count.view() };
        let Tensors { x, filter, dfilter, y } = set;
        let (filter, scratch) = (filter.view(), scratch.view_mut());
        match pass {
            Pass::Fprop => {
                let epilogue = Epilogue::default();
                conv2d::fprop(&device, &shape, batch, x.view(), filter, epilogue, y.view_mut(), scratch)
            }
            Pass::Dgrad => {
                conv2d::dgrad(&device, &shape, batch, y.view(), filter, x.view_mut(), false, scratch)
            }
            Pass::Wgrad => {
                conv2d::wgrad(&device, &shape, batch, x.view(), y.view(), dfilter.view_mut(), scratch)
            }
        }
    };
    launch(&mut sets[0])?;
    let found = match pass {
        Pass::Fprop => gpu.values(sets[0].y.view())?,
        Pass::Dgrad => gpu.values(sets[0].x.view())?,
        Pass::Wgrad => gpu.values(sets[0].dfilter.view())?,
    };
    check::<E>(&found, &shape, pass, n, seed, (&x, &filter, &dy))?;
    gpu.replayed(move |i| {
        let at = i % sets.len();
        launch(&mut sets[at])
    })
}

/// Every result is a number, and some, drawn by chance, are what the definition says.
fn check<E: Stored>(
    found: &[f32],
    shape: &Conv2dShape,
    pass: Pass,
    n: usize,
    seed: u64,
    (x, filter, dy): (&[E], &[E], &[E]),
) -> Result<(), Failure> {
    if let Some(i) = found.iter().position(|value| !value.is_finite()) {
        return Err(wrong(i, found[i].into(), 0.0));
    }
    let mut rng = Philox::new(seed, Stream::Images, 1);
    let rounding = if pass == Pass::Wgrad { 0.0 } else { E::ROUNDING };
    for _ in 0..CHECKED {
        let at = rng.below(found.len() as u32) as usize;
        let (mut sum, mut size) = (0.0, 0.0);
        let mut add = |a: E, b: E| {
            let product = f64::from(a.value()) * f64::from(b.value());
            sum += product;
            size += product.abs();
        };
        for [image, p, q, k, r, s, c] in terms(shape, pass, n, at) {
            let Some(pixel) = input_pixel(shape, [p, q, r, s]) else { continue };
            let x = || x[image * shape.x_len() + pixel * shape.c + c];
            let filter = || filter[((k * shape.r + r) * shape.s + s) * shape.c + c];
            let dy = || dy[image * shape.y_len() + (p * shape.q() + q) * shape.k + k];
            match pass {
                Pass::Fprop => add(x(), filter()),
                Pass::Dgrad if pixel * shape.c + c == at % shape.x_len() => add(dy(), filter()),
                Pass::Dgrad => {}
                Pass::Wgrad => add(x(), dy()),
            }
        }
        // f32 sums err by a few roundings of the terms' sizes.
        let error = (f64::from(found[at]) - sum).abs();
        if error > rounding * sum.abs() + 1e-5 * size + 1e-6 {
            return Err(wrong(at, found[at].into(), sum));
        }
    }
    Ok(())
}

/// Where in its image the tap (r, s) of the output pixel (p, q) lies, unless it lies outside.
fn input_pixel(shape: &Conv2dShape, [p, q, r, s]: [usize; 4]) -> Option<usize> {
    let place = |out: usize, tap: usize| (out * shape.stride + tap * shape.dilation).checked_sub(shape.pad);
    let (h, w) = (place(p, r)?, place(q, s)?);
    (h < shape.h && w < shape.w).then_some(h * shape.w + w)
}

/// `[image, p, q, k, r, s, c]` of every product that may belong to result `at`.
fn terms(shape: &Conv2dShape, pass: Pass, n: usize, at: usize) -> Vec<[usize; 7]> {
    let Conv2dShape { c, k, r, s, .. } = *shape;
    let (p, q) = (shape.p(), shape.q());
    // Of each index, the values that it takes: one where the result fixes it.
    let one = |value: usize| value..value + 1;
    let [image, ps, qs, ks, rs, ss, cs] = match pass {
        Pass::Fprop => {
            let (pixel, channel) = (at / k, at % k);
            let image = pixel / (p * q);
            [one(image), one(pixel / q % p), one(pixel % q), one(channel), 0..r, 0..s, 0..c]
        }
        Pass::Dgrad => {
            let (pixel, channel) = (at / c, at % c);
            let (h, w) = (pixel / shape.w % shape.h, pixel % shape.w);
            let reached = |place: usize, taps: usize, extent: usize| {
                let far = (taps - 1) * shape.dilation;
                let first = (place + shape.pad).saturating_sub(far) / shape.stride;
                first..((place + shape.pad) / shape.stride + 1).min(extent)
            };
            let image = pixel / (shape.h * shape.w);
            [one(image), reached(h, r, p), reached(w, s, q), 0..k, 0..r, 0..s, one(channel)]
        }
        Pass::Wgrad => {
            let (row, channel) = (at / c, at % c);
            [0..n, 0..p, 0..q, one(row / (r * s)), one(row / s % r), one(row % s), one(channel)]
        }
    };
    let mut terms = Vec::new();
    for image in image {
        for p in ps.clone() {
            for q in qs.clone() {
                for k in ks.clone() {
                    for r in rs.clone() {
                        for s in ss.clone() {
                            terms.extend(cs.clone().map(|c| [image, p, q, k, r, s, c]));
                        }
                    }
                }
            }
        }
    }
    terms
}
