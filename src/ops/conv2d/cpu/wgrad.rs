//! Filter gradient: a product over pixels, cut into chunks of pixels and blocks of the filter.
//!
//! Chunks give partial sums in the scratch, added up in chunk order at the end; a filter with enough blocks to keep every
//! core busy has one chunk and is summed in place. Inputs with few channels are copied into patches first, so that a row
//! of the patch is a row of the filter.

use super::gather::Gather;
use super::patch;
use super::product::Output;
use super::segments::{GROUP_PIXELS, Rows, Segments};
use super::wgrad_tile::{Block, PixelPair, wgrad_tile};
use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::{Array8, Lanes};
#[cfg(target_arch = "x86_64")]
use crate::ops::simd::lanes::{M256, M512};
use crate::shape::Conv2dShape;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Output channels and columns of one block: with a group of pixels they should stay in the L2 cache. Inputs in patches
/// have all their columns in one block.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub k: usize,
    pub columns: usize,
}

/// The blocks of f32.
pub(super) const BLOCKS: Blocks = Blocks { k: 64, columns: 64 };

/// Units to aim for, whatever the number of threads.
const TARGET_UNITS: usize = 32;

/// Multiply-accumulates that are worth a chunk of their own.
const CHUNK_MACS: usize = 2_000_000;

/// Floats of the patches of a group of pixels.
pub(super) const PATCH_FLOATS: usize = 16 * 1024;

/// Floats that one task adds up when partial sums are joined.
const JOIN_FLOATS: usize = 4096;

/// How one filter gradient is cut up; depends on the shape and N alone.
pub(super) struct Plan {
    pub gather: Gather,
    n: usize,
    pub in_patches: bool,
    /// Taps summed separately, and columns of the filter under each.
    pub taps: usize,
    pub columns: usize,
    blocks: Blocks,
    chunks: usize,
    chunk_pixels: usize,
}

impl Plan {
    /// The plan for `n` images of `shape`.
    pub fn new(shape: &Conv2dShape, n: usize, blocks: Blocks) -> Self {
        let gather = Gather::fprop(shape);
        let in_patches = patch::suits(&gather);
        let (taps, columns) = if in_patches { (1, gather.depth()) } else { (gather.taps(), gather.c_in) };
        let blocks = if in_patches { Blocks { columns, ..blocks } } else { blocks };
        let pixels = n * gather.grid_len();
        let most = most_chunks(&gather, blocks, columns, n);
        let group = GROUP_PIXELS;
        let chunk_pixels = pixels.div_ceil(most).next_multiple_of(group).max(group);
        let chunks = pixels.div_ceil(chunk_pixels);
        Self { gather, n, in_patches, taps, columns, blocks, chunks, chunk_pixels }
    }

    /// Floats of scratch.
    pub fn scratch_len(&self) -> usize {
        if self.chunks > 1 { self.chunks * self.filter_len() } else { 0 }
    }

    fn filter_len(&self) -> usize {
        self.gather.depth() * self.gather.c_out
    }

    fn pixels(&self) -> usize {
        self.n * self.gather.grid_len()
    }

    fn column_blocks(&self) -> usize {
        self.columns.div_ceil(self.blocks.columns)
    }

    fn blocks(&self) -> usize {
        self.gather.c_out.div_ceil(self.blocks.k) * self.column_blocks()
    }
}

/// Chunks that `n` images may be cut into; never falls as `n` grows.
fn most_chunks(gather: &Gather, blocks: Blocks, columns: usize, n: usize) -> usize {
    let blocks = gather.c_out.div_ceil(blocks.k) * columns.div_ceil(blocks.columns);
    let macs = n.saturating_mul(gather.grid_len() * gather.depth() * gather.c_out);
    TARGET_UNITS.div_ceil(blocks).min(macs / CHUNK_MACS).max(1)
}

