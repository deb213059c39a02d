//! 2-d convolution on an NVIDIA GPU: the three passes as implicit matrix products over channels-last tensors.
//!
//! ```text
//! fprop  y[(n,p,q), k]       = sum over (r,s,c)  x[n, h, w, c] * filter[k, (r,s,c)]
//! dgrad  dx[(n,h,w), c]      = sum over (r,s,k)  dy[n, p, q, k] * filter[k, r, s, c]
//! wgrad  dfilter[k, (r,s,c)] = sum over (n,p,q)  dy[(n,p,q), k] * x[n, h, w, c]
//! ```
//!
//! No matrix is formed: the kernels gather the operand's elements on their way to shared memory. [`algorithm()`] chooses
//! instructions, tile and the number of parts of the summed extent by shape, bucket and device; results have the same bits
//! in every run on a device. A linear layer is a convolution whose spatial extents are 1.
//!
//! # Shapes
//! `x`, `dx` `[bucket, H, W, C]`; `filter`, `dfilter` `[K, R, S, C]`; `y`, `dy` `[bucket, P, Q, K]`; of them, what lies
//! beyond the batch's count is neither used nor written. `dfilter` is f32, whatever the others are. `scratch` is f32, at
//! least [`scratch_len`], or [`Algorithm::scratch_len`] for an algorithm that the caller chose.
//!
//! # Panics
//! Every function panics on a shape that [`Conv2dShape::validate`] refuses.

mod algorithm;
mod tiled;
mod wgmma;

pub use algorithm::{Algorithm, Pass, Tile, algorithm, scratch_len, statistics_tile_rows};

use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, View, ViewMut, check_len, check_room};
use crate::shape::Conv2dShape;

/// Rows of the largest tile.
const MAX_TILE_ROWS: usize = 128;

/// What leaves with `y`.
#[derive(Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to every pixel, `[K]`.
    pub bias: Option<View<'a, f32>>,
    /// Whether `max(0, y)` is stored.
    pub relu: bool,
    /// Partial statistics of `y` as it is stored, `[tiles, 2, K]`: for each tile of [`statistics_tile_rows`] consecutive
    /// pixels (n,p,q) and each channel the sum, then the sum of squared deviations from the tile's own mean. Tiles that
    /// begin beyond the count are not written. Not together with `relu`.
    pub statistics: Option<ViewMut<'a, f32>>,
}

/// `y = conv(x, filter)`, then what `epilogue` says.
///
/// # Shapes
/// As the [module](self) says.
///
/// # Errors
/// Wrong lengths, extents too large for a kernel's indices, or the driver refuses a launch.
///
/// # Panics
/// If statistics are asked together with `relu`, or a tensor or the scratch does not start at a multiple of 16 bytes.
#[allow(clippy::too_many_arguments)]
pub fn fprop<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    filter: View<'_, E>,
    epilogue: Epilogue<'_>,
    y: ViewMut<'_, E>,
    scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let algorithm = algorithm::<E>(device, shape, Pass::Fprop, batch.bucket);
    fprop_with(algorithm, device, shape, batch, x, filter, epilogue, y, scratch)
}

/// [`fprop`] by an algorithm that the caller chose.
///
/// # Shapes
/// As the [module](self) says.
///
/// # Errors
/// As [`fprop`].
///
/// # Panics
/// As [`fprop`], or if the algorithm cannot read the shape's channels.
#[allow(clippy::too_many_arguments)]
pub fn fprop_with<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    filter: View<'_, E>,
    epilogue: Epilogue<'_>,
    y: ViewMut<'_, E>,
    scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    const OP: &str = "conv2d_fprop";
    check(OP, shape, batch)?;
    check_len(OP, "x", x.len(), batch.bucket * shape.x_len())?;
    check_len(OP, "filter", filter.len(), shape.filter_len())?;
    check_len(OP, "y", y.len(), batch.bucket * shape.y_len())?;
    check_room(OP, "scratch", scratch.len(), algorithm.scratch_len(shape, Pass::Fprop, batch.bucket))?;
    if let Some(bias) = &epilogue.bias {
        check_len(OP, "bias", bias.len(), shape.k)?;
    }
    if let Some(statistics) = &epilogue.statistics {
        assert!(!epilogue.relu, "statistics are of y before ReLU: {shape:?}");
        let rows = batch.bucket * shape.p() * shape.q();
        let tiles = rows.div_ceil(algorithm.statistics_tile_rows());
        check_len(OP, "statistics", statistics.len(), tiles * 2 * shape.k)?;
    }
    if batch.bucket == 0 {
        return Ok(());
    }
    if algorithm.tile.is_wgmma() {
        return wgmma::fprop(algorithm, device, shape, batch, x, filter, epilogue, y);
    }
    tiled::fprop(algorithm, device, shape, batch, x, filter, epilogue, y, scratch)
}

/// `dx = ` (or, with `accumulate`, `dx += `) the gradient of the input from the gradient `dy` of the output.
///
/// # Shapes
/// As the [module](self) says.
///
/// # Errors
/// As [`fprop`].
///
/// # Panics
/// If a tensor or the scratch does not start at a multiple of 16 bytes.
#[allow(clippy::too_many_arguments)]
pub fn dgrad<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    filter: View<'_, E>,
    dx: ViewMut<'_, E>,
    accumulate: bool,
    scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let algorithm = algorithm::<E>(device, shape, Pass::Dgrad, batch.bucket);
    dgrad_with(algorithm, device, shape, batch, dy, filter, dx, accumulate, scratch)
}

