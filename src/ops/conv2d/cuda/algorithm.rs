//! Which kernel computes a pass, by an estimate of its time on the device.

use super::{tiled, wgmma};
use crate::device::cuda::{CudaDevice, Element};
use crate::shape::Conv2dShape;

/// A pass of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The output.
    Fprop,
    /// The gradient of the input.
    Dgrad,
    /// The gradient of the filter.
    Wgrad,
}

/// Rows and columns of the result that a block computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// 128 rows, 128 columns.
    T128x128,
    /// 128 rows, 64 columns.
    T128x64,
    /// 64 rows, 64 columns.
    T64x64,
    /// 64 rows, 64 columns; loads single elements, for channel counts that do not fill 16 bytes.
    Gather,
    /// Of bf16, by Hopper's warpgroup instructions; for which rows and columns [`Tile::wgmma`] tells.
    Wgmma {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
}

/// How a pass is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Algorithm {
    /// The block's tile.
    pub tile: Tile,
    /// Parts of the summed extent that are computed apart, then added in order; at least 1.
    pub splits: usize,
}

/// What the estimates take from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Processors {
    /// Multiprocessors.
    count: usize,
    /// Shared memory of each.
    shared_bytes: usize,
}

/// Shared memory of a block that the system takes.
const RESERVED_SHARED_BYTES: usize = 1 << 10;

/// Rows of a statistics tile where a second kernel adds the parts.
const REDUCE_TILE_ROWS: usize = 32;
/// Most parts, and fewest steps of a part.
const MAX_SPLITS: usize = 256;
const MIN_STEPS: usize = 4;

impl Tile {
    pub(super) const VECTOR: [Tile; 3] = [Tile::T128x128, Tile::T128x64, Tile::T64x64];

    /// The tiles of a pass by Hopper's warpgroup instructions.
    pub fn wgmma(pass: Pass) -> impl Iterator<Item = Tile> {
        wgmma::tiles(pass).map(|(rows, columns)| Tile::Wgmma { rows, columns })
    }

    pub(super) const fn is_wgmma(self) -> bool {
        matches!(self, Tile::Wgmma { .. })
    }

    pub(super) const fn rows(self) -> usize {
        match self {
            Tile::Wgmma { rows, .. } => rows,
            Tile::T128x128 | Tile::T128x64 => 128,
            Tile::T64x64 | Tile::Gather => 64,
        }
    }

    pub(super) const fn columns(self) -> usize {
        match self {
            Tile::Wgmma { columns, .. } => columns,
            Tile::T128x128 => 128,
            Tile::T128x64 | Tile::T64x64 | Tile::Gather => 64,
        }
    }
}

/// Elements of the summed extent that a block takes at once: 64 bytes.
pub(super) const fn step<E: Element>() -> usize {
    64 / size_of::<E>()
}

impl Algorithm {
    /// Name of the kernel that multiplies.
    pub fn kernel<E: Element>(self, pass: Pass) -> &'static str {
        let names = |f32, bf16| E::entry(f32, bf16);
        match (pass, self.tile) {
            (_, Tile::Wgmma { .. }) => wgmma::kernel(pass, self.tile),
            (Pass::Fprop, Tile::T128x128) => {
                names("conv2d_fprop_simt_128x128_f32", "conv2d_fprop_mma_128x128_bf16")
            }
            (Pass::Fprop, Tile::T128x64) => {
                names("conv2d_fprop_simt_128x64_f32", "conv2d_fprop_mma_128x64_bf16")
            }
            (Pass::Fprop, Tile::T64x64) => {
                names("conv2d_fprop_simt_64x64_f32", "conv2d_fprop_mma_64x64_bf16")
            }
            (Pass::Fprop, Tile::Gather) => {
                names("conv2d_fprop_simt_gather_f32", "conv2d_fprop_mma_gather_bf16")
            }
            (Pass::Dgrad, Tile::T128x128) => {
                names("conv2d_dgrad_simt_128x128_f32", "conv2d_dgrad_mma_128x128_bf16")
            }
            (Pass::Dgrad, Tile::T128x64) => {
                names("conv2d_dgrad_simt_128x64_f32", "conv2d_dgrad_mma_128x64_bf16")
            }
            (Pass::Dgrad, Tile::T64x64) => {
                names("conv2d_dgrad_simt_64x64_f32", "conv2d_dgrad_mma_64x64_bf16")
            }
            (Pass::Dgrad, Tile::Gather) => {
                names("conv2d_dgrad_simt_gather_f32", "conv2d_dgrad_mma_gather_bf16")
            }
            (Pass::Wgrad, Tile::T128x128) => {
                names("conv2d_wgrad_simt_128x128_f32", "conv2d_wgrad_mma_128x128_bf16")
            }
            (Pass::Wgrad, Tile::T128x64) => {
                names("conv2d_wgrad_simt_128x64_f32", "conv2d_wgrad_mma_128x64_bf16")
            }
            (Pass::Wgrad, Tile::T64x64) => {
                names("conv2d_wgrad_simt_64x64_f32", "conv2d_wgrad_mma_64x64_bf16")
            }
            (Pass::Wgrad, Tile::Gather) => {
                names("conv2d_wgrad_simt_gather_f32", "conv2d_wgrad_mma_gather_bf16")
            }
        }
    }

    /// f32 elements of scratch that the pass needs: the parts' sums.
    pub fn scratch_len(self, shape: &Conv2dShape, pass: Pass, bucket: usize) -> usize {
        match self.splits {
            1 => 0,
            splits => splits * part_len(shape, pass, bucket),
        }
    }

    /// Consecutive pixels of `fprop`'s output that share a row of partial statistics.
    pub fn statistics_tile_rows(self) -> usize {
        match self.splits {
            _ if self.tile.is_wgmma() => wgmma::STATISTICS_ROWS,
            1 => self.tile.rows(),
            _ => REDUCE_TILE_ROWS,
        }
    }
}

