//! Max pooling.

use crate::element::Element;
use crate::ops::multiversion::multiversion;
use crate::ops::pool2d::Sums;
use rayon::prelude::*;

/// Extents of max pooling without the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2dShape {
    /// Channels C.
    pub c: usize,
    /// Input height H.
    pub h: usize,
    /// Input width W.
    pub w: usize,
    /// Height and width of the window; 1 to 15, so that a position in it fits a byte.
    pub window: usize,
    /// Stride in both directions, at least 1.
    pub stride: usize,
    /// Padding on each side, at most half the window; padding never wins.
    pub pad: usize,
}

impl Pool2dShape {
    /// Output height P (floor mode).
    pub const fn p(&self) -> usize {
        (self.h + 2 * self.pad - self.window) / self.stride + 1
    }

    /// Output width Q (floor mode).
    pub const fn q(&self) -> usize {
        (self.w + 2 * self.pad - self.window) / self.stride + 1
    }

    /// Elements of one input image, H * W * C.
    pub const fn x_len(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Elements of one output image, P * Q * C.
    pub const fn y_len(&self) -> usize {
        self.p() * self.q() * self.c
    }

    /// Whether every window meets the image and its positions fit a byte.
    pub(super) fn is_possible(&self) -> bool {
        let window_fits = (1..=15).contains(&self.window)
            && 2 * self.pad <= self.window
            && self.h.min(self.w) + 2 * self.pad >= self.window;
        self.c > 0 && self.stride > 0 && window_fits
    }

    fn check(&self, pass: &str, n: usize, x_len: usize, y_len: usize, argmax_len: usize) {
        assert!(self.is_possible(), "max pool {pass}: impossible {self:?}");
        assert_eq!(x_len, n * self.x_len(), "max pool {pass}: input of {n} images, {self:?}");
        assert_eq!(y_len, n * self.y_len(), "max pool {pass}: output of {n} images, {self:?}");
        assert_eq!(argmax_len, y_len, "max pool {pass}: argmax differs in length from the output");
    }

    /// Positions `0..window` of the window at `index` that lie inside an image of `extent`.
    #[inline(always)]
    fn inside(&self, index: usize, extent: usize) -> std::ops::Range<usize> {
        let start = index * self.stride;
        self.pad.saturating_sub(start)..self.window.min(extent + self.pad - start)
    }

    /// Windows, of `count` in all, that hold the pixel at `index`.
    #[inline(always)]
    fn windows_over(&self, index: usize, count: usize) -> std::ops::Range<usize> {
        let padded = index + self.pad;
        let first = (padded + 1).saturating_sub(self.window).div_ceil(self.stride);
        first..(padded / self.stride + 1).min(count)
    }
}

/// Writes the maximum of each window and where in the window, `row * window + column`, it was.
///
/// Of equal maxima the first in that order wins; NaN is greater than any number, and of several NaNs the last
/// wins (PyTorch's rule). `argmax` feeds [`max_backward`].
pub fn max_forward<E: Element>(shape: &Pool2dShape, n: usize, x: &[E], y: &mut [E], argmax: &mut [u8]) {
    shape.check("forward", n, x.len(), y.len(), argmax.len());
    let (p, row_len) = (shape.p(), shape.q() * shape.c);
    (y.par_chunks_mut(row_len), argmax.par_chunks_mut(row_len)).into_par_iter().enumerate().for_each(
        |(row, (y, argmax))| {
            let x = &x[row / p * shape.x_len()..][..shape.x_len()];
            row_forward(shape, row % p, x, y, argmax);
        },
    );
}

/// Writes `dx`: each pixel's sum of `dy` over the windows it won.
pub fn max_backward<E: Element>(shape: &Pool2dShape, n: usize, dy: &[E], argmax: &[u8], dx: &mut [E]) {
    shape.check("backward", n, dx.len(), dy.len(), argmax.len());
    let y_len = shape.y_len();
    dx.par_chunks_mut(shape.w * shape.c).enumerate().for_each(|(row, dx)| {
        let image = row / shape.h * y_len;
        row_backward(shape, row % shape.h, &dy[image..][..y_len], &argmax[image..][..y_len], dx);
    });
}

multiversion! {
    fn row_forward<E: Element>(shape: &Pool2dShape, p: usize, x: &[E], y: &mut [E], argmax: &mut [u8]) {
        let Pool2dShape { c, h, w, window, stride, pad } = *shape;
        let rows = shape.inside(p, h);
        for (q, (y, argmax)) in y.chunks_exact_mut(c).zip(argmax.chunks_exact_mut(c)).enumerate() {
            let columns = shape.inside(q, w);
            y.fill(E::from_f32(f32::NEG_INFINITY));
            argmax.fill((rows.start * window + columns.start) as u8);
            for r in rows.clone() {
                for s in columns.clone() {
                    let position = (r * window + s) as u8;
                    let pixel = (p * stride + r - pad) * w + q * stride + s - pad;
                    let x = &x[pixel * c..][..c];
                    for ((x, y), argmax) in x.iter().zip(y.iter_mut()).zip(argmax.iter_mut()) {
                        let wins = x.to_f32() > y.to_f32() || x.to_f32().is_nan();
                        *y = if wins { *x } else { *y };
                        *argmax = if wins { position } else { *argmax };
                    }
                }
            }
        }
    }

    fn row_backward<E: Element>(shape: &Pool2dShape, h: usize, dy: &[E], argmax: &[u8], dx: &mut [E]) {
        let Pool2dShape { c, window, stride, pad, .. } = *shape;
        let q_extent = shape.q();
        let rows = shape.windows_over(h, shape.p());
        for (w, dx) in dx.chunks_exact_mut(c).enumerate() {
            let columns = shape.windows_over(w, q_extent);
            for (first, dx) in Sums::parts(dx) {
                let mut sums = Sums::zero(dx.len());
                for p in rows.clone() {
                    for q in columns.clone() {
                        let position = ((h + pad - p * stride) * window + w + pad - q * stride) as u8;
                        let start = (p * q_extent + q) * c + first;
                        let (dy, argmax) = (&dy[start..][..dx.len()], &argmax[start..][..dx.len()]);
                        for ((sum, dy), argmax) in sums.iter_mut().zip(dy).zip(argmax) {
                            *sum += if *argmax == position { dy.to_f32() } else { 0.0 };
                        }
                    }
                }
                sums.round(1.0, dx);
            }
        }
    }
}