/// [`dgrad`] by an algorithm that the caller chose.
///
/// # Shapes
/// As the [module](self) says.
///
/// # Errors
/// As [`fprop`].
///
/// # Panics
/// As [`dgrad`], or if the algorithm cannot read the shape's channels.
#[allow(clippy::too_many_arguments)]
pub fn dgrad_with<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    filter: View<'_, E>,
    dx: ViewMut<'_, E>,
    accumulate: bool,
    scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    const OP: &str = "conv2d_dgrad";
    check(OP, shape, batch)?;
    check_len(OP, "dy", dy.len(), batch.bucket * shape.y_len())?;
    check_len(OP, "filter", filter.len(), shape.filter_len())?;
    check_len(OP, "dx", dx.len(), batch.bucket * shape.x_len())?;
    check_room(OP, "scratch", scratch.len(), algorithm.scratch_len(shape, Pass::Dgrad, batch.bucket))?;
    if batch.bucket == 0 {
        return Ok(());
    }
    if algorithm.tile.is_wgmma() {
        return wgmma::dgrad(algorithm, device, shape, batch, dy, filter, dx, accumulate);
    }
    tiled::dgrad(algorithm, device, shape, batch, dy, filter, dx, accumulate, scratch)
}

/// `dfilter = ` the gradient of the filter from the input and the gradient `dy` of the output; zeros if there are no images.
///
/// # Shapes
/// As the [module](self) says.
///
/// # Errors
/// As [`fprop`].
///
/// # Panics
/// If `x`, `dy` or the scratch does not start at a multiple of 16 bytes.
#[allow(clippy::too_many_arguments)]
pub fn wgrad<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    dy: View<'_, E>,
    dfilter: ViewMut<'_, f32>,
    scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let algorithm = algorithm::<E>(device, shape, Pass::Wgrad, batch.bucket);
    wgrad_with(algorithm, device, shape, batch, x, dy, dfilter, scratch)
}

/// [`wgrad`] by an algorithm that the caller chose.
///
/// # Shapes
/// As the [module](self) says.
///
/// # Errors
/// As [`fprop`].
///
/// # Panics
/// As [`wgrad`], or if the algorithm cannot read the shape's channels.
#[allow(clippy::too_many_arguments)]
pub fn wgrad_with<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    dy: View<'_, E>,
    mut dfilter: ViewMut<'_, f32>,
    scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    const OP: &str = "conv2d_wgrad";
    check(OP, shape, batch)?;
    check_len(OP, "x", x.len(), batch.bucket * shape.x_len())?;
    check_len(OP, "dy", dy.len(), batch.bucket * shape.y_len())?;
    check_len(OP, "dfilter", dfilter.len(), shape.filter_len())?;
    check_room(OP, "scratch", scratch.len(), algorithm.scratch_len(shape, Pass::Wgrad, batch.bucket))?;
    if batch.bucket == 0 {
        return device.fill_zero(dfilter.reborrow());
    }
    if algorithm.tile.is_wgmma() {
        return wgmma::wgrad(algorithm, device, shape, batch, x, dy, dfilter, scratch);
    }
    tiled::wgrad(algorithm, device, shape, batch, x, dy, dfilter, scratch)
}

/// Kernels index rows of the products, and the elements of the filter and of the images that a tile meets, with 32 bits.
fn check(op: &'static str, shape: &Conv2dShape, batch: Batch<'_>) -> Result<(), CudaError> {
    if let Err(error) = shape.validate() {
        panic!("{op}: {error}");
    }
    check_len(op, "count", batch.count.len(), 1)?;
    let Conv2dShape { c, h, w, k, r, s, stride, pad, dilation } = *shape;
    let tile = MAX_TILE_ROWS;
    let pixels = batch.bucket.max(1).saturating_mul((shape.p() * shape.q()).max(h * w)).saturating_add(tile);
    let span = (h.max(w) + 2 * pad).saturating_add(stride).saturating_mul(4);
    // The smallest grid of pixels that rows count: an output image, or a class of an input image.
    let grid = (shape.p() * shape.q()).min((h / stride).max(1) * (w / stride).max(1));
    let images = tile.div_ceil(grid) + 1;
    let padded = |h: usize, w: usize, c: usize| h.saturating_mul(w).saturating_mul(c).saturating_mul(images);
    let x = padded(h + 2 * pad, w + 2 * pad, c);
    let y = padded(shape.p() + r * dilation, shape.q() + s * dilation, k);
    for (what, value) in [
        ("the number of pixels of a batch and a tile", pixels),
        ("elements of the padded input images of a tile", x),
        ("elements of the padded output images of a tile", y),
        ("elements of the filter", shape.filter_len()),
        ("four times the padded input and the stride", span),
    ] {
        if i32::try_from(value).is_err() {
            return Err(CudaError::OutOfRange { kernel: op, what, value: value as f32, range: "below 2^31" });
        }
    }
    Ok(())
}
