//! The first and last layers of a network: input, dropout, bias, loss, and the shortcut without parameters.

use super::Gpu;
use super::data::{Stored, random, values};
use crate::cli::bench::{Failure, Row, Timed};
use crate::device::cuda::{Batch, DeviceBuffer};
use crate::ops::dropout::cuda::Draw;
use crate::ops::input::{Normalizer, Placement};
use crate::ops::pad_shortcut::PadShortcutShape;
use crate::ops::{dropout, input, linear, pad_shortcut, softmax_xent};
use crate::rng::{Philox, Stream};
use crate::shape::ImageShape;
use half::bf16;

/// Features of VGG's hidden linear layers.
const FEATURES: usize = 4096;
const IMAGE: ImageShape = ImageShape { h: 32, w: 32, c: 3 };

/// What a launch reads and writes, in several sets that are taken in turn so that no cache holds them.
type Pair<A, B> = (DeviceBuffer<A>, DeviceBuffer<B>);

pub(super) fn rows(gpu: &Gpu) -> Vec<Row> {
    [rows_of::<bf16>(gpu), rows_of::<f32>(gpu)].into_iter().flatten().collect()
}

fn rows_of<E: Stored>(gpu: &Gpu) -> Vec<Row> {
    let (n, size) = (gpu.size(512, 3), size_of::<E>());
    let mut rows = Vec::new();
    for classes in [10, 1000] {
        let name = format!("softmax-CE fwd+bwd {n}x{classes} {}", E::NAME);
        rows.push(
            gpu.memory_row(name, 2 * n * classes * size, move |gpu, seed| loss::<E>(gpu, seed, n, classes)),
        );
    }
    let numel = n * IMAGE.numel();
    rows.push(gpu.memory_row(
        format!("input {n}x32x32x3 {}", E::NAME),
        numel * (1 + size),
        move |gpu, seed| images::<E>(gpu, seed, n),
    ));
    let name = format!("dropout {n}x{FEATURES} {}", E::NAME);
    rows.push(gpu.memory_row(name, 2 * n * FEATURES * size, move |gpu, seed| masks::<E>(gpu, seed, n)));
    let name = format!("bias bwd {n}x{FEATURES} {}", E::NAME);
    rows.push(gpu.memory_row(name, n * FEATURES * size, move |gpu, seed| bias::<E>(gpu, seed, n)));
    let shape = PadShortcutShape { c: 16, h: 32, w: 32, k: 32, stride: 2 };
    for (pass, backward) in [("fwd", false), ("bwd", true)] {
        // Forward reads a quarter of the pixels, backward half of the channels.
        let bytes = match backward {
            false => n * (shape.x_len() / 4 + shape.y_len()) * size,
            true => n * (shape.x_len() + shape.y_len() / 2) * size,
        };
        let name = format!("pad-shortcut {pass} {n}x16x32x32->32 {}", E::NAME);
        rows.push(gpu.memory_row(name, bytes, move |gpu, seed| shortcut::<E>(gpu, seed, n, shape, backward)));
    }
    rows
}

fn loss<E: Stored>(gpu: &Gpu, seed: u64, n: usize, classes: usize) -> Result<Timed, Failure> {
    let logits: Vec<E> = random(seed, n * classes);
    let labels: Vec<u32> = (0..n as u32).map(|i| i % classes as u32).collect();
    let mut expected = vec![0.0; logits.len()];
    softmax_xent::forward_backward(n, classes, &values(&logits), &labels, &mut expected)?;
    let mut sets = Vec::new();
    for _ in 0..gpu.sets(2 * n * classes * size_of::<E>()) {
        sets.push((gpu.upload(&logits)?, gpu.poisoned::<E>(n * classes)?));
    }
    let labels = gpu.upload(&labels)?;
    let (mut stats, mut scratch) = (gpu.zeros::<f64>(3)?, gpu.zeros::<f64>(3 * n)?);
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let mut launch = move |(logits, dlogits): &mut Pair<E, E>| {
        let batch = Batch { bucket: n, count: count.view() };
        let (logits, labels) = (logits.view(), labels.view());
        let (stats, scratch) = (stats.view_mut(), scratch.view_mut());
        let dlogits = dlogits.view_mut();
        softmax_xent::cuda::forward_backward(&device, classes, batch, logits, labels, dlogits, stats, scratch)
    };
    launch(&mut sets[0])?;
    gpu.check(sets[0].1.view(), &expected, 1e-5)?;
    gpu.rotated(sets, launch)
}

