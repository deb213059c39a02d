//! Launches of `kernels/conv2d_*_wgmma.cu`: convolutions in bf16 on Hopper, for shapes that fill it.

use super::Epilogue;
use crate::device::cuda::{
    Batch, CudaDevice, CudaError, Element, Grid, ImageMap, View, ViewMut, check_len, tiled_map,
};
use crate::shape::Conv2dShape;

/// Rows that one entry of fprop's statistics covers; the kernel's constant.
pub const STATISTICS_ROWS: usize = 128;

/// Threads of a block: a warpgroup that copies and two that compute.
const BLOCK_SIZE: u32 = 384;
/// Bytes of a swizzled row of 64 bf16.
const ROW_BYTES: usize = 128;
/// Rows and columns that a panel of an operand has.
const PANEL: usize = 64;
/// Multiprocessors of the devices that splits are planned for, H100 and H200: results must not depend on the device.
const MULTIPROCESSORS: usize = 132;

/// Cycles until a block's pipeline runs, and of its end.
const TILE_CYCLES: usize = 1500;
/// Bytes that a multiprocessor's tile gets from L2 in 10 cycles: measured rates of 128x256 tiles on H100 are about 37 a
/// cycle, the matrix units then standing at 4/5 of their peak.
const L2_BYTES_IN_10_CYCLES: usize = 400;
/// Multiply-accumulates of a multiprocessor in a cycle, bf16.
const MACS_A_CYCLE: usize = 2048;
/// Bytes of device memory and L2 that all multiprocessors move in a cycle.
const MEMORY_BYTES_A_CYCLE: usize = 2000;

/// One of the three passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// y from x and filter.
    Fprop,
    /// dx from dy and filter.
    Dgrad,
    /// dfilter from x and dy.
    Wgrad,
}

/// A compiled tile: what a block computes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Stages of its pipeline.
    stages: usize,
    /// The entry point.
    entry: &'static str,
}

macro_rules! tiles {
    ($prefix:literal, $(($m:literal, $n:literal, $stages:literal)),*) => {
        [$(Tile {
            m: $m,
            n: $n,
            stages: $stages,
            entry: concat!("conv2d_", $prefix, "_wgmma_", stringify!($m), "x", stringify!($n), "_bf16"),
        }),*]
    };
}

/// fprop's tiles, the larger first: of two that cost the same it is taken, as it reads less.
pub const FPROP: [Tile; 5] =
    tiles!("fprop", (128, 256, 4), (256, 128, 4), (128, 128, 5), (256, 64, 4), (128, 64, 6));
/// dgrad's tiles.
pub const DGRAD: [Tile; 5] =
    tiles!("dgrad", (128, 256, 4), (256, 128, 4), (128, 128, 5), (256, 64, 4), (128, 64, 6));
/// wgrad's tiles.
pub const WGRAD: [Tile; 8] = tiles!(
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

impl Tile {
    /// Cycles of 64 of gemm_k: those of the matrix units or of what L2 has to bring, whichever are more.
    fn step_cycles(&self) -> usize {
        let products = self.m * self.n * PANEL / MACS_A_CYCLE;
        products.max((self.m + self.n) * ROW_BYTES * 10 / L2_BYTES_IN_10_CYCLES)
    }

    fn ring_bytes(&self) -> usize {
        self.stages * ((self.m + self.n) * ROW_BYTES + 2 * size_of::<u64>())
    }
}

/// A GEMM whose rows are pixels, and how its image is walked.
struct ImageGemm {
    rows: usize,
    columns: usize,
    /// Blocks of 64 of gemm_k.
    steps: usize,
    map: ImageMap,
}

impl ImageGemm {
    fn new(shape: &Conv2dShape, pass: Pass, bucket: usize) -> Self {
        let Conv2dShape { c, h, w, k, r, s, stride, pad, dilation } = *shape;
        let (p, q) = (shape.p(), shape.q());
        let (pad, span) = (pad as i64, |taps: usize| (dilation * (taps - 1)) as i64);
        match pass {
            Pass::Dgrad => Self {
                rows: bucket * h * w,
                columns: c,
                steps: r * s * k.div_ceil(PANEL),
                map: ImageMap {
                    extents: [bucket, p, q, k],
                    output: [h, w],
                    lower: [pad - span(r), pad - span(s)],
                    stride,
                    pixels: PANEL as u32,
                },
            },
            Pass::Fprop | Pass::Wgrad => Self {
                rows: bucket * p * q,
                columns: k,
                steps: r * s * c.div_ceil(PANEL),
                map: ImageMap {
                    extents: [bucket, h, w, c],
                    output: [p, q],
                    lower: [-pad; 2],
                    stride,
                    pixels: PANEL as u32,
                },
            },
        }
    }

    fn tiles(&self, tile: &Tile) -> usize {
        self.rows.div_ceil(tile.m) * self.columns.div_ceil(tile.n)
    }

    /// The tile of fewest cycles: whole rounds of all multiprocessors, each with its steps and its stores.
    fn tile(&self, device: &CudaDevice, list: &[Tile]) -> Tile {
        let cycles = |tile: &&Tile| {
            let rounds = self.tiles(tile).div_ceil(device.multiprocessors() as usize);
            rounds * (self.steps * tile.step_cycles() + TILE_CYCLES + tile.m * tile.n / 16)
        };
        *list.iter().min_by_key(cycles).expect("there are tiles")
    }
}

/// How wgrad goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterPlan {
    /// What a block computes.
    pub tile: Tile,
    /// Among how many blocks the pixels of a tile are split; at least 1.
    pub splits: usize,
}