/// Floats of scratch that suffice for every batch of up to `max_n` images.
pub(super) fn max_scratch_len(shape: &Conv2dShape, max_n: usize, blocks: Blocks) -> usize {
    let plan = Plan::new(shape, max_n, blocks);
    match most_chunks(&plan.gather, plan.blocks, plan.columns, max_n) {
        1 => 0,
        chunks => chunks * plan.filter_len(),
    }
}

/// One part of the work: some pixels, some output channels, some columns, all taps.
pub(super) struct Unit {
    pub pixels: Range<usize>,
    pub k: Range<usize>,
    pub columns: Range<usize>,
    /// Where this unit's filter gradient begins.
    pub dfilter: *mut f32,
}

/// Runs `plan`; the lengths of all slices have been checked against it.
pub(super) fn run(
    level: SimdLevel,
    plan: &Plan,
    x: &[f32],
    dy: &[f32],
    dfilter: &mut [f32],
    scratch: &mut [f32],
) {
    plan.for_each_unit(dfilter, scratch, |unit| {
        // SAFETY: `level` is available (checked when it was chosen), the slices fit the plan, and no two units share a
        // chunk and block.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx512 => unit_avx512(plan, &unit, x, dy),
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx2 => unit_avx2(plan, &unit, x, dy),
                _ => run_unit::<Array8, 2, 4>(plan, &unit, x, dy),
            }
        }
    });
}

impl Plan {
    /// Calls `sum` with each unit, on any thread, then adds up the chunks into `dfilter`; both slices fit the plan.
    pub fn for_each_unit(&self, dfilter: &mut [f32], scratch: &mut [f32], sum: impl Fn(Unit) + Sync) {
        if self.chunks == 0 {
            dfilter.fill(0.0);
            return;
        }
        let in_place = self.chunks == 1;
        let output = Output(if in_place { dfilter.as_mut_ptr() } else { scratch.as_mut_ptr() });
        (0..self.chunks * self.blocks()).into_par_iter().for_each(|index| {
            let output = &output;
            let (chunk, block) = (index / self.blocks(), index % self.blocks());
            let pixel = chunk * self.chunk_pixels;
            let k = block / self.column_blocks() * self.blocks.k;
            let column = block % self.column_blocks() * self.blocks.columns;
            sum(Unit {
                pixels: pixel..self.pixels().min(pixel + self.chunk_pixels),
                k: k..self.gather.c_out.min(k + self.blocks.k),
                columns: column..self.columns.min(column + self.blocks.columns),
                dfilter: output.0.wrapping_add(chunk * self.filter_len()),
            });
        });
        if !in_place {
            join(scratch, dfilter);
        }
    }
}

