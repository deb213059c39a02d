//! The microkernel of `wgrad`: `KB` output channels times `NV` vectors of filter columns, summed over pixels.

use crate::ops::simd::lanes::Lanes;

/// Where one pixel's inputs (under one tap) and its output gradients begin.
#[derive(Clone, Copy)]
pub(super) struct PixelPair<E> {
    pub x: *const E,
    pub dy: *const E,
}

/// A block of filter columns in `x` and of gradients to add up.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// First column: offset from each pixel's `x`, and from `dfilter`'s first column.
    pub column: usize,
    /// Columns, at most the microkernel's width.
    pub columns: usize,
    /// First output channel: offset from each pixel's `dy`.
    pub k: usize,
    /// Column (0, 0) of this tap in the filter gradient, and floats from one k to the next.
    pub dfilter: *mut f32,
    /// See `dfilter`.
    pub row_pitch: usize,
    /// Add to what `dfilter` holds instead of beginning at 0.
    pub accumulate: bool,
}

/// `dfilter[k + i][column + j] += sum over pairs of dy[k + i] * x[column + j]`, `i < KB`, `j < block.columns`.
///
/// # Safety
/// `V`'s instructions are available; every pair has `block.k + KB` readable floats at `dy` and
/// `block.column + block.columns` at `x`; `dfilter` is writable for every (k, column) named above.
#[inline(always)]
pub(super) unsafe fn wgrad_tile<V: Lanes, const KB: usize, const NV: usize>(
    pairs: &[PixelPair<f32>],
    block: &Block,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        if block.columns == NV * V::LANES {
            sum_pixels::<V, KB, NV, false>(pairs, block);
        } else {
            sum_pixels::<V, KB, NV, true>(pairs, block);
        }
    }
}

/// `PARTIAL`: the last vector has fewer columns than lanes.
#[inline(always)]
unsafe fn sum_pixels<V: Lanes, const KB: usize, const NV: usize, const PARTIAL: bool>(
    pairs: &[PixelPair<f32>],
    block: &Block,
) {
    let last_columns = block.columns - (NV - 1) * V::LANES;
    // SAFETY: as for `wgrad_tile`; the last vector touches only `last_columns` values when PARTIAL.
    unsafe {
        let load = |from: *const f32, v: usize| -> V {
            if PARTIAL && v == NV - 1 {
                V::load_first(from.add(v * V::LANES), last_columns)
            } else {
                V::load(from.add(v * V::LANES))
            }
        };
        let mut acc = [[V::zero(); NV]; KB];
        if block.accumulate {
            for (i, sums) in acc.iter_mut().enumerate() {
                let row = block.dfilter.add((block.k + i) * block.row_pitch + block.column);
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load(row, v);
                }
            }
        }
        for pair in pairs {
            let x = pair.x.add(block.column);
            let dy = pair.dy.add(block.k);
            let mut vectors = [V::zero(); NV];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = load(x, v);
            }
            for (i, sums) in acc.iter_mut().enumerate() {
                let value = V::splat(dy.add(i));
                for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                    *sum = sum.add_product(value, vector);
                }
            }
        }
        for (i, sums) in acc.iter().enumerate() {
            let row = block.dfilter.add((block.k + i) * block.row_pitch + block.column);
            for (v, &sum) in sums.iter().enumerate() {
                let to = row.add(v * V::LANES);
                if PARTIAL && v == NV - 1 {
                    sum.store_first(to, last_columns);
                } else {
                    sum.store(to);
                }
            }
        }
    }
}
