//! Tiles of inputs with few channels: the whole patch under the filter is copied together, so that it is one long run.

use super::gather::Gather;
use super::pixels::Pixels;
use super::tile::Run;
use crate::ops::simd::lanes::Lanes;

/// Channels below which a run for each tap would be too short.
const MAX_CHANNELS: usize = 8;

/// Floats of one patch, at most.
pub(super) const MAX_PATCH: usize = 256;

/// Whether the inputs of `gather` are better copied into patches.
pub(super) fn suits(gather: &Gather) -> bool {
    gather.c_in <= MAX_CHANNELS && gather.taps() > 1 && gather.depth() <= MAX_PATCH
}

/// The patches of one tile.
pub(super) struct Patches<const MR: usize>([[f32; MAX_PATCH]; MR]);

impl<const MR: usize> Patches<MR> {
    #[inline(always)]
    pub fn new() -> Self {
        Self([[0.0; MAX_PATCH]; MR])
    }

    /// Copies the patches of `pixels`, zeros for padding, and returns them as one run.
    ///
    /// # Safety
    /// `V`'s instructions are available and `input` has the length of the gather's input for every image of `pixels`.
    #[inline(always)]
    pub unsafe fn fill<V: Lanes>(&mut self, gather: &Gather, pixels: &Pixels<MR>, input: &[f32]) -> Run<MR> {
        let mut inputs = [std::ptr::null(); MR];
        for (i, patch) in self.0.iter_mut().enumerate() {
            if i < pixels.count {
                let corner = Corner { image: pixels.images[i], row: pixels.rows[i], col: pixels.cols[i] };
                // SAFETY: as the caller vouches; a patch has room for the gather's depth (`suits`).
                unsafe { copy::<V>(gather, corner, input.as_ptr(), patch.as_mut_ptr()) };
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

/// Copies one patch: tap rows, tap columns, channels; zeros for padding.
///
/// # Safety
/// `V`'s instructions are available, `input` has the gather's images up to `corner.image`, and `patch` has room for the
/// gather's depth.
#[inline(always)]
pub(super) unsafe fn copy<V: Lanes>(gather: &Gather, corner: Corner, input: *const f32, patch: *mut f32) {
    let (rows, cols, channels) = (&gather.rows, &gather.cols, gather.c_in);
    let mut to = patch;
    // Taps that are neighbours in the input are copied together: all of a tap row, or one.
    let together = if cols.offset_step == 1 { cols.taps } else { 1 };
    for tap_row in 0..rows.taps {
        let row = corner.row + tap_row as isize * rows.offset_step;
        for tap_col in (0..cols.taps).step_by(together) {
            let col = corner.col + tap_col as isize * cols.offset_step;
            let before = (-col).clamp(0, together as isize) as usize;
            let until = (cols.input as isize - col).clamp(before as isize, together as isize) as usize;
            // SAFETY: the taps `before..until` lie inside the row, whose offset is then inside the input; `to` advances
            // by the whole depth in all.
            unsafe {
                if (row as usize) < rows.input {
                    let from = input.wrapping_offset(gather.input_offset(corner.image, row, col));
                    zero_floats::<V>(to, before * channels);
                    copy_floats::<V>(
                        from.wrapping_add(before * channels),
                        to.add(before * channels),
                        (until - before) * channels,
                    );
                    zero_floats::<V>(to.add(until * channels), (together - until) * channels);
                } else {
                    zero_floats::<V>(to, together * channels);
                }
                to = to.add(together * channels);
            }
        }
    }
}

/// # Safety
/// `V`'s instructions are available; `from` has `len` readable and `to` `len` writable floats, apart from each other.
#[inline(always)]
pub(super) unsafe fn copy_floats<V: Lanes>(from: *const f32, to: *mut f32, len: usize) {
    let mut done = 0;
    // SAFETY: as the caller vouches; nothing at or past `len` is touched.
    unsafe {
        while len - done >= V::LANES {
            V::load(from.add(done)).store(to.add(done));
            done += V::LANES;
        }
        if done < len {
            V::load_first(from.add(done), len - done).store_first(to.add(done), len - done);
        }
    }
}

/// # Safety
/// `V`'s instructions are available and `to` has `len` writable floats.
#[inline(always)]
unsafe fn zero_floats<V: Lanes>(to: *mut f32, len: usize) {
    let mut done = 0;
    // SAFETY: as the caller vouches; nothing at or past `len` is touched.
    unsafe {
        while len - done >= V::LANES {
            V::zero().store(to.add(done));
            done += V::LANES;
        }
        if done < len {
            V::zero().store_first(to.add(done), len - done);
        }
    }
}
