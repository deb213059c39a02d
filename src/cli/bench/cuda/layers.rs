//! Layers between convolutions: batch norm, ReLU, sums, pools, at the shapes of ResNet and VGG.

use super::Gpu;
use super::data::{Stored, random, values};
use crate::cli::bench::{Failure, Row, Timed};
use crate::device::cuda::{Batch, DeviceBuffer};
use crate::ops::batchnorm2d::cuda::{self as bn, Mask};
use crate::ops::batchnorm2d::{self, Epilogue, Parameters};
use crate::ops::pool2d::{self, AdaptiveAvgShape, Pool2dShape};
use crate::ops::{elementwise, relu};
use half::bf16;

/// C, and H = W.
const SHAPES: [[usize; 2]; 3] = [[64, 32], [256, 8], [512, 4]];

pub(super) fn rows(gpu: &Gpu) -> Vec<Row> {
    [rows_of::<bf16>(gpu), rows_of::<f32>(gpu), super::heads::rows(gpu)].into_iter().flatten().collect()
}

fn rows_of<E: Stored>(gpu: &Gpu) -> Vec<Row> {
    let n = gpu.size(512, 3);
    let mut rows = Vec::new();
    for [c, hw] in SHAPES.into_iter().take(gpu.size(SHAPES.len(), 1)) {
        let (pixels, tag) = (hw * hw, format!("{n}x{c}x{hw}x{hw} {}", E::NAME));
        let bytes = n * pixels * c * size_of::<E>();
        let mut add = |name: &str, bytes: usize, prepare: fn(&Gpu, u64, usize, [usize; 2]) -> _| {
            let row = move |gpu: &Gpu, seed| prepare(gpu, seed, n, [pixels, c]);
            rows.push(gpu.memory_row(format!("{name} {tag}"), bytes, row));
        };
        add("bn train fwd", 3 * bytes, |gpu, seed, n, [pixels, c]| {
            norm_forward::<E>(gpu, seed, n, [pixels, c], true)
        });
        add("bn normalize", 2 * bytes, |gpu, seed, n, [pixels, c]| {
            norm_forward::<E>(gpu, seed, n, [pixels, c], false)
        });
        add("bn train bwd", 5 * bytes, |gpu, seed, n, extent| {
            norm_backward::<E>(gpu, seed, n, extent, false)
        });
        add("bn + relu train bwd", 5 * bytes, |gpu, seed, n, extent| {
            norm_backward::<E>(gpu, seed, n, extent, true)
        });
        add("relu bwd", 3 * bytes, relu_backward::<E>);
        add("add", 3 * bytes, sum::<E>);
    }
    let [c, hw] = SHAPES[0];
    let pool = Pool2dShape { c, h: hw, w: hw, window: 2, stride: 2, pad: 0 };
    let large = Pool2dShape { window: 3, pad: 1, ..pool };
    for (name, shape) in [("maxpool2x2", pool), ("maxpool3x3/2", large)] {
        let bytes = n * (shape.x_len() + shape.y_len()) * size_of::<E>() + n * shape.y_len();
        for (pass, backward) in [("fwd", false), ("bwd", true)] {
            let name = format!("{name} {pass} {n}x{c}x{hw}x{hw} {}", E::NAME);
            rows.push(gpu.memory_row(name, bytes, move |gpu, seed| max::<E>(gpu, seed, n, shape, backward)));
        }
    }
    let [c, hw] = SHAPES[2];
    let shape = AdaptiveAvgShape { c, h: hw, w: hw, out_h: 1, out_w: 1 };
    let bytes = n * (shape.x_len() + shape.y_len()) * size_of::<E>();
    for (pass, backward) in [("fwd", false), ("bwd", true)] {
        let name = format!("avgpool {pass} {n}x{c}x{hw}x{hw} {}", E::NAME);
        rows.push(gpu.memory_row(name, bytes, move |gpu, seed| average::<E>(gpu, seed, n, shape, backward)));
    }
    rows
}

