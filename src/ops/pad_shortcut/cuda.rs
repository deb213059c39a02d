//! Launches of `kernels/pad_shortcut.cu`.

use super::PadShortcutShape;
use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, View, ViewMut, check_len};
use crate::ops::row_tiles::{RUN_LEN, RowTiles, check_batch, int, runs, tile_rows};

/// As [`super::forward`], for the batch's images.
///
/// # Shapes
/// `x`: `[bucket, H, W, C]`; `y`: `[bucket, P, Q, K]`
///
/// # Errors
/// Wrong lengths, an impossible shape, or the driver refuses the launch.
pub fn forward<E: Element>(
    device: &CudaDevice,
    shape: &PadShortcutShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    mut y: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("pad_shortcut_forward_f32", "pad_shortcut_forward_bf16");
    check(kernel, shape, batch, ("x", x.len()), ("y", y.len()))?;
    run(device, kernel, shape, batch, (shape.p() * shape.q(), shape.k), x, &mut y)
}

/// As [`super::backward`], for the batch's images.
///
/// # Shapes
/// `dx`: `[bucket, H, W, C]`; `dy`: `[bucket, P, Q, K]`
///
/// # Errors
/// As [`forward`].
pub fn backward<E: Element>(
    device: &CudaDevice,
    shape: &PadShortcutShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    mut dx: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("pad_shortcut_backward_f32", "pad_shortcut_backward_bf16");
    check(kernel, shape, batch, ("dx", dx.len()), ("dy", dy.len()))?;
    run(device, kernel, shape, batch, (shape.h * shape.w, shape.c), dy, &mut dx)
}

fn check(
    kernel: &'static str,
    shape: &PadShortcutShape,
    batch: Batch<'_>,
    (x, x_len): (&'static str, usize),
    (y, y_len): (&'static str, usize),
) -> Result<(), CudaError> {
    check_batch(kernel, batch)?;
    let PadShortcutShape { c, k, stride, .. } = *shape;
    if c == 0 || k < c || stride == 0 {
        let (what, value) = if stride == 0 { ("stride", stride) } else { ("output channels", k) };
        let range = "at least 1, and no fewer than the input channels";
        return Err(CudaError::OutOfRange { kernel, what, value: value as f32, range });
    }
    check_len(kernel, x, x_len, batch.bucket.saturating_mul(shape.x_len()))?;
    check_len(kernel, y, y_len, batch.bucket.saturating_mul(shape.y_len()))
}

/// Over the rows `(pixels, channels)` of `to`.
fn run<E: Element>(
    device: &CudaDevice,
    kernel: &'static str,
    shape: &PadShortcutShape,
    batch: Batch<'_>,
    (pixels, channels): (usize, usize),
    from: View<'_, E>,
    to: &mut ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let PadShortcutShape { c, h, w, k, stride } = *shape;
    let front = shape.copied().start;
    let whole = [c, k, front].into_iter().all(|channels| channels.is_multiple_of(RUN_LEN));
    let runs = whole && runs::<E>(channels, &[from.address(), to.address()]);
    let tile_rows = tile_rows(batch.bucket.saturating_mul(pixels), channels);
    let grid = RowTiles::new(kernel, batch, (pixels, channels), tile_rows, runs)?;
    if grid.is_empty() {
        return Ok(());
    }
    let mut launch = device.launch(kernel)?;
    launch.output(to).input(&from);
    grid.push(&mut launch, batch);
    for (what, value) in [
        ("height", h),
        ("width", w),
        ("input channels", c),
        ("output height", shape.p()),
        ("output width", shape.q()),
        ("output channels", k),
        ("leading channels", front),
        ("stride", stride),
    ] {
        launch.scalar(int(kernel, what, value)?);
    }
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of both tensors.
    unsafe { launch.run(grid.grid(), || format!("{} images, {shape:?}", batch.bucket)) }
}