fn images<E: Stored>(gpu: &Gpu, seed: u64, n: usize) -> Result<Timed, Failure> {
    let mut rng = Philox::new(seed, Stream::Images, 0);
    let pixels: Vec<u8> = (0..n * IMAGE.numel()).map(|_| rng.below(256) as u8).collect();
    let drawn: Vec<[i32; 3]> =
        (0..n).map(|_| [rng.below(9) as i32 - 4, rng.below(9) as i32 - 4, rng.below(2) as i32]).collect();
    let normalizer = Normalizer::new(&[0.5; 3], &[0.25; 3]);
    let mut expected = vec![0.0; pixels.len()];
    let images = pixels.chunks(IMAGE.numel()).zip(expected.chunks_mut(IMAGE.numel()));
    for ((pixels, out), &[offset_h, offset_w, flip]) in images.zip(&drawn) {
        let (offset_h, offset_w) = (offset_h as isize, offset_w as isize);
        let placement = Placement { offset_h, offset_w, flip: flip != 0 };
        input::write_image(IMAGE, pixels, &normalizer, placement, out);
    }
    let mut sets = Vec::new();
    for _ in 0..gpu.sets(pixels.len() * (1 + size_of::<E>())) {
        sets.push((gpu.upload(&pixels)?, gpu.poisoned::<E>(expected.len())?));
    }
    let placements = gpu.upload(drawn.as_flattened())?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let launch = move |(pixels, x): &mut Pair<u8, E>| {
        let batch = Batch { bucket: n, count: count.view() };
        let (pixels, placements) = (pixels.view(), placements.view());
        input::cuda::write_batch(&device, IMAGE, batch, pixels, placements, &normalizer, x.view_mut())
    };
    launch(&mut sets[0])?;
    gpu.check(sets[0].1.view(), &expected, 1e-6)?;
    gpu.rotated(sets, launch)
}

fn masks<E: Stored>(gpu: &Gpu, seed: u64, n: usize) -> Result<Timed, Failure> {
    let x: Vec<E> = random(seed, n * FEATURES);
    let mut expected = vec![0.0; x.len()];
    // Layer 1 of 2 in pass 3.
    dropout::forward(0.5, seed, 3 * 2 + 1, &values(&x), &mut expected);
    let mut sets = Vec::new();
    for _ in 0..gpu.sets(2 * n * FEATURES * size_of::<E>()) {
        sets.push((gpu.upload(&x)?, gpu.poisoned::<E>(n * FEATURES)?));
    }
    let (count, index) = (gpu.upload(&[n as i32])?, gpu.upload(&[3u64])?);
    let device = gpu.device.clone();
    let launch = move |(x, y): &mut Pair<E, E>| {
        let batch = Batch { bucket: n, count: count.view() };
        let draw = Draw { seed, index: index.view(), layers: 2, ordinal: 1 };
        dropout::cuda::forward(&device, 0.5, draw, FEATURES, batch, x.view(), y.view_mut())
    };
    launch(&mut sets[0])?;
    gpu.check(sets[0].1.view(), &expected, 0.0)?;
    gpu.rotated(sets, launch)
}

fn bias<E: Stored>(gpu: &Gpu, seed: u64, n: usize) -> Result<Timed, Failure> {
    let dy: Vec<E> = random(seed, n * FEATURES);
    let mut expected = vec![0.0; FEATURES];
    let mut sums = vec![0.0; linear::bias_scratch_len(n, FEATURES)];
    linear::bias_backward(n, FEATURES, &values(&dy), &mut expected, &mut sums);
    let mut sets = Vec::new();
    for _ in 0..gpu.sets(n * FEATURES * size_of::<E>()) {
        sets.push((gpu.upload(&dy)?, gpu.poisoned::<f32>(FEATURES)?));
    }
    let mut scratch = gpu.zeros::<f32>(linear::cuda::bias_scratch_len(1, FEATURES, n))?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let mut launch = move |(dy, dbias): &mut Pair<E, f32>| {
        let batch = Batch { bucket: n, count: count.view() };
        let (dy, dbias, scratch) = (dy.view_mut(), dbias.view_mut(), scratch.view_mut());
        linear::cuda::bias_backward(&device, 1, FEATURES, batch, None, dy, dbias, scratch)
    };
    launch(&mut sets[0])?;
    gpu.check(sets[0].1.view(), &expected, 1e-5)?;
    gpu.rotated(sets, launch)
}

fn shortcut<E: Stored>(
    gpu: &Gpu,
    seed: u64,
    n: usize,
    shape: PadShortcutShape,
    backward: bool,
) -> Result<Timed, Failure> {
    let (x_len, y_len) = (n * shape.x_len(), n * shape.y_len());
    let (from_len, to_len) = if backward { (y_len, x_len) } else { (x_len, y_len) };
    let from: Vec<E> = random(seed, from_len);
    let mut expected = vec![0.0; to_len];
    match backward {
        false => pad_shortcut::forward(&shape, n, &values(&from), &mut expected),
        true => pad_shortcut::backward(&shape, n, &values(&from), &mut expected),
    }
    let mut sets = Vec::new();
    for _ in 0..gpu.sets((from_len + to_len) * size_of::<E>()) {
        sets.push((gpu.upload(&from)?, gpu.poisoned::<E>(to_len)?));
    }
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let launch = move |(from, to): &mut Pair<E, E>| {
        let batch = Batch { bucket: n, count: count.view() };
        match backward {
            false => pad_shortcut::cuda::forward(&device, &shape, batch, from.view(), to.view_mut()),
            true => pad_shortcut::cuda::backward(&device, &shape, batch, from.view(), to.view_mut()),
        }
    };
    launch(&mut sets[0])?;
    gpu.check(sets[0].1.view(), &expected, 0.0)?;
    gpu.rotated(sets, launch)
}