/// An input or output for each of the launches that take turns.
struct Turns<E>(Vec<[DeviceBuffer<E>; 2]>);

impl<E: Stored> Turns<E> {
    /// The second of each pair is a copy of `second`, or poisoned.
    fn new(gpu: &Gpu, first: &[E], second: Result<&[E], usize>) -> Result<Self, Failure> {
        let len = first.len() + second.map_or_else(|len| len, <[E]>::len);
        let mut turns = Vec::new();
        for _ in 0..gpu.sets(len * size_of::<E>()) {
            let second = match second {
                Ok(values) => gpu.upload(values)?,
                Err(len) => gpu.poisoned(len)?,
            };
            turns.push([gpu.upload(first)?, second]);
        }
        Ok(Self(turns))
    }

    fn at(&mut self, i: usize) -> &mut [DeviceBuffer<E>; 2] {
        let at = i % self.0.len();
        &mut self.0[at]
    }
}

/// Offsets far enough from 0 that rounding decides nowhere what a ReLU lets through.
fn offsets(c: usize) -> Vec<f32> {
    (0..c).map(|channel| if channel % 2 == 0 { 3.0 } else { -3.0 }).collect()
}

/// Of `x` on the CPU: the output, mean and inverse deviation.
fn cpu_norm(x: &[f32], c: usize, beta: &[f32], relu: bool) -> [Vec<f32>; 3] {
    let extent = batchnorm2d::Extent { rows: x.len() / c, c };
    let (mut y, mut mean, mut inv_std) = (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c]);
    let (mut running_mean, mut running_var) = (vec![0.0; c], vec![1.0; c]);
    let statistics = batchnorm2d::TrainStatistics {
        saved_mean: &mut mean,
        saved_inv_std: &mut inv_std,
        running_mean: &mut running_mean,
        running_var: &mut running_var,
    };
    let mut scratch = vec![0.0; batchnorm2d::scratch_len(extent.rows, c)];
    let parameters = Parameters { gamma: &vec![1.0; c], beta };
    let epilogue = Epilogue { shortcut: None, relu };
    batchnorm2d::forward_train(extent, x, parameters, epilogue, &mut y, statistics, &mut scratch);
    [y, mean, inv_std]
}

/// Statistics and normalisation, or the latter alone, as after a convolution that brings the statistics.
fn norm_forward<E: Stored>(
    gpu: &Gpu,
    seed: u64,
    n: usize,
    [pixels, c]: [usize; 2],
    statistics: bool,
) -> Result<Timed, Failure> {
    let x: Vec<E> = random(seed, n * pixels * c);
    let beta = offsets(c);
    let [expected, ..] = cpu_norm(&values(&x), c, &beta, true);
    let mut turns = Turns::new(gpu, &x, Err(x.len()))?;
    let (gamma, beta) = (gpu.upload(&vec![1.0f32; c])?, gpu.upload(&beta)?);
    let (mut mean, mut inv_std) = (gpu.zeros::<f32>(c)?, gpu.zeros::<f32>(c)?);
    let (mut running_mean, mut running_var) = (gpu.zeros::<f32>(c)?, gpu.upload(&vec![1.0f32; c])?);
    let extent = bn::Extent { pixels, c };
    let mut partials = gpu.zeros::<f32>(bn::backward_scratch_len(extent, n))?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let mut launch = move |[x, y]: &mut [DeviceBuffer<E>; 2], statistics: bool| {
        let batch = Batch { bucket: n, count: count.view() };
        if statistics {
            bn::statistics(&device, extent, batch, x.view(), partials.view_mut())?;
            let tile_rows = bn::statistics_tile_rows(extent, n);
            let statistics = bn::TrainStatistics {
                saved_mean: mean.view_mut(),
                saved_inv_std: inv_std.view_mut(),
                running_mean: running_mean.view_mut(),
                running_var: running_var.view_mut(),
            };
            bn::finish_statistics(&device, extent, batch, tile_rows, partials.view(), statistics)?;
        }
        let (gamma, beta, mean, inv_std) = (gamma.view(), beta.view(), mean.view(), inv_std.view());
        let (x, y) = (x.view(), y.view_mut());
        bn::normalize(&device, extent, batch, x, gamma, beta, mean, inv_std, None, true, y)
    };
    launch(turns.at(0), true)?;
    gpu.check(turns.at(0)[1].view(), &expected, 1e-4)?;
    gpu.replayed(move |i| launch(turns.at(i), statistics))
}

