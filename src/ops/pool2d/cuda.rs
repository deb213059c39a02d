//! Launches of `kernels/max_pool2d.cu` and `kernels/avg_pool2d.cu`.

use super::{AdaptiveAvgShape, Pool2dShape};
use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Launch, View, ViewMut, check_len};
use crate::ops::row_tiles::{RUN_LEN, RowTiles, check_batch, int, runs, tile_rows};

/// As [`super::max_forward`], for the batch's images.
///
/// # Shapes
/// `x`: `[bucket, H, W, C]`; `y`, `argmax`: `[bucket, P, Q, C]`
///
/// # Errors
/// Wrong lengths, a window that could miss the image, or the driver refuses the launch.
pub fn max_forward<E: Element>(
    device: &CudaDevice,
    shape: &Pool2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    mut y: ViewMut<'_, E>,
    mut argmax: ViewMut<'_, u8>,
) -> Result<(), CudaError> {
    let kernel = E::entry("max_pool2d_forward_f32", "max_pool2d_forward_bf16");
    check_max(kernel, shape, batch, ("x", x.len()), ("y", y.len()), argmax.len())?;
    let runs =
        runs::<E>(shape.c, &[x.address(), y.address()]) && argmax.address().is_multiple_of(RUN_LEN as u64);
    let rows = batch.bucket.saturating_mul(shape.p() * shape.q());
    let tile_rows = tile_rows(rows, shape.c);
    let grid = RowTiles::new(kernel, batch, (shape.p() * shape.q(), shape.c), tile_rows, runs)?;
    if grid.is_empty() {
        return Ok(());
    }
    let mut launch = device.launch(kernel)?;
    launch.output(&mut y).output(&mut argmax).input(&x);
    grid.push(&mut launch, batch);
    push_max(kernel, &mut launch, shape)?;
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of each tensor.
    unsafe { launch.run(grid.grid(), || format!("{} images, {shape:?}", batch.bucket)) }
}

/// As [`super::max_backward`], for the batch's images.
///
/// # Shapes
/// `dx`: `[bucket, H, W, C]`; `dy`, `argmax`: `[bucket, P, Q, C]`
///
/// # Errors
/// As [`max_forward`].
pub fn max_backward<E: Element>(
    device: &CudaDevice,
    shape: &Pool2dShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    argmax: View<'_, u8>,
    mut dx: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("max_pool2d_backward_f32", "max_pool2d_backward_bf16");
    check_max(kernel, shape, batch, ("dx", dx.len()), ("dy", dy.len()), argmax.len())?;
    let runs =
        runs::<E>(shape.c, &[dx.address(), dy.address()]) && argmax.address().is_multiple_of(RUN_LEN as u64);
    let tile_rows = tile_rows(batch.bucket.saturating_mul(shape.h * shape.w), shape.c);
    let grid = RowTiles::new(kernel, batch, (shape.h * shape.w, shape.c), tile_rows, runs)?;
    if grid.is_empty() {
        return Ok(());
    }
    let mut launch = device.launch(kernel)?;
    launch.output(&mut dx).input(&dy).input(&argmax);
    grid.push(&mut launch, batch);
    push_max(kernel, &mut launch, shape)?;
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of each tensor.
    unsafe { launch.run(grid.grid(), || format!("{} images, {shape:?}", batch.bucket)) }
}

/// As [`super::adaptive_avg_forward`], for the batch's images.
///
/// # Shapes
/// `x`: `[bucket, H, W, C]`; `y`: `[bucket, P, Q, C]`
///
/// # Errors
/// Wrong lengths, an extent of 0, or the driver refuses the launch.
pub fn adaptive_avg_forward<E: Element>(
    device: &CudaDevice,
    shape: &AdaptiveAvgShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    mut y: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("avg_pool2d_forward_f32", "avg_pool2d_forward_bf16");
    check_avg(kernel, shape, batch, ("x", x.len()), ("y", y.len()))?;
    let runs = runs::<E>(shape.c, &[x.address(), y.address()]);
    // A thread has a whole bin to sum up, so a block takes few of them.
    let grid = RowTiles::new(kernel, batch, (shape.out_h * shape.out_w, shape.c), AVG_TILE_ROWS, runs)?;
    if grid.is_empty() {
        return Ok(());
    }
    let mut launch = device.launch(kernel)?;
    launch.output(&mut y).input(&x);
    grid.push(&mut launch, batch);
    push_avg(kernel, &mut launch, shape)?;
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of each tensor.
    unsafe { launch.run(grid.grid(), || format!("{} images, {shape:?}", batch.bucket)) }
}

