//! Launch of `kernels/relu.cu`.

use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, View, ViewMut, check_len};
use crate::ops::row_tiles::{aligned, check_batch, flat_grid};

/// Gradient through the ReLU that gave `y`, as [`super::backward_inplace`], for the batch's images: sets `dy` to 0 where
/// `y <= 0`.
///
/// # Shapes
/// `y`, `dy`: `[bucket, per_image]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
pub fn backward_inplace<E: Element>(
    device: &CudaDevice,
    per_image: usize,
    batch: Batch<'_>,
    y: View<'_, E>,
    mut dy: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("relu_backward_f32", "relu_backward_bf16");
    let numel = batch.bucket.saturating_mul(per_image);
    let max_images = check_batch(kernel, batch)?;
    check_len(kernel, "y", y.len(), numel)?;
    check_len(kernel, "dy", dy.len(), numel)?;
    if numel == 0 {
        return Ok(());
    }
    let packs = aligned(&[y.address(), dy.address()]);
    let mut launch = device.launch(kernel)?;
    launch.output(&mut dy).input(&y);
    launch.input(&batch.count).scalar(max_images).scalar(per_image as i64).scalar(i32::from(packs));
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of both tensors.
    unsafe { launch.run(flat_grid::<E>(device, numel, packs), || format!("[{}, {per_image}]", batch.bucket)) }
}
