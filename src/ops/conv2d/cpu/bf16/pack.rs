//! Filters rounded to bf16 in the order the microkernel reads them: `[panel][row of two input channels][lane][2]`.
//!
//! A tap has a row for every two of its input channels, the last padded with 0 if they are odd; where inputs are copied
//! into patches, rows pair neighbours of the whole depth. Panels are cut as those of f32 filters are.

use crate::element::Element;
use crate::ops::conv2d::cpu::gather::{CHANNEL_ROUND, Gather};
use crate::ops::conv2d::cpu::patch;
use crate::ops::conv2d::cpu::product::Output;
use crate::ops::simd::pairs::PairLevel;
use crate::shape::Conv2dShape;
use half::bf16;
use rayon::prelude::*;

/// Output channels of a full panel.
pub(super) const fn panel_width(level: PairLevel) -> usize {
    match level {
        PairLevel::Avx512Bf16 => 32,
        PairLevel::Avx2 => 16,
        PairLevel::Portable => 8,
    }
}

/// Width of the panel that begins at output channel `first`.
pub(super) fn width_at(level: PairLevel, gather: &Gather, first: usize) -> usize {
    panel_width(level).min(gather.c_out.next_multiple_of(CHANNEL_ROUND) - first)
}

/// How the depth of a product is cut into rows: `taps` times `channels`, each time in pairs.
fn taps_and_channels(gather: &Gather) -> (usize, usize) {
    if patch::suits(gather) { (1, gather.depth()) } else { (gather.taps(), gather.c_in) }
}

/// Rows of a panel.
pub(super) fn panel_rows(gather: &Gather) -> usize {
    let (taps, channels) = taps_and_channels(gather);
    taps * channels.div_ceil(2)
}

/// Elements of the packed filter.
pub(super) fn packed_len(gather: &Gather) -> usize {
    2 * panel_rows(gather) * gather.c_out.next_multiple_of(CHANNEL_ROUND)
}

/// Input channels that `fprop` packs at a time: a few cache lines of the filter, whose rows of the panel stay in the L1 cache.
const PACK_CHANNELS: usize = 64;

/// Rows of all panels that one unit of `dgrad` packs: it reads the filter in its order in memory.
const UNIT_ROWS: usize = 16;

/// Packs for `fprop`: output channel k, input channel c.
pub(super) fn fprop(level: PairLevel, shape: &Conv2dShape, filter: &[f32], packed: &mut [bf16]) {
    let gather = Gather::fprop(shape);
    let (taps, channels) = taps_and_channels(&gather);
    panels(level, &gather, packed).for_each(|(k_first, width, panel)| {
        let (pairs, _) = panel.as_chunks_mut::<2>();
        let lanes = width.min(shape.k - k_first);
        for tap in 0..taps {
            let rows = &mut pairs[tap * channels.div_ceil(2) * width..][..channels.div_ceil(2) * width];
            // A few input channels at a time: a line of the filter is used up while the panel's rows stay in cache.
            for (block, rows) in rows.chunks_mut(PACK_CHANNELS / 2 * width).enumerate() {
                let c_first = block * PACK_CHANNELS;
                let count = PACK_CHANNELS.min(channels - c_first);
                for lane in 0..width {
                    let mut values = [0.0; PACK_CHANNELS];
                    if lane < lanes {
                        let first = ((k_first + lane) * taps + tap) * channels + c_first;
                        values[..count].copy_from_slice(&filter[first..first + count]);
                    }
                    let rounded = values.map(<bf16 as Element>::from_f32);
                    for (row, &pair) in rows.chunks_exact_mut(width).zip(rounded.as_chunks::<2>().0) {
                        row[lane] = pair;
                    }
                }
            }
        }
    });
}

/// Packs for one phase of `dgrad`: output channel c, input channel k.
pub(super) fn dgrad(
    level: PairLevel,
    shape: &Conv2dShape,
    gather: &Gather,
    filter: &[f32],
    packed: &mut [bf16],
) {
    let (taps, channels) = taps_and_channels(gather);
    // The filter's values, for all output channels, of input `channel` of the depth under `tap`.
    let source = |tap: usize, channel: usize| {
        let channel = tap * channels + channel;
        let (tap, k) = (channel / shape.k, channel % shape.k);
        let r = gather.rows.filter_first + tap / gather.cols.taps * gather.rows.filter_step;
        let s = gather.cols.filter_first + tap % gather.cols.taps * gather.cols.filter_step;
        &filter[((k * shape.r + r) * shape.s + s) * shape.c..][..shape.c]
    };
    let (rows, tap_rows) = (panel_rows(gather), channels.div_ceil(2));
    debug_assert_eq!(rows, taps * tap_rows);
    let output = Output(packed.as_mut_ptr().cast::<[bf16; 2]>());
    (0..rows.div_ceil(UNIT_ROWS)).into_par_iter().for_each(|unit| {
        let output = &output;
        for row in unit * UNIT_ROWS..rows.min((unit + 1) * UNIT_ROWS) {
            let (tap, channel) = (row / tap_rows, row % tap_rows * 2);
            let first = source(tap, channel);
            let second = (channel + 1 < channels).then(|| source(tap, channel + 1));
            for c_first in (0..shape.c).step_by(panel_width(level)) {
                let width = width_at(level, gather, c_first);
                // SAFETY: the row of this panel, which no other unit touches; it lies inside `packed`, whose length the
                // caller has checked.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(output.0.wrapping_add(c_first * rows + row * width), width)
                };
                let (row, past) = row.split_at_mut(width.min(shape.c - c_first));
                let first = row.iter_mut().zip(&first[c_first..]);
                match second {
                    Some(second) => first
                        .zip(&second[c_first..])
                        .for_each(|((pair, &a), &b)| *pair = [Element::from_f32(a), Element::from_f32(b)]),
                    None => first.for_each(|(pair, &a)| *pair = [Element::from_f32(a), bf16::ZERO]),
                }
                past.fill([bf16::ZERO; 2]);
            }
        }
    });
}

/// First output channel, width and elements of each panel that holds a channel.
fn panels<'a>(
    level: PairLevel,
    gather: &Gather,
    packed: &'a mut [bf16],
) -> impl ParallelIterator<Item = (usize, usize, &'a mut [bf16])> {
    let width = panel_width(level);
    let rows = panel_rows(gather);
    let count = if rows == 0 { 0 } else { gather.c_out.div_ceil(width) };
    packed.par_chunks_mut((2 * width * rows).max(1)).take(count).enumerate().map(move |(index, panel)| {
        // The last panel may be narrower.
        (index * width, panel.len() / (2 * rows), panel)
    })
}