impl FilterPlan {
    /// The plan of fewest cycles. By the shape and the bucket alone, so that the same problem is always added up in the
    /// same order.
    pub fn new(shape: &Conv2dShape, bucket: usize) -> Self {
        let steps = (bucket * shape.p() * shape.q()).div_ceil(PANEL).max(1);
        let cycles = |plan: &Self| {
            let rounds = (plan.tiles(shape) * plan.splits).div_ceil(MULTIPROCESSORS);
            let partial = plan.scratch_len(shape) * 2 * size_of::<f32>();
            let cycles = steps.div_ceil(plan.splits) * plan.tile.step_cycles() + TILE_CYCLES;
            rounds * cycles + partial / MEMORY_BYTES_A_CYCLE
        };
        let splits = 1..=steps.min(MULTIPROCESSORS);
        let plans = WGRAD.iter().flat_map(|tile| splits.clone().map(|splits| Self { tile: *tile, splits }));
        plans.min_by_key(cycles).expect("there are plans")
    }

    fn tiles(&self, shape: &Conv2dShape) -> usize {
        let columns = shape.r * shape.s * shape.c.div_ceil(PANEL) * PANEL;
        shape.k.div_ceil(self.tile.m) * columns.div_ceil(self.tile.n)
    }

    /// Floats of scratch that it needs.
    pub fn scratch_len(&self, shape: &Conv2dShape) -> usize {
        if self.splits > 1 { self.splits * shape.filter_len() } else { 0 }
    }
}

/// The tile of an image pass, [`Pass::Fprop`] or [`Pass::Dgrad`], that takes the fewest cycles.
pub fn image_tile(device: &CudaDevice, shape: &Conv2dShape, pass: Pass, bucket: usize) -> Tile {
    ImageGemm::new(shape, pass, bucket).tile(device, if pass == Pass::Dgrad { &DGRAD } else { &FPROP })
}

/// Whether these kernels compute this pass: on Hopper, in bf16, C and K multiples of 8 (rows of 16 bytes), what tensor
/// maps can express, pixels that 31 bits count, and for dgrad stride 1, as its output's pixels would otherwise each read
/// other places of the filter.
pub fn supports<E: Element>(device: &CudaDevice, shape: &Conv2dShape, pass: Pass, bucket: usize) -> bool {
    if !E::IS_BF16 || bucket == 0 || shape.c % 8 != 0 || shape.k % 8 != 0 {
        return false;
    }
    let gemm = ImageGemm::new(shape, pass, bucket);
    let pixels = bucket.saturating_mul(shape.h * shape.w).max(gemm.rows);
    let offsets = shape.dilation * (shape.r.max(shape.s) - 1);
    device.has_kernel(WGRAD_SUM)
        && gemm.map.is_expressible()
        && offsets < 256
        && pixels < (1 << 31) - (1 << 10)
        && (pass != Pass::Dgrad || shape.stride == 1)
}

/// Whether they are also the ones to take: blocks of 64 channels are at least 2/3 full, and the tiles keep at least half
/// of the multiprocessors busy. Below, the smaller tiles of `mma.sync` share the work better. wgrad splits its pixels
/// instead; it is taken if each block gets a few steps.
pub fn suits<E: Element>(device: &CudaDevice, shape: &Conv2dShape, pass: Pass, bucket: usize) -> bool {
    if !supports::<E>(device, shape, pass, bucket) {
        return false;
    }
    let full = |channels: usize| 3 * channels >= 2 * channels.next_multiple_of(PANEL);
    if !full(shape.c) || !full(shape.k) {
        return false;
    }
    if pass == Pass::Wgrad {
        let plan = FilterPlan::new(shape, bucket);
        let steps = (bucket * shape.p() * shape.q()).div_ceil(PANEL);
        return 2 * plan.tiles(shape) * plan.splits >= MULTIPROCESSORS && steps >= 4 * plan.splits;
    }
    let tile = image_tile(device, shape, pass, bucket);
    2 * ImageGemm::new(shape, pass, bucket).tiles(&tile) >= device.multiprocessors() as usize
}

