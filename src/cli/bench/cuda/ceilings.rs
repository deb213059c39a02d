//! What the device can do at best: move bytes, multiply.

use super::data::{random, wrong};
use super::{COPY, FILL, FMA, Gpu, MMA, READ, WGMMA};
use crate::cli::bench::{Failure, Row, Timed};
use crate::device::cuda::peak::{self, FMA_FLOP, FMA_LANES, Product, THREADS};
use crate::device::cuda::{CudaDevice, CudaError, View, ViewMut};
use crate::ops::norm;
use half::bf16;

/// Bytes of the vectors that are moved: several times any GPU's cache.
const BYTES: usize = 1 << 30;
/// Steps of a multiplying kernel, so that it runs for a few milliseconds.
const STEPS: usize = 20_000;

type Multiply =
    fn(&CudaDevice, ViewMut<'_, f32>, View<'_, bf16>, View<'_, bf16>, usize) -> Result<(), CudaError>;

pub(super) fn rows(gpu: &Gpu) -> Vec<Row> {
    let bytes = gpu.size(BYTES, 1 << 16);
    let mut rows = vec![
        bandwidth(gpu, COPY, 2 * bytes, move |gpu, seed| copy(gpu, seed, bytes / 4)),
        bandwidth(gpu, READ, bytes, move |gpu, seed| read(gpu, seed, bytes / 4)),
        bandwidth(gpu, FILL, bytes, move |gpu, _| fill(gpu, bytes / 4)),
        fma(gpu),
        product(gpu, MMA, peak::mma, Product::MMA, 2),
    ];
    if gpu.device.has_kernel("peak_wgmma_bf16") {
        rows.push(product(gpu, WGMMA, peak::wgmma, Product::WGMMA, 1));
    }
    rows
}

fn bandwidth(
    gpu: &Gpu,
    name: &'static str,
    bytes: usize,
    prepare: impl FnOnce(&Gpu, u64) -> Result<Timed, Failure> + 'static,
) -> Row {
    let row = gpu.row(format!("ceiling {name}"), (bytes as f64, "bytes/s"), Vec::new(), prepare);
    Row { measures: Some(name), ..row }
}

fn copy(gpu: &Gpu, seed: u64, numel: usize) -> Result<Timed, Failure> {
    let values: Vec<f32> = random(seed, numel);
    let (from, mut to) = (gpu.upload(&values)?, gpu.poisoned::<f32>(numel)?);
    let device = gpu.device.clone();
    device.copy(from.view(), to.view_mut())?;
    gpu.check(to.view(), &values, 0.0)?;
    gpu.replayed(move |_| device.copy(from.view(), to.view_mut()))
}

/// The sum of squares: reads every byte and writes next to none.
fn read(gpu: &Gpu, seed: u64, numel: usize) -> Result<Timed, Failure> {
    let values: Vec<f32> = random(seed, numel);
    let expected: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
    let x = gpu.upload(&values)?;
    let (mut out, mut scratch) = (gpu.zeros::<f64>(1)?, gpu.zeros::<f64>(norm::cuda::scratch_len(numel))?);
    let device = gpu.device.clone();
    norm::cuda::sum_of_squares(&device, x.view(), out.view_mut(), scratch.view_mut())?;
    let found = device.download(out.view())?[0];
    if (found - expected).abs() > 1e-9 * expected {
        return Err(wrong(0, found, expected));
    }
    gpu.replayed(move |_| norm::cuda::sum_of_squares(&device, x.view(), out.view_mut(), scratch.view_mut()))
}

fn fill(gpu: &Gpu, numel: usize) -> Result<Timed, Failure> {
    let mut to = gpu.poisoned::<f32>(numel)?;
    let device = gpu.device.clone();
    device.fill_zero(to.view_mut())?;
    gpu.check(to.view(), &vec![0.0; numel], 0.0)?;
    gpu.replayed(move |_| device.fill_zero(to.view_mut()))
}

fn fma(gpu: &Gpu) -> Row {
    // Blocks of 256 threads with 80 registers: three fit a multiprocessor.
    let blocks = 3 * gpu.size(gpu.device.multiprocessors() as usize, 1);
    let steps = gpu.size(STEPS, 8);
    let flop = (blocks * THREADS as usize * FMA_FLOP * steps) as f64;
    let row = gpu.row(format!("ceiling {FMA}"), (flop, "FLOP/s"), Vec::new(), move |gpu, seed| {
        let (a, b) = (random::<f32>(seed, THREADS as usize * FMA_LANES), random::<f32>(seed + 1, FMA_LANES));
        let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>();
        let expected: Vec<f64> = a.chunks(FMA_LANES).map(|row| 8.0 * sum(row) * sum(&b)).collect();
        let (left, right) = (gpu.upload(&a)?, gpu.upload(&b)?);
        let mut out = gpu.poisoned::<f32>(blocks * THREADS as usize)?;
        let device = gpu.device.clone();
        peak::fma(&device, out.view_mut(), left.view(), right.view(), 8)?;
        for (i, found) in gpu.values(out.view())?.into_iter().enumerate() {
            let expected = expected[i % expected.len()];
            let apart = (f64::from(found) - expected).abs();
            if apart.is_nan() || apart > 1e-3 {
                return Err(wrong(i, found.into(), expected));
            }
        }
        gpu.replayed(move |_| peak::fma(&device, out.view_mut(), left.view(), right.view(), steps))
    });
    Row { measures: Some(FMA), ..row }
}

fn product(gpu: &Gpu, name: &'static str, multiply: Multiply, shape: Product, per_processor: usize) -> Row {
    let blocks = per_processor * gpu.size(gpu.device.multiprocessors() as usize, 1);
    let steps = gpu.size(STEPS, 8);
    let flop = (blocks * shape.flop() * steps) as f64;
    let row = gpu.row(format!("ceiling {name}"), (flop, "FLOP/s"), Vec::new(), move |gpu, seed| {
        let Product { rows, columns, depth, .. } = shape;
        let (a, b) = (random::<bf16>(seed, rows * depth), random::<bf16>(seed + 1, columns * depth));
        let (left, right) = (gpu.upload(&a)?, gpu.upload(&b)?);
        let mut out = gpu.poisoned::<f32>(shape.out_len(blocks))?;
        let device = gpu.device.clone();
        multiply(&device, out.view_mut(), left.view(), right.view(), 8)?;
        for (i, found) in gpu.values(out.view())?.into_iter().enumerate() {
            let (row, column) = (i / columns % rows, i % columns);
            let term = |k: usize| a[row * depth + k].to_f64() * b[column * depth + k].to_f64();
            let expected = 8.0 * (0..depth).map(term).sum::<f64>();
            let apart = (f64::from(found) - expected).abs();
            if apart.is_nan() || apart > 1e-3 {
                return Err(wrong(i, found.into(), expected));
            }
        }
        gpu.replayed(move |_| multiply(&device, out.view_mut(), left.view(), right.view(), steps))
    });
    Row { measures: Some(name), ..row }
}
