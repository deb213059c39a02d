//! The microkernel of `fprop` and `dgrad`: `MR` output pixels times one panel of output channels, held in registers.

use crate::ops::simd::lanes::Lanes;

/// One run of channels: where it begins in each of the `MR` pixels, and in the panel (in rows of the panel).
#[derive(Clone, Copy)]
pub(super) struct Run<E, const MR: usize> {
    pub inputs: [*const E; MR],
    pub panel_row: usize,
}

/// Where a tile's results go and what happens to them on the way.
pub(super) struct Ends<const MR: usize> {
    /// First channel of this panel in each output pixel; only the first `pixels` are used.
    pub outputs: [*mut f32; MR],
    pub pixels: usize,
    /// Channels to write, at most the panel's width.
    pub channels: usize,
    /// Add to what the outputs hold instead of beginning at 0.
    pub accumulate: bool,
    /// First channel's bias, or null.
    pub bias: *const f32,
    pub relu: bool,
}

/// Sums `run_len` channels of every run: `acc[pixel][lane] += inputs[pixel][c] * panel[panel_row + c][lane]`.
///
/// # Safety
/// `V`'s instructions are available. Each run's inputs have `run_len` readable floats, the panel `NV * V::LANES` floats
/// for each row used, the first `pixels` outputs `channels` writable floats, `bias` (if not null) `channels` floats.
#[inline(always)]
pub(super) unsafe fn tile<V: Lanes, const MR: usize, const NV: usize>(
    runs: &[Run<f32, MR>],
    run_len: usize,
    panel: *const f32,
    ends: &Ends<MR>,
) {
    // SAFETY: as the caller vouches; every access below is one of those listed.
    unsafe {
        let mut acc = [[V::zero(); NV]; MR];
        if ends.accumulate {
            for (sums, &output) in acc.iter_mut().zip(&ends.outputs).take(ends.pixels) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load_lanes(output, v * V::LANES, ends.channels);
                }
            }
        }
        for run in runs {
            let inputs = run.inputs;
            let mut lanes = panel.add(run.panel_row * NV * V::LANES);
            for c in 0..run_len {
                let mut filter = [V::zero(); NV];
                for (v, vector) in filter.iter_mut().enumerate() {
                    *vector = V::load(lanes.add(v * V::LANES));
                }
                for (sums, &input) in acc.iter_mut().zip(&inputs) {
                    let value = V::splat(input.add(c));
                    for (sum, &vector) in sums.iter_mut().zip(&filter) {
                        *sum = sum.add_product(value, vector);
                    }
                }
                lanes = lanes.add(NV * V::LANES);
            }
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

/// Lanes `first..first + V::LANES` of `count` values at `from`; lanes past `count` are 0.
#[inline(always)]
pub(super) unsafe fn load_lanes<V: Lanes>(from: *const f32, first: usize, count: usize) -> V {
    // SAFETY: as for `tile`; at most `count` values are read.
    unsafe {
        if first + V::LANES <= count {
            V::load(from.add(first))
        } else if first < count {
            V::load_first(from.add(first), count - first)
        } else {
            V::zero()
        }
    }
}

/// Stores lanes `first..first + V::LANES` of `count` values at `to`; lanes past `count` are dropped.
#[inline(always)]
unsafe fn store_lanes<V: Lanes>(value: V, to: *mut f32, first: usize, count: usize) {
    // SAFETY: as for `tile`; at most `count` values are written.
    unsafe {
        if first + V::LANES <= count {
            value.store(to.add(first));
        } else if first < count {
            value.store_first(to.add(first), count - first);
        }
    }
}
