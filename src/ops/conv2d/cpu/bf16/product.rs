//! The indirect matrix product in bf16: the units, tiles and runs of the f32 one.

use super::pack::{packed_len, panel_rows, panel_width, width_at};
use super::patch::Patches;
use super::tile::{Ends, MAX_WIDTH, tile};
use crate::ops::conv2d::cpu::gather::Gather;
use crate::ops::conv2d::cpu::patch;
use crate::ops::conv2d::cpu::pixels::{PixelOrder, Pixels};
use crate::ops::conv2d::cpu::product::{Epilogue, MAX_RUN_LEN, MAX_RUNS, Output, Units};
use crate::ops::conv2d::cpu::tile::Run;
use crate::ops::simd::lanes::Array8;
#[cfg(target_arch = "x86_64")]
use crate::ops::simd::lanes::{M256, M512};
use crate::ops::simd::pairs::{PairLanes, PairLevel};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// What a pixel outside the input points to.
static ZEROS: [bf16; MAX_RUN_LEN] = [bf16::ZERO; MAX_RUN_LEN];

/// Elements of packed filter that one unit works with: they should stay in the L2 cache.
const GROUP_LEN: usize = 192 * 1024;

/// Multiply-accumulates that are worth a unit of their own.
const UNIT_MACS: usize = 4_000_000;

/// One product: `n` images of `gather` over `input`, with the filter packed for it.
pub(super) struct Product<'a> {
    pub gather: &'a Gather,
    pub n: usize,
    pub input: &'a [bf16],
    pub packed: &'a [bf16],
    pub epilogue: Epilogue<'a>,
}

impl Product<'_> {
    /// Writes every grid pixel of `output`, whose length the caller has checked.
    pub fn run(&self, level: PairLevel, output: &mut [bf16]) {
        debug_assert_eq!(self.packed.len(), packed_len(self.gather));
        let units = Units::new(self.gather, self.n, panel_width(level), GROUP_LEN, UNIT_MACS);
        let output = Output(output.as_mut_ptr());
        (0..units.count()).into_par_iter().for_each(|index| {
            let output = &output;
            let (rows, panels) = units.unit(index);
            // SAFETY: `level` is available (checked when it was chosen), the lengths of all slices were checked against
            // the shape, and no two units share an output pixel and channel.
            unsafe {
                match level {
                    #[cfg(target_arch = "x86_64")]
                    PairLevel::Avx512Bf16 => unit_avx512(self, rows, panels, output.0),
                    #[cfg(target_arch = "x86_64")]
                    PairLevel::Avx2 => unit_avx2(self, rows, panels, output.0),
                    _ => unit::<Array8, 4, 1>(self, PairLevel::Portable, rows, panels, output.0),
                }
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn unit_avx512(product: &Product, rows: Range<usize>, panels: Range<usize>, output: *mut bf16) {
    // SAFETY: as for `unit`.
    unsafe { unit::<M512, 12, 2>(product, PairLevel::Avx512Bf16, rows, panels, output) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn unit_avx2(product: &Product, rows: Range<usize>, panels: Range<usize>, output: *mut bf16) {
    // SAFETY: as for `unit`.
    unsafe { unit::<M256, 4, 2>(product, PairLevel::Avx2, rows, panels, output) }
}

/// Taps and input channels that are summed together.
#[derive(Clone)]
struct Part {
    taps: Range<usize>,
    channels: Range<usize>,
}

impl Part {
    /// The parts of a product whose depth does not fit one call of the microkernel; one in most.
    #[inline(always)]
    fn of(gather: &Gather, index: usize) -> Self {
        let by_taps = Self::tap_parts(gather);
        let (tap, channel) = (index % by_taps * MAX_RUNS, index / by_taps * MAX_RUN_LEN);
        Self {
            taps: tap..gather.taps().min(tap + MAX_RUNS),
            channels: channel..gather.c_in.min(channel + MAX_RUN_LEN),
        }
    }

    fn tap_parts(gather: &Gather) -> usize {
        gather.taps().div_ceil(MAX_RUNS).max(1)
    }

    fn count(gather: &Gather) -> usize {
        Self::tap_parts(gather) * gather.c_in.div_ceil(MAX_RUN_LEN)
    }
}

/// All tiles of some pixels and panels; a full panel is `NV` vectors wide.
///
/// # Safety
/// `V`'s instructions are available; the slices of `product` and `output` have the lengths of its gather; no other
/// thread touches the same pixels and channels of `output`.
#[inline(always)]
unsafe fn unit<V: PairLanes, const MR: usize, const NV: usize>(
    product: &Product,
    level: PairLevel,
    rows: Range<usize>,
    panels: Range<usize>,
    output: *mut bf16,
) {
    let gather = product.gather;
    let input = product.input.as_ptr();
    let order = PixelOrder::choose(gather, product.n, MR);
    let in_patches = patch::suits(gather);
    let parts = if in_patches { 1 } else { Part::count(gather) };
    let panel_rows = panel_rows(gather);
    let mut patches = Patches::<MR>::new();
    let mut runs = [Run { inputs: [std::ptr::null::<bf16>(); MR], panel_row: 0 }; MAX_RUNS];
    let mut partial = [[0.0; MAX_WIDTH]; MR];
    for first in rows.clone().step_by(MR) {
        let pixels = Pixels::<MR>::locate(gather, product.n, order, first..rows.end.min(first + MR));
        let (mut run_len, mut count) = (0, 0);
        for panel in panels.clone() {
            let c_first = panel * NV * V::LANES;
            let filter = product.packed.as_ptr().wrapping_add(2 * c_first * panel_rows);
            for index in 0..parts {
                if in_patches && panel == panels.start {
                    // SAFETY: the input fits the gather, which suits patches.
                    runs[0] = unsafe { patches.fill(gather, &pixels, product.input) };
                    (run_len, count) = (gather.depth(), 1);
                } else if parts > 1 || panel == panels.start {
                    let Part { taps, channels } = Part::of(gather, index);
                    run_len = channels.len();
                    count = pixels.runs(gather, input, ZEROS.as_ptr(), (taps, channels.start), 2, &mut runs);
                }
                let last = index + 1 == parts;
                let ends = Ends {
                    outputs: pixels.outputs.map(|offset| output.wrapping_add(offset + c_first)),
                    pixels: pixels.count,
                    channels: (gather.c_out - c_first).min(NV * V::LANES),
                    accumulate: index > 0,
                    last,
                    bias: match product.epilogue.bias {
                        Some(bias) => bias[c_first..].as_ptr(),
                        None => std::ptr::null(),
                    },
                    relu: product.epilogue.relu,
                };
                // SAFETY: the runs point at `run_len` elements of the input, of `ZEROS` or of the patch; the panel holds
                // the whole depth of its channels; the outputs are this unit's.
                unsafe {
                    if width_at(level, gather, c_first) == NV * V::LANES {
                        tile::<V, MR, NV>(&runs[..count], run_len, filter, &ends, &mut partial);
                    } else {
                        tile::<V, MR, 1>(&runs[..count], run_len, filter, &ends, &mut partial);
                    }
                }
            }
        }
    }
}
