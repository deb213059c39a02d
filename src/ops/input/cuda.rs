//! Launch of `kernels/input.cu`.

use super::Normalizer;
use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Grid, View, ViewMut, check_len};
use crate::ops::row_tiles::{check_batch, int, pack_len, packs};
use crate::shape::ImageShape;

/// Most threads of a block, and the fewest, a warp.
const THREADS: usize = 256;
const WARP: usize = 32;

/// Most blocks in y; more images lie in several layers along z.
const MAX_BLOCKS_Y: usize = 65_535;

/// Packs of an image that a thread writes, so that a block does not end after one.
const PACKS_A_THREAD: usize = 4;

/// Writes the batch's images as [`super::write_image`] does: cropped, mirrored and normalised.
///
/// # Shapes
/// `pixels`, `x`: `[bucket, H, W, C]`; `placements`: `[bucket, 3]`, of `offset_h`, `offset_w` and 1 for a flip
///
/// # Errors
/// Wrong lengths, a normalizer of another number of channels, or the driver refuses the launch.
pub fn write_batch<E: Element>(
    device: &CudaDevice,
    image: ImageShape,
    batch: Batch<'_>,
    pixels: View<'_, u8>,
    placements: View<'_, i32>,
    normalizer: &Normalizer,
    mut x: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("input_f32", "input_bf16");
    let (bucket, per_image) = (batch.bucket, image.numel());
    let max_images = check_batch(kernel, batch)?;
    check_len(kernel, "pixels", pixels.len(), bucket.saturating_mul(per_image))?;
    check_len(kernel, "placements", placements.len(), bucket.saturating_mul(3))?;
    check_len(kernel, "x", x.len(), bucket.saturating_mul(per_image))?;
    let (c, scale, offset) = normalizer.channels();
    check_len(kernel, "the normalizer", c, image.c)?;
    if bucket == 0 || per_image == 0 {
        return Ok(());
    }
    int(kernel, "elements of an image", per_image)?;
    let packs = packs::<E>(per_image, &[x.address()]);
    let steps = if packs { per_image / pack_len::<E>() } else { per_image };
    let threads = steps.div_ceil(PACKS_A_THREAD).next_multiple_of(WARP).min(THREADS);
    let blocks_x = steps.div_ceil(threads * PACKS_A_THREAD);
    let mut launch = device.launch(kernel)?;
    launch.output(&mut x).input(&pixels).input(&placements).input(&batch.count).scalar(max_images);
    launch.scalar(image.h as i32).scalar(image.w as i32).scalar(image.c as i32).scalar(i32::from(packs));
    scale.iter().chain(&offset).for_each(|value| {
        launch.scalar(*value);
    });
    let blocks_y = bucket.min(MAX_BLOCKS_Y);
    let blocks = [blocks_x as u32, blocks_y as u32, bucket.div_ceil(blocks_y) as u32];
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of each, and reads no pixel
    // outside its image whatever the placement.
    unsafe {
        launch.run(Grid { blocks, threads: threads as u32, shared_bytes: 0 }, || {
            format!("{bucket} of {image:?}")
        })
    }
}
