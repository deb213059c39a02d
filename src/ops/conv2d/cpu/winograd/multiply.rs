//! The products of one position: rows of the transformed input times panels of the transformed filter.

use crate::ops::conv2d::cpu::tile::{Ends, Run, tile};
use crate::ops::simd::lanes::Lanes;
use std::ops::Range;

/// One matrix product.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Row 0 of the input and floats from one row to the next; a row has `depth` channels.
    pub rows: *const f32,
    pub row_pitch: usize,
    pub count: usize,
    pub depth: usize,
    /// First channel of this position in panel 0, and floats from one full panel to the next.
    pub filter: *const f32,
    pub panel_pitch: usize,
    /// Output channels in all.
    pub channels: usize,
    /// Row 0 of the output and floats from one row to the next.
    pub output: *mut f32,
    pub output_pitch: usize,
}

/// Writes the output channels of `panels`.
///
/// # Safety
/// `V`'s instructions are available; the matrices are readable and the output writable as described; the channels are
/// a multiple of the vector's lanes.
#[inline(always)]
pub(super) unsafe fn multiply<V: Lanes, const MR: usize, const NV: usize>(
    product: &Product,
    position: usize,
    panels: Range<usize>,
) {
    let groups = product.count.div_ceil(MR);
    for panel in panels {
        let c_first = panel * NV * V::LANES;
        let width = (product.channels - c_first).min(NV * V::LANES);
        let panel_first = panel * product.panel_pitch + position * product.depth * width;
        let filter = product.filter.wrapping_add(panel_first);
        let mut row = 0;
        for group in 0..groups {
            // Groups of nearly equal size: none is left with a few rows.
            let rows = (product.count - row).div_ceil(groups - group);
            let part = Product {
                rows: product.rows.wrapping_add(row * product.row_pitch),
                count: rows,
                filter,
                output: product.output.wrapping_add(row * product.output_pitch + c_first),
                channels: width,
                ..*product
            };
            // SAFETY: as the caller vouches; `rows <= MR`.
            unsafe {
                if width == NV * V::LANES {
                    group_of::<V, MR, NV>(&part);
                } else {
                    group_of::<V, MR, 1>(&part);
                }
            }
            row += rows;
        }
    }
}

/// Up to `MR` rows by the smallest microkernel that holds them.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn group_of<V: Lanes, const MR: usize, const NV: usize>(part: &Product) {
    // SAFETY: as the caller vouches; `part.count` is at most the rows of the microkernel.
    unsafe {
        match part.count {
            14.. if MR >= 14 => one_tile::<V, 14, NV>(part),
            13 if MR >= 13 => one_tile::<V, 13, NV>(part),
            11.. if MR >= 12 => one_tile::<V, 12, NV>(part),
            9.. if MR >= 10 => one_tile::<V, 10, NV>(part),
            7.. if MR >= 8 => one_tile::<V, 8, NV>(part),
            5.. if MR >= 6 => one_tile::<V, 6, NV>(part),
            3.. => one_tile::<V, 4, NV>(part),
            _ => one_tile::<V, 2, NV>(part),
        }
    }
}

/// # Safety
/// As for [`multiply`]; the part has at most `MR` rows.
#[inline(always)]
unsafe fn one_tile<V: Lanes, const MR: usize, const NV: usize>(part: &Product) {
    let mut run = Run { inputs: [part.rows; MR], panel_row: 0 };
    let mut outputs = [part.output; MR];
    let used = run.inputs.iter_mut().zip(&mut outputs).take(part.count);
    for (row, (input, output)) in used.enumerate() {
        *input = part.rows.wrapping_add(row * part.row_pitch);
        *output = part.output.wrapping_add(row * part.output_pitch);
    }
    let ends = Ends {
        outputs,
        pixels: part.count,
        channels: part.channels,
        accumulate: false,
        bias: std::ptr::null(),
        relu: false,
    };
    // SAFETY: as the caller vouches; rows past the last stand for row 0, whose results are dropped.
    unsafe { tile::<V, MR, NV>(&[run], part.depth, part.filter, &ends) }
}
