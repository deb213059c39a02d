//! Tiles of inputs with few channels: the whole patch under the filter is copied together, so that it is one long run.

use super::gather::Gather;
use super::pixels::Pixels;
use super::tile::Run;
use crate::ops::simd::lanes::Lanes;
use std::marker::PhantomData;

/// Channels below which a run for each tap would be too short.
const MAX_CHANNELS: usize = 8;

/// Floats of one patch, at most.
pub(super) const MAX_PATCH: usize = 256;

/// Whether the inputs of `gather` are better copied into patches.
pub(super) fn suits(gather: &Gather) -> bool {
    gather.c_in <= MAX_CHANNELS && gather.taps() > 1 && gather.depth() <= MAX_PATCH
}

/// Floats past a patch that copying may overwrite: one vector of the widest level.
pub(super) const SLACK: usize = 16;

/// The patches of one tile.
pub(super) struct Patches<const MR: usize>([[f32; MAX_PATCH + SLACK]; MR]);

impl<const MR: usize> Patches<MR> {
    #[inline(always)]
    pub fn new() -> Self {
        Self([[0.0; MAX_PATCH + SLACK]; MR])
    }

    /// Copies the patches of `pixels`, zeros for padding, and returns them as one run.
    ///
    /// # Safety
    /// `V`'s instructions are available and `input` has the length of the gather's input for every image of `pixels`.
    #[inline(always)]
    pub unsafe fn fill<V: Lanes>(
        &mut self,
        gather: &Gather,
        pixels: &Pixels<MR>,
        input: &[f32],
    ) -> Run<f32, MR> {
        let mut inputs = [std::ptr::null(); MR];
        for (i, patch) in self.0.iter_mut().enumerate() {
            if i < pixels.count {
                let corner = Corner { image: pixels.images[i], row: pixels.rows[i], col: pixels.cols[i] };
                // SAFETY: as the caller vouches; a patch has room for the gather's depth (`suits`) and the slack.
                unsafe { copy::<V>(gather, corner, input, patch.as_mut_ptr()) };
            }
            inputs[i] = patch.as_ptr();
        }
        Run { inputs, panel_row: 0 }
    }
}

/// The input pixel under tap (0, 0), which may lie in the padding.
#[derive(Clone, Copy)]
pub(super) struct Corner {
    pub image: usize,
    pub row: isize,
    pub col: isize,
}

/// Copies one patch: tap rows, tap columns, channels; zeros for padding. Spoils up to [`SLACK`] floats past its end.
///
/// # Safety
/// `V`'s instructions are available, `input` has the gather's images up to `corner.image`, and `patch` has room for the
/// gather's depth and the slack.
#[inline(always)]
pub(super) unsafe fn copy<V: Lanes>(gather: &Gather, corner: Corner, input: &[f32], patch: *mut f32) {
    let mut writer = FloatWriter::<V> { to: patch, input, lanes: PhantomData };
    // SAFETY: as the caller vouches.
    unsafe { write(gather, corner, &mut writer) };
}

/// As [`copy`], through a writer.
///
/// # Safety
/// The writer has room for the gather's depth, and its input the gather's images up to `corner.image`.
#[inline(always)]
pub(super) unsafe fn write(gather: &Gather, corner: Corner, writer: &mut impl Writer) {
    let (rows, cols, channels) = (&gather.rows, &gather.cols, gather.c_in);
    // Taps that are neighbours in the input are copied together: all of a tap row, or one.
    let together = if cols.offset_step == 1 { cols.taps } else { 1 };
    for tap_row in 0..rows.taps {
        let row = corner.row + tap_row as isize * rows.offset_step;
        let mut col = corner.col;
        let mut tap_col = 0;
        while tap_col < cols.taps {
            let before = (-col).clamp(0, together as isize) as usize;
            let until = (cols.input as isize - col).clamp(before as isize, together as isize) as usize;
            // SAFETY: the taps `before..until` lie inside the row, whose offset is then inside the input; the patch
            // is written front to back, its depth in all.
            unsafe {
                if (row as usize) < rows.input && before < until {
                    let first = gather.input_offset(corner.image, row, col + before as isize) as usize;
                    writer.zero(before * channels);
                    writer.copy(first, (until - before) * channels);
                    writer.zero((together - until) * channels);
                } else {
                    writer.zero(together * channels);
                }
            }
            col += together as isize * cols.offset_step;
            tap_col += together;
        }
    }
}

/// Fills a patch front to back. It may spill past what it is told to write: what one call spills, the next overwrites.
pub(super) trait Writer {
    /// Writes `len` zeros.
    ///
    /// # Safety
    /// The patch has room for them.
    unsafe fn zero(&mut self, len: usize);

    /// Copies `len` elements from `first` of the input.
    ///
    /// # Safety
    /// The patch has room for them, and the input has them.
    unsafe fn copy(&mut self, first: usize, len: usize);
}

/// Writes whole vectors of f32. Its safety also needs `V`'s instructions.
struct FloatWriter<'a, V> {
    to: *mut f32,
    input: &'a [f32],
    lanes: PhantomData<V>,
}

impl<V: Lanes> Writer for FloatWriter<'_, V> {
    #[inline(always)]
    unsafe fn zero(&mut self, len: usize) {
        for done in (0..len).step_by(V::LANES) {
            // SAFETY: as the caller vouches.
            unsafe { V::zero().store(self.to.add(done)) };
        }
        self.to = self.to.wrapping_add(len);
    }

    #[inline(always)]
    unsafe fn copy(&mut self, first: usize, len: usize) {
        let from = self.input.as_ptr().wrapping_add(first);
        let readable = self.input.len() - first;
        for done in (0..len).step_by(V::LANES) {
            // SAFETY: as the caller vouches; nothing past the input is read.
            unsafe {
                let values = if done + V::LANES <= readable {
                    V::load(from.add(done))
                } else {
                    V::load_first(from.add(done), readable - done)
                };
                values.store(self.to.add(done));
            }
        }
        self.to = self.to.wrapping_add(len);
    }
}
