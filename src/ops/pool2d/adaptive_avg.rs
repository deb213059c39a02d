//! Adaptive average pooling.

use crate::element::Element;
use crate::ops::multiversion::multiversion;
use crate::ops::pool2d::Sums;
use rayon::prelude::*;
use std::ops::Range;

/// Extents of adaptive average pooling without the batch.
///
/// Output `i` of `out` averages the inputs `floor(i * in / out) .. ceil((i + 1) * in / out)`; bins may
/// overlap, and `out` may be larger than `in`. An output of 1 x 1 is global average pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdaptiveAvgShape {
    /// Channels C.
    pub c: usize,
    /// Input height H.
    pub h: usize,
    /// Input width W.
    pub w: usize,
    /// Output height P.
    pub out_h: usize,
    /// Output width Q.
    pub out_w: usize,
}

impl AdaptiveAvgShape {
    /// Elements of one input image, H * W * C.
    pub const fn x_len(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Elements of one output image, P * Q * C.
    pub const fn y_len(&self) -> usize {
        self.out_h * self.out_w * self.c
    }

    fn check(&self, pass: &str, n: usize, x_len: usize, y_len: usize) {
        let extents = [self.c, self.h, self.w, self.out_h, self.out_w];
        assert!(!extents.contains(&0), "adaptive average pool {pass}: impossible {self:?}");
        assert_eq!(x_len, n * self.x_len(), "adaptive average pool {pass}: input of {n} images, {self:?}");
        assert_eq!(y_len, n * self.y_len(), "adaptive average pool {pass}: output of {n} images, {self:?}");
    }
}

/// Indices on the `to` side that share a bin with `index` on the `from` side. The relation is symmetric: it
/// gives the inputs of an output and the outputs of an input.
#[inline(always)]
fn bin(index: usize, from: usize, to: usize) -> Range<usize> {
    index * to / from..((index + 1) * to).div_ceil(from)
}

/// Writes the mean of each bin.
pub fn adaptive_avg_forward<E: Element>(shape: &AdaptiveAvgShape, n: usize, x: &[E], y: &mut [E]) {
    shape.check("forward", n, x.len(), y.len());
    let pixels = shape.out_h * shape.out_w;
    y.par_chunks_mut(shape.c).enumerate().for_each(|(pixel, y)| {
        let x = &x[pixel / pixels * shape.x_len()..][..shape.x_len()];
        pixel_forward(shape, pixel % pixels, x, y);
    });
}

/// Writes `dx`: each pixel's share of the bins it lies in.
pub fn adaptive_avg_backward<E: Element>(shape: &AdaptiveAvgShape, n: usize, dy: &[E], dx: &mut [E]) {
    shape.check("backward", n, dx.len(), dy.len());
    dx.par_chunks_mut(shape.w * shape.c).enumerate().for_each(|(row, dx)| {
        let dy = &dy[row / shape.h * shape.y_len()..][..shape.y_len()];
        row_backward(shape, row % shape.h, dy, dx);
    });
}

multiversion! {
    fn pixel_forward<E: Element>(shape: &AdaptiveAvgShape, pixel: usize, x: &[E], y: &mut [E]) {
        let AdaptiveAvgShape { c, h, w, out_h, out_w } = *shape;
        let (rows, columns) = (bin(pixel / out_w, out_h, h), bin(pixel % out_w, out_w, w));
        let scale = 1.0 / (rows.len() * columns.len()) as f32;
        for (first, y) in Sums::parts(y) {
            let mut sums = Sums::zero(y.len());
            for row in rows.clone() {
                let x = &x[(row * w + columns.start) * c..][..columns.len() * c];
                for x in x.chunks_exact(c) {
                    for (sum, x) in sums.iter_mut().zip(&x[first..]) {
                        *sum += x.to_f32();
                    }
                }
            }
            sums.round(scale, y);
        }
    }

    fn row_backward<E: Element>(shape: &AdaptiveAvgShape, row: usize, dy: &[E], dx: &mut [E]) {
        let AdaptiveAvgShape { c, h, w, out_h, out_w } = *shape;
        for (column, dx) in dx.chunks_exact_mut(c).enumerate() {
            for (first, dx) in Sums::parts(dx) {
                let mut sums = Sums::zero(dx.len());
                for p in bin(row, h, out_h) {
                    for q in bin(column, w, out_w) {
                        let scale = 1.0 / (bin(p, out_h, h).len() * bin(q, out_w, w).len()) as f32;
                        for (sum, dy) in sums.iter_mut().zip(&dy[(p * out_w + q) * c + first..]) {
                            *sum += dy.to_f32() * scale;
                        }
                    }
                }
                sums.round(1.0, dx);
            }
        }
    }
}
