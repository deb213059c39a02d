//! The indirect matrix product over all pixels and panels: split into units, run over rayon, tile by tile.

use super::gather::Gather;
use super::pack::{panel_width, width_at};
use super::patch::{self, Patches};
use super::pixels::{PixelOrder, Pixels};
use super::tile::{Ends, Run, tile};
use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::{Array8, Lanes};
#[cfg(target_arch = "x86_64")]
use crate::ops::simd::lanes::{M256, M512};
use rayon::prelude::*;
use std::ops::Range;

/// Runs whose addresses are computed ahead of the microkernel, at most.
pub(super) const MAX_RUNS: usize = 32;

/// Channels in one run, at most: the length of the row of zeros that stands for padding.
pub(super) const MAX_RUN_LEN: usize = 4096;

/// What a pixel outside the input points to.
static ZEROS: [f32; MAX_RUN_LEN] = [0.0; MAX_RUN_LEN];

/// Floats of packed filter that one unit works with: they should stay in the L2 cache.
const GROUP_FLOATS: usize = 96 * 1024;

/// Multiply-accumulates that are worth a unit of their own.
const UNIT_MACS: usize = 2_000_000;

/// What happens to an output before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added: a value for each output channel.
    pub bias: Option<&'a [f32]>,
    /// Then: negative values become 0.
    pub relu: bool,
}

/// One product: `n` images of `gather` over `input`, with the filter packed for it.
pub(super) struct Product<'a> {
    pub gather: &'a Gather,
    pub n: usize,
    pub input: &'a [f32],
    pub packed: &'a [f32],
    pub epilogue: Epilogue<'a>,
}

/// An output that the units of one pass write disjoint parts of.
#[derive(Clone, Copy)]
pub(super) struct Output<E>(pub *mut E);

// SAFETY: only units of one pass use the pointer: those of a product write grid pixels and channels of their own, those
// of a filter gradient a chunk and block of their own.
unsafe impl<E> Sync for Output<E> {}

/// How the pixels and panels of a product are cut into units; depends on the shape and N alone.
pub(super) struct Units {
    rows: usize,
    rows_per_unit: usize,
    panels: usize,
    panels_per_group: usize,
}

impl Units {
    /// For panels of `width` channels, of which at most `group_len` elements go into a unit of about `unit_macs`.
    pub fn new(gather: &Gather, n: usize, width: usize, group_len: usize, unit_macs: usize) -> Self {
        let rows = n * gather.grid_len();
        let panels = gather.c_out.div_ceil(width);
        let panel_len = (gather.depth() * width).max(1);
        let panels_per_group = (group_len / panel_len).clamp(1, panels);
        let row_macs = panel_len * panels_per_group;
        let rows_per_unit = (unit_macs / row_macs).clamp(96, 1536).next_multiple_of(12);
        Self { rows, rows_per_unit, panels, panels_per_group }
    }

    fn row_blocks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_unit)
    }

    pub fn count(&self) -> usize {
        self.row_blocks() * self.panels.div_ceil(self.panels_per_group)
    }

    pub fn unit(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let row = index % self.row_blocks() * self.rows_per_unit;
        let panel = index / self.row_blocks() * self.panels_per_group;
        (row..self.rows.min(row + self.rows_per_unit), panel..self.panels.min(panel + self.panels_per_group))
    }
}

