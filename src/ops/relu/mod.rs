//! ReLU in place, `y = max(x, 0)`, and its gradient. The forward pass is usually fused into the op before it.
//!
//! NaN passes in both directions, as in PyTorch. Tensors have any shape, contiguous.
//!
//! # Example
//! ```
//! let (mut y, mut dy) = ([-1.0, 2.0], [5.0, 5.0]);
//! scadles::ops::relu::forward_inplace(&mut y);
//! scadles::ops::relu::backward_inplace(&y, &mut dy);
//! assert_eq!((y, dy), ([0.0, 2.0], [0.0, 5.0]));
//! ```

pub mod cuda;

use super::elementwise::TILE_LEN;
use super::multiversion::multiversion;
use crate::element::Element;
use rayon::prelude::*;

/// Replaces negative elements of `x` by 0.
pub fn forward_inplace(x: &mut [f32]) {
    x.par_chunks_mut(TILE_LEN).for_each(tile_forward);
}

/// Gradient through the ReLU that gave `y`: sets `dy` to 0 where `y <= 0`. The lengths must be equal.
pub fn backward_inplace<E: Element>(y: &[E], dy: &mut [E]) {
    assert_eq!(y.len(), dy.len(), "relu backward: y and dy differ in length");
    (y.par_chunks(TILE_LEN), dy.par_chunks_mut(TILE_LEN))
        .into_par_iter()
        .for_each(|(y, dy)| tile_backward(y, dy));
}

multiversion! {
    fn tile_forward(x: &mut [f32]) {
        for x in x {
            *x = if *x <= 0.0 { 0.0 } else { *x };
        }
    }

    fn tile_backward<E: Element>(y: &[E], dy: &mut [E]) {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy = if y.to_f32() <= 0.0 { E::default() } else { *dy };
        }
    }
}
