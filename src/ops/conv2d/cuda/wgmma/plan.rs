//! Which of the Hopper kernels compute a pass, on what, and how long that should take.

use super::super::algorithm::{Algorithm, Pass, Tile, classes};
use crate::device::cuda::{CudaDevice, Element, ImageMap};
use crate::shape::Conv2dShape;

/// Rows that one entry of fprop's statistics covers; the kernel's constant.
pub(in super::super) const STATISTICS_ROWS: usize = 128;

/// Bytes of a swizzled row of 64 bf16.
pub(super) const ROW_BYTES: usize = 128;
/// Elements of such a row; rows of a panel.
pub(super) const PANEL: usize = 64;
/// What the consumers' 8 warps stage, 16 rows each, on the way out.
pub(super) const STAGING_BYTES: usize = 8 * 16 * ROW_BYTES;

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
pub(super) struct Compiled {
    pub(super) m: usize,
    pub(super) n: usize,
    stages: usize,
    pub(super) entry: &'static str,
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
pub(super) const WGRAD_SUM: &str = "conv2d_wgrad_wgmma_sum_f32";

const fn compiled(pass: Pass) -> &'static [Compiled] {
    match pass {
        Pass::Fprop => &FPROP,
        Pass::Dgrad => &DGRAD,
        Pass::Wgrad => &WGRAD,
    }
}

pub(super) fn find(pass: Pass, tile: Tile) -> &'static Compiled {
    let fits = |compiled: &&Compiled| compiled.m == tile.rows() && compiled.n == tile.columns();
    compiled(pass).iter().find(fits).unwrap_or_else(|| panic!("{pass:?} has no kernel for {tile:?}"))
}

/// Rows and columns of the tiles of a pass.
pub(in super::super) fn tiles(pass: Pass) -> impl Iterator<Item = (usize, usize)> {
    compiled(pass).iter().map(|compiled| (compiled.m, compiled.n))
}

/// The entry point of a tile.
pub(in super::super) fn kernel(pass: Pass, tile: Tile) -> &'static str {
    find(pass, tile).entry
}

impl Compiled {
    /// Cycles of 64 of gemm_k: those of the matrix units or of what L2 has to bring, whichever are more.
    fn step_cycles(&self) -> f64 {
        let products = (self.m * self.n * PANEL) as f64 / MACS_PER_CYCLE;
        products.max(((self.m + self.n) * ROW_BYTES) as f64 / L2_BYTES_PER_CYCLE)
    }

    pub(super) fn ring_bytes(&self) -> usize {
        self.stages * ((self.m + self.n) * ROW_BYTES + 2 * size_of::<u64>())
    }

    fn algorithm(&self, splits: usize) -> Algorithm {
        Algorithm { tile: Tile::Wgmma { rows: self.m, columns: self.n }, splits }
    }
}

/// fprop, wgrad, or one of dgrad's classes as a matrix product, and how its image is walked: x, or dgrad's dy.
pub(super) struct Product {
    rows: usize,
    /// For wgrad in panels, of 64 input channels at one place of the filter.
    columns: usize,
    /// Of 64 of gemm_k.
    pub(super) steps: usize,
    pub(super) map: ImageMap,
}

/// Pixels of dx with the same remainders by the stride, as the same taps reach them.
pub(super) struct Class {
    /// The first of them, down and right.
    pub(super) first: [usize; 2],
    /// How many, in an image.
    pub(super) pixels: [usize; 2],
    /// How many taps; the last of them, which is taken first, in the filter; where it reads for the first pixel, in dy.
    pub(super) taps: [usize; 2],
    pub(super) last_tap: [usize; 2],
    pub(super) lower: [i64; 2],
    /// Pixels of dy between taps.
    pub(super) tap_offset: usize,
}

impl Class {
    /// The classes that have pixels.
    pub(super) fn all(shape: &Conv2dShape) -> impl Iterator<Item = Self> {
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
            let reaches =
                |tap: &usize| (first[i] + pad + (stride - 1) * dilation * tap).is_multiple_of(stride);
            let mut reaching = (0..taps).filter(reaches);
            class.taps[i] = reaching.clone().count();
            if let Some(last) = reaching.next_back() {
                class.last_tap[i] = last;
                class.lower[i] = ((first[i] + pad) as i64 - (dilation * last) as i64) / stride as i64;
            }
        }
        class
    }

    pub(super) fn product(&self, shape: &Conv2dShape, bucket: usize) -> Product {
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

    pub(super) fn over_x(shape: &Conv2dShape, pass: Pass, bucket: usize) -> Self {
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

    pub(super) fn tiles(&self, tile: &Compiled) -> usize {
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
pub(in super::super) fn supports<E: Element>(
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
pub(in super::super) fn choose(
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
