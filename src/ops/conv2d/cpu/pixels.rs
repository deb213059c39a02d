//! The grid pixels of one tile: where their outputs are and which inputs lie under each tap.

use super::gather::{Axis, Gather};
use super::tile::Run;
use std::ops::Range;

/// Which of N and the grid runs faster in the flattened list of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PixelOrder {
    /// Neighbours in an image are neighbours in the list.
    GridInner,
    /// The same pixel of all images comes together: a tap in the padding is then so for the whole tile, and skipped.
    ImagesInner,
}

/// Largest grid whose pixels are taken image by image: beyond it too few taps lie in the padding.
const MAX_IMAGES_INNER_GRID: usize = 64;

impl PixelOrder {
    /// The order for `n` images and tiles of `tile_pixels`.
    pub fn choose(gather: &Gather, n: usize, tile_pixels: usize) -> Self {
        if gather.taps() > 1 && gather.grid_len() <= MAX_IMAGES_INNER_GRID && n >= tile_pixels {
            PixelOrder::ImagesInner
        } else {
            PixelOrder::GridInner
        }
    }
}

/// Up to `MR` (at most 32) pixels of the flattened list; those past `count` have no inputs.
pub(super) struct Pixels<const MR: usize> {
    pub count: usize,
    /// Input row and column under tap 0, which may lie in the padding; far outside the input for absent pixels.
    pub rows: [isize; MR],
    /// See `rows`.
    pub cols: [isize; MR],
    /// Float offset of (`rows`, `cols`) in the input, meaningful only where that is inside.
    inputs: [isize; MR],
    pub images: [usize; MR],
    /// First float of the pixel in the output.
    pub outputs: [usize; MR],
}

/// A row that no tap of a valid shape can bring back inside the input.
const ABSENT: isize = isize::MIN / 2;

impl<const MR: usize> Pixels<MR> {
    const ALL: u32 = u32::MAX >> (32 - MR);

    /// Pixels `range` (at most `MR`) of the list.
    #[inline(always)]
    pub fn locate(gather: &Gather, n: usize, order: PixelOrder, range: Range<usize>) -> Self {
        let (rows, cols) = (&gather.rows, &gather.cols);
        let mut pixels = Self {
            count: range.len(),
            rows: [ABSENT; MR],
            cols: [0; MR],
            images: [0; MR],
            inputs: [0; MR],
            outputs: [0; MR],
        };
        let (mut image, mut pixel) = match order {
            PixelOrder::GridInner => (range.start / gather.grid_len(), range.start % gather.grid_len()),
            PixelOrder::ImagesInner => (range.start % n, range.start / n),
        };
        let (mut row, mut col) = (pixel / cols.grid, pixel % cols.grid);
        for i in 0..pixels.count {
            pixels.rows[i] = (row * rows.step) as isize + rows.offset_first;
            pixels.cols[i] = (col * cols.step) as isize + cols.offset_first;
            pixels.images[i] = image;
            pixels.inputs[i] = gather.input_offset(image, pixels.rows[i], pixels.cols[i]);
            pixels.outputs[i] = gather.output_offset(image, row, col);
            let grid_moves = match order {
                PixelOrder::GridInner => true,
                PixelOrder::ImagesInner => {
                    image += 1;
                    image == n
                }
            };
            if grid_moves {
                col += 1;
                pixel += 1;
                if col == cols.grid {
                    (row, col) = (row + 1, 0);
                }
                if order == PixelOrder::ImagesInner {
                    image = 0;
                } else if pixel == gather.grid_len() {
                    (image, pixel, row) = (image + 1, 0, 0);
                }
            }
        }
        pixels
    }

    /// Writes one run for each of `taps` under which a pixel has an input, beginning at `channel`; returns their number.
    #[inline(always)]
    pub fn runs(
        &self,
        gather: &Gather,
        input: *const f32,
        zeros: *const f32,
        taps: Range<usize>,
        channel: usize,
        runs: &mut [Run<MR>],
    ) -> usize {
        let (rows, cols) = (&gather.rows, &gather.cols);
        let cached_cols: [u32; 4] = std::array::from_fn(|tap| inside(cols, &self.cols, tap));
        let mut count = 0;
        let (mut tap_row, mut tap_col) = (taps.start / cols.taps.max(1), taps.start % cols.taps.max(1));
        let mut rows_inside = inside(rows, &self.rows, tap_row);
        for tap in taps {
            let cols_inside =
                if tap_col < 4 { cached_cols[tap_col] } else { inside(cols, &self.cols, tap_col) };
            let pixels_inside = rows_inside & cols_inside;
            if pixels_inside != 0 {
                let offset = (tap_row as isize * rows.offset_step * cols.input as isize
                    + tap_col as isize * cols.offset_step)
                    * gather.c_in as isize
                    + channel as isize;
                let run = &mut runs[count];
                run.panel_row = tap * gather.c_in + channel;
                run.inputs = self.inputs.map(|pixel| input.wrapping_offset(pixel + offset));
                if pixels_inside != Self::ALL {
                    for (i, input) in run.inputs.iter_mut().enumerate() {
                        *input = if pixels_inside >> i & 1 == 0 { zeros } else { *input };
                    }
                }
                count += 1;
            }
            tap_col += 1;
            if tap_col == cols.taps {
                (tap_row, tap_col) = (tap_row + 1, 0);
                rows_inside = inside(rows, &self.rows, tap_row);
            }
        }
        count
    }
}

/// Bit i tells whether pixel i, at `positions[i]` under tap 0, is inside the input under `tap`.
#[inline(always)]
fn inside<const MR: usize>(axis: &Axis, positions: &[isize; MR], tap: usize) -> u32 {
    let offset = tap as isize * axis.offset_step;
    let mut bits = 0;
    for (i, position) in positions.iter().enumerate() {
        bits |= u32::from(((position + offset) as usize) < axis.input) << i;
    }
    bits
}
