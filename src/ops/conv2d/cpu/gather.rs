//! Which input pixels an output pixel sums, for `fprop` and for each phase of `dgrad`.

use crate::shape::Conv2dShape;

/// Channels of a packed filter are rounded up to this many, whatever the SIMD level.
pub(super) const CHANNEL_ROUND: usize = 16;

/// One direction (rows or columns) of a gather: grid point `g` reads input `g * step + offset_first + t * offset_step`
/// for each tap `t`, where that lies inside the input, and writes output `out_first + g * out_step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Extent of the input.
    pub input: usize,
    /// Number of grid points.
    pub grid: usize,
    /// Input pixels from one grid point to the next.
    pub step: usize,
    /// Number of taps.
    pub taps: usize,
    /// Filter index of tap 0 and the distance to the next tap's.
    pub filter_first: usize,
    /// See `filter_first`.
    pub filter_step: usize,
    /// Input offset of tap 0 and the distance to the next tap's.
    pub offset_first: isize,
    /// See `offset_first`.
    pub offset_step: isize,
    /// Extent of the output.
    pub output: usize,
    /// Output index of grid point 0 and the distance to the next one's.
    pub out_first: usize,
    /// See `out_first`.
    pub out_step: usize,
}

impl Axis {
    fn fprop(input: usize, filter: usize, output: usize, shape: &Conv2dShape) -> Self {
        Self {
            input,
            grid: output,
            step: shape.stride,
            taps: filter,
            filter_first: 0,
            filter_step: 1,
            offset_first: -(shape.pad as isize),
            offset_step: shape.dilation as isize,
            output,
            out_first: 0,
            out_step: 1,
        }
    }

    /// Input pixels h = phase + g * stride. Tap r reads output p = (h + pad - r * dilation) / stride where that divides.
    fn dgrad(input: usize, filter: usize, output: usize, shape: &Conv2dShape, phase: usize) -> Self {
        let Conv2dShape { stride, pad, dilation, .. } = *shape;
        let numerator = |r: usize| (phase + pad) as isize - (r * dilation) as isize;
        let divides = |r: &usize| numerator(*r) % stride as isize == 0;
        let filter_step = stride / gcd(stride, dilation);
        let first = (0..filter.min(filter_step)).find(divides);
        let filter_first = first.unwrap_or(0);
        Self {
            input: output,
            grid: input.saturating_sub(phase).div_ceil(stride),
            step: 1,
            taps: first.map_or(0, |r| (filter - r).div_ceil(filter_step)),
            filter_first,
            filter_step,
            offset_first: numerator(filter_first).div_euclid(stride as isize),
            offset_step: -((filter_step * dilation / stride) as isize),
            output: input,
            out_first: phase,
            out_step: stride,
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// An indirect matrix product: grid pixels times output channels, summed over taps and input channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    pub rows: Axis,
    pub cols: Axis,
    /// Channels summed over.
    pub c_in: usize,
    /// Channels produced.
    pub c_out: usize,
}

impl Gather {
    pub fn fprop(shape: &Conv2dShape) -> Self {
        Self {
            rows: Axis::fprop(shape.h, shape.r, shape.p(), shape),
            cols: Axis::fprop(shape.w, shape.s, shape.q(), shape),
            c_in: shape.c,
            c_out: shape.k,
        }
    }

    /// The stride * stride products whose outputs together are `dx`. Each tap of the filter belongs to one of them.
    pub fn dgrad_phases(shape: &Conv2dShape) -> impl Iterator<Item = Gather> {
        let shape = *shape;
        (0..shape.stride * shape.stride).map(move |phase| Self {
            rows: Axis::dgrad(shape.h, shape.r, shape.p(), &shape, phase / shape.stride),
            cols: Axis::dgrad(shape.w, shape.s, shape.q(), &shape, phase % shape.stride),
            c_in: shape.k,
            c_out: shape.c,
        })
    }

    /// Taps of the filter that this product uses.
    pub fn taps(&self) -> usize {
        self.rows.taps * self.cols.taps
    }

    /// Length of the sum behind one output.
    pub fn depth(&self) -> usize {
        self.taps() * self.c_in
    }

    /// Floats of the packed filter.
    pub fn packed_len(&self) -> usize {
        self.depth() * self.c_out.next_multiple_of(CHANNEL_ROUND)
    }

    /// Float offset of an input pixel, which may lie in the padding.
    #[inline(always)]
    pub fn input_offset(&self, image: usize, row: isize, col: isize) -> isize {
        ((image * self.rows.input) as isize + row)
            .wrapping_mul(self.cols.input as isize)
            .wrapping_add(col)
            .wrapping_mul(self.c_in as isize)
    }

    /// Float offset of the output of a grid pixel.
    #[inline(always)]
    pub fn output_offset(&self, image: usize, row: usize, col: usize) -> usize {
        let row = image * self.rows.output + self.rows.out_first + row * self.rows.out_step;
        (row * self.cols.output + self.cols.out_first + col * self.cols.out_step) * self.c_out
    }

    /// Grid pixels of one image.
    pub fn grid_len(&self) -> usize {
        self.rows.grid * self.cols.grid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(h: usize, r: usize, stride: usize, pad: usize, dilation: usize) -> Conv2dShape {
        Conv2dShape { c: 2, h, w: h, k: 3, r, s: r, stride, pad, dilation }
    }

    #[test]
    fn every_tap_belongs_to_one_dgrad_phase() {
        for (r, stride, pad, dilation) in
            [(3, 2, 1, 1), (3, 2, 0, 2), (7, 2, 3, 1), (1, 2, 0, 1), (4, 3, 2, 2)]
        {
            let shape = shape(13, r, stride, pad, dilation);
            let taps: usize = Gather::dgrad_phases(&shape).map(|gather| gather.taps()).sum();
            assert_eq!(taps, r * r, "{shape:?}");
            let pixels: usize = Gather::dgrad_phases(&shape).map(|gather| gather.grid_len()).sum();
            assert_eq!(pixels, 13 * 13, "{shape:?}");
        }
    }

    #[test]
    fn a_1x1_filter_with_stride_2_reaches_one_phase_of_four() {
        let with_taps =
            Gather::dgrad_phases(&shape(8, 1, 2, 0, 1)).filter(|gather| gather.taps() > 0).count();
        assert_eq!(with_taps, 1);
    }
}
