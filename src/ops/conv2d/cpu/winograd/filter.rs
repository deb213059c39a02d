//! The filter as products: `[panel][position][input channel][panel width]`, made once per parameter update.

use super::plane::{Source, Target, map_plane};
use super::scheme::Scheme;
use crate::ops::conv2d::cpu::level::{self, Work};
use crate::ops::conv2d::cpu::pack::panel_width;
use crate::ops::conv2d::cpu::product::Output;
use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::Lanes;
use crate::shape::Conv2dShape;
use rayon::prelude::*;
use std::marker::PhantomData;

/// Input channels of one unit of work: one cache line of the filter.
const UNIT_CHANNELS: usize = 16;

/// Channels of the widest panel.
const MAX_WIDTH: usize = 32;

/// Floats of a packed filter above which it is written past the caches: it would not be found there when it is read.
const STREAMED_FLOATS: usize = 4 * 1024 * 1024;

/// Bytes of the widest vector.
const VECTOR_BYTES: usize = 64;

/// Which pass the filter is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Input channels C, output channels K.
    Fprop,
    /// Input channels K, output channels C, the filter turned by half a turn.
    Dgrad,
}

/// Floats of the packed filter for `positions` products a tile.
pub(super) fn packed_len(shape: &Conv2dShape, positions: usize) -> usize {
    positions * shape.c * shape.k
}

/// Writes `packed` from `filter` (KRSC).
pub(super) fn pack<S: Scheme<A, M>, const A: usize, const M: usize>(
    level: SimdLevel,
    pass: Pass,
    shape: &Conv2dShape,
    filter: &[f32],
    packed: &mut [f32],
) {
    let (c_in, c_out) = match pass {
        Pass::Fprop => (shape.c, shape.k),
        Pass::Dgrad => (shape.k, shape.c),
    };
    let units_in = c_in / UNIT_CHANNELS;
    let streams = packed.len() > STREAMED_FLOATS && packed.as_ptr().align_offset(VECTOR_BYTES) == 0;
    let output = Output(packed.as_mut_ptr());
    (0..c_out.div_ceil(panel_width(level)) * units_in).into_par_iter().for_each(|index| {
        let output = &output;
        let first_out = index / units_in * panel_width(level);
        let width = panel_width(level).min(c_out - first_out);
        let unit = Unit::<S, A, M> {
            pass,
            shape,
            filter,
            first_in: index % units_in * UNIT_CHANNELS,
            first_out,
            width,
            panel: output.0.wrapping_add(first_out * A * A * c_in),
            position_pitch: c_in * width,
            streams,
            scheme: PhantomData,
        };
        // SAFETY: the level is available (checked when it was chosen); no two units share a panel and channels.
        unsafe { level::run(level, unit) };
    });
}

/// Some input channels of one panel.
struct Unit<'a, S, const A: usize, const M: usize> {
    pass: Pass,
    shape: &'a Conv2dShape,
    filter: &'a [f32],
    first_in: usize,
    first_out: usize,
    width: usize,
    panel: *mut f32,
    position_pitch: usize,
    /// Whether the panel is written past the caches; it is aligned then.
    streams: bool,
    scheme: PhantomData<S>,
}

/// Nine taps of some input channels: `[tap][input channel][output channel]`.
type Taps = [[[f32; MAX_WIDTH]; UNIT_CHANNELS]; 9];

impl<S: Scheme<A, M>, const A: usize, const M: usize> Unit<'_, S, A, M> {
    /// Copies the taps, output channels innermost.
    ///
    /// # Safety
    /// `V`'s instructions are available.
    #[inline(always)]
    unsafe fn gather<V: Lanes>(&self, taps: &mut Taps) {
        let Conv2dShape { c, .. } = *self.shape;
        match self.pass {
            Pass::Fprop => {
                for (tap, rows) in taps.iter_mut().enumerate() {
                    for lane in (0..self.width).step_by(V::LANES) {
                        for channel in (0..UNIT_CHANNELS).step_by(V::LANES) {
                            let first = ((self.first_out + lane) * 9 + tap) * c + self.first_in + channel;
                            let (from, to) =
                                (&self.filter[first..], &mut rows[channel..].as_flattened_mut()[lane..]);
                            // SAFETY: channels and widths are multiples of the vector's; the filter has them from here on.
                            unsafe { V::transpose_block(from.as_ptr(), 9 * c, to.as_mut_ptr(), MAX_WIDTH) };
                        }
                    }
                }
            }
            Pass::Dgrad => {
                for (tap, rows) in taps.iter_mut().enumerate() {
                    for (i, row) in rows.iter_mut().enumerate() {
                        let first = ((self.first_in + i) * 9 + 8 - tap) * c + self.first_out;
                        row[..self.width].copy_from_slice(&self.filter[first..first + self.width]);
                    }
                }
            }
        }
    }
}

impl<S: Scheme<A, M>, const A: usize, const M: usize> Work for Unit<'_, S, A, M> {
    #[inline(always)]
    unsafe fn run<V: Lanes, const MR: usize, const NV: usize>(self) {
        let mut taps: Taps = [[[0.0; MAX_WIDTH]; UNIT_CHANNELS]; 9];
        // SAFETY: `V`'s instructions are available.
        unsafe { self.gather::<V>(&mut taps) };
        for channel in 0..UNIT_CHANNELS {
            for lane in (0..self.width).step_by(V::LANES) {
                let offset = (self.first_in + channel) * self.width + lane;
                let tap = Tap { taps: &taps, channel, lane };
                let products = Positions::<A> {
                    first: self.panel.wrapping_add(offset),
                    pitch: self.position_pitch,
                    streams: self.streams,
                };
                // SAFETY: the unit's own part of the panel; widths are multiples of the vector's, and so are offsets in it.
                unsafe { map_plane::<V, S::Filter, 3, A>(&tap, &products) };
            }
        }
        // SAFETY: `V`'s instructions are available.
        unsafe { V::fence() };
    }
}

/// The positions of one input channel, from one output channel on, `pitch` floats apart.
struct Positions<const A: usize> {
    first: *mut f32,
    pitch: usize,
    streams: bool,
}

impl<V: Lanes, const A: usize> Target<V> for Positions<A> {
    #[inline(always)]
    unsafe fn put(&self, row: usize, column: usize, value: V) {
        // SAFETY: as the trait demands; aligned if `streams`.
        unsafe {
            let to = self.first.add((row * A + column) * self.pitch);
            if self.streams { value.stream(to) } else { value.store(to) }
        }
    }
}

/// The taps of one input channel, from one output channel on.
struct Tap<'a> {
    taps: &'a Taps,
    channel: usize,
    lane: usize,
}

impl<V: Lanes> Source<V> for Tap<'_> {
    #[inline(always)]
    unsafe fn get(&self, row: usize, column: usize) -> V {
        // SAFETY: as the trait demands.
        unsafe { V::load(self.taps[3 * row + column][self.channel].as_ptr().add(self.lane)) }
    }
}
