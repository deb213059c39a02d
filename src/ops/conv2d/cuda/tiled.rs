//! Launches of `kernels/conv2d_fprop.cu`, `conv2d_dgrad.cu` and `conv2d_wgrad.cu`.

use super::Epilogue;
use super::algorithm::{Algorithm, Pass, Tile, classes, fills_vectors, part_len, step};
use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Grid, Launch, View, ViewMut};
use crate::shape::Conv2dShape;

/// Tiles of operands in flight; as in `kernels/conv2d_tile.cuh`.
const fn stages<E: Element>(tile: Tile) -> usize {
    match (tile, E::IS_BF16) {
        (Tile::Gather, _) => 2,
        (_, true) => 4,
        (_, false) => 3,
    }
}

/// Bytes of a row of an operand's tile.
const STEP_BYTES: usize = 64;
/// Floats after each row of the tile on its way out, so that the rows of a warp's accesses lie in other banks.
const ROW_PADDING: usize = 8;

fn threads<E: Element>(tile: Tile) -> u32 {
    match (tile, E::IS_BF16) {
        (Tile::Wgmma { .. }, _) => unreachable!("launched by the module wgmma"),
        (_, true) | (Tile::T128x64, false) => 128,
        (Tile::T128x128, false) => 256,
        (Tile::T64x64 | Tile::Gather, false) => 64,
    }
}

/// Shared memory of a block.
pub(super) fn shared_bytes<E: Element>(tile: Tile) -> usize {
    let operands = stages::<E>(tile) * (tile.rows() + tile.columns()) * STEP_BYTES;
    let result = tile.rows() * (tile.columns() + ROW_PADDING) * size_of::<f32>();
    operands.max(result)
}

fn grid<E: Element>(algorithm: Algorithm, rows: usize, columns: usize, count: usize) -> Grid {
    let tile = algorithm.tile;
    let tiles = count * rows.div_ceil(tile.rows()) * columns.div_ceil(tile.columns());
    Grid {
        blocks: [tiles as u32, algorithm.splits as u32, 1],
        threads: threads::<E>(tile),
        shared_bytes: shared_bytes::<E>(tile) as u32,
    }
}

/// The shape, as every kernel takes it.
fn extents(launch: &mut Launch<'_>, shape: &Conv2dShape) {
    let Conv2dShape { c, h, w, k, r, s, stride, pad, dilation } = *shape;
    for extent in [c, h, w, k, r, s, shape.p(), shape.q(), stride, pad, dilation] {
        launch.scalar(extent as i32);
    }
}

/// What the kernels' 16-byte accesses rest on.
fn check_access<E: Element>(algorithm: Algorithm, shape: &Conv2dShape, pass: Pass, addresses: &[u64]) {
    assert!(
        algorithm.tile == Tile::Gather || fills_vectors::<E>(shape, pass),
        "{algorithm:?} cannot load the channels of {shape:?}"
    );
    assert!(algorithm.splits >= 1, "{algorithm:?}");
    assert!(
        addresses.iter().all(|address| address.is_multiple_of(16)),
        "the tensors of a convolution start at multiples of 16 bytes: {addresses:x?}"
    );
}

fn shapes<E: Element>(shape: &Conv2dShape, bucket: usize, algorithm: Algorithm) -> String {
    let dtype = if E::IS_BF16 { "bf16" } else { "f32" };
    format!("{bucket} images of {dtype}, {shape:?}, {algorithm:?}")
}

