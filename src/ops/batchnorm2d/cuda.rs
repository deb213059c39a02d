//! Launches of `kernels/batchnorm2d.cu`.
//!
//! A training pass is [`statistics`] (or the epilogue of the convolution before it, which writes the same totals),
//! [`finish_statistics`] and [`normalize`]; its gradient is [`backward`]. Rows are the pixels of all images.

use super::{EPS, MOMENTUM};
use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, View, ViewMut, check_len, check_room};
use crate::ops::row_tiles::{Merge, RowTiles, check_batch, int, runs, tile_rows};

/// Extents of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Rows of one image, H * W.
    pub pixels: usize,
    /// Channels C.
    pub c: usize,
}

/// Statistics a training step writes, each `[C]`; as [`super::TrainStatistics`].
#[derive(Debug)]
pub struct TrainStatistics<'a> {
    /// The batch's mean, written.
    pub saved_mean: ViewMut<'a, f32>,
    /// `1 / sqrt(biased variance + EPS)` of the batch, written.
    pub saved_inv_std: ViewMut<'a, f32>,
    /// Updated by `MOMENTUM`.
    pub running_mean: ViewMut<'a, f32>,
    /// Updated by `MOMENTUM` with the unbiased variance.
    pub running_var: ViewMut<'a, f32>,
}

/// Where the ReLU after the normalisation let nothing through.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a, E> {
    /// There was no ReLU.
    None,
    /// Where the output, computed once more from `x`, is not positive; only right if there was no shortcut.
    FromInput {
        /// The offset used, `[C]`.
        beta: View<'a, f32>,
    },
    /// Where this output, `[bucket, pixels, C]`, is not positive.
    FromOutput(View<'a, E>),
}

/// What [`backward`] needs of the forward pass beside its tensors, each `[C]`.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The scale used.
    pub gamma: View<'a, f32>,
    /// `saved_mean`.
    pub mean: View<'a, f32>,
    /// `saved_inv_std`.
    pub inv_std: View<'a, f32>,
}

/// Rows of a tile of [`statistics`].
pub fn statistics_tile_rows(extent: Extent, bucket: usize) -> usize {
    tile_rows(bucket.saturating_mul(extent.pixels), extent.c)
}

/// Writes, per tile of [`statistics_tile_rows`] rows and per channel, the sum and the sum of squared deviations from the
/// tile's own mean. Tiles beyond the batch's last row are not written.
///
/// # Shapes
/// `x`: `[bucket, pixels, C]`; `partials`: at least `[tiles, 2, C]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
pub fn statistics<E: Element>(
    device: &CudaDevice,
    extent: Extent,
    batch: Batch<'_>,
    x: View<'_, E>,
    mut partials: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let kernel = E::entry("batchnorm2d_statistics_f32", "batchnorm2d_statistics_bf16");
    let tile_rows = statistics_tile_rows(extent, batch.bucket);
    let grid = extent.grid::<E>(kernel, batch, tile_rows, &[x.address()])?;
    extent.check(kernel, batch, &[("x", x.len())], &[])?;
    check_room(kernel, "partials", partials.len(), extent.totals_len(batch.bucket, tile_rows))?;
    if grid.is_empty() {
        return Ok(());
    }
    let mut launch = device.launch(kernel)?;
    grid.push(launch.output(&mut partials).input(&x), batch);
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of `x` and the totals of
    // their tiles.
    unsafe { launch.run(grid.grid(), || extent.shapes(batch)) }
}

