//! Launches of `kernels/conv2d_*_wgmma.cu`: convolutions in bf16 by Hopper's warpgroup instructions, and their estimates.

use super::Epilogue;
use super::algorithm::{Algorithm, Pass, Tile, classes};
use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Grid, ImageMap, View, ViewMut, tiled_map};
use crate::shape::Conv2dShape;
use cudarc::driver::sys::CUtensorMap;

/// Rows that one entry of fprop's statistics covers; the kernel's constant.
pub(super) const STATISTICS_ROWS: usize = 128;

/// Threads of a block: a warpgroup that copies and two that compute.
const BLOCK_SIZE: u32 = 384;
/// Bytes of a swizzled row of 64 bf16.
const ROW_BYTES: usize = 128;
/// Elements of such a row; rows of a panel.
const PANEL: usize = 64;
/// What the consumers' 8 warps stage, 16 rows each, on the way out.
const STAGING_BYTES: usize = 8 * 16 * ROW_BYTES;

/// Multiply-accumulates of a multiprocessor in a cycle.
const MACS_PER_CYCLE: f64 = 2048.0;
/// What a multiprocessor gets from L2 in a cycle: tiles of 128x256 without clusters reach about 4/5 of the matrix units'
/// peak on H100, and then read 37 bytes a cycle.
const L2_BYTES_PER_CYCLE: f64 = 38.0;
/// What a multiprocessor's warps store in a cycle, on their way through shared memory to L2.
const STORE_BYTES_PER_CYCLE: f64 = 32.0;
/// Bytes of device memory in a cycle and multiprocessor.
const BYTES_PER_CYCLE: f64 = 12.0;
/// From a tile's first copy to its first product; a block's start and end; another launch.
const FILL_CYCLES: f64 = 800.0;
const BLOCK_CYCLES: f64 = 2000.0;
const LAUNCH_CYCLES: f64 = 4000.0;
/// Most parts of wgrad's pixels, and fewest steps of a part.
const MAX_SPLITS: usize = 256;
const MIN_STEPS: usize = 4;

/// A compiled tile: rows and columns that a block computes at a time, and the stages of its pipeline.
struct Compiled {
    m: usize,
    n: usize,
    stages: usize,
    entry: &'static str,
}

macro_rules! tiles {
    ($prefix:literal, $(($m:literal, $n:literal, $stages:literal)),*) => {
        [$(Compiled {
            m: $m,
            n: $n,
            stages: $stages,
            entry: concat!("conv2d_", $prefix, "_wgmma_", stringify!($m), "x", stringify!($n), "_bf16"),
        }),*]
    };
}

/// The larger first: of two that cost the same it is taken.
const FPROP: [Compiled; 5] =
    tiles!("fprop", (128, 256, 4), (256, 128, 4), (128, 128, 5), (256, 64, 4), (128, 64, 6));
const DGRAD: [Compiled; 5] =
    tiles!("dgrad", (128, 256, 4), (256, 128, 4), (128, 128, 5), (256, 64, 4), (128, 64, 6));
const WGRAD: [Compiled; 8] = tiles!(
    "wgrad",
    (128, 256, 4),
    (128, 192, 4),
    (128, 128, 5),
    (128, 64, 6),
    (64, 256, 4),
    (64, 192, 5),
    (64, 128, 6),
    (64, 64, 6)
);
const WGRAD_SUM: &str = "conv2d_wgrad_wgmma_sum_f32";

const fn compiled(pass: Pass) -> &'static [Compiled] {
    match pass {
        Pass::Fprop => &FPROP,
        Pass::Dgrad => &DGRAD,
        Pass::Wgrad => &WGRAD,
    }
}

fn find(pass: Pass, tile: Tile) -> &'static Compiled {
    let fits = |compiled: &&Compiled| compiled.m == tile.rows() && compiled.n == tile.columns();
    compiled(pass).iter().find(fits).unwrap_or_else(|| panic!("{pass:?} has no kernel for {tile:?}"))
}

/// Rows and columns of the tiles of a pass.
pub(super) fn tiles(pass: Pass) -> impl Iterator<Item = (usize, usize)> {
    compiled(pass).iter().map(|compiled| (compiled.m, compiled.n))
}

/// The entry point of a tile.
pub(super) fn kernel(pass: Pass, tile: Tile) -> &'static str {
    find(pass, tile).entry
}

impl Compiled {
    /// Cycles of 64 of gemm_k: those of the matrix units or of what L2 has to bring, whichever are more.
    fn step_cycles(&self) -> f64 {
        let products = (self.m * self.n * PANEL) as f64 / MACS_PER_CYCLE;
        products.max(((self.m + self.n) * ROW_BYTES) as f64 / L2_BYTES_PER_CYCLE)
    }

