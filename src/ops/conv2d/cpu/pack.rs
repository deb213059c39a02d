//! Filters in the order the microkernel reads them: `[panel][tap row][tap column][input channel][panel width]`.
//!
//! A panel is as many output channels as one microkernel call computes; the last one is narrower when half a panel
//! suffices. Channels past the last are 0.

use super::gather::{CHANNEL_ROUND, Gather};
use crate::ops::simd::SimdLevel;
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

/// Input channels that `fprop` packs at a time: one cache line of the filter.
const PACK_CHANNELS: usize = 16;

/// Packs for `fprop`: output channel k, input channel c.
pub(super) fn fprop(level: SimdLevel, shape: &Conv2dShape, filter: &[f32], packed: &mut [f32]) {
    let gather = Gather::fprop(shape);
    let taps = shape.r * shape.s;
    panels(level, &gather, packed).for_each(|(k_first, width, panel)| {
        let channels = width.min(shape.k - k_first);
        // A few input channels at a time: a line of the filter is used up while the panel's rows stay in cache.
        for tap in 0..taps {
            let rows = &mut panel[tap * shape.c * width..][..shape.c * width];
            for (block, rows) in rows.chunks_mut(PACK_CHANNELS * width).enumerate() {
                let c_first = block * PACK_CHANNELS;
                let count = rows.len() / width;
                for j in 0..width {
                    if j < channels {
                        let first = ((k_first + j) * taps + tap) * shape.c + c_first;
                        for (row, &value) in filter[first..first + count].iter().enumerate() {
                            rows[row * width + j] = value;
                        }
                    } else {
                        for row in 0..count {
                            rows[row * width + j] = 0.0;
                        }
                    }
                }
            }
        }
    });
}

/// Packs for one phase of `dgrad`: output channel c, input channel k.
pub(super) fn dgrad(
    level: SimdLevel,
    shape: &Conv2dShape,
    gather: &Gather,
    filter: &[f32],
    packed: &mut [f32],
) {
    panels(level, gather, packed).for_each(|(c_first, width, panel)| {
        let channels = width.min(shape.c - c_first);
        for (row, lane) in panel.chunks_exact_mut(width).enumerate() {
            let (tap, k) = (row / shape.k, row % shape.k);
            let r = gather.rows.filter_first + tap / gather.cols.taps * gather.rows.filter_step;
            let s = gather.cols.filter_first + tap % gather.cols.taps * gather.cols.filter_step;
            let first = ((k * shape.r + r) * shape.s + s) * shape.c + c_first;
            lane[..channels].copy_from_slice(&filter[first..first + channels]);
            lane[channels..].fill(0.0);
        }
    });
}

/// First output channel, width and floats of each panel that holds a channel.
fn panels<'a>(
    level: SimdLevel,
    gather: &Gather,
    packed: &'a mut [f32],
) -> impl ParallelIterator<Item = (usize, usize, &'a mut [f32])> {
    let width = panel_width(level);
    let depth = gather.depth();
    let count = if depth == 0 { 0 } else { gather.c_out.div_ceil(width) };
    packed.par_chunks_mut((width * depth).max(1)).take(count).enumerate().map(move |(index, panel)| {
        // The last panel may be narrower.
        (index * width, panel.len() / depth, panel)
    })
}

/// Width of the panel that begins at output channel `first`.
pub(super) fn width_at(level: SimdLevel, gather: &Gather, first: usize) -> usize {
    panel_width(level).min(gather.c_out.next_multiple_of(CHANNEL_ROUND) - first)
}
