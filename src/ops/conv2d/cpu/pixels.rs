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
    /// Offset of (`rows`, `cols`) in the input, meaningful only where that is inside.
    inputs: [isize; MR],
    pub images: [usize; MR],
    /// First element of the pixel in the output.
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
        // From one pixel to the next: an image further, or a column further until the row ends.
        let (image_move, col_move) = match order {
            PixelOrder::GridInner => (0, 1),
            PixelOrder::ImagesInner => (1, 0),
        };
        let input_move = (image_move * rows.input * cols.input + col_move * cols.step) * gather.c_in;
        let output_move = (image_move * rows.output * cols.output + col_move * cols.out_step) * gather.c_out;
        let (mut input, mut output) = (0, 0);
        let (mut row, mut col) = (pixel / cols.grid, pixel % cols.grid);
        let mut moved = false;
        for i in 0..pixels.count {
            let input_row = (row * rows.step) as isize + rows.offset_first;
            let input_col = (col * cols.step) as isize + cols.offset_first;
            if moved {
                input += input_move as isize;
                output += output_move;
            } else {
                input = gather.input_offset(image, input_row, input_col);
                output = gather.output_offset(image, row, col);
            }
            pixels.rows[i] = input_row;
            pixels.cols[i] = input_col;
            pixels.images[i] = image;
            pixels.inputs[i] = input;
            pixels.outputs[i] = output;
            image += image_move;
            col += col_move;
            moved = image < n && col < cols.grid;
            if !moved {
                pixel = match order {
                    PixelOrder::GridInner => row * cols.grid + col,
                    PixelOrder::ImagesInner => pixel + 1,
                };
                match order {
                    PixelOrder::GridInner if pixel == gather.grid_len() => (image, pixel) = (image + 1, 0),
                    PixelOrder::GridInner => {}
                    PixelOrder::ImagesInner => image = 0,
                }
                (row, col) = (pixel / cols.grid, pixel % cols.grid);
            }
        }
        pixels
    }

    /// Writes one run for each of `taps` under which a pixel has an input, beginning at `channel`; returns their number.
    /// A row of the panel holds `row_channels` input channels.
    #[inline(always)]
    pub fn runs<E: Copy>(
        &self,
        gather: &Gather,
        input: *const E,
        zeros: *const E,
        (taps, channel): (Range<usize>, usize),
        row_channels: usize,
        runs: &mut [Run<E, MR>],
    ) -> usize {
        let tap_rows = gather.c_in.div_ceil(row_channels);
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
                run.panel_row = tap * tap_rows + channel / row_channels;
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