    fn ring_bytes(&self) -> usize {
        self.stages * ((self.m + self.n) * ROW_BYTES + 2 * size_of::<u64>())
    }

    fn algorithm(&self, splits: usize) -> Algorithm {
        Algorithm { tile: Tile::Wgmma { rows: self.m, columns: self.n }, splits }
    }
}

/// fprop, wgrad, or one of dgrad's classes as a matrix product, and how its image is walked: x, or dgrad's dy.
struct Product {
    rows: usize,
    /// For wgrad in panels, of 64 input channels at one place of the filter.
    columns: usize,
    /// Of 64 of gemm_k.
    steps: usize,
    map: ImageMap,
}

/// Pixels of dx with the same remainders by the stride, as the same taps reach them.
struct Class {
    /// The first of them, down and right.
    first: [usize; 2],
    /// How many, in an image.
    pixels: [usize; 2],
    /// How many taps; the last of them, which is taken first, in the filter; where it reads for the first pixel, in dy.
    taps: [usize; 2],
    last_tap: [usize; 2],
    lower: [i64; 2],
    /// Pixels of dy between taps.
    tap_offset: usize,
}

impl Class {
    /// The classes that have pixels.
    fn all(shape: &Conv2dShape) -> impl Iterator<Item = Self> {
        let [down, right] = classes(shape);
        (0..down * right).map(move |i| Self::new(shape, [i / right, i % right]))
    }

    /// Of pixels whose remainders are `first`. With a stride the dilation is 1, or the stride is 1: then every tap is in.
    fn new(shape: &Conv2dShape, first: [usize; 2]) -> Self {
        let Conv2dShape { stride, pad, dilation, .. } = *shape;
        let mut class = Self {
            first,
            pixels: [0; 2],
            taps: [0; 2],
            last_tap: [0; 2],
            lower: [0; 2],
            tap_offset: dilation,
        };
        for (i, (extent, taps)) in [(shape.h, shape.r), (shape.w, shape.s)].into_iter().enumerate() {
            class.pixels[i] = (extent - first[i]).div_ceil(stride);
            let reaches = |tap: &usize| (first[i] + pad + (stride - 1) * dilation * tap) % stride == 0;
            let mut reaching = (0..taps).filter(reaches);
            class.taps[i] = reaching.clone().count();
            if let Some(last) = reaching.next_back() {
                class.last_tap[i] = last;
                class.lower[i] = ((first[i] + pad) as i64 - (dilation * last) as i64) / stride as i64;
            }
        }
        class
    }

    fn product(&self, shape: &Conv2dShape, bucket: usize) -> Product {
        let [h, w] = self.pixels;
        let map = ImageMap {
            extents: [bucket, shape.p(), shape.q(), shape.k],
            output: self.pixels,
            lower: self.lower,
            stride: 1,
            pixels: PANEL as u32,
        };
        let steps = self.taps[0] * self.taps[1] * shape.k.div_ceil(PANEL);
        Product { rows: bucket * h * w, columns: shape.c, steps, map }
    }
}

impl Product {
    /// fprop's or wgrad's, or those of dgrad's classes.
    fn all(shape: &Conv2dShape, pass: Pass, bucket: usize) -> Vec<Self> {
        match pass {
            Pass::Dgrad => Class::all(shape).map(|class| class.product(shape, bucket)).collect(),
            Pass::Fprop | Pass::Wgrad => vec![Self::over_x(shape, pass, bucket)],
        }
    }

    fn over_x(shape: &Conv2dShape, pass: Pass, bucket: usize) -> Self {
        let (p, q, taps) = (shape.p(), shape.q(), shape.r * shape.s);
        let map = ImageMap {
            extents: [bucket, shape.h, shape.w, shape.c],
            output: [p, q],
            lower: [-(shape.pad as i64); 2],
            stride: shape.stride,
            pixels: PANEL as u32,
        };
        let (pixels, blocks) = (bucket * p * q, shape.c.div_ceil(PANEL));
        match pass {
            Pass::Wgrad => {
                let columns = taps * blocks * PANEL;
                Self { rows: shape.k, columns, steps: pixels.div_ceil(PANEL), map }
            }
            _ => Self { rows: pixels, columns: shape.k, steps: taps * blocks, map },
        }
    }

    fn tiles(&self, tile: &Compiled) -> usize {
        self.rows.div_ceil(tile.m) * self.columns.div_ceil(tile.n)
    }

