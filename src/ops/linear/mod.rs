//! Linear layer: `y[n, k] = sum_c x[n, c] * filter[k, c] + bias[k]`, run as a 1x1 convolution on 1x1 images.
//!
//! [`shape`] gives the convolution whose passes ([`super::conv2d`]) are this layer's: `x` `[N, C]`, `filter` `[K, C]`,
//! `y` `[N, K]`. [`bias_backward`] is the gradient of the bias, of a linear layer and of a convolution alike.

mod bias;
pub mod cuda;

pub use bias::{bias_backward, bias_scratch_len};

use crate::shape::Conv2dShape;

/// The convolution that a linear layer from `in_features` (C) to `out_features` (K) is.
///
/// # Example
/// ```
/// use scadles::ops::{conv2d, linear};
/// let shape = linear::shape(2, 1);
/// let mut packed = vec![0.0; conv2d::packed_fprop_len(&shape)];
/// conv2d::pack_fprop(&shape, &[3.0, 4.0], &mut packed);
/// let mut y = [0.0; 2];
/// conv2d::fprop(&shape, 2, &[1.0, 2.0, 10.0, 20.0], &packed, Some(&[0.5]), false, &mut y);
/// assert_eq!(y, [11.5, 110.5]);
/// ```
pub fn shape(in_features: usize, out_features: usize) -> Conv2dShape {
    Conv2dShape { c: in_features, h: 1, w: 1, k: out_features, r: 1, s: 1, stride: 1, pad: 0, dilation: 1 }
}
