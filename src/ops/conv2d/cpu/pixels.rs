//! The grid pixels of one tile: where their outputs are and which inputs lie under each tap.

use super::gather::Gather;
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

/// Up to `MR` pixels of the flattened list; those past `count` have no inputs.
pub(super) struct Pixels<const MR: usize> {
    pub count: usize,
    /// Input position of tap offset 0; far outside the input for absent pixels.
    rows: [isize; MR],
    cols: [isize; MR],
    /// First float of the pixel's image in the input.
    images: [usize; MR],
    /// First float of the pixel in the output.
    pub outputs: [usize; MR],
}

/// A row that no tap of a valid shape can bring back inside the input.
const ABSENT: isize = isize::MIN / 2;

impl<const MR: usize> Pixels<MR> {
    /// Pixels `range` (at most `MR`) of the list.
    #[inline(always)]
    pub fn locate(gather: &Gather, n: usize, order: PixelOrder, range: Range<usize>) -> Self {
        let (rows, cols) = (&gather.rows, &gather.cols);
        let mut pixels =
            Self { count: range.len(), rows: [ABSENT; MR], cols: [0; MR], images: [0; MR], outputs: [0; MR] };
        let (mut image, mut pixel) = match order {
            PixelOrder::GridInner => (range.start / gather.grid_len(), range.start % gather.grid_len()),
            PixelOrder::ImagesInner => (range.start % n, range.start / n),
        };
        let (mut row, mut col) = (pixel / cols.grid, pixel % cols.grid);
        for i in 0..pixels.count {
            pixels.rows[i] = (row * rows.step) as isize;
            pixels.cols[i] = (col * cols.step) as isize;
            pixels.images[i] = image * rows.input * cols.input * gather.c_in;
            let out_row = rows.out_first + row * rows.out_step;
            let out_col = cols.out_first + col * cols.out_step;
            pixels.outputs[i] = ((image * rows.output + out_row) * cols.output + out_col) * gather.c_out;
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

    /// Float offset of the input pixel under tap (`tap_row`, `tap_col`) of pixel `i`, or `None` in the padding.
    #[inline(always)]
    pub fn input(&self, gather: &Gather, i: usize, tap_row: usize, tap_col: usize) -> Option<usize> {
        let (rows, cols) = (&gather.rows, &gather.cols);
        let row = self.rows[i] + rows.offset_first + tap_row as isize * rows.offset_step;
        let col = self.cols[i] + cols.offset_first + tap_col as isize * cols.offset_step;
        let inside = (row as usize) < rows.input && (col as usize) < cols.input;
        inside.then(|| self.images[i] + (row as usize * cols.input + col as usize) * gather.c_in)
    }

    /// Writes one run for each of `taps` under which a pixel has an input, beginning at `channel`; returns their number.
    #[inline(always)]
    pub fn runs(
        &self,
        gather: &Gather,
        input: &[f32],
        zeros: &[f32],
        taps: Range<usize>,
        channel: usize,
        runs: &mut [Run<MR>],
    ) -> usize {
        let mut count = 0;
        for tap in taps {
            let (tap_row, tap_col) = (tap / gather.cols.taps, tap % gather.cols.taps);
            let run = &mut runs[count];
            let mut any = false;
            for i in 0..MR {
                run.inputs[i] = match self.input(gather, i, tap_row, tap_col) {
                    Some(offset) => {
                        any = true;
                        input.as_ptr().wrapping_add(offset + channel)
                    }
                    None => zeros.as_ptr(),
                };
            }
            run.panel_row = tap * gather.c_in + channel;
            count += usize::from(any);
        }
        count
    }
}
