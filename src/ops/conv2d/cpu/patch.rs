//! Tiles of inputs with few channels: the whole patch under the filter is copied together, so that it is one long run.

use super::gather::Gather;
use super::pixels::Pixels;
use super::tile::Run;

/// Channels below which a run for each tap would be too short.
const MAX_CHANNELS: usize = 8;

/// Floats of one patch, at most.
pub(super) const MAX_PATCH: usize = 256;

/// Whether the inputs of `gather` are better copied into patches.
pub(super) fn suits(gather: &Gather) -> bool {
    gather.c_in <= MAX_CHANNELS && gather.taps() > 1 && gather.depth() <= MAX_PATCH
}

/// The patches of one tile.
pub(super) struct Patch<const MR: usize>([[f32; MAX_PATCH]; MR]);

impl<const MR: usize> Patch<MR> {
    #[inline(always)]
    pub fn new() -> Self {
        Self([[0.0; MAX_PATCH]; MR])
    }

    /// Copies the patches of `pixels`, zeros for padding, and returns them as one run.
    #[inline(always)]
    pub fn fill(&mut self, gather: &Gather, pixels: &Pixels<MR>, input: &[f32]) -> Run<MR> {
        let mut inputs = [std::ptr::null(); MR];
        for (i, patch) in self.0.iter_mut().enumerate() {
            copy(gather, pixels, i, input, &mut patch[..gather.depth()]);
            inputs[i] = patch.as_ptr();
        }
        Run { inputs, panel_row: 0 }
    }
}

/// Copies the patch of pixel `i`: tap rows, tap columns, channels.
#[inline(always)]
pub(super) fn copy<const MR: usize>(
    gather: &Gather,
    pixels: &Pixels<MR>,
    i: usize,
    input: &[f32],
    patch: &mut [f32],
) {
    for (tap, values) in patch.chunks_exact_mut(gather.c_in).enumerate() {
        match pixels.input(gather, i, tap / gather.cols.taps, tap % gather.cols.taps) {
            Some(offset) => {
                for (value, &pixel) in values.iter_mut().zip(&input[offset..]) {
                    *value = pixel;
                }
            }
            None => values.fill(0.0),
        }
    }
}
