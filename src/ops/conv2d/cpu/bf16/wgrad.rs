//! Filter gradient in bf16: the chunks and blocks of the f32 one, summed over pairs of pixels.
//!
//! For each group of pixels and tap, the pixels that have an input under the tap are paired, and the columns of two
//! pixels interleaved, as are their output gradients. A pixel without a partner is paired with zeros.

use super::patch::copy;
use super::wgrad_tile::{Block, Pair, wgrad_tile};
use crate::ops::conv2d::cpu::patch::{MAX_PATCH, SLACK};
use crate::ops::conv2d::cpu::segments::{GROUP_PIXELS, Rows, Segments};
use crate::ops::conv2d::cpu::wgrad::{Blocks, PATCH_FLOATS, Plan, Unit};
use crate::ops::conv2d::cpu::wgrad_tile::PixelPair;
use crate::ops::simd::lanes::Array8;
#[cfg(target_arch = "x86_64")]
use crate::ops::simd::lanes::{M256, M512};
use crate::ops::simd::pairs::{PairLanes, PairLevel};
use crate::shape::Conv2dShape;
use half::bf16;
use std::mem::MaybeUninit;

/// Elements of the patches of a group of pixels.
const PATCHES_LEN: usize = PATCH_FLOATS;

/// Pairs of a pixel in one strip of `x`: the columns of a tile of the widest level.
const X_STRIP: usize = 32;

/// Pairs of a pixel in one strip of `dy`; with a strip of `x` it should stay in the L1 cache.
const DY_STRIP: usize = 64;

/// Most output channels and columns of a block.
const MAX_BLOCK: usize = 256;

/// Pairs of a group of pixels, at most.
const GROUP_PAIRS: usize = GROUP_PIXELS / 2 * MAX_BLOCK;

/// Large blocks, so that each number that is interleaved is multiplied often; with one tap as large as the buffers allow,
/// with more no larger than their sums stay in the L2 cache.
pub(super) fn blocks(shape: &Conv2dShape) -> Blocks {
    let channels = shape.c.next_multiple_of(64);
    if shape.r * shape.s == 1 {
        let columns = channels.min(MAX_BLOCK);
        Blocks { k: MAX_BLOCK / columns * 64, columns }
    } else {
        Blocks { k: 64, columns: channels.min(128) }
    }
}

/// Partners of a pixel that has none.
static ZEROS: [bf16; MAX_PATCH] = [bf16::ZERO; MAX_PATCH];

