//! Max pooling and adaptive average pooling over `[N, H, W, C]`.
//!
//! Semantics are PyTorch's `MaxPool2d` (floor mode, no dilation) and `AdaptiveAvgPool2d`. Backward passes gather: each
//! input gradient is one sum in a fixed order, so overlapping windows do not make results depend on threads.
//!
//! # Shapes
//! `x`, `dx`: `[N, H, W, C]`; `y`, `dy`, `argmax`: `[N, P, Q, C]`. A length that disagrees panics, as does a shape whose
//! windows could miss the image.

mod adaptive_avg;
mod max;

pub use adaptive_avg::{AdaptiveAvgShape, adaptive_avg_backward, adaptive_avg_forward};
pub use max::{Pool2dShape, max_backward, max_forward};
