//! Launches of `kernels/conv2d_*_wgmma.cu`: convolutions in bf16 by Hopper's warpgroup instructions.

mod plan;

pub(super) use plan::{STATISTICS_ROWS, choose, kernel, supports, tiles};

use super::Epilogue;
use super::algorithm::{Algorithm, Pass};
use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Grid, View, ViewMut, tiled_map};
use crate::shape::Conv2dShape;
use cudarc::driver::sys::CUtensorMap;
use plan::{Class, Compiled, PANEL, Product, STAGING_BYTES, WGRAD_SUM, find};

/// Threads of a block: a warpgroup that copies and two that compute.
const BLOCK_SIZE: u32 = 384;

fn describe(shape: &Conv2dShape, bucket: usize) -> String {
    format!("{bucket} images of bf16, {shape:?}")
}

/// The filter [K, R*S, C], copied as rows of 64 channels of some output channels at one place.
fn filter_map<E: Element>(
    kernel: &'static str,
    shape: &Conv2dShape,
    filter: &View<'_, E>,
    output_channels: usize,
) -> Result<CUtensorMap, CudaError> {
    let extents = [shape.k, shape.r * shape.s, shape.c];
    tiled_map(kernel, ("filter", filter), extents, [output_channels as u32, 1])
}

/// At most a block a multiprocessor: each takes tiles by turns.
fn image_grid(device: &CudaDevice, product: &Product, tile: &Compiled) -> Grid {
    let blocks = product.tiles(tile).min(device.multiprocessors() as usize);
    let statistics = tile.m / 16 * 2 * tile.n * size_of::<f32>();
    let shared = tile.ring_bytes() + STAGING_BYTES + statistics;
    Grid { blocks: [blocks as u32, 1, 1], threads: BLOCK_SIZE, shared_bytes: shared as u32 }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn fprop<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    filter: View<'_, E>,
    mut epilogue: Epilogue<'_>,
    mut y: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let tile = find(Pass::Fprop, algorithm.tile);
    let mut product = Product::over_x(shape, Pass::Fprop, bucket);
    product.map.pixels = tile.m as u32;
    check_access::<E>(algorithm, device, shape, Pass::Fprop, bucket, y.address());
    let x_map = product.map.encode(tile.entry, ("x", &x))?;
    let filter_map = filter_map(tile.entry, shape, &filter, tile.n)?;
    let mut launch = device.launch(tile.entry)?;
    launch.output(&mut y).optional_output(epilogue.statistics.as_mut()).map(&x_map).map(&filter_map);
    launch.optional_input(epilogue.bias.as_ref()).input(&count);
    let (p, q) = (shape.p(), shape.q());
    for extent in [shape.c, shape.k, p, q, shape.r, shape.s, shape.stride, shape.pad, shape.dilation] {
        launch.scalar(extent as i32);
    }
    launch.scalar(i32::from(epilogue.relu));
    // SAFETY: the arguments are the kernel's, in order and type; it writes at most the bucket's rows of `y` and their
    // statistics, and reads through maps of `x` and `filter`.
    unsafe { launch.run(image_grid(device, &product, tile), || describe(shape, bucket)) }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn dgrad<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    filter: View<'_, E>,
    mut dx: ViewMut<'_, E>,
    accumulate: bool,
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let tile = find(Pass::Dgrad, algorithm.tile);
    check_access::<E>(algorithm, device, shape, Pass::Dgrad, bucket, dx.address());
    let filter_map = filter_map(tile.entry, shape, &filter, PANEL)?;
    for class in Class::all(shape) {
        let mut product = class.product(shape, bucket);
        // Where no tap reaches, the gradient is 0.
        if accumulate && product.steps == 0 {
            continue;
        }
        product.map.pixels = tile.m as u32;
        let dy_map = product.map.encode(tile.entry, ("dy", &dy))?;
        let mut launch = device.launch(tile.entry)?;
        launch.output(&mut dx).map(&dy_map).map(&filter_map).input(&count);
        launch.scalar(shape.c as i32).scalar(shape.k as i32);
        launch.scalar(class.pixels[0] as i32).scalar(class.pixels[1] as i32);
        launch.scalar(class.lower[0] as i32).scalar(class.lower[1] as i32).scalar(class.tap_offset as i32);
        launch.scalar(class.taps[0] as i32).scalar(class.taps[1] as i32);
        launch.scalar((class.last_tap[0] * shape.s + class.last_tap[1]) as i32).scalar(shape.s as i32);
        launch.scalar(shape.stride as i32).scalar(class.first[0] as i32).scalar(class.first[1] as i32);
        launch.scalar(shape.h as i32).scalar(shape.w as i32).scalar(i32::from(accumulate));
        // SAFETY: the arguments are the kernel's, in order and type; it writes at most the class's pixels of the bucket's
        // images in `dx`, and reads through maps of `dy` and `filter`.
        unsafe { launch.run(image_grid(device, &product, tile), || describe(shape, bucket)) }?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
pub(super) fn wgrad<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    dy: View<'_, E>,
    mut dfilter: ViewMut<'_, f32>,
    mut scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let (tile, splits, numel) = (find(Pass::Wgrad, algorithm.tile), algorithm.splits, shape.filter_len());
    let product = Product::over_x(shape, Pass::Wgrad, bucket);
    check_access::<E>(algorithm, device, shape, Pass::Wgrad, bucket, 0);
    let x_map = product.map.encode(tile.entry, ("x", &x))?;
    let pixels = bucket * shape.p() * shape.q();
    let dy_map = tiled_map(tile.entry, ("dy", &dy), [pixels, shape.k], [PANEL as u32])?;
    let mut launch = device.launch(tile.entry)?;
    match splits {
        1 => launch.output(&mut dfilter),
        _ => launch.output(&mut scratch),
    };
    launch.map(&x_map).map(&dy_map).input(&count);
    let (p, q) = (shape.p(), shape.q());
    for extent in [shape.c, shape.k, p, q, shape.r, shape.s, shape.stride, shape.pad, shape.dilation, splits]
    {
        launch.scalar(extent as i32);
    }
    let blocks = [(product.tiles(tile) * splits) as u32, 1, 1];
    let grid = Grid { blocks, threads: BLOCK_SIZE, shared_bytes: tile.ring_bytes() as u32 };
    // SAFETY: the arguments are the kernel's, in order and type; it writes `splits` filters of partial sums, for which the
    // scratch was checked, or `dfilter`, and reads through maps of `x` and `dy`.
    unsafe { launch.run(grid, || describe(shape, bucket)) }?;
    if splits == 1 {
        return Ok(());
    }
    let mut launch = device.launch(WGRAD_SUM)?;
    launch.output(&mut dfilter).input(&scratch.view()).scalar(splits as i32).scalar(numel as i64);
    let shapes = || format!("{splits} parts of {}", describe(shape, bucket));
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `numel` of `dfilter` and `splits` times
    // that of the partial sums.
    unsafe { launch.run(device.grid_stride(numel), shapes) }
}

/// What the kernels rest on; the driver checks the addresses that go into maps.
fn check_access<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    pass: Pass,
    bucket: usize,
    output: u64,
) {
    assert!(
        supports::<E>(device, shape, pass, bucket) && (algorithm.splits == 1 || pass == Pass::Wgrad),
        "{algorithm:?} cannot compute {pass:?} of {} here",
        describe(shape, bucket)
    );
    assert!(
        output.is_multiple_of(16),
        "the tensors of a convolution start at multiples of 16 bytes: {output:x}"
    );
}