/// Elements of the result of a pass; parts keep this distance, rounded up so that each starts at 16 bytes.
pub(super) fn part_len(shape: &Conv2dShape, pass: Pass, bucket: usize) -> usize {
    let len = match pass {
        Pass::Fprop => bucket * shape.y_len(),
        Pass::Dgrad => bucket * shape.x_len(),
        Pass::Wgrad => shape.filter_len(),
    };
    len.next_multiple_of(4)
}

/// Whether every 16-byte load of the pass holds channels of one pixel or tap.
pub(super) fn fills_vectors<E: Element>(shape: &Conv2dShape, pass: Pass) -> bool {
    let lanes = 16 / size_of::<E>();
    shape.c.is_multiple_of(lanes) && (pass == Pass::Fprop || shape.k.is_multiple_of(lanes))
}

/// f32 elements of scratch that [`super::fprop`], [`super::dgrad`] and [`super::wgrad`] need for this bucket, whichever
/// of them needs most.
pub fn scratch_len<E: Element>(device: &CudaDevice, shape: &Conv2dShape, bucket: usize) -> usize {
    let len = |pass| algorithm::<E>(device, shape, pass, bucket).scratch_len(shape, pass, bucket);
    [Pass::Fprop, Pass::Dgrad, Pass::Wgrad].map(len).into_iter().max().unwrap_or(0)
}

/// Consecutive pixels (n,p,q) of the output that share a row of the partial statistics of [`super::fprop`].
pub fn statistics_tile_rows<E: Element>(device: &CudaDevice, shape: &Conv2dShape, bucket: usize) -> usize {
    algorithm::<E>(device, shape, Pass::Fprop, bucket).statistics_tile_rows()
}

/// How a pass over batches of this bucket is computed on `device`. It depends on nothing else.
pub fn algorithm<E: Element>(
    device: &CudaDevice,
    shape: &Conv2dShape,
    pass: Pass,
    bucket: usize,
) -> Algorithm {
    let processors = Processors {
        count: device.multiprocessors() as usize,
        shared_bytes: device.shared_bytes_per_multiprocessor() as usize,
    };
    let (tiled, cycles) = choose::<E>(processors, shape, pass, bucket);
    if wgmma::supports::<E>(device, shape, pass, bucket) {
        let (wgmma, wgmma_cycles) = wgmma::choose(processors.count, shape, pass, bucket);
        if wgmma_cycles < cycles {
            return wgmma;
        }
    }
    tiled
}