/// Adds up the chunks' partial sums in chunk order.
fn join(partial_sums: &[f32], dfilter: &mut [f32]) {
    let filter_len = dfilter.len();
    dfilter.par_chunks_mut(JOIN_FLOATS).enumerate().for_each(|(index, sums)| {
        let first = index * JOIN_FLOATS;
        sums.fill(0.0);
        for partial in partial_sums.chunks_exact(filter_len) {
            for (sum, value) in sums.iter_mut().zip(&partial[first..]) {
                *sum += value;
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn unit_avx512(plan: &Plan, unit: &Unit, x: &[f32], dy: &[f32]) {
    // SAFETY: as for `run_unit`.
    unsafe { run_unit::<M512, 14, 16>(plan, unit, x, dy) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn unit_avx2(plan: &Plan, unit: &Unit, x: &[f32], dy: &[f32]) {
    // SAFETY: as for `run_unit`.
    unsafe { run_unit::<M256, 6, 8>(plan, unit, x, dy) }
}

/// Sums one unit. A tile has `KB` output channels by two vectors of columns, or `KB1` by one.
///
/// # Safety
/// `V`'s instructions are available, the slices fit the plan, no other thread touches the unit's part of the output.
#[inline(always)]
unsafe fn run_unit<V: Lanes, const KB: usize, const KB1: usize>(
    plan: &Plan,
    unit: &Unit,
    x: &[f32],
    dy: &[f32],
) {
    let gather = &plan.gather;
    // Left uninitialised: clearing it would take as long as a small unit. A patch is written before it is read.
    let mut patches = MaybeUninit::<[f32; PATCH_FLOATS + patch::SLACK]>::uninit();
    let patches = patches.as_mut_ptr().cast::<f32>();
    let mut pairs = [PixelPair::<f32> { x: std::ptr::null(), dy: std::ptr::null() }; GROUP_PIXELS];
    let patch_pitch = plan.columns.next_multiple_of(16);
    let group = if plan.in_patches { GROUP_PIXELS.min(PATCH_FLOATS / patch_pitch) } else { GROUP_PIXELS };
    for first in unit.pixels.clone().step_by(group) {
        let range = first..unit.pixels.end.min(first + group);
        let pixels = range.len();
        let accumulate = first > unit.pixels.start;
        let dy = Rows { first: dy[first * gather.c_out..].as_ptr(), pitch: gather.c_out };
        let segments = Segments::new(gather, range);
        for tap in 0..plan.taps {
            let count = if plan.in_patches {
                for (i, corner) in segments.corners(gather).enumerate() {
                    // SAFETY: `group` patches `patch_pitch` apart fit into the buffer.
                    unsafe {
                        let patch = patches.add(i * patch_pitch);
                        patch::copy::<V>(gather, corner, x, patch);
                        pairs[i] = PixelPair { x: patch, dy: dy.first.wrapping_add(i * dy.pitch) };
                    }
                }
                pixels
            } else {
                let tap = (tap / gather.cols.taps, tap % gather.cols.taps);
                segments.pairs(gather, tap, x.as_ptr(), dy, &mut pairs)
            };
            let row_pitch = plan.taps * plan.columns;
            let mut block = Block {
                column: unit.columns.start,
                columns: 0,
                k: 0,
                dfilter: unit.dfilter.wrapping_add(tap * plan.columns),
                row_pitch,
                accumulate,
            };
            while block.column < unit.columns.end {
                block.columns = (unit.columns.end - block.column).min(2 * V::LANES);
                block.k = unit.k.start;
                // SAFETY: the pairs point at `plan.columns` floats of x (or a patch) and K floats of dy; the block lies
                // inside the unit's part of the filter.
                unsafe {
                    if block.columns > V::LANES {
                        k_tiles::<V, KB, 2>(&pairs[..count], block, unit.k.end);
                    } else {
                        k_tiles::<V, KB1, 1>(&pairs[..count], block, unit.k.end);
                    }
                }
                block.column += block.columns;
            }
        }
    }
}

/// Tiles of `KB` output channels from `block.k` to `k_end`, the rest in tiles of 8, 4, 2 and 1.
///
/// # Safety
/// As for [`wgrad_tile`], for all these output channels.
#[inline(always)]
pub(super) unsafe fn k_tiles<V: Lanes, const KB: usize, const NV: usize>(
    pairs: &[PixelPair<f32>],
    mut block: Block,
    k_end: usize,
) {
    while block.k < k_end {
        // SAFETY: no tile passes `k_end`; the rest is as the caller vouches.
        block.k += unsafe {
            match k_end - block.k {
                left if left >= KB => tile_of::<V, KB, NV>(pairs, &block),
                left if KB > 8 && left >= 8 => tile_of::<V, 8, NV>(pairs, &block),
                left if left >= 4 => tile_of::<V, 4, NV>(pairs, &block),
                left if left >= 2 => tile_of::<V, 2, NV>(pairs, &block),
                _ => tile_of::<V, 1, NV>(pairs, &block),
            }
        };
    }
}

/// One tile; returns its number of output channels.
///
/// # Safety
/// As for [`wgrad_tile`].
#[inline(always)]
unsafe fn tile_of<V: Lanes, const KB: usize, const NV: usize>(
    pairs: &[PixelPair<f32>],
    block: &Block,
) -> usize {
    // SAFETY: as the caller vouches.
    unsafe { wgrad_tile::<V, KB, NV>(pairs, block) };
    KB
}