#[allow(clippy::too_many_arguments)]
pub(super) fn fprop<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    filter: View<'_, E>,
    mut epilogue: Epilogue<'_>,
    mut y: ViewMut<'_, E>,
    mut scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let splits = algorithm.splits;
    let addresses = [x.address(), filter.address(), y.address(), scratch.address()];
    check_access::<E>(algorithm, shape, Pass::Fprop, &addresses[..if splits > 1 { 4 } else { 3 }]);
    let part_len = part_len(shape, Pass::Fprop, bucket);
    let (rows, pixels) = (bucket * shape.p() * shape.q(), shape.p() * shape.q());
    // Where there are parts, the epilogue is the second kernel's.
    let here = splits == 1;
    let mut launch = device.launch(algorithm.kernel::<E>(Pass::Fprop))?;
    launch.output(&mut y).optional_output(epilogue.statistics.as_mut().filter(|_| here));
    launch.optional_output(Some(&mut scratch).filter(|_| !here)).input(&x).input(&filter);
    launch.optional_input(epilogue.bias.as_ref().filter(|_| here)).input(&count);
    extents(&mut launch, shape);
    launch.scalar(i32::from(epilogue.relu && here)).scalar(part_len as i64);
    // SAFETY: the arguments are the kernel's, in order and type; lengths were checked; it stays within them.
    unsafe {
        launch.run(grid::<E>(algorithm, rows, shape.k, 1), || shapes::<E>(shape, bucket, algorithm))?;
    }
    if here {
        return Ok(());
    }
    let mut launch = device.launch(E::entry("conv2d_fprop_reduce_f32", "conv2d_fprop_reduce_bf16"))?;
    launch.output(&mut y).optional_output(epilogue.statistics.as_mut()).input(&scratch.view());
    launch.optional_input(epilogue.bias.as_ref()).input(&count);
    launch.scalar(pixels as i32).scalar(shape.k as i32).scalar(i32::from(epilogue.relu));
    launch.scalar(splits as i32).scalar(part_len as i64);
    let tiles = rows.div_ceil(algorithm.statistics_tile_rows()) * shape.k.div_ceil(32);
    let grid = Grid { blocks: [tiles as u32, 1, 1], threads: 256, shared_bytes: 0 };
    // SAFETY: as above.
    unsafe { launch.run(grid, || shapes::<E>(shape, bucket, algorithm)) }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn dgrad<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    filter: View<'_, E>,
    mut dx: ViewMut<'_, E>,
    accumulate: bool,
    mut scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let splits = algorithm.splits;
    let addresses = [dy.address(), filter.address(), dx.address(), scratch.address()];
    check_access::<E>(algorithm, shape, Pass::Dgrad, &addresses[..if splits > 1 { 4 } else { 3 }]);
    let part_len = part_len(shape, Pass::Dgrad, bucket);
    let [classes_h, classes_w] = classes(shape);
    let rows = bucket * shape.h.div_ceil(shape.stride) * shape.w.div_ceil(shape.stride);
    let here = splits == 1;
    let mut launch = device.launch(algorithm.kernel::<E>(Pass::Dgrad))?;
    launch.output(&mut dx).optional_output(Some(&mut scratch).filter(|_| !here));
    launch.input(&dy).input(&filter).input(&count);
    extents(&mut launch, shape);
    launch.scalar((shape.stride / gcd(shape.stride, shape.dilation)) as i32);
    launch.scalar(rows.div_ceil(algorithm.tile.rows()) as i32);
    launch.scalar(i32::from(accumulate && here)).scalar(part_len as i64);
    let grid = grid::<E>(algorithm, rows, shape.c, classes_h * classes_w);
    // SAFETY: the arguments are the kernel's, in order and type; lengths were checked; it stays within them.
    unsafe { launch.run(grid, || shapes::<E>(shape, bucket, algorithm))? };
    if here {
        return Ok(());
    }
    let mut launch = device.launch(E::entry("conv2d_dgrad_reduce_f32", "conv2d_dgrad_reduce_bf16"))?;
    launch.output(&mut dx).input(&scratch.view()).input(&count).scalar(shape.x_len() as i32);
    launch.scalar(i32::from(accumulate)).scalar(splits as i32).scalar(part_len as i64);
    // SAFETY: as above.
    unsafe { launch.run(device.grid_stride(dx.len()), || shapes::<E>(shape, bucket, algorithm)) }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn wgrad<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    dy: View<'_, E>,
    mut dfilter: ViewMut<'_, f32>,
    mut scratch: ViewMut<'_, f32>,
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let splits = algorithm.splits;
    let addresses = [x.address(), dy.address(), scratch.address()];
    check_access::<E>(algorithm, shape, Pass::Wgrad, &addresses[..if splits > 1 { 3 } else { 2 }]);
    let part_len = part_len(shape, Pass::Wgrad, bucket);
    let pixels = bucket * shape.p() * shape.q();
    let split_pixels = pixels.div_ceil(step::<E>()).div_ceil(splits) * step::<E>();
    let mut launch = device.launch(algorithm.kernel::<E>(Pass::Wgrad))?;
    match splits {
        1 => launch.output(&mut dfilter),
        _ => launch.output(&mut scratch),
    };
    launch.input(&x).input(&dy).input(&count);
    extents(&mut launch, shape);
    launch.scalar(split_pixels as i32).scalar(part_len as i64);
    let grid = grid::<E>(algorithm, shape.k, shape.r * shape.s * shape.c, 1);
    // SAFETY: the arguments are the kernel's, in order and type; lengths were checked; it stays within them.
    unsafe { launch.run(grid, || shapes::<E>(shape, bucket, algorithm))? };
    if splits == 1 {
        return Ok(());
    }
    let numel = dfilter.len();
    let mut launch = device.launch("conv2d_wgrad_reduce_f32")?;
    launch.output(&mut dfilter).input(&scratch.view());
    launch.scalar(splits as i32).scalar(part_len as i64).scalar(numel as i64);
    // SAFETY: as above.
    unsafe { launch.run(device.grid_stride(numel), || shapes::<E>(shape, bucket, algorithm)) }
}

const fn gcd(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