/// Of the kernels for every device, the one of fewest estimated cycles, and these.
fn choose<E: Element>(
    processors: Processors,
    shape: &Conv2dShape,
    pass: Pass,
    bucket: usize,
) -> (Algorithm, f64) {
    let product = Product::new(shape, pass, bucket);
    let tiles: &[Tile] = if fills_vectors::<E>(shape, pass) { &Tile::VECTOR } else { &[Tile::Gather] };
    let mut best = Algorithm { tile: tiles[0], splits: 1 };
    let mut best_cycles = f64::INFINITY;
    for &tile in tiles {
        let steps = product.depth.div_ceil(step::<E>()).max(1);
        let most = (steps / MIN_STEPS).clamp(1, MAX_SPLITS);
        let mut splits = 1;
        while splits <= most {
            // As many steps for each part: fewer parts may do.
            let steps_per_split = steps.div_ceil(splits);
            let candidate = Algorithm { tile, splits: steps.div_ceil(steps_per_split).max(1) };
            let cycles = product.cycles::<E>(processors, candidate, steps_per_split);
            if cycles < best_cycles {
                (best, best_cycles) = (candidate, cycles);
            }
            splits += 1 + splits / 8;
        }
    }
    (best, best_cycles)
}

/// A pass as a matrix product.
struct Product {
    /// Products of this size that are computed side by side: dgrad's classes of pixels.
    count: usize,
    rows: usize,
    columns: usize,
    /// Terms of a sum.
    depth: usize,
}

impl Product {
    fn new(shape: &Conv2dShape, pass: Pass, bucket: usize) -> Self {
        let taps = shape.r * shape.s;
        let pixels = bucket * shape.p() * shape.q();
        match pass {
            Pass::Fprop => Self { count: 1, rows: pixels, columns: shape.k, depth: taps * shape.c },
            Pass::Dgrad => {
                let [classes_h, classes_w] = classes(shape);
                let rows = bucket * shape.h.div_ceil(shape.stride) * shape.w.div_ceil(shape.stride);
                let count = classes_h * classes_w;
                Self { count, rows, columns: shape.c, depth: taps.div_ceil(count) * shape.k }
            }
            Pass::Wgrad => Self { count: 1, rows: shape.k, columns: taps * shape.c, depth: pixels },
        }
    }

    /// Estimated time in cycles of a multiprocessor. Multiplications take as long as the busiest multiprocessor needs at
    /// the share of its peak that a tile of this size reaches, but no step is shorter than the latency that the resident
    /// blocks leave uncovered; parts are written, read and added.
    fn cycles<E: Element>(&self, processors: Processors, algorithm: Algorithm, steps: usize) -> f64 {
        // Multiply-accumulates a cycle, the latency of a step, of a block's start and end, and of another launch; bytes
        // of memory a cycle and multiprocessor. Of an A100 or H100, rounded.
        let (rate, step_latency) = if E::IS_BF16 { (1024.0, 250.0) } else { (128.0, 400.0) };
        const BLOCK_CYCLES: f64 = 2000.0;
        const LAUNCH_CYCLES: f64 = 4000.0;
        const BYTES_PER_CYCLE: f64 = 12.0;
        let Algorithm { tile, splits } = algorithm;
        let share = match tile {
            Tile::T128x128 => 0.85,
            Tile::T128x64 => 0.75,
            Tile::T64x64 => 0.6,
            Tile::Gather => 0.15,
            Tile::Wgmma { .. } => unreachable!("its cycles are estimated apart"),
        };
        let multiprocessors = processors.count;
        let blocks =
            self.count * self.rows.div_ceil(tile.rows()) * self.columns.div_ceil(tile.columns()) * splits;
        let busiest = blocks.div_ceil(multiprocessors);
        let step_cycles = (tile.rows() * tile.columns() * step::<E>()) as f64 / (rate * share);
        let waves = busiest.div_ceil(processors.resident::<E>(tile)) as f64;
        let computing =
            (busiest as f64 * step_cycles).max(waves * step_latency) * steps as f64 + waves * BLOCK_CYCLES;
        if splits == 1 {
            return computing;
        }
        let bytes = (self.count * self.rows * self.columns * 4) as f64 * (2 * splits + 1) as f64;
        computing + LAUNCH_CYCLES + bytes / (BYTES_PER_CYCLE * multiprocessors as f64)
    }
}

impl Processors {
    /// Blocks of a tile that a multiprocessor holds at once: as many as its registers allow, or its shared memory.
    fn resident<E: Element>(self, tile: Tile) -> usize {
        let by_registers = match tile {
            Tile::T128x128 => 2,
            Tile::T128x64 => 3,
            _ => 4,
        };
        let block_bytes = tiled::shared_bytes::<E>(tile) + RESERVED_SHARED_BYTES;
        by_registers.min(self.shared_bytes / block_bytes).max(1)
    }
}

