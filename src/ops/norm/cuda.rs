//! Launches of `kernels/norm.cu`.

use crate::device::cuda::{CudaDevice, CudaError, Grid, View, ViewMut, check_len, check_room};
use crate::ops::row_tiles::int;

/// Elements whose squares a block sums up; `kernels/norm.cu` has the same number.
const TILE_LEN: usize = 16 * 1024;

const THREADS: u32 = 512;

/// Elements of scratch that [`sum_of_squares`] needs for `numel` elements.
pub fn scratch_len(numel: usize) -> usize {
    numel.div_ceil(TILE_LEN)
}

/// Writes the sum of the squares of `x` to `out`: f64 sums over fixed tiles, so that the result depends on `x` alone. An
/// element that is infinite or NaN makes it so.
///
/// # Shapes
/// `x`: `[numel]`; `out`: `[1]`; `scratch`: at least [`scratch_len`]
///
/// # Errors
/// Wrong lengths, or the driver refuses a launch.
pub fn sum_of_squares(
    device: &CudaDevice,
    x: View<'_, f32>,
    mut out: ViewMut<'_, f64>,
    mut scratch: ViewMut<'_, f64>,
) -> Result<(), CudaError> {
    let kernel = "norm_tiles_f32";
    let (numel, tiles) = (x.len(), scratch_len(x.len()));
    check_len(kernel, "out", out.len(), 1)?;
    check_room(kernel, "scratch", scratch.len(), tiles)?;
    let shapes = || format!("x [{numel}]");
    if tiles > 0 {
        let mut launch = device.launch(kernel)?;
        launch.output(&mut scratch).input(&x).scalar(numel as i64);
        let blocks = [int(kernel, "tiles", tiles)? as u32, 1, 1];
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `numel` elements and one total a tile.
        unsafe { launch.run(Grid { blocks, threads: THREADS, shared_bytes: 0 }, shapes) }?;
    }
    let mut launch = device.launch("norm_sum_f64")?;
    launch.output(&mut out).input(&scratch.view()).scalar(tiles as i64);
    // SAFETY: the arguments are the kernel's, in order and type; it stays below one total a tile.
    unsafe { launch.run(Grid { blocks: [1; 3], threads: THREADS, shared_bytes: 0 }, shapes) }
}
