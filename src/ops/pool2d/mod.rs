//! Max pooling and adaptive average pooling over `[N, H, W, C]`.
//!
//! Semantics are PyTorch's `MaxPool2d` (floor mode, no dilation) and `AdaptiveAvgPool2d`. Backward passes
//! gather: each input gradient is one sum in a fixed order, so overlapping windows do not make results depend
//! on threads.
//!
//! # Shapes
//! `x`, `dx`: `[N, H, W, C]`; `y`, `dy`, `argmax`: `[N, P, Q, C]`. A length that disagrees panics, as does a
//! shape whose windows could miss the image.
//!
//! # Example
//! ```
//! use scadles::ops::pool2d::{AdaptiveAvgShape, Pool2dShape, adaptive_avg_forward, max_forward};
//! let (x, mut y, mut argmax) = ([1.0, 4.0, 2.0, 3.0], [0.0], [0]);
//! let shape = Pool2dShape { c: 1, h: 2, w: 2, window: 2, stride: 2, pad: 0 };
//! max_forward(&shape, 1, &x, &mut y, &mut argmax);
//! assert_eq!((y, argmax), ([4.0], [1]));
//! adaptive_avg_forward(&AdaptiveAvgShape { c: 1, h: 2, w: 2, out_h: 1, out_w: 1 }, 1, &x, &mut y);
//! assert_eq!(y, [2.5]);
//! ```

mod adaptive_avg;
pub mod cuda;
mod max;

pub use adaptive_avg::{AdaptiveAvgShape, adaptive_avg_backward, adaptive_avg_forward};
pub use max::{Pool2dShape, max_backward, max_forward};

use crate::element::Element;

/// Channels whose sums are held together.
const PART: usize = 128;

/// Sums of some channels of a pixel, in f32 whatever the elements.
struct Sums {
    values: [f32; PART],
    len: usize,
}

impl Sums {
    /// Cuts a pixel's channels into parts; each with the number of its first channel.
    #[inline(always)]
    fn parts<E>(pixel: &mut [E]) -> impl Iterator<Item = (usize, &mut [E])> {
        pixel.chunks_mut(PART).enumerate().map(|(part, channels)| (part * PART, channels))
    }

    /// Zeros for `len` channels, at most a part's.
    #[inline(always)]
    fn zero(len: usize) -> Self {
        Self { values: [0.0; PART], len }
    }

    #[inline(always)]
    fn iter_mut(&mut self) -> std::slice::IterMut<'_, f32> {
        self.values[..self.len].iter_mut()
    }

    /// Writes the sums times `scale`.
    #[inline(always)]
    fn round<E: Element>(&self, scale: f32, channels: &mut [E]) {
        for (channel, sum) in channels.iter_mut().zip(&self.values) {
            *channel = E::from_f32(sum * scale);
        }
    }
}
