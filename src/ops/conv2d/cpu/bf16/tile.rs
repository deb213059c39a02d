//! The microkernel of `fprop` and `dgrad`: `MR` output pixels times one panel of output channels, held in registers as f32.

use crate::ops::conv2d::cpu::tile::{Run, load_lanes};
use crate::ops::simd::pairs::PairLanes;
use half::bf16;

/// Sums of a tile between two parts of its depth, row by row.
pub(super) type Partial<const MR: usize> = [[f32; MAX_WIDTH]; MR];

/// Output channels of the widest panel.
pub(super) const MAX_WIDTH: usize = 32;

/// Where a tile's results go and what happens to them on the way.
pub(super) struct Ends<const MR: usize> {
    /// First channel of this panel in each output pixel; only the first `pixels` are used.
    pub outputs: [*mut bf16; MR],
    pub pixels: usize,
    /// Channels to write, at most the panel's width.
    pub channels: usize,
    /// Begin with the partial sums instead of 0.
    pub accumulate: bool,
    /// Store to the outputs, through bias and ReLU, instead of to the partial sums.
    pub last: bool,
    /// First channel's bias, or null.
    pub bias: *const f32,
    pub relu: bool,
}

/// Sums `run_len` channels of every run: `acc[pixel][lane] += inputs[pixel][c] * panel[panel_row + c / 2][lane][c % 2]`.
///
/// # Safety
/// `V`'s instructions are available. Each run's inputs have `run_len` readable elements, the panel `2 * NV * V::LANES` for
/// each row used, the first `pixels` outputs `channels` writable elements, `bias` (if not null) `channels` floats.
#[inline(always)]
pub(super) unsafe fn tile<V: PairLanes, const MR: usize, const NV: usize>(
    runs: &[Run<bf16, MR>],
    run_len: usize,
    panel: *const bf16,
    ends: &Ends<MR>,
    partial: &mut Partial<MR>,
) {
    let row_len = 2 * NV * V::LANES;
    // SAFETY: as the caller vouches; every access below is one of those listed.
    unsafe {
        let mut acc = [[V::zero(); NV]; MR];
        if ends.accumulate {
            for (sums, partial) in acc.iter_mut().zip(partial.iter()) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(partial.as_ptr().add(v * V::LANES));
                }
            }
        }
        for run in runs {
            let inputs = run.inputs;
            let mut row = panel.add(run.panel_row * row_len);
            for pair in 0..run_len / 2 {
                let filter: [V::Pairs; NV] =
                    std::array::from_fn(|v| V::load_pairs(row.add(2 * v * V::LANES)));
                for (sums, &input) in acc.iter_mut().zip(&inputs) {
                    let values = V::splat_pair(input.add(2 * pair));
                    for (sum, &filter) in sums.iter_mut().zip(&filter) {
                        *sum = sum.add_products(filter, values);
                    }
                }
                row = row.add(row_len);
            }
            if run_len % 2 == 1 {
                let filter: [V::Pairs; NV] =
                    std::array::from_fn(|v| V::load_pairs(row.add(2 * v * V::LANES)));
                for (sums, &input) in acc.iter_mut().zip(&inputs) {
                    let value = V::splat_single(input.add(run_len - 1));
                    for (sum, &filter) in sums.iter_mut().zip(&filter) {
                        *sum = sum.add_products(filter, value);
                    }
                }
            }
        }
        if !ends.last {
            for (sums, partial) in acc.iter().zip(partial) {
                for (v, &sum) in sums.iter().enumerate() {
                    sum.store(partial.as_mut_ptr().add(v * V::LANES));
                }
            }
            return;
        }
        if !ends.bias.is_null() {
            for v in 0..NV {
                let bias: V = load_lanes(ends.bias, v * V::LANES, ends.channels);
                for sums in &mut acc {
                    sums[v] = sums[v].add(bias);
                }
            }
        }
        if ends.relu {
            for sum in acc.as_flattened_mut() {
                *sum = sum.relu();
            }
        }
        for (pixel, sums) in acc.iter().enumerate() {
            if pixel < ends.pixels {
                for (v, &sum) in sums.iter().enumerate() {
                    store_lanes(sum, ends.outputs[pixel], v * V::LANES, ends.channels);
                }
            }
        }
    }
}

/// Stores lanes `first..first + V::LANES` of `count` values at `to`; lanes past `count` are dropped.
#[inline(always)]
unsafe fn store_lanes<V: PairLanes>(value: V, to: *mut bf16, first: usize, count: usize) {
    // SAFETY: as for `tile`; at most `count` values are written.
    unsafe {
        if first + V::LANES <= count {
            value.store_rounded(to.add(first));
        } else if first < count {
            value.store_rounded_first(to.add(first), count - first);
        }
    }
}