fn norm_backward<E: Stored>(
    gpu: &Gpu,
    seed: u64,
    n: usize,
    [pixels, c]: [usize; 2],
    relu: bool,
) -> Result<Timed, Failure> {
    let (x, dy): (Vec<E>, Vec<E>) = (random(seed, n * pixels * c), random(seed + 1, n * pixels * c));
    let beta = offsets(c);
    let (host_x, mut host_dy) = (values(&x), values(&dy));
    let [y, mean, inv_std] = cpu_norm(&host_x, c, &beta, relu);
    let rows = batchnorm2d::Extent { rows: n * pixels, c };
    let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; c], vec![0.0; c]);
    let gamma = vec![1.0f32; c];
    let saved = batchnorm2d::Saved {
        x: &host_x,
        relu_y: relu.then_some(&y[..]),
        gamma: &gamma,
        mean: &mean,
        inv_std: &inv_std,
    };
    let gradients = batchnorm2d::Gradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta };
    let mut scratch = vec![0.0; batchnorm2d::scratch_len(n * pixels, c)];
    batchnorm2d::backward(rows, saved, &mut host_dy, gradients, &mut scratch);

    let mut turns = Turns::new(gpu, &x, Ok(&dy))?;
    let mut out = gpu.poisoned::<E>(x.len())?;
    let [gamma, beta, mean, inv_std] = [gamma, beta, mean, inv_std].map(|values| gpu.upload(&values));
    let (gamma, beta, mean, inv_std) = (gamma?, beta?, mean?, inv_std?);
    let (mut dgamma, mut dbeta) = (gpu.poisoned::<f32>(c)?, gpu.poisoned::<f32>(c)?);
    let extent = bn::Extent { pixels, c };
    let mut scratch = gpu.zeros::<f32>(bn::backward_scratch_len(extent, n))?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let mut launch = move |[x, dy]: &mut [DeviceBuffer<E>; 2], out: &mut DeviceBuffer<E>| {
        let batch = Batch { bucket: n, count: count.view() };
        let mask = if relu { Mask::FromInput { beta: beta.view() } } else { Mask::None };
        let saved = bn::Saved { gamma: gamma.view(), mean: mean.view(), inv_std: inv_std.view() };
        let (dgamma, dbeta, scratch) = (dgamma.view_mut(), dbeta.view_mut(), scratch.view_mut());
        let (dy, out) = (dy.view_mut(), out.view_mut());
        bn::backward(&device, extent, batch, x.view(), mask, saved, dy, false, out, dgamma, dbeta, scratch)
    };
    launch(turns.at(0), &mut out)?;
    gpu.check(out.view(), &dx, 1e-4)?;
    gpu.replayed(move |i| launch(turns.at(i), &mut out))
}

fn relu_backward<E: Stored>(
    gpu: &Gpu,
    seed: u64,
    n: usize,
    [pixels, c]: [usize; 2],
) -> Result<Timed, Failure> {
    let (y, dy): (Vec<E>, Vec<E>) = (random(seed, n * pixels * c), random(seed + 1, n * pixels * c));
    let mut expected = values(&dy);
    relu::backward_inplace(&values(&y), &mut expected);
    let mut turns = Turns::new(gpu, &y, Ok(&dy))?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let launch = move |[y, dy]: &mut [DeviceBuffer<E>; 2]| {
        let batch = Batch { bucket: n, count: count.view() };
        relu::cuda::backward_inplace(&device, pixels * c, batch, y.view(), dy.view_mut())
    };
    launch(turns.at(0))?;
    gpu.check(turns.at(0)[1].view(), &expected, 0.0)?;
    gpu.replayed(move |i| launch(turns.at(i)))
}

