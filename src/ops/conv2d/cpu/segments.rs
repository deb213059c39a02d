//! A group of output pixels for `wgrad`, as segments of output rows, and the input pixels they meet under each tap.

use super::gather::Gather;
use super::patch::Corner;
use super::wgrad_tile::PixelPair;
use std::ops::Range;

/// Output pixels in one group, at most: their addresses are computed ahead of the microkernel.
pub(super) const GROUP_PIXELS: usize = 128;

/// Neighbouring output pixels of one row.
#[derive(Clone, Copy)]
struct Segment {
    image: usize,
    /// Output row and first output column.
    p: usize,
    q: usize,
    len: usize,
}

/// Up to [`GROUP_PIXELS`] output pixels, in the order of the list N, P, Q.
pub(super) struct Segments {
    count: usize,
    segments: [Segment; GROUP_PIXELS],
}

/// Pixel-major matrices: the elements of pixel i begin at `first + i * pitch`.
#[derive(Clone, Copy)]
pub(super) struct Rows<E> {
    pub first: *const E,
    pub pitch: usize,
}

impl Segments {
    /// The output pixels `range` (at most [`GROUP_PIXELS`]).
    pub fn new(gather: &Gather, range: Range<usize>) -> Self {
        let mut segments =
            Self { count: 0, segments: [Segment { image: 0, p: 0, q: 0, len: 0 }; GROUP_PIXELS] };
        let width = gather.cols.grid;
        let mut pixel = range.start;
        while pixel < range.end {
            let (row, q) = (pixel / width, pixel % width);
            let len = (width - q).min(range.end - pixel);
            let (image, p) = (row / gather.rows.grid, row % gather.rows.grid);
            segments.segments[segments.count] = Segment { image, p, q, len };
            segments.count += 1;
            pixel += len;
        }
        segments
    }

    /// Writes a pair for each pixel that has an input under tap (`tap_row`, `tap_col`); returns their number. `dy` holds
    /// the group's pixels.
    pub fn pairs<E: Copy>(
        &self,
        gather: &Gather,
        (tap_row, tap_col): (usize, usize),
        x: *const E,
        dy: Rows<E>,
        pairs: &mut [PixelPair<E>; GROUP_PIXELS],
    ) -> usize {
        let (rows, cols) = (&gather.rows, &gather.cols);
        let row_offset = rows.offset_first + tap_row as isize * rows.offset_step;
        let col_offset = cols.offset_first + tap_col as isize * cols.offset_step;
        // Columns first..until of the output have an input column under this tap.
        let first = (-col_offset).max(0) as usize;
        let first = first.div_ceil(cols.step);
        let until = (cols.input as isize - col_offset).max(0) as usize;
        let until = until.div_ceil(cols.step);
        let x_step = cols.step * gather.c_in;
        let (mut count, mut pixel) = (0, 0);
        for segment in &self.segments[..self.count] {
            let row = (segment.p * rows.step) as isize + row_offset;
            let from = first.max(segment.q);
            let to = until.min(segment.q + segment.len);
            if (row as usize) < rows.input && from < to {
                let col = (from * cols.step) as isize + col_offset;
                let mut x = x.wrapping_offset(gather.input_offset(segment.image, row, col));
                let mut gradient = dy.first.wrapping_add((pixel + from - segment.q) * dy.pitch);
                for pair in &mut pairs[count..count + to - from] {
                    *pair = PixelPair { x, dy: gradient };
                    x = x.wrapping_add(x_step);
                    gradient = gradient.wrapping_add(dy.pitch);
                }
                count += to - from;
            }
            pixel += segment.len;
        }
        count
    }

    /// The corner of each pixel's patch, in order.
    pub fn corners(&self, gather: &Gather) -> impl Iterator<Item = Corner> {
        let (rows, cols) = (gather.rows, gather.cols);
        self.segments[..self.count].iter().flat_map(move |segment| {
            (segment.q..segment.q + segment.len).map(move |q| Corner {
                image: segment.image,
                row: (segment.p * rows.step) as isize + rows.offset_first,
                col: (q * cols.step) as isize + cols.offset_first,
            })
        })
    }
}
