//! The microkernel of `wgrad` in bf16: `KB` output channels times `NV` vectors of filter columns, summed over pairs of
//! pixels.

use crate::ops::simd::pairs::PairLanes;
use half::bf16;

/// A number of each of two pixels.
pub(super) type Pair = [bf16; 2];

/// Gradients to add up.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Columns, at most the microkernel's width; the pairs of columns past them are 0.
    pub columns: usize,
    /// The first gradient, and floats from one k to the next.
    pub dfilter: *mut f32,
    /// See `dfilter`.
    pub row_pitch: usize,
    /// Add to what `dfilter` holds instead of beginning at 0.
    pub accumulate: bool,
}

/// `dfilter[i][j] += sum over count rows of dy[i] . x[j]`, `i < KB`, `j < block.columns`, each a sum of two products;
/// rows are `x_pitch` and `dy_pitch` pairs apart.
///
/// # Safety
/// `V`'s instructions are available; each row has `KB` readable pairs in `dy` and `NV * V::LANES` in `x`; `dfilter` is
/// writable for every (i, j) named above.
#[inline(always)]
pub(super) unsafe fn wgrad_tile<V: PairLanes, const KB: usize, const NV: usize>(
    (mut x, x_pitch): (*const Pair, usize),
    (mut dy, dy_pitch): (*const Pair, usize),
    count: usize,
    block: &Block,
) {
    let full = block.columns == NV * V::LANES;
    let last_columns = block.columns - (NV - 1) * V::LANES;
    // SAFETY: as the caller vouches; of the last vector only `last_columns` values are touched unless it is full.
    unsafe {
        let mut acc = [[V::zero(); NV]; KB];
        if block.accumulate {
            for (i, sums) in acc.iter_mut().enumerate() {
                let row = block.dfilter.add(i * block.row_pitch);
                for (v, sum) in sums.iter_mut().enumerate() {
                    let from = row.add(v * V::LANES);
                    *sum = if full || v + 1 < NV { V::load(from) } else { V::load_first(from, last_columns) };
                }
            }
        }
        for _ in 0..count {
            let columns: [V::Pairs; NV] =
                std::array::from_fn(|v| V::load_pairs(x.add(v * V::LANES).cast::<bf16>()));
            for (i, sums) in acc.iter_mut().enumerate() {
                let gradient = V::splat_pair(dy.add(i).cast::<bf16>());
                for (sum, &columns) in sums.iter_mut().zip(&columns) {
                    *sum = sum.add_products(columns, gradient);
                }
            }
            x = x.wrapping_add(x_pitch);
            dy = dy.wrapping_add(dy_pitch);
        }
        for (i, sums) in acc.iter().enumerate() {
            let row = block.dfilter.add(i * block.row_pitch);
            for (v, &sum) in sums.iter().enumerate() {
                let to = row.add(v * V::LANES);
                if full || v + 1 < NV { sum.store(to) } else { sum.store_first(to, last_columns) }
            }
        }
    }
}