/// Runs `plan`; the lengths of all slices have been checked against it.
pub(super) fn run(
    level: PairLevel,
    plan: &Plan,
    x: &[bf16],
    dy: &[bf16],
    dfilter: &mut [f32],
    scratch: &mut [f32],
) {
    plan.for_each_unit(dfilter, scratch, |unit| {
        // SAFETY: `level` is available (checked when it was chosen), the slices fit the plan, and no two units share a
        // chunk and block.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                PairLevel::Avx512Bf16 => unit_avx512(plan, &unit, x, dy),
                #[cfg(target_arch = "x86_64")]
                PairLevel::Avx2 => unit_avx2(plan, &unit, x, dy),
                _ => run_unit::<Array8, 2, 4>(plan, &unit, x, dy),
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn unit_avx512(plan: &Plan, unit: &Unit, x: &[bf16], dy: &[bf16]) {
    // SAFETY: as for `run_unit`.
    unsafe { run_unit::<M512, 14, 16>(plan, unit, x, dy) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn unit_avx2(plan: &Plan, unit: &Unit, x: &[bf16], dy: &[bf16]) {
    // SAFETY: as for `run_unit`.
    unsafe { run_unit::<M256, 4, 8>(plan, unit, x, dy) }
}

/// Sums one unit. A tile has `KB` output channels by two vectors of columns, or `KB1` by one.
///
/// # Safety
/// `V`'s instructions are available, the slices fit the plan, no other thread touches the unit's part of the output.
#[inline(always)]
unsafe fn run_unit<V: PairLanes, const KB: usize, const KB1: usize>(
    plan: &Plan,
    unit: &Unit,
    x: &[bf16],
    dy: &[bf16],
) {
    let gather = &plan.gather;
    // Left uninitialised: clearing them would take as long as a small unit. All are written before they are read.
    let mut patches = MaybeUninit::<[bf16; PATCHES_LEN + SLACK]>::uninit();
    let patches = patches.as_mut_ptr().cast::<bf16>();
    let mut x_pairs = MaybeUninit::<[Pair; GROUP_PAIRS]>::uninit();
    let x_pairs = x_pairs.as_mut_ptr().cast::<Pair>();
    let mut dy_pairs = MaybeUninit::<[Pair; GROUP_PAIRS]>::uninit();
    let dy_pairs = dy_pairs.as_mut_ptr().cast::<Pair>();
    let mut pixels = [PixelPair::<bf16> { x: std::ptr::null(), dy: std::ptr::null() }; GROUP_PIXELS];
    let patch_pitch = plan.columns.next_multiple_of(16);
    let group =
        if plan.in_patches { GROUP_PIXELS.min(PATCHES_LEN / patch_pitch / 2 * 2) } else { GROUP_PIXELS };
    let (k, columns) = (unit.k.len(), unit.columns.len());
    let row_pitch = plan.taps * plan.columns;
    for first in unit.pixels.clone().step_by(group) {
        let range = first..unit.pixels.end.min(first + group);
        let present = range.len();
        let dy = Rows { first: dy[first * gather.c_out..].as_ptr(), pitch: gather.c_out };
        let segments = Segments::new(gather, range);
        for tap in 0..plan.taps {
            let count = if plan.in_patches {
                for (i, corner) in segments.corners(gather).enumerate() {
                    // SAFETY: `group` patches `patch_pitch` apart fit into the buffer.
                    unsafe {
                        let patch = patches.add(i * patch_pitch);
                        copy(gather, corner, x, patch);
                        pixels[i] = PixelPair { x: patch, dy: dy.first.wrapping_add(i * dy.pitch) };
                    }
                }
                present
            } else {
                let tap = (tap / gather.cols.taps, tap % gather.cols.taps);
                segments.pairs(gather, tap, x.as_ptr(), dy, &mut pixels)
            };
            for (i, pair) in pixels[..count].chunks(2).enumerate() {
                let (a, b) = (pair[0], pair.get(1));
                let (column, channel) = (unit.columns.start, unit.k.start);
                // SAFETY: the pixels point at `plan.columns` elements of x (or a patch) and K of dy; the buffers have
                // room for the group's pairs: at most `MAX_BLOCK`, padded to strips, of half as many rows as pixels.
                unsafe {
                    let (bx, bdy) = match b {
                        Some(b) => (b.x.add(column), b.dy.add(channel)),
                        None => (ZEROS.as_ptr(), ZEROS.as_ptr()),
                    };
                    interleave::<V, X_STRIP>(a.x.add(column), bx, columns, x_pairs.add(i * X_STRIP));
                    interleave::<V, DY_STRIP>(a.dy.add(channel), bdy, k, dy_pairs.add(i * DY_STRIP));
                }
            }
            let unit_gradient = unit.k.start * row_pitch + tap * plan.columns + unit.columns.start;
            let rows = count.div_ceil(2);
            for k_first in (0..k).step_by(DY_STRIP) {
                let dy = dy_pairs.wrapping_add(k_first * (GROUP_PIXELS / 2));
                let k = (k - k_first).min(DY_STRIP);
                for column in (0..columns).step_by(2 * V::LANES) {
                    let (strip, lane) = (column / X_STRIP, column % X_STRIP);
                    let x = x_pairs.wrapping_add(strip * X_STRIP * (GROUP_PIXELS / 2) + lane);
                    let block = Block {
                        columns: (columns - column).min(2 * V::LANES),
                        dfilter: unit.dfilter.wrapping_add(unit_gradient + k_first * row_pitch + column),
                        row_pitch,
                        accumulate: first > unit.pixels.start,
                    };
                    // SAFETY: `rows` rows of pairs were written above, zeros past the columns; the block lies inside the
                    // unit's part of the filter.
                    unsafe {
                        if block.columns > V::LANES {
                            k_tiles::<V, KB, 2>(x, dy, rows, block, k);
                        } else {
                            k_tiles::<V, KB1, 1>(x, dy, rows, block, k);
                        }
                    }
                }
            }
        }
    }
}

/// Pairs that are written together: the lanes of the widest level.
const BLOCK: usize = 16;

/// Writes the pairs `(a[i], b[i])`, `i < count`, then zeros up to a whole [`BLOCK`], in strips of `STRIP` pairs that lie
/// a group's rows apart.
///
/// # Safety
/// `V`'s instructions are available, `a` and `b` have `count` readable elements, `to` has room for as many strips as hold
/// them, and none of it is theirs.
#[inline(always)]
unsafe fn interleave<V: PairLanes, const STRIP: usize>(
    a: *const bf16,
    b: *const bf16,
    count: usize,
    to: *mut Pair,
) {
    // SAFETY: as the caller vouches; a block lies in one strip.
    unsafe {
        for first in (0..count).step_by(BLOCK) {
            let (a, b) = (a.add(first), b.add(first));
            let to = to.add(first / STRIP * STRIP * (GROUP_PIXELS / 2) + first % STRIP);
            if first + BLOCK <= count {
                interleave_block::<V>(a, b, to);
            } else {
                let (mut a_padded, mut b_padded) = ([bf16::ZERO; BLOCK], [bf16::ZERO; BLOCK]);
                std::ptr::copy_nonoverlapping(a, a_padded.as_mut_ptr(), count - first);
                std::ptr::copy_nonoverlapping(b, b_padded.as_mut_ptr(), count - first);
                interleave_block::<V>(a_padded.as_ptr(), b_padded.as_ptr(), to);
            }
        }
    }
}

/// Writes [`BLOCK`] pairs.
///
/// # Safety
/// As for [`interleave`]; `a` and `b` have as many elements.
#[inline(always)]
unsafe fn interleave_block<V: PairLanes>(a: *const bf16, b: *const bf16, to: *mut Pair) {
    for i in (0..BLOCK).step_by(V::LANES) {
        // SAFETY: as the caller vouches.
        unsafe { V::interleave(a.add(i), b.add(i), to.add(i)) };
    }
}

/// Tiles of `KB` output channels up to `k`, the rest in tiles of 8, 4, 2 and 1.
///
/// # Safety
/// As for [`wgrad_tile`], for all these output channels.
#[inline(always)]
unsafe fn k_tiles<V: PairLanes, const KB: usize, const NV: usize>(
    x: *const Pair,
    mut dy: *const Pair,
    count: usize,
    mut block: Block,
    k: usize,
) {
    let mut left = k;
    while left > 0 {
        // SAFETY: no tile passes `k`; the rest is as the caller vouches.
        let done = unsafe {
            match left {
                _ if left >= KB => tile_of::<V, KB, NV>(x, dy, count, &block),
                _ if KB > 8 && left >= 8 => tile_of::<V, 8, NV>(x, dy, count, &block),
                _ if left >= 4 => tile_of::<V, 4, NV>(x, dy, count, &block),
                _ if left >= 2 => tile_of::<V, 2, NV>(x, dy, count, &block),
                _ => tile_of::<V, 1, NV>(x, dy, count, &block),
            }
        };
        left -= done;
        dy = dy.wrapping_add(done);
        block.dfilter = block.dfilter.wrapping_add(done * block.row_pitch);
    }
}

/// One tile; returns its number of output channels.
///
/// # Safety
/// As for [`wgrad_tile`].
#[inline(always)]
unsafe fn tile_of<V: PairLanes, const KB: usize, const NV: usize>(
    x: *const Pair,
    dy: *const Pair,
    count: usize,
    block: &Block,
) -> usize {
    // SAFETY: as the caller vouches.
    unsafe { wgrad_tile::<V, KB, NV>((x, X_STRIP), (dy, DY_STRIP), count, block) };
    KB
}