    /// Estimated cycles of fprop and dgrad: as many as the busiest multiprocessor needs for the steps and the stores of
    /// its tiles.
    fn image_cycles(&self, multiprocessors: usize, tile: &Compiled) -> f64 {
        let busiest = self.tiles(tile).div_ceil(multiprocessors) as f64;
        let stores = (tile.m * tile.n * 2) as f64 / STORE_BYTES_PER_CYCLE;
        // The next tile's copies go on during the stores, its products do not.
        busiest * (self.steps as f64 * tile.step_cycles() + stores) + FILL_CYCLES + BLOCK_CYCLES
    }

    /// Estimated cycles of wgrad: the rounds of blocks, one a multiprocessor, then the sums of the parts.
    fn filter_cycles(
        &self,
        multiprocessors: usize,
        tile: &Compiled,
        splits: usize,
        filter_len: usize,
    ) -> f64 {
        let rounds = (self.tiles(tile) * splits).div_ceil(multiprocessors) as f64;
        let steps = self.steps.div_ceil(splits) as f64;
        let computing = rounds * (steps * tile.step_cycles() + FILL_CYCLES + BLOCK_CYCLES);
        if splits == 1 {
            return computing;
        }
        let bytes = (filter_len * 4) as f64 * (2 * splits + 1) as f64;
        computing + LAUNCH_CYCLES + bytes / (BYTES_PER_CYCLE * multiprocessors as f64)
    }
}

/// Whether these kernels compute this pass: on Hopper, in bf16, C and K multiples of 8 (rows of 16 bytes), what tensor
/// maps can express, pixels that 31 bits count, and for dgrad no dilation with a stride.
pub(super) fn supports<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    pass: Pass,
    bucket: usize,
) -> bool {
    if !E::IS_BF16 || bucket == 0 || !shape.c.is_multiple_of(8) || !shape.k.is_multiple_of(8) {
        return false;
    }
    let pixels = (shape.h * shape.w).max(shape.p() * shape.q()).saturating_mul(bucket);
    let offsets = shape.dilation * (shape.r.max(shape.s) - 1);
    device.has_kernel(WGRAD_SUM)
        && pixels < (1 << 31) - (1 << 10)
        && offsets < 256
        && (pass != Pass::Dgrad || shape.stride == 1 || shape.dilation == 1)
        && shape.stride <= 8
        && Product::all(shape, pass, bucket).iter().all(|product| product.map.is_expressible())
}

/// The tile, and for wgrad the parts of its pixels, of fewest estimated cycles, and these.
pub(super) fn choose(
    multiprocessors: usize,
    shape: &Conv2dShape,
    pass: Pass,
    bucket: usize,
) -> (Algorithm, f64) {
    let products = Product::all(shape, pass, bucket);
    let mut best = (compiled(pass)[0].algorithm(1), f64::INFINITY);
    let mut consider = |algorithm: Algorithm, cycles: f64| {
        if cycles < best.1 {
            best = (algorithm, cycles);
        }
    };
    for tile in compiled(pass) {
        if pass != Pass::Wgrad {
            let cycles =
                products.iter().map(|product| product.image_cycles(multiprocessors, tile)).sum::<f64>();
            consider(tile.algorithm(1), cycles + (products.len() - 1) as f64 * LAUNCH_CYCLES);
            continue;
        }
        let product = &products[0];
        let most = (product.steps / MIN_STEPS).clamp(1, MAX_SPLITS);
        for splits in 1..=most {
            let cycles = product.filter_cycles(multiprocessors, tile, splits, shape.filter_len());
            consider(tile.algorithm(splits), cycles);
        }
    }
    best
}

fn describe(shape: &Conv2dShape, bucket: usize) -> String {
    format!("{bucket} images of bf16, {shape:?}")
}

/// The filter [K, R*S, C], copied as rows of 64 channels of some output channels at one place.
fn filter_map<E: Element>(
    kernel: &'static str,
    shape: &Conv2dShape,
    filter: &View<'_, E>,
    output_channels: usize,
) -> Result<CUtensorMap, CudaError> {
    let extents = [shape.k, shape.r * shape.s, shape.c];
    tiled_map(kernel, ("filter", filter), extents, [output_channels as u32, 1])
}

