//! Patches of bf16 inputs with few channels.

use crate::ops::conv2d::cpu::gather::Gather;
use crate::ops::conv2d::cpu::patch::{Corner, MAX_PATCH, SLACK, Writer, write};
use crate::ops::conv2d::cpu::pixels::Pixels;
use crate::ops::conv2d::cpu::tile::Run;
use half::bf16;

/// The patches of one tile.
pub(super) struct Patches<const MR: usize>([[bf16; MAX_PATCH + SLACK]; MR]);

impl<const MR: usize> Patches<MR> {
    #[inline(always)]
    pub fn new() -> Self {
        Self([[bf16::ZERO; MAX_PATCH + SLACK]; MR])
    }

    /// Copies the patches of `pixels`, zeros for padding, and returns them as one run.
    ///
    /// # Safety
    /// `input` has the length of the gather's input for every image of `pixels`, and the gather suits patches.
    #[inline(always)]
    pub unsafe fn fill(&mut self, gather: &Gather, pixels: &Pixels<MR>, input: &[bf16]) -> Run<bf16, MR> {
        let mut inputs = [std::ptr::null(); MR];
        for (i, patch) in self.0.iter_mut().enumerate() {
            if i < pixels.count {
                let corner = Corner { image: pixels.images[i], row: pixels.rows[i], col: pixels.cols[i] };
                // SAFETY: as the caller vouches; a patch has room for the gather's depth and the slack.
                unsafe { copy(gather, corner, input, patch.as_mut_ptr()) };
            }
            inputs[i] = patch.as_ptr();
        }
        Run { inputs, panel_row: 0 }
    }
}

/// Copies one patch: tap rows, tap columns, channels; zeros for padding. Spoils up to [`SLACK`] elements past its end.
///
/// # Safety
/// `input` has the gather's images up to `corner.image`, and `patch` has room for the gather's depth and the slack.
#[inline(always)]
pub(super) unsafe fn copy(gather: &Gather, corner: Corner, input: &[bf16], patch: *mut bf16) {
    let mut writer = BlockWriter { to: patch, input };
    // SAFETY: as the caller vouches.
    unsafe { write(gather, corner, &mut writer) };
}

/// Elements written at a time.
const BLOCK: usize = SLACK;

/// Writes whole blocks.
struct BlockWriter<'a> {
    to: *mut bf16,
    input: &'a [bf16],
}

impl Writer for BlockWriter<'_> {
    #[inline(always)]
    unsafe fn zero(&mut self, len: usize) {
        for done in (0..len).step_by(BLOCK) {
            // SAFETY: as the caller vouches; a block spills less than the slack.
            unsafe { self.to.add(done).cast::<[bf16; BLOCK]>().write_unaligned([bf16::ZERO; BLOCK]) };
        }
        self.to = self.to.wrapping_add(len);
    }

    #[inline(always)]
    unsafe fn copy(&mut self, first: usize, len: usize) {
        let from = self.input.as_ptr().wrapping_add(first);
        let readable = self.input.len() - first;
        for done in (0..len).step_by(BLOCK) {
            // SAFETY: as the caller vouches; nothing past the input is read.
            unsafe {
                let to = self.to.add(done);
                if done + BLOCK <= readable {
                    to.cast::<[bf16; BLOCK]>()
                        .write_unaligned(from.add(done).cast::<[bf16; BLOCK]>().read_unaligned());
                } else {
                    std::ptr::copy_nonoverlapping(from.add(done), to, len - done);
                }
            }
        }
        self.to = self.to.wrapping_add(len);
    }
}