impl Product<'_> {
    /// Writes every grid pixel of `output`, whose length the caller has checked.
    pub fn run(&self, level: SimdLevel, output: &mut [f32]) {
        let units = Units::new(self.gather, self.n, panel_width(level), GROUP_FLOATS, UNIT_MACS);
        let output = Output(output.as_mut_ptr());
        (0..units.count()).into_par_iter().for_each(|index| {
            let output = &output;
            let (rows, panels) = units.unit(index);
            // SAFETY: `level` is available (checked when it was chosen), the lengths of all slices were checked against
            // the shape, and no two units share an output pixel and channel.
            unsafe {
                match level {
                    #[cfg(target_arch = "x86_64")]
                    SimdLevel::Avx512 => unit_avx512(self, rows, panels, output.0),
                    #[cfg(target_arch = "x86_64")]
                    SimdLevel::Avx2 => unit_avx2(self, rows, panels, output.0),
                    _ => unit::<Array8, 4, 1>(self, SimdLevel::Portable, rows, panels, output.0),
                }
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn unit_avx512(product: &Product, rows: Range<usize>, panels: Range<usize>, output: *mut f32) {
    // SAFETY: as for `unit`.
    unsafe { unit::<M512, 12, 2>(product, SimdLevel::Avx512, rows, panels, output) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn unit_avx2(product: &Product, rows: Range<usize>, panels: Range<usize>, output: *mut f32) {
    // SAFETY: as for `unit`.
    unsafe { unit::<M256, 6, 2>(product, SimdLevel::Avx2, rows, panels, output) }
}

/// All tiles of some pixels and panels; a full panel is `NV` vectors wide.
///
/// # Safety
/// `V`'s instructions are available; the slices of `product` and `output` have the lengths of its gather; no other
/// thread touches the same pixels and channels of `output`.
#[inline(always)]
unsafe fn unit<V: Lanes, const MR: usize, const NV: usize>(
    product: &Product,
    level: SimdLevel,
    rows: Range<usize>,
    panels: Range<usize>,
    output: *mut f32,
) {
    let gather = product.gather;
    let input = product.input.as_ptr();
    let order = PixelOrder::choose(gather, product.n, MR);
    let in_patches = patch::suits(gather);
    let mut patches = Patches::<MR>::new();
    let mut runs = [Run { inputs: [std::ptr::null::<f32>(); MR], panel_row: 0 }; MAX_RUNS];
    for first in rows.clone().step_by(MR) {
        let pixels = Pixels::<MR>::locate(gather, product.n, order, first..rows.end.min(first + MR));
        let mut accumulate = false;
        let taps = gather.taps();
        let (mut tap, mut channel) = (0, 0);
        loop {
            let (run_len, count);
            if in_patches {
                // SAFETY: `V`'s instructions are available and the input fits the gather.
                runs[0] = unsafe { patches.fill::<V>(gather, &pixels, product.input) };
                (run_len, count, tap) = (gather.depth(), 1, taps);
            } else {
                run_len = (gather.c_in - channel).min(MAX_RUN_LEN);
                let until = taps.min(tap + MAX_RUNS);
                count = pixels.runs(gather, input, ZEROS.as_ptr(), (tap..until, channel), 1, &mut runs);
                tap = until;
            }
            let last_channels = in_patches || channel + run_len == gather.c_in;
            let last = tap == taps && last_channels;
            for panel in panels.clone() {
                let c_first = panel * NV * V::LANES;
                let ends = Ends {
                    outputs: pixels.outputs.map(|offset| output.wrapping_add(offset + c_first)),
                    pixels: pixels.count,
                    channels: (gather.c_out - c_first).min(NV * V::LANES),
                    accumulate,
                    bias: match product.epilogue.bias {
                        Some(bias) if last => bias[c_first..].as_ptr(),
                        _ => std::ptr::null(),
                    },
                    relu: last && product.epilogue.relu,
                };
                let filter = product.packed.as_ptr().wrapping_add(c_first * gather.depth());
                // SAFETY: the runs point at `run_len` floats of the input, of `ZEROS` or of the patch; the panel holds
                // the whole depth of its channels; the outputs are this unit's.
                unsafe {
                    if width_at(level, gather, c_first) == NV * V::LANES {
                        tile::<V, MR, NV>(&runs[..count], run_len, filter, &ends);
                    } else {
                        tile::<V, MR, 1>(&runs[..count], run_len, filter, &ends);
                    }
                }
            }
            if last {
                break;
            }
            accumulate = true;
            if tap == taps {
                (tap, channel) = (0, channel + run_len);
            }
        }
    }
}