/// As [`super::adaptive_avg_backward`], for the batch's images.
///
/// # Shapes
/// `dx`: `[bucket, H, W, C]`; `dy`: `[bucket, P, Q, C]`
///
/// # Errors
/// As [`adaptive_avg_forward`].
pub fn adaptive_avg_backward<E: Element>(
    device: &CudaDevice,
    shape: &AdaptiveAvgShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    mut dx: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("avg_pool2d_backward_f32", "avg_pool2d_backward_bf16");
    check_avg(kernel, shape, batch, ("dx", dx.len()), ("dy", dy.len()))?;
    let runs = runs::<E>(shape.c, &[dx.address(), dy.address()]);
    let tile_rows = tile_rows(batch.bucket.saturating_mul(shape.h * shape.w), shape.c);
    let grid = RowTiles::new(kernel, batch, (shape.h * shape.w, shape.c), tile_rows, runs)?;
    if grid.is_empty() {
        return Ok(());
    }
    let mut launch = device.launch(kernel)?;
    launch.output(&mut dx).input(&dy);
    grid.push(&mut launch, batch);
    push_avg(kernel, &mut launch, shape)?;
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of each tensor.
    unsafe { launch.run(grid.grid(), || format!("{} images, {shape:?}", batch.bucket)) }
}

/// Outputs of an average pool that a block has at most.
const AVG_TILE_ROWS: usize = 8;

fn check_max(
    kernel: &'static str,
    shape: &Pool2dShape,
    batch: Batch<'_>,
    (x, x_len): (&'static str, usize),
    (y, y_len): (&'static str, usize),
    argmax_len: usize,
) -> Result<(), CudaError> {
    check_batch(kernel, batch)?;
    if !shape.is_possible() {
        let value = shape.window as f32;
        let range = "1 to 15, at least twice the padding and within the padded image, with a stride";
        return Err(CudaError::OutOfRange { kernel, what: "the window", value, range });
    }
    check_len(kernel, x, x_len, batch.bucket.saturating_mul(shape.x_len()))?;
    check_len(kernel, y, y_len, batch.bucket.saturating_mul(shape.y_len()))?;
    check_len(kernel, "argmax", argmax_len, y_len)
}

fn push_max(kernel: &'static str, launch: &mut Launch<'_>, shape: &Pool2dShape) -> Result<(), CudaError> {
    let Pool2dShape { h, w, window, stride, pad, .. } = *shape;
    for (what, value) in [
        ("height", h),
        ("width", w),
        ("output height", shape.p()),
        ("output width", shape.q()),
        ("the window", window),
        ("stride", stride),
        ("padding", pad),
    ] {
        launch.scalar(int(kernel, what, value)?);
    }
    Ok(())
}

fn check_avg(
    kernel: &'static str,
    shape: &AdaptiveAvgShape,
    batch: Batch<'_>,
    (x, x_len): (&'static str, usize),
    (y, y_len): (&'static str, usize),
) -> Result<(), CudaError> {
    check_batch(kernel, batch)?;
    let AdaptiveAvgShape { c, h, w, out_h, out_w } = *shape;
    if [c, h, w, out_h, out_w].contains(&0) {
        let range = "at least 1";
        return Err(CudaError::OutOfRange { kernel, what: "an extent", value: 0.0, range });
    }
    check_len(kernel, x, x_len, batch.bucket.saturating_mul(shape.x_len()))?;
    check_len(kernel, y, y_len, batch.bucket.saturating_mul(shape.y_len()))
}

fn push_avg(
    kernel: &'static str,
    launch: &mut Launch<'_>,
    shape: &AdaptiveAvgShape,
) -> Result<(), CudaError> {
    let AdaptiveAvgShape { h, w, out_h, out_w, .. } = *shape;
    for (what, value) in [("height", h), ("width", w), ("output height", out_h), ("output width", out_w)] {
        launch.scalar(int(kernel, what, value)?);
    }
    Ok(())
}
