//! Launches of `kernels/softmax_xent.cu`.

use crate::device::cuda::{
    Batch, CudaDevice, CudaError, Element, Grid, View, ViewMut, check_len, check_room,
};
use crate::ops::row_tiles::{check_batch, int};

/// Numbers of [`super::LossStats`], in its order.
const STATS: usize = 3;

const THREADS: u32 = 256;

/// Most classes of which a warp takes a row; of more, a block does.
const MAX_WARP_CLASSES: usize = 256;

/// Adds the batch's loss sum, top1 and top5 to `stats` and writes the gradient of the mean loss,
/// `dlogits = (softmax(logits) - onehot(label)) / count`. A row whose label is no class has loss and gradient NaN.
///
/// # Shapes
/// `logits`, `dlogits`: `[bucket, classes]`; `labels`: `[bucket]`; `stats`: `[3]`; `scratch`: at least `[3, bucket]`
///
/// # Errors
/// Wrong lengths, or the driver refuses a launch.
#[allow(clippy::too_many_arguments)]
pub fn forward_backward<E: Element>(
    device: &CudaDevice,
    classes: usize,
    batch: Batch<'_>,
    logits: View<'_, E>,
    labels: View<'_, u32>,
    dlogits: ViewMut<'_, E>,
    stats: ViewMut<'_, f64>,
    scratch: ViewMut<'_, f64>,
) -> Result<(), CudaError> {
    run(device, classes, batch, (logits, labels), Some(dlogits), stats, scratch)
}

/// As [`forward_backward`], without the gradient.
///
/// # Shapes
/// As [`forward_backward`].
///
/// # Errors
/// As [`forward_backward`].
pub fn forward<E: Element>(
    device: &CudaDevice,
    classes: usize,
    batch: Batch<'_>,
    logits: View<'_, E>,
    labels: View<'_, u32>,
    stats: ViewMut<'_, f64>,
    scratch: ViewMut<'_, f64>,
) -> Result<(), CudaError> {
    run(device, classes, batch, (logits, labels), None, stats, scratch)
}

fn run<E: Element>(
    device: &CudaDevice,
    classes: usize,
    batch: Batch<'_>,
    (logits, labels): (View<'_, E>, View<'_, u32>),
    mut dlogits: Option<ViewMut<'_, E>>,
    mut stats: ViewMut<'_, f64>,
    mut scratch: ViewMut<'_, f64>,
) -> Result<(), CudaError> {
    let kernel = E::entry("softmax_xent_rows_f32", "softmax_xent_rows_bf16");
    let bucket = batch.bucket;
    let max_images = check_batch(kernel, batch)?;
    let numel = bucket.saturating_mul(classes);
    check_len(kernel, "logits", logits.len(), numel)?;
    check_len(kernel, "labels", labels.len(), bucket)?;
    check_len(kernel, "dlogits", dlogits.as_ref().map_or(numel, |dlogits| dlogits.len()), numel)?;
    check_len(kernel, "stats", stats.len(), STATS)?;
    check_room(kernel, "scratch", scratch.len(), STATS.saturating_mul(bucket))?;
    if bucket == 0 {
        return Ok(());
    }
    let block_rows = if classes <= MAX_WARP_CLASSES { THREADS as usize / 32 } else { 1 };
    let shapes = || format!("logits [{bucket}, {classes}]");
    let mut launch = device.launch(kernel)?;
    launch.optional_output(dlogits.as_mut()).output(&mut scratch).input(&logits).input(&labels);
    launch.input(&batch.count).scalar(max_images).scalar(int(kernel, "classes", classes)?);
    launch.scalar(block_rows as i32);
    let blocks = [bucket.div_ceil(block_rows) as u32, 1, 1];
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` rows of each, whatever the labels.
    unsafe { launch.run(Grid { blocks, threads: THREADS, shared_bytes: 0 }, shapes) }?;

    let mut launch = device.launch("softmax_xent_sum_f64")?;
    launch.output(&mut stats).input(&scratch.view()).input(&batch.count).scalar(max_images);
    // SAFETY: the arguments are the kernel's, in order and type; it stays below three numbers for each of `bucket` rows.
    unsafe { launch.run(Grid { blocks: [1; 3], threads: THREADS, shared_bytes: 0 }, shapes) }
}
