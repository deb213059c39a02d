//! A rectangle of work, cut into units for all threads; the cut does not depend on their number.

use rayon::prelude::*;
use std::ops::Range;

/// Units to aim for.
const UNITS: usize = 64;

/// Rows and columns of work, and those of one unit.
pub(super) struct Split {
    pub rows: usize,
    pub row_step: usize,
    pub cols: usize,
    pub col_step: usize,
}

impl Split {
    /// Tiles by channels; the channels of a unit begin at a multiple of `step`.
    pub fn tiles(tiles: usize, channels: usize, step: usize) -> Self {
        let row_step = tiles.div_ceil(UNITS).max(1);
        let per_unit = (channels * tiles.div_ceil(row_step) / UNITS).max(1);
        let col_step = per_unit.next_multiple_of(step).min(channels);
        Self { rows: tiles, row_step, cols: channels, col_step }
    }

    /// Calls `unit` with the rows and columns of each unit.
    pub fn for_each(&self, unit: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let cols = self.cols.div_ceil(self.col_step);
        (0..self.rows.div_ceil(self.row_step) * cols).into_par_iter().for_each(|index| {
            let (row, col) = (index / cols * self.row_step, index % cols * self.col_step);
            unit(row..self.rows.min(row + self.row_step), col..self.cols.min(col + self.col_step));
        });
    }
}
