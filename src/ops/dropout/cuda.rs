//! Launches of `kernels/dropout.cu`.

use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, View, ViewMut, check_len};
use crate::ops::row_tiles::{aligned, check_batch, flat_grid};
use crate::rng::{Philox, Stream};

/// Which masks: those of `super::forward` with this `seed` and the draw `index * layers + ordinal`.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// One number on the GPU: the pass.
    pub index: View<'a, u64>,
    /// Dropout layers of the network.
    pub layers: u64,
    /// This one's number among them.
    pub ordinal: u64,
}

/// Writes `y = x * mask / (1 - p)`, with the masks of [`super::forward`] over the whole batch.
///
/// # Shapes
/// `x`, `y`: `[bucket, per_image]`
///
/// # Errors
/// Wrong lengths, `p` outside [0, 1], or the driver refuses the launch.
pub fn forward<E: Element>(
    device: &CudaDevice,
    p: f32,
    draw: Draw<'_>,
    per_image: usize,
    batch: Batch<'_>,
    x: View<'_, E>,
    mut y: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("dropout_f32", "dropout_bf16");
    let numel = batch.bucket.saturating_mul(per_image);
    let max_images = check_batch(kernel, batch)?;
    check_len(kernel, "the input", x.len(), numel)?;
    check_len(kernel, "the output", y.len(), numel)?;
    check_len(kernel, "index", draw.index.len(), 1)?;
    if !(0.0..=1.0).contains(&p) {
        return Err(CudaError::OutOfRange { kernel, what: "p", value: p, range: "in [0, 1]" });
    }
    if numel == 0 {
        return Ok(());
    }
    let packs = aligned(&[x.address(), y.address()]);
    let [key_low, key_high] = Philox::new(draw.seed, Stream::Dropout, 0).key();
    // With p = 1 nothing is kept and the scale is never used.
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    let mut launch = device.launch(kernel)?;
    launch.output(&mut y).input(&x).input(&draw.index).scalar(draw.layers).scalar(draw.ordinal);
    launch.scalar(key_low).scalar(key_high).scalar(p).scalar(scale);
    launch.input(&batch.count).scalar(max_images).scalar(per_image as i64).scalar(i32::from(packs));
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of both tensors and reads
    // one number of the draw.
    unsafe { launch.run(flat_grid::<E>(device, numel, packs), || format!("[{}, {per_image}]", batch.bucket)) }
}

/// Writes `dx = dy * mask / (1 - p)` with the mask that [`forward`] drew.
///
/// # Shapes
/// `dy`, `dx`: `[bucket, per_image]`
///
/// # Errors
/// As [`forward`].
pub fn backward<E: Element>(
    device: &CudaDevice,
    p: f32,
    draw: Draw<'_>,
    per_image: usize,
    batch: Batch<'_>,
    dy: View<'_, E>,
    dx: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    // The op is linear in its input and its own transpose.
    forward(device, p, draw, per_image, batch, dy, dx)
}