fn sum<E: Stored>(gpu: &Gpu, seed: u64, n: usize, [pixels, c]: [usize; 2]) -> Result<Timed, Failure> {
    let (term, to): (Vec<E>, Vec<E>) = (random(seed, n * pixels * c), random(seed + 1, n * pixels * c));
    let mut expected = values(&to);
    elementwise::add_inplace(&mut expected, &values(&term));
    let mut turns = Turns::new(gpu, &term, Ok(&to))?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let launch = move |[term, to]: &mut [DeviceBuffer<E>; 2]| {
        let batch = Batch { bucket: n, count: count.view() };
        elementwise::cuda::add(&device, pixels * c, batch, to.view_mut(), term.view())
    };
    launch(turns.at(0))?;
    gpu.check(turns.at(0)[1].view(), &expected, 0.0)?;
    gpu.replayed(move |i| launch(turns.at(i)))
}

fn max<E: Stored>(
    gpu: &Gpu,
    seed: u64,
    n: usize,
    shape: Pool2dShape,
    backward: bool,
) -> Result<Timed, Failure> {
    let (x, dy): (Vec<E>, Vec<E>) = (random(seed, n * shape.x_len()), random(seed + 1, n * shape.y_len()));
    let (mut y, mut argmax) = (vec![0.0; dy.len()], vec![0; dy.len()]);
    pool2d::max_forward(&shape, n, &values(&x), &mut y, &mut argmax);
    let mut dx = vec![0.0; x.len()];
    pool2d::max_backward(&shape, n, &values(&dy), &argmax, &mut dx);
    let mut turns = match backward {
        false => Turns::new(gpu, &x, Err(dy.len()))?,
        true => Turns::new(gpu, &dy, Err(x.len()))?,
    };
    let mut argmax = gpu.upload(&argmax)?;
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let mut launch = move |[from, to]: &mut [DeviceBuffer<E>; 2]| {
        let batch = Batch { bucket: n, count: count.view() };
        let (from, to) = (from.view(), to.view_mut());
        match backward {
            false => pool2d::cuda::max_forward(&device, &shape, batch, from, to, argmax.view_mut()),
            true => pool2d::cuda::max_backward(&device, &shape, batch, from, argmax.view(), to),
        }
    };
    launch(turns.at(0))?;
    // Windows that overlap add up to four gradients.
    gpu.check(turns.at(0)[1].view(), if backward { &dx } else { &y }, 1e-6)?;
    gpu.replayed(move |i| launch(turns.at(i)))
}

fn average<E: Stored>(
    gpu: &Gpu,
    seed: u64,
    n: usize,
    shape: AdaptiveAvgShape,
    backward: bool,
) -> Result<Timed, Failure> {
    let (x, dy): (Vec<E>, Vec<E>) = (random(seed, n * shape.x_len()), random(seed + 1, n * shape.y_len()));
    let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
    pool2d::adaptive_avg_forward(&shape, n, &values(&x), &mut y);
    pool2d::adaptive_avg_backward(&shape, n, &values(&dy), &mut dx);
    let mut turns = match backward {
        false => Turns::new(gpu, &x, Err(dy.len()))?,
        true => Turns::new(gpu, &dy, Err(x.len()))?,
    };
    let count = gpu.upload(&[n as i32])?;
    let device = gpu.device.clone();
    let launch = move |[from, to]: &mut [DeviceBuffer<E>; 2]| {
        let batch = Batch { bucket: n, count: count.view() };
        match backward {
            false => pool2d::cuda::adaptive_avg_forward(&device, &shape, batch, from.view(), to.view_mut()),
            true => pool2d::cuda::adaptive_avg_backward(&device, &shape, batch, from.view(), to.view_mut()),
        }
    };
    launch(turns.at(0))?;
    gpu.check(turns.at(0)[1].view(), if backward { &dx } else { &y }, 1e-5)?;
    gpu.replayed(move |i| launch(turns.at(i)))
}
