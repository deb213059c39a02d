//! Parameter-free shortcut of the CIFAR ResNets: every `stride`-th pixel, padded with zero channels.
//!
//! Option A of He et al., "Deep Residual Learning" (arXiv 1512.03385), section 4.2. Of the `K - C` new
//! channels `(K - C) / 2`, rounded down, come before the copied ones and the rest after them.
//!
//! # Shapes
//! `x`, `dx`: `[N, H, W, C]`; `y`, `dy`: `[N, P, Q, K]` with `P = ceil(H / stride)`, `Q = ceil(W / stride)`.
//! A length that disagrees panics.
//!
//! # Example
//! ```
//! use scadles::ops::pad_shortcut::{self, PadShortcutShape};
//! let shape = PadShortcutShape { c: 1, h: 1, w: 3, k: 3, stride: 2 };
//! let mut y = [0.0; 6];
//! pad_shortcut::forward(&shape, 1, &[1.0, 2.0, 3.0], &mut y);
//! assert_eq!(y, [0.0, 1.0, 0.0, 0.0, 3.0, 0.0]);
//! ```

pub mod cuda;

use crate::element::Element;
use rayon::prelude::*;

/// Extents of the shortcut without the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PadShortcutShape {
    /// Input channels C.
    pub c: usize,
    /// Input height H.
    pub h: usize,
    /// Input width W.
    pub w: usize,
    /// Output channels K, at least C.
    pub k: usize,
    /// Step between pixels taken, in both directions, at least 1.
    pub stride: usize,
}

impl PadShortcutShape {
    /// Output height P.
    pub const fn p(&self) -> usize {
        self.h.div_ceil(self.stride)
    }

    /// Output width Q.
    pub const fn q(&self) -> usize {
        self.w.div_ceil(self.stride)
    }

    /// Elements of one input image, H * W * C.
    pub const fn x_len(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Elements of one output image, P * Q * K.
    pub const fn y_len(&self) -> usize {
        self.p() * self.q() * self.k
    }

    /// Where the copied channels lie among the output's.
    fn copied(&self) -> std::ops::Range<usize> {
        let front = (self.k - self.c) / 2;
        front..front + self.c
    }

    fn check(&self, pass: &str, n: usize, x_len: usize, y_len: usize) {
        assert!(
            self.c > 0 && self.k >= self.c && self.stride > 0,
            "pad_shortcut {pass}: impossible {self:?}"
        );
        assert_eq!(x_len, n * self.x_len(), "pad_shortcut {pass}: input of {n} images, {self:?}");
        assert_eq!(y_len, n * self.y_len(), "pad_shortcut {pass}: output of {n} images, {self:?}");
    }
}

/// Writes `y`, zero channels included.
pub fn forward<E: Element>(shape: &PadShortcutShape, n: usize, x: &[E], y: &mut [E]) {
    shape.check("forward", n, x.len(), y.len());
    let (copied, p, x_row) = (shape.copied(), shape.p(), shape.w * shape.c);
    y.par_chunks_mut((shape.q() * shape.k).max(1)).enumerate().for_each(|(row, y)| {
        let h = row % p * shape.stride;
        let x = &x[(row / p * shape.h + h) * x_row..][..x_row];
        for (x, y) in x.chunks_exact(shape.c).step_by(shape.stride).zip(y.chunks_exact_mut(shape.k)) {
            y[..copied.start].fill(E::default());
            y[copied.clone()].copy_from_slice(x);
            y[copied.end..].fill(E::default());
        }
    });
}

/// Writes `dx`: the gradient of the pixels taken, 0 elsewhere.
pub fn backward<E: Element>(shape: &PadShortcutShape, n: usize, dy: &[E], dx: &mut [E]) {
    shape.check("backward", n, dx.len(), dy.len());
    let (copied, p, dy_row) = (shape.copied(), shape.p(), shape.q() * shape.k);
    dx.par_chunks_mut((shape.w * shape.c).max(1)).enumerate().for_each(|(row, dx)| {
        dx.fill(E::default());
        let (image, h) = (row / shape.h, row % shape.h);
        if h % shape.stride == 0 {
            let dy = &dy[(image * p + h / shape.stride) * dy_row..][..dy_row];
            for (dx, dy) in dx.chunks_exact_mut(shape.c).step_by(shape.stride).zip(dy.chunks_exact(shape.k)) {
                dx.copy_from_slice(&dy[copied.clone()]);
            }
        }
    });
}