/// Mean and variance of the batch from the totals of its tiles; updates the running ones. With 0 rows all stay.
///
/// # Shapes
/// `partials`: at least `[tiles, 2, C]`, of tiles of `tile_rows` rows; the statistics: `[C]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
pub fn finish_statistics(
    device: &CudaDevice,
    extent: Extent,
    batch: Batch<'_>,
    tile_rows: usize,
    partials: View<'_, f32>,
    statistics: TrainStatistics<'_>,
) -> Result<(), CudaError> {
    let kernel = "batchnorm2d_finish_statistics_f32";
    let TrainStatistics { mut saved_mean, mut saved_inv_std, mut running_mean, mut running_var } = statistics;
    let vectors = [
        ("saved_mean", saved_mean.len()),
        ("saved_inv_std", saved_inv_std.len()),
        ("running_mean", running_mean.len()),
        ("running_var", running_var.len()),
    ];
    extent.check(kernel, batch, &[], &vectors)?;
    check_room(kernel, "partials", partials.len(), extent.totals_len(batch.bucket, tile_rows))?;
    let merge = Merge::new(kernel, extent.tiles(batch.bucket, tile_rows), extent.c)?;
    if extent.c == 0 || batch.bucket == 0 || extent.pixels == 0 {
        return Ok(());
    }
    let mut launch = device.launch(kernel)?;
    launch.output(&mut saved_mean).output(&mut saved_inv_std);
    launch.output(&mut running_mean).output(&mut running_var).input(&partials);
    extent.push_merge(kernel, &mut launch, batch, tile_rows, merge)?;
    launch.scalar(EPS).scalar(MOMENTUM);
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `C` elements of the statistics and the
    // totals of the tiles of `bucket` images.
    unsafe { launch.run(merge.grid, || extent.shapes(batch)) }
}

/// `y = relu?((x - mean) * (inv_std * gamma) + beta + shortcut?)`, rounded after each step.
///
/// # Shapes
/// `x`, `y`, `shortcut`: `[bucket, pixels, C]`; `gamma`, `beta`, `mean`, `inv_std`: `[C]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
#[allow(clippy::too_many_arguments)]
pub fn normalize<E: Element>(
    device: &CudaDevice,
    extent: Extent,
    batch: Batch<'_>,
    x: View<'_, E>,
    gamma: View<'_, f32>,
    beta: View<'_, f32>,
    mean: View<'_, f32>,
    inv_std: View<'_, f32>,
    shortcut: Option<View<'_, E>>,
    relu: bool,
    y: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("batchnorm2d_normalize_f32", "batchnorm2d_normalize_bf16");
    extent.normalize(device, kernel, batch, x, [gamma, beta, mean, inv_std], (shortcut, relu, false), y)
}

/// As [`normalize`], by running statistics: `inv_std = 1 / sqrt(var + EPS)`.
///
/// # Shapes
/// `x`, `y`, `shortcut`: `[bucket, pixels, C]`; `gamma`, `beta`, `mean`, `var`: `[C]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
#[allow(clippy::too_many_arguments)]
pub fn normalize_running<E: Element>(
    device: &CudaDevice,
    extent: Extent,
    batch: Batch<'_>,
    x: View<'_, E>,
    gamma: View<'_, f32>,
    beta: View<'_, f32>,
    mean: View<'_, f32>,
    var: View<'_, f32>,
    shortcut: Option<View<'_, E>>,
    relu: bool,
    y: ViewMut<'_, E>,
) -> Result<(), CudaError> {
    let kernel = E::entry("batchnorm2d_normalize_f32", "batchnorm2d_normalize_bf16");
    extent.normalize(device, kernel, batch, x, [gamma, beta, mean, var], (shortcut, relu, true), y)
}

/// Elements of scratch that [`backward`] needs for batches of this bucket.
pub fn backward_scratch_len(extent: Extent, bucket: usize) -> usize {
    extent.totals_len(bucket, statistics_tile_rows(extent, bucket))
}

