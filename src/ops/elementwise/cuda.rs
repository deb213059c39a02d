//! Launches of `kernels/elementwise.cu`.

use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Grid, View, ViewMut, check_len};
use crate::ops::row_tiles::{aligned, check_batch, flat_grid};

/// `sum += term` for the batch's images: collects the gradients of branches.
///
/// # Shapes
/// `sum`, `term`: `[bucket, per_image]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
pub fn add<E: Element>(
    device: &CudaDevice,
    per_image: usize,
    batch: Batch<'_>,
    mut sum: ViewMut<'_, E>,
    term: View<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("elementwise_add_f32", "elementwise_add_bf16");
    let numel = batch.bucket.saturating_mul(per_image);
    let max_images = check_batch(kernel, batch)?;
    check_len(kernel, "sum", sum.len(), numel)?;
    check_len(kernel, "term", term.len(), numel)?;
    if numel == 0 {
        return Ok(());
    }
    let packs = aligned(&[sum.address(), term.address()]);
    let mut launch = device.launch(kernel)?;
    launch.output(&mut sum).input(&term);
    launch.input(&batch.count).scalar(max_images).scalar(per_image as i64).scalar(i32::from(packs));
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of both tensors.
    unsafe { launch.run(flat_grid::<E>(device, numel, packs), || format!("[{}, {per_image}]", batch.bucket)) }
}

/// Elements of a segment that a block copies at once; `kernels/elementwise.cu` has the same number.
const CHUNK_LEN: usize = 2048;

/// Copies segments of `from` to their places in `to`, rounded to its type; what lies between them stays. Segments may
/// come in any order but must not meet in `to`. One that reaches beyond either vector is left out.
///
/// # Shapes
/// `segments`: `[num_segments, 3]`, each where it starts in `from`, where in `to`, and its length, in elements, at most
/// `longest`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
pub fn pack<E: Element>(
    device: &CudaDevice,
    segments: View<'_, i64>,
    num_segments: usize,
    longest: usize,
    from: View<'_, f32>,
    mut to: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("elementwise_pack_f32", "elementwise_pack_bf16");
    check_len(kernel, "segments", segments.len(), num_segments.saturating_mul(3))?;
    // The most chunks there can be: every segment as long as the longest, none longer than all of `to`.
    let chunks = num_segments.saturating_mul(longest.div_ceil(CHUNK_LEN));
    let chunks = chunks.min((to.len() / CHUNK_LEN).saturating_add(num_segments));
    if chunks == 0 {
        return Ok(());
    }
    let Grid { blocks: [resident, ..], threads, .. } = device.grid_stride(usize::MAX);
    let blocks = [chunks.min(resident as usize) as u32, 1, 1];
    let mut launch = device.launch(kernel)?;
    launch.output(&mut to).input(&from).input(&segments);
    launch.scalar(num_segments as i64).scalar(from.len() as i64).scalar(to.len() as i64);
    // SAFETY: the arguments are the kernel's, in order and type; it reads `num_segments` segments and leaves out those
    // that reach beyond a vector.
    unsafe { launch.run(Grid { blocks, threads, shared_bytes: 0 }, || format!("{num_segments} segments")) }
}