/// At most a block a multiprocessor: each takes tiles by turns.
fn image_grid(device: &CudaDevice, product: &Product, tile: &Compiled) -> Grid {
    let blocks = product.tiles(tile).min(device.multiprocessors() as usize);
    let statistics = tile.m / 16 * 2 * tile.n * size_of::<f32>();
    let shared = tile.ring_bytes() + STAGING_BYTES + statistics;
    Grid { blocks: [blocks as u32, 1, 1], threads: BLOCK_SIZE, shared_bytes: shared as u32 }
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
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let tile = find(Pass::Fprop, algorithm.tile);
    let mut product = Product::over_x(shape, Pass::Fprop, bucket);
    product.map.pixels = tile.m as u32;
    check_access::<E>(algorithm, device, shape, Pass::Fprop, bucket, y.address());
    let x_map = product.map.encode(tile.entry, ("x", &x))?;
    let filter_map = filter_map(tile.entry, shape, &filter, tile.n)?;
    let mut launch = device.launch(tile.entry)?;
    launch.output(&mut y).optional_output(epilogue.statistics.as_mut()).map(&x_map).map(&filter_map);
    launch.optional_input(epilogue.bias.as_ref()).input(&count);
    let (p, q) = (shape.p(), shape.q());
    for extent in [shape.c, shape.k, p, q, shape.r, shape.s, shape.stride, shape.pad, shape.dilation] {
        launch.scalar(extent as i32);
    }
    launch.scalar(i32::from(epilogue.relu));
    // SAFETY: the arguments are the kernel's, in order and type; it writes at most the bucket's rows of `y` and their
    // statistics, and reads through maps of `x` and `filter`.
    unsafe { launch.run(image_grid(device, &product, tile), || describe(shape, bucket)) }
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
) -> Result<(), CudaError> {
    let Batch { bucket, count } = batch;
    let tile = find(Pass::Dgrad, algorithm.tile);
    check_access::<E>(algorithm, device, shape, Pass::Dgrad, bucket, dx.address());
    let filter_map = filter_map(tile.entry, shape, &filter, PANEL)?;
    for class in Class::all(shape) {
        let mut product = class.product(shape, bucket);
        // Where no tap reaches, the gradient is 0.
        if accumulate && product.steps == 0 {
            continue;
        }
        product.map.pixels = tile.m as u32;
        let dy_map = product.map.encode(tile.entry, ("dy", &dy))?;
        let mut launch = device.launch(tile.entry)?;
        launch.output(&mut dx).map(&dy_map).map(&filter_map).input(&count);
        launch.scalar(shape.c as i32).scalar(shape.k as i32);
        launch.scalar(class.pixels[0] as i32).scalar(class.pixels[1] as i32);
        launch.scalar(class.lower[0] as i32).scalar(class.lower[1] as i32).scalar(class.tap_offset as i32);
        launch.scalar(class.taps[0] as i32).scalar(class.taps[1] as i32);
        launch.scalar((class.last_tap[0] * shape.s + class.last_tap[1]) as i32).scalar(shape.s as i32);
        launch.scalar(shape.stride as i32).scalar(class.first[0] as i32).scalar(class.first[1] as i32);
        launch.scalar(shape.h as i32).scalar(shape.w as i32).scalar(i32::from(accumulate));
        // SAFETY: the arguments are the kernel's, in order and type; it writes at most the class's pixels of the bucket's
        // images in `dx`, and reads through maps of `dy` and `filter`.
        unsafe { launch.run(image_grid(device, &product, tile), || describe(shape, bucket)) }?;
    }
    Ok(())
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
    let (tile, splits, numel) = (find(Pass::Wgrad, algorithm.tile), algorithm.splits, shape.filter_len());
    let product = Product::over_x(shape, Pass::Wgrad, bucket);
    check_access::<E>(algorithm, device, shape, Pass::Wgrad, bucket, 0);
    let x_map = product.map.encode(tile.entry, ("x", &x))?;
    let pixels = bucket * shape.p() * shape.q();
    let dy_map = tiled_map(tile.entry, ("dy", &dy), [pixels, shape.k], [PANEL as u32])?;
    let mut launch = device.launch(tile.entry)?;
    match splits {
        1 => launch.output(&mut dfilter),
        _ => launch.output(&mut scratch),
    };
    launch.map(&x_map).map(&dy_map).input(&count);
    let (p, q) = (shape.p(), shape.q());
    for extent in [shape.c, shape.k, p, q, shape.r, shape.s, shape.stride, shape.pad, shape.dilation, splits]
    {
        launch.scalar(extent as i32);
    }
    let blocks = [(product.tiles(tile) * splits) as u32, 1, 1];
    let grid = Grid { blocks, threads: BLOCK_SIZE, shared_bytes: tile.ring_bytes() as u32 };
    // SAFETY: the arguments are the kernel's, in order and type; it writes `splits` filters of partial sums, for which the
    // scratch was checked, or `dfilter`, and reads through maps of `x` and `dy`.
    unsafe { launch.run(grid, || describe(shape, bucket)) }?;
    if splits == 1 {
        return Ok(());
    }
    let mut launch = device.launch(WGRAD_SUM)?;
    launch.output(&mut dfilter).input(&scratch.view()).scalar(splits as i32).scalar(numel as i64);
    let shapes = || format!("{splits} parts of {}", describe(shape, bucket));
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `numel` of `dfilter` and `splits` times
    // that of the partial sums.
    unsafe { launch.run(device.grid_stride(numel), shapes) }
}