fn describe(shape: &Conv2dShape, bucket: usize) -> String {
    format!("bucket {bucket}, {shape:?}")
}

/// The filter [K, R*S, C], copied as rows of 64 channels at one place of the filter.
fn filter_map<E: Element>(
    kernel: &'static str,
    shape: &Conv2dShape,
    filter: &View<'_, E>,
    output_channels: usize,
) -> Result<cudarc::driver::sys::CUtensorMap, CudaError> {
    let extents = [shape.k, shape.r * shape.s, shape.c];
    tiled_map(kernel, ("filter", filter), extents, [output_channels as u32, 1])
}

fn image_grid(device: &CudaDevice, gemm: &ImageGemm, tile: &Tile) -> Grid {
    let blocks = gemm.tiles(tile).min(device.multiprocessors() as usize);
    let staging = 8 * 16 * ROW_BYTES;
    let statistics = tile.m / 16 * 2 * tile.n * size_of::<f32>();
    let shared = tile.ring_bytes() + staging + statistics;
    Grid { blocks: [blocks as u32, 1, 1], threads: BLOCK_SIZE, shared_bytes: shared as u32 }
}

/// `y = conv(x, filter)`, with the bias, the ReLU and the statistics asked for, of a pass that [`supports`] accepts, by a
/// tile of [`FPROP`].
///
/// # Shapes
/// `x` bucket HWC; `filter` KRSC; `y` bucket PQK; the epilogue's `bias` K, its `statistics`
/// `[ceil(bucket * P * Q / 128), 2, K]`, of which entries without rows stay as they are.
///
/// # Errors
/// Wrong lengths, or what the driver refuses.
#[allow(clippy::too_many_arguments)]
pub fn fprop<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    filter: View<'_, E>,
    mut epilogue: Epilogue<'_>,
    mut y: ViewMut<'_, E>,
    tile: &Tile,
) -> Result<(), CudaError> {
    let bucket = batch.bucket;
    if bucket == 0 {
        return Ok(());
    }
    let mut gemm = ImageGemm::new(shape, Pass::Fprop, bucket);
    let kernel = tile.entry;
    check_len(kernel, "x", x.len(), bucket * shape.x_len())?;
    check_len(kernel, "filter", filter.len(), shape.filter_len())?;
    check_len(kernel, "y", y.len(), bucket * shape.y_len())?;
    check_len(kernel, "num_images", batch.count.len(), 1)?;
    if let Some(bias) = &epilogue.bias {
        check_len(kernel, "bias", bias.len(), shape.k)?;
    }
    if let Some(statistics) = &epilogue.statistics {
        check_len(kernel, "statistics", statistics.len(), gemm.rows.div_ceil(STATISTICS_ROWS) * 2 * shape.k)?;
    }
    gemm.map.pixels = tile.m as u32;
    let x_map = gemm.map.encode(kernel, ("x", &x))?;
    let filter_map = filter_map(kernel, shape, &filter, tile.n)?;
    let mut launch = device.launch(kernel)?;
    launch.output(&mut y).optional_output(epilogue.statistics.as_mut()).map(&x_map).map(&filter_map);
    launch.optional_input(epilogue.bias.as_ref()).input(&batch.count);
    let (p, q) = (shape.p(), shape.q());
    let extents = [shape.c, shape.k, p, q, shape.r, shape.s, shape.stride, shape.pad, shape.dilation];
    for extent in extents {
        launch.scalar(extent as i32);
    }
    launch.scalar(i32::from(epilogue.relu));
    // SAFETY: the arguments are the kernel's, in order and type; it writes at most the bucket's rows of `y` and their
    // statistics, and reads through maps of `x` and `filter`.
    unsafe { launch.run(image_grid(device, &gemm, tile), || describe(shape, bucket)) }
}

