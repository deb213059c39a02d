//! Filters in the order the microkernel reads them: `[panel][tap row][tap column][input channel][panel width]`.
//!
//! A panel is as many output channels as one microkernel call computes; the last one is narrower when half a panel
//! suffices. Channels past the last are 0.

use super::gather::{CHANNEL_ROUND, Gather};
use super::level::{self, Work};
use super::product::Output;
use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::Lanes;
use crate::shape::Conv2dShape;
use rayon::prelude::*;

/// Output channels of a full panel.
pub(super) const fn panel_width(level: SimdLevel) -> usize {
    match level {
        SimdLevel::Avx512 => 32,
        SimdLevel::Avx2 => 16,
        SimdLevel::Portable => 8,
    }
}

/// Input channels that `fprop` packs at a time: a few cache lines of the filter, whose rows of the panel stay in the L1 cache.
const PACK_CHANNELS: usize = 256;

/// Rows of all panels that one unit of `dgrad` packs: it reads the filter in its order in memory.
const UNIT_ROWS: usize = 32;

/// Packs for `fprop`: output channel k, input channel c.
pub(super) fn fprop(level: SimdLevel, shape: &Conv2dShape, filter: &[f32], packed: &mut [f32]) {
    panels(level, &Gather::fprop(shape), packed).for_each(|(k_first, panel)| {
        let width = panel.len() / (shape.r * shape.s * shape.c);
        // SAFETY: the level is available (checked when it was chosen).
        unsafe { level::run(level, FpropPanel { shape, filter, k_first, width, panel }) };
    });
}

/// A panel to pack for `fprop`.
struct FpropPanel<'a> {
    shape: &'a Conv2dShape,
    filter: &'a [f32],
    k_first: usize,
    width: usize,
    panel: &'a mut [f32],
}

impl Work for FpropPanel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes, const MR: usize, const NV: usize>(self) {
        let Self { shape, filter, k_first, width, panel } = self;
        let Conv2dShape { c, k, .. } = *shape;
        let (taps, lanes) = (shape.r * shape.s, width.min(k - k_first));
        for tap in 0..taps {
            for c_block in (0..c).step_by(PACK_CHANNELS) {
                for lane in (0..width).step_by(V::LANES) {
                    for c_first in (c_block..c.min(c_block + PACK_CHANNELS)).step_by(V::LANES) {
                        let from = ((k_first + lane) * taps + tap) * c + c_first;
                        let to = (tap * c + c_first) * width + lane;
                        if lane + V::LANES <= lanes && c_first + V::LANES <= c {
                            let (from, to) = (&filter[from..], &mut panel[to..]);
                            // SAFETY: `V`'s instructions are available; the filter has that many output and input
                            // channels from here on, and the panel a row for each of the latter.
                            unsafe {
                                V::transpose_block(from.as_ptr(), taps * c, to.as_mut_ptr(), width);
                            }
                            continue;
                        }
                        for i in 0..V::LANES.min(c - c_first) {
                            for j in 0..V::LANES {
                                let inside = lane + j < lanes;
                                panel[to + i * width + j] =
                                    if inside { filter[from + j * taps * c + i] } else { 0.0 };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Packs for one phase of `dgrad`: output channel c, input channel k.
pub(super) fn dgrad(
    level: SimdLevel,
    shape: &Conv2dShape,
    gather: &Gather,
    filter: &[f32],
    packed: &mut [f32],
) {
    let depth = gather.depth();
    let width = panel_width(level);
    let output = Output(packed.as_mut_ptr());
    (0..depth.div_ceil(UNIT_ROWS)).into_par_iter().for_each(|unit| {
        let output = &output;
        for row in unit * UNIT_ROWS..depth.min((unit + 1) * UNIT_ROWS) {
            let (tap, k) = (row / shape.k, row % shape.k);
            let r = gather.rows.filter_first + tap / gather.cols.taps * gather.rows.filter_step;
            let s = gather.cols.filter_first + tap % gather.cols.taps * gather.cols.filter_step;
            let from = &filter[((k * shape.r + r) * shape.s + s) * shape.c..][..shape.c];
            for (index, from) in from.chunks(width).enumerate() {
                let width = width_at(level, gather, index * width);
                let first = index * panel_width(level) * depth + row * width;
                // SAFETY: the row of this panel, which no other unit touches; it lies inside `packed`, whose length the
                // caller has checked.
                let to = unsafe { std::slice::from_raw_parts_mut(output.0.wrapping_add(first), width) };
                copy_padded(from, to);
            }
        }
    });
}

/// Copies what `from` has of `to`'s length; 0 past its end. Vectors of the usual lengths are copied without a call.
#[inline(always)]
fn copy_padded(from: &[f32], to: &mut [f32]) {
    fn whole<const N: usize>(from: &[f32], to: &mut [f32]) -> bool {
        match (from.first_chunk::<N>(), <&mut [f32; N]>::try_from(to)) {
            (Some(from), Ok(to)) => {
                *to = *from;
                true
            }
            _ => false,
        }
    }
    if !(whole::<32>(from, to) || whole::<16>(from, to) || whole::<8>(from, to)) {
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        to[count..].fill(0.0);
    }
}

/// First output channel and floats of each panel that holds a channel; the last may be narrower.
fn panels<'a>(
    level: SimdLevel,
    gather: &Gather,
    packed: &'a mut [f32],
) -> impl IndexedParallelIterator<Item = (usize, &'a mut [f32])> {
    let width = panel_width(level);
    let depth = gather.depth();
    let count = if depth == 0 { 0 } else { gather.c_out.div_ceil(width) };
    packed
        .par_chunks_mut((width * depth).max(1))
        .take(count)
        .enumerate()
        .map(move |(index, panel)| (index * width, panel))
}

/// Width of the panel that begins at output channel `first`.
pub(super) fn width_at(level: SimdLevel, gather: &Gather, first: usize) -> usize {
    panel_width(level).min(gather.c_out.next_multiple_of(CHANNEL_ROUND) - first)
}