/// What the kernels rest on; the driver checks the addresses that go into maps.
fn check_access<E: Element>(
    algorithm: Algorithm,
    device: &CudaDevice,
    shape: &Conv2dShape,
    pass: Pass,
    bucket: usize,
    output: u64,
) {
    assert!(
        supports::<E>(device, shape, pass, bucket) && (algorithm.splits == 1 || pass == Pass::Wgrad),
        "{algorithm:?} cannot compute {pass:?} of {} here",
        describe(shape, bucket)
    );
    assert!(
        output.is_multiple_of(16),
        "the tensors of a convolution start at multiples of 16 bytes: {output:x}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const MULTIPROCESSORS: usize = 132;
    const LARGE: Conv2dShape =
        Conv2dShape { c: 256, h: 56, w: 56, k: 256, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };

    #[test]
    fn large_products_take_the_tiles_that_read_least() {
        let tile = |shape: &Conv2dShape, pass| choose(MULTIPROCESSORS, shape, pass, 64).0.tile;
        for pass in [Pass::Fprop, Pass::Dgrad, Pass::Wgrad] {
            assert_eq!(tile(&LARGE, pass), Tile::Wgmma { rows: 128, columns: 256 }, "{pass:?}");
        }
        let narrow = Conv2dShape { k: 64, c: 64, ..LARGE };
        assert_eq!(tile(&narrow, Pass::Fprop), Tile::Wgmma { rows: 256, columns: 64 });
        // Nine panels of 64 channels.
        assert_eq!(tile(&narrow, Pass::Wgrad), Tile::Wgmma { rows: 64, columns: 192 });
    }

    #[test]
    fn taps_and_classes_meet_as_in_the_definition() {
        for (stride, pad, dilation, r, s) in
            [(1, 1, 1, 3, 3), (1, 2, 2, 3, 1), (2, 1, 1, 3, 3), (3, 2, 1, 2, 5)]
        {
            let shape = Conv2dShape { h: 9, w: 11, r, s, stride, pad, dilation, ..LARGE };
            for class in Class::all(&shape) {
                for (i, taps) in [r, s].into_iter().enumerate() {
                    let reached = |h: usize, tap: usize| {
                        let at = (h + pad) as i64 - (dilation * tap) as i64;
                        (at % stride as i64 == 0).then_some(at / stride as i64)
                    };
                    for j in 0..class.pixels[i] {
                        let expected =
                            (0..taps).rev().filter_map(|tap| reached(j * stride + class.first[i], tap));
                        let walk = (0..class.taps[i]).map(|t| {
                            let tap = class.last_tap[i] - t * stride;
                            let p = class.lower[i] + (j + t * class.tap_offset) as i64;
                            assert_eq!(reached(j * stride + class.first[i], tap), Some(p), "{shape:?}");
                            p
                        });
                        assert!(walk.eq(expected), "{shape:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn wgrad_keeps_the_device_busy() {
        for shape in [LARGE, Conv2dShape { k: 64, c: 64, ..LARGE }, Conv2dShape { h: 7, w: 7, ..LARGE }] {
            let (algorithm, _) = choose(MULTIPROCESSORS, &shape, Pass::Wgrad, 64);
            let tiles = Product::over_x(&shape, Pass::Wgrad, 64).tiles(find(Pass::Wgrad, algorithm.tile));
            let blocks = tiles * algorithm.splits;
            let rounds = blocks.div_ceil(MULTIPROCESSORS);
            assert!(5 * blocks >= 4 * rounds * MULTIPROCESSORS, "{blocks} blocks of {shape:?}");
        }
    }

    #[test]
    fn shared_memory_is_within_the_device_s() {
        let most = 227 << 10;
        for pass in [Pass::Fprop, Pass::Dgrad, Pass::Wgrad] {
            for tile in compiled(pass) {
                let images = STAGING_BYTES + tile.m / 16 * 2 * tile.n * 4;
                let more = if pass == Pass::Wgrad { 0 } else { images };
                assert!(tile.ring_bytes() + more <= most, "{}", tile.entry);
            }
        }
    }
}
