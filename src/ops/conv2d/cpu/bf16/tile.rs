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
    // SAFETY: as the caller vouches.
    unsafe {
        if run_len.is_multiple_of(2) {
            sum::<V, MR, NV, false>(runs, run_len, panel, ends, partial);
        } else {
            sum::<V, MR, NV, true>(runs, run_len, panel, ends, partial);
        }
    }
}

/// `ODD`: the last row of a run has one channel.
///
/// The sums stay in registers only as long as every loop over them is unrolled: what depends on the number of pixels or
/// channels reads them from `partial`.
#[inline(always)]
unsafe fn sum<V: PairLanes, const MR: usize, const NV: usize, const ODD: bool>(
    runs: &[Run<bf16, MR>],
    run_len: usize,
    panel: *const bf16,
    ends: &Ends<MR>,
    partial: &mut Partial<MR>,
) {
    let row_len = 2 * NV * V::LANES;
    // SAFETY: as for `tile`; every access below is one of those listed.
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
            if ODD {
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
        let whole = ends.pixels == MR && ends.channels == NV * V::LANES;
        if ends.last && whole && ends.bias.is_null() && !ends.relu {
            for (sums, &output) in acc.iter().zip(&ends.outputs) {
                for (v, &sum) in sums.iter().enumerate() {
                    sum.store_rounded(output.add(v * V::LANES));
                }
            }
            return;
        }
        for (sums, partial) in acc.iter().zip(&mut *partial) {
            for (v, &sum) in sums.iter().enumerate() {
                sum.store(partial.as_mut_ptr().add(v * V::LANES));
            }
        }
        if ends.last {
            finish::<V, MR, NV>(ends, partial);
        }
    }
}

/// Stores the sums through bias and ReLU.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn finish<V: PairLanes, const MR: usize, const NV: usize>(ends: &Ends<MR>, partial: &Partial<MR>) {
    // SAFETY: as the caller vouches.
    unsafe {
        for v in 0..NV {
            let bias: V = if ends.bias.is_null() {
                V::zero()
            } else {
                load_lanes(ends.bias, v * V::LANES, ends.channels)
            };
            for (sums, &output) in partial.iter().zip(&ends.outputs).take(ends.pixels) {
                let sum = V::load(sums.as_ptr().add(v * V::LANES)).add(bias);
                let sum = if ends.relu { sum.relu() } else { sum };
                store_lanes(sum, output, v * V::LANES, ends.channels);
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