/// `dx` from `dy`, or with `accumulate` added to it, of a pass that [`supports`] accepts, by a tile of [`DGRAD`].
///
/// # Shapes
/// `dy` bucket PQK; `filter` KRSC; `dx` bucket HWC
///
/// # Errors
/// Wrong lengths, or what the driver refuses.
#[allow(clippy::too_many_arguments)]
pub fn dgrad<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    dy: View<'_, E>,
    filter: View<'_, E>,
    mut dx: ViewMut<'_, E>,
    accumulate: bool,
    tile: &Tile,
) -> Result<(), CudaError> {
    let bucket = batch.bucket;
    if bucket == 0 {
        return Ok(());
    }
    let mut gemm = ImageGemm::new(shape, Pass::Dgrad, bucket);
    let kernel = tile.entry;
    check_len(kernel, "dy", dy.len(), bucket * shape.y_len())?;
    check_len(kernel, "filter", filter.len(), shape.filter_len())?;
    check_len(kernel, "dx", dx.len(), bucket * shape.x_len())?;
    check_len(kernel, "num_images", batch.count.len(), 1)?;
    gemm.map.pixels = tile.m as u32;
    let dy_map = gemm.map.encode(kernel, ("dy", &dy))?;
    let filter_map = filter_map(kernel, shape, &filter, PANEL)?;
    let mut launch = device.launch(kernel)?;
    launch.output(&mut dx).map(&dy_map).map(&filter_map).input(&batch.count);
    for extent in [shape.c, shape.k, shape.h, shape.w, shape.r, shape.s, shape.pad, shape.dilation] {
        launch.scalar(extent as i32);
    }
    launch.scalar(i32::from(accumulate));
    // SAFETY: the arguments are the kernel's, in order and type; it writes at most the bucket's rows of `dx`, and reads
    // through maps of `dy` and `filter`.
    unsafe { launch.run(image_grid(device, &gemm, tile), || describe(shape, bucket)) }
}

/// `dfilter` from `x` and `dy`, of a pass that [`supports`] accepts. With no images it is zeros.
///
/// # Shapes
/// `x` bucket HWC; `dy` bucket PQK; `dfilter` KRSC; `scratch` at least [`FilterPlan::scratch_len`]
///
/// # Errors
/// Wrong lengths, or what the driver refuses.
#[allow(clippy::too_many_arguments)]
pub fn wgrad<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    batch: Batch<'_>,
    x: View<'_, E>,
    dy: View<'_, E>,
    mut dfilter: ViewMut<'_, f32>,
    scratch: ViewMut<'_, f32>,
    plan: &FilterPlan,
) -> Result<(), CudaError> {
    let bucket = batch.bucket;
    let FilterPlan { tile, splits } = *plan;
    let kernel = tile.entry;
    check_len(kernel, "x", x.len(), bucket * shape.x_len())?;
    check_len(kernel, "dy", dy.len(), bucket * shape.y_len())?;
    check_len(kernel, "dfilter", dfilter.len(), shape.filter_len())?;
    check_len(kernel, "num_images", batch.count.len(), 1)?;
    let needed = plan.scratch_len(shape);
    check_len(kernel, "scratch", scratch.len().min(needed), needed)?;
    let gemm = ImageGemm::new(shape, Pass::Wgrad, bucket);
    let x_map = gemm.map.encode(kernel, ("x", &x))?;
    let dy_map = tiled_map(kernel, ("dy", &dy), [gemm.rows, shape.k], [PANEL as u32])?;
    let mut partial = scratch.split_at_mut(needed).0;
    let mut launch = device.launch(kernel)?;
    match splits {
        1 => launch.output(&mut dfilter),
        _ => launch.output(&mut partial),
    };
    launch.map(&x_map).map(&dy_map).input(&batch.count);
    let (p, q) = (shape.p(), shape.q());
    for extent in [shape.c, shape.k, p, q, shape.r, shape.s, shape.stride, shape.pad, shape.dilation, splits]
    {
        launch.scalar(extent as i32);
    }
    let blocks = [(plan.tiles(shape) * splits) as u32, 1, 1];
    let grid = Grid { blocks, threads: BLOCK_SIZE, shared_bytes: tile.ring_bytes() as u32 };
    // SAFETY: the arguments are the kernel's, in order and type; it writes `splits` filters of partial sums, or `dfilter`,
    // and reads through maps of `x` and `dy`.
    unsafe { launch.run(grid, || describe(shape, bucket)) }?;
    if splits == 1 {
        return Ok(());
    }
    let numel = shape.filter_len();
    let mut launch = device.launch(WGRAD_SUM)?;
    launch.output(&mut dfilter).input(&partial.view()).scalar(splits as i32).scalar(numel as i64);
    // SAFETY: the arguments are the kernel's, in order and type; it stays below `numel` of `dfilter` and `splits` times
    // that of the partial sums.
    unsafe {
        launch.run(device.grid_stride(numel), || format!("{splits} sums of {}", describe(shape, bucket)))
    }
}