/// Classes of input pixels by h and w modulo the stride that are not empty.
pub(super) fn classes(shape: &Conv2dShape) -> [usize; 2] {
    [shape.stride.min(shape.h), shape.stride.min(shape.w)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    const PROCESSORS: Processors = Processors { count: 132, shared_bytes: 228 << 10 };
    const LARGE: Conv2dShape =
        Conv2dShape { c: 256, h: 56, w: 56, k: 256, r: 3, s: 3, stride: 1, pad: 1, dilation: 1 };

    fn tiled<E: Element>(
        processors: Processors,
        shape: &Conv2dShape,
        pass: Pass,
        bucket: usize,
    ) -> Algorithm {
        choose::<E>(processors, shape, pass, bucket).0
    }

    #[test]
    fn large_products_take_large_tiles_and_are_not_split() {
        for pass in [Pass::Fprop, Pass::Dgrad] {
            let large = Algorithm { tile: Tile::T128x128, splits: 1 };
            assert_eq!(tiled::<bf16>(PROCESSORS, &LARGE, pass, 64), large);
            assert_eq!(tiled::<f32>(PROCESSORS, &LARGE, pass, 64), large);
        }
        let narrow = tiled::<bf16>(PROCESSORS, &Conv2dShape { k: 64, ..LARGE }, Pass::Fprop, 64);
        assert_eq!(narrow, Algorithm { tile: Tile::T128x64, splits: 1 });
    }

    #[test]
    fn deep_products_with_small_results_are_split() {
        let linear =
            Conv2dShape { c: 25_088, h: 1, w: 1, k: 4096, r: 1, s: 1, stride: 1, pad: 0, dilation: 1 };
        for bucket in [8, 64] {
            assert!(tiled::<bf16>(PROCESSORS, &linear, Pass::Fprop, bucket).splits > 1);
        }
        assert!(tiled::<bf16>(PROCESSORS, &LARGE, Pass::Wgrad, 64).splits > 1);
        let first = Conv2dShape { c: 64, k: 64, ..LARGE };
        assert!(tiled::<f32>(PROCESSORS, &first, Pass::Wgrad, 64).splits > 10);
        // One multiprocessor has nothing to gain.
        assert_eq!(tiled::<f32>(Processors { count: 1, ..PROCESSORS }, &LARGE, Pass::Fprop, 1).splits, 1);
    }

    #[test]
    fn channels_that_do_not_fill_16_bytes_are_gathered() {
        let gathers = |c, k, pass| {
            let shape = Conv2dShape { c, k, ..LARGE };
            let few = Processors { count: 8, ..PROCESSORS };
            let [f32, bf16] =
                [tiled::<f32>(few, &shape, pass, 2).tile, tiled::<bf16>(few, &shape, pass, 2).tile];
            [f32 == Tile::Gather, bf16 == Tile::Gather]
        };
        assert_eq!(gathers(3, 64, Pass::Fprop), [true, true]);
        assert_eq!(gathers(12, 64, Pass::Fprop), [false, true]);
        assert_eq!(gathers(64, 10, Pass::Fprop), [false, false]);
        assert_eq!(gathers(64, 12, Pass::Dgrad), [false, true]);
        assert_eq!(gathers(64, 10, Pass::Wgrad), [true, true]);
    }

    #[test]
    fn small_shared_memory_holds_fewer_blocks() {
        let resident = |kib: usize| {
            let processors = Processors { count: 1, shared_bytes: kib << 10 };
            let of = |tile| [processors.resident::<f32>(tile), processors.resident::<bf16>(tile)];
            [Tile::T128x128, Tile::T128x64, Tile::T64x64, Tile::Gather].map(of)
        };
        assert_eq!(resident(228), [[2, 2], [3, 3], [4, 4], [4, 4]]);
        assert_eq!(resident(164), [[2, 2], [3, 3], [4, 4], [4, 4]]);
        assert_eq!(resident(100), [[1, 1], [2, 2], [4, 3], [4, 4]]);
        assert_eq!(resident(0), [[1, 1]; 4]);
    }

    #[test]
    fn no_part_is_empty() {
        for pass in [Pass::Fprop, Pass::Wgrad] {
            for bucket in [1, 7, 64, 1000] {
                let Algorithm { splits, .. } = tiled::<bf16>(PROCESSORS, &LARGE, pass, bucket);
                let steps = Product::new(&LARGE, pass, bucket).depth.div_ceil(step::<bf16>());
                assert!((splits - 1) * steps.div_ceil(splits) < steps, "{splits} of {steps}");
            }
        }
    }
}
