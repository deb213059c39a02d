//! Launches of `kernels/bias.cu`.

use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, View, ViewMut, check_len, check_room};
use crate::ops::row_tiles::{Merge, RowTiles, check_batch, int, runs, tile_rows};

/// Elements of scratch that [`bias_backward`] needs for batches of this bucket.
pub fn bias_scratch_len(pixels: usize, k: usize, bucket: usize) -> usize {
    let rows = bucket.saturating_mul(pixels);
    rows.div_ceil(tile_rows(rows, k)).saturating_mul(k)
}

/// `dbias[k] = sum over rows of dy[row, k]`, written; with 0 rows it becomes 0. With `relu_y`, the output of the ReLU that
/// followed, `dy` is masked in place first: to 0 where `relu_y <= 0`.
///
/// # Shapes
/// `dy`, `relu_y`: `[bucket, pixels, K]`; `dbias`: `[K]`; `scratch`: at least [`bias_scratch_len`]
///
/// # Errors
/// Wrong lengths, or the driver refuses a launch.
#[allow(clippy::too_many_arguments)]
pub fn bias_backward<E: Element>(
    device: &CudaDevice,
    pixels: usize,
    k: usize,
    batch: Batch<'_>,
    relu_y: Option<View<'_, E>>,
    mut dy: ViewMut<'_, E>,
    mut dbias: ViewMut<'_, f32>,
    mut scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let kernel = E::entry("bias_sums_f32", "bias_sums_bf16");
    let rows = batch.bucket.saturating_mul(pixels);
    let numel = rows.saturating_mul(k);
    let max_images = check_batch(kernel, batch)?;
    check_len(kernel, "relu_y", relu_y.map_or(numel, |y| y.len()), numel)?;
    check_len(kernel, "dy", dy.len(), numel)?;
    check_len(kernel, "dbias", dbias.len(), k)?;
    check_room(kernel, "scratch", scratch.len(), bias_scratch_len(pixels, k, batch.bucket))?;
    if k == 0 {
        return Ok(());
    }
    let runs = runs::<E>(k, &[dy.address(), relu_y.map_or(0, |y| y.address())]);
    let tile_rows = tile_rows(rows, k);
    let grid = RowTiles::new(kernel, batch, (pixels, k), tile_rows, runs)?;
    let shapes = || format!("dy [{}, {pixels}, {k}]", batch.bucket);
    if !grid.is_empty() {
        let mut launch = device.launch(kernel)?;
        grid.push(launch.output(&mut scratch).output(&mut dy).optional_input(relu_y.as_ref()), batch);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of the tensors and the
        // totals of their tiles.
        unsafe { launch.run(grid.grid(), shapes) }?;
    }
    let finish = "bias_finish_f32";
    let merge = Merge::new(finish, rows.div_ceil(tile_rows), k)?;
    let mut launch = device.launch(finish)?;
    launch.output(&mut dbias).input(&scratch.view()).input(&batch.count).scalar(max_images);
    launch.scalar(int(finish, "pixels", pixels)?).scalar(int(finish, "channels", k)?);
    launch.scalar(int(finish, "tile_rows", tile_rows)?).scalar(merge.width);
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `K` elements of `dbias` and the totals of
    // the tiles.
    unsafe { launch.run(merge.grid, shapes) }
}
