//! CPU passes of batch normalisation: tiles over rayon, loops over channels that the compiler vectorises.
//!
//! Role   forward: one pass of sums, one of writes; backward: the same
//! Cost   forward 12 bytes an element (16 with a shortcut), backward 20 (28 with a ReLU): bound by memory
//! Order  tiles are cut by C alone and their totals merged in order, so results do not depend on threads

mod backward;
mod forward;

pub(super) use backward::backward;
pub(super) use forward::{forward_eval, forward_train};

/// Columns handled at once, with their parameters and sums on the stack. Narrow rows are laid side by side up
/// to this width, so that the inner loops stay long.
const MAX_COLUMNS: usize = 256;

/// Elements of a tile, roughly; it stays in the L2 cache.
const TILE_LEN: usize = 16 * 1024;

/// Fewest rows of a tile, so that wide rows do not make its totals as long as the tile.
const MIN_TILE_ROWS: usize = 16;

/// Totals of a tile: pivots, sums and sums of squares, each `[C]`. `backward` uses the first two places.
const TOTALS: usize = 3;

/// Elements of a tile: whole rows, and whole groups of the rows that lie side by side.
fn tile_len(c: usize) -> usize {
    let pitch = Columns::pitch(c);
    pitch * (TILE_LEN / pitch).max(MIN_TILE_ROWS)
}

pub(super) fn scratch_len(max_rows: usize, c: usize) -> usize {
    (max_rows * c).div_ceil(tile_len(c)) * TOTALS * c
}

/// A block of columns of a tile seen as a matrix: whole rows side by side when they are narrow, a part of
/// each row when they are wide.
#[derive(Clone, Copy)]
struct Columns {
    c: usize,
    start: usize,
    len: usize,
}

impl Columns {
    /// Elements from one line of the matrix to the next.
    fn pitch(c: usize) -> usize {
        c * (MAX_COLUMNS / c).max(1)
    }

    #[inline(always)]
    fn blocks(c: usize) -> impl Iterator<Item = Self> {
        let pitch = Self::pitch(c);
        (0..pitch).step_by(MAX_COLUMNS).map(move |start| Self {
            c,
            start,
            len: MAX_COLUMNS.min(pitch - start),
        })
    }

    /// Where this block lies in a line of `line_len` elements (the last line of a tile may be short).
    #[inline(always)]
    fn range(self, line_len: usize) -> std::ops::Range<usize> {
        self.start..(self.start + self.len).min(line_len)
    }

    /// Copies the channels' values to the columns.
    #[inline(always)]
    fn spread(self, channels: &[f32], columns: &mut [f32; MAX_COLUMNS]) {
        for part in columns[..self.len].chunks_mut(self.c) {
            part.copy_from_slice(&channels[self.start..][..part.len()]);
        }
    }

    /// Adds the columns' values up to the channels.
    #[inline(always)]
    fn gather(self, columns: &[f32; MAX_COLUMNS], channels: &mut [f32]) {
        channels[self.start..].iter_mut().take(self.len).for_each(|sum| *sum = 0.0);
        for part in columns[..self.len].chunks(self.c) {
            for (sum, value) in channels[self.start..].iter_mut().zip(part) {
                *sum += value;
            }
        }
    }
}