/// Gradients of a training pass: `dbeta = sum(dy)`, `dgamma = sum(dy * xhat)` and
/// `dx = gamma * inv_std * (dy - dbeta / rows - xhat * dgamma / rows)`, `dy` being 0 where the mask says so. All are
/// written (`=`); with 0 rows `dgamma` and `dbeta` become 0. With `write_masked_dy`, `dy` is masked in place, for a
/// shortcut that reads it later.
///
/// # Shapes
/// `x`, `dy`, `dx`: `[bucket, pixels, C]`; `dgamma`, `dbeta`: `[C]`; `scratch`: at least [`backward_scratch_len`]
///
/// # Errors
/// Wrong lengths, or the driver refuses a launch.
#[allow(clippy::too_many_arguments)]
pub fn backward<E: Element>(
    device: &CudaDevice,
    extent: Extent,
    batch: Batch<'_>,
    x: View<'_, E>,
    mask: Mask<'_, E>,
    saved: Saved<'_>,
    mut dy: ViewMut<'_, E>,
    write_masked_dy: bool,
    mut dx: ViewMut<'_, E>,
    mut dgamma: ViewMut<'_, f32>,
    mut dbeta: ViewMut<'_, f32>,
    mut scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let kernel = E::entry("batchnorm2d_gradients_f32", "batchnorm2d_gradients_bf16");
    let tile_rows = statistics_tile_rows(extent, batch.bucket);
    let Saved { gamma, mean, inv_std } = saved;
    let (beta, y) = match mask {
        Mask::None => (None, None),
        Mask::FromInput { beta } => (Some(beta), None),
        Mask::FromOutput(y) => (None, Some(y)),
    };
    let tensors = [("x", x.len()), ("y", y.map_or(x.len(), |y| y.len())), ("dy", dy.len()), ("dx", dx.len())];
    let vectors = [
        ("gamma", gamma.len()),
        ("beta", beta.map_or(extent.c, |beta| beta.len())),
        ("mean", mean.len()),
        ("inv_std", inv_std.len()),
        ("dgamma", dgamma.len()),
        ("dbeta", dbeta.len()),
    ];
    extent.check(kernel, batch, &tensors, &vectors)?;
    check_room(kernel, "scratch", scratch.len(), extent.totals_len(batch.bucket, tile_rows))?;
    let y_address = y.map_or(0, |y| y.address());
    let addresses = [x.address(), dy.address(), dx.address(), y_address];
    let grid = extent.grid::<E>(kernel, batch, tile_rows, &addresses)?;
    if extent.c == 0 {
        return Ok(());
    }
    if !grid.is_empty() {
        let mut launch = device.launch(kernel)?;
        launch.output(&mut scratch).output(&mut dy).input(&x).optional_input(y.as_ref());
        launch.input(&gamma).optional_input(beta.as_ref()).input(&mean).input(&inv_std);
        grid.push(launch.scalar(i32::from(write_masked_dy)), batch);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of the tensors, `C`
        // elements of the vectors and the totals of the tiles.
        unsafe { launch.run(grid.grid(), || extent.shapes(batch)) }?;
    }

    let finish = "batchnorm2d_finish_gradients_f32";
    let merge = Merge::new(finish, extent.tiles(batch.bucket, tile_rows), extent.c)?;
    let mut launch = device.launch(finish)?;
    launch.output(&mut dgamma).output(&mut dbeta).input(&scratch.view()).input(&inv_std);
    extent.push_merge(finish, &mut launch, batch, tile_rows, merge)?;
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `C` elements of the vectors and the
    // totals of the tiles.
    unsafe { launch.run(merge.grid, || extent.shapes(batch)) }?;
    if grid.is_empty() {
        return Ok(());
    }

    let mut launch = device.launch(E::entry("batchnorm2d_dx_f32", "batchnorm2d_dx_bf16"))?;
    // What the first pass has masked in place needs no mask any more.
    let (beta, y) = if write_masked_dy { (None, None) } else { (beta, y) };
    launch.output(&mut dx).input(&dy.view()).input(&x).optional_input(y.as_ref());
    launch.input(&gamma).optional_input(beta.as_ref()).input(&mean).input(&inv_std);
    launch.input(&dgamma.view()).input(&dbeta.view());
    grid.push(&mut launch, batch);
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of the tensors and `C`
    // elements of the vectors.
    unsafe { launch.run(grid.grid(), || extent.shapes(batch)) }
}

impl Extent {
    fn tiles(self, bucket: usize, tile_rows: usize) -> usize {
        bucket.saturating_mul(self.pixels).div_ceil(tile_rows.max(1))
    }

    /// Elements of the partial statistics of tiles of `tile_rows` rows: two for each tile and channel.
    pub fn totals_len(self, bucket: usize, tile_rows: usize) -> usize {
        self.tiles(bucket, tile_rows).saturating_mul(2 * self.c)
    }

    fn shapes(self, batch: Batch<'_>) -> String {
        format!("[{}, {}, {}]", batch.bucket, self.pixels, self.c)
    }

    /// Each of `tensors` is `[bucket, pixels, C]` and each of `vectors` `[C]`.
    fn check(
        self,
        kernel: &'static str,
        batch: Batch<'_>,
        tensors: &[(&'static str, usize)],
        vectors: &[(&'static str, usize)],
    ) -> Result<(), CudaError> {
        check_batch(kernel, batch)?;
        let numel = batch.bucket.saturating_mul(self.pixels).saturating_mul(self.c);
        tensors.iter().try_for_each(|(what, len)| check_len(kernel, what, *len, numel))?;
        vectors.iter().try_for_each(|(what, len)| check_len(kernel, what, *len, self.c))
    }

    fn grid<E: Element>(
        self,
        kernel: &'static str,
        batch: Batch<'_>,
        tile_rows: usize,
        addresses: &[u64],
    ) -> Result<RowTiles, CudaError> {
        RowTiles::new(kernel, batch, (self.pixels, self.c), tile_rows, runs::<E>(self.c, addresses))
    }

    /// Adds the arguments `num_images`, `max_images`, `pixels`, `c`, `tile_rows`, `width`.
    fn push_merge(
        self,
        kernel: &'static str,
        launch: &mut crate::device::cuda::Launch<'_>,
        batch: Batch<'_>,
        tile_rows: usize,
        merge: Merge,
    ) -> Result<(), CudaError> {
        launch.input(&batch.count).scalar(batch.bucket as i32).scalar(int(kernel, "pixels", self.pixels)?);
        launch.scalar(int(kernel, "channels", self.c)?).scalar(int(kernel, "tile_rows", tile_rows.max(1))?);
        launch.scalar(merge.width);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn normalize<E: Element>(
        self,
        device: &CudaDevice,
        kernel: &'static str,
        batch: Batch<'_>,
        x: View<'_, E>,
        [gamma, beta, mean, spread]: [View<'_, f32>; 4],
        (shortcut, relu, running): (Option<View<'_, E>>, bool, bool),
        mut y: ViewMut<'_, E>,
    ) -> Result<(), CudaError> {
        let tensors = [
            ("x", x.len()),
            ("shortcut", shortcut.map_or(x.len(), |shortcut| shortcut.len())),
            ("y", y.len()),
        ];
        let vectors = [
            ("gamma", gamma.len()),
            ("beta", beta.len()),
            ("mean", mean.len()),
            (if running { "var" } else { "inv_std" }, spread.len()),
        ];
        self.check(kernel, batch, &tensors, &vectors)?;
        let shortcut_address = shortcut.map_or(0, |shortcut| shortcut.address());
        let addresses = [x.address(), y.address(), shortcut_address];
        let tile_rows = statistics_tile_rows(self, batch.bucket);
        let grid = self.grid::<E>(kernel, batch, tile_rows, &addresses)?;
        if grid.is_empty() {
            return Ok(());
        }
        let mut launch = device.launch(kernel)?;
        launch.output(&mut y).input(&x).optional_input(shortcut.as_ref());
        launch.input(&gamma).input(&beta).input(&mean).input(&spread);
        launch.scalar(i32::from(relu)).scalar(i32::from(running)).scalar(EPS);
        grid.push(&mut launch, batch);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `bucket` images of the tensors and `C`
        // elements of the vectors.
        unsafe { launch.run(grid.grid(), || self.shapes(batch)) }
    }
}
