//! Layer operations over contiguous NHWC tensors: forward and backward, one folder per op.
//!
//! Every op takes its extents, inputs and outputs as slices and owns no memory; scratch space is passed in. A
//! batch of 0 images is a no-op (gradients become 0). Slice lengths that contradict the extents are a bug of
//! the caller and panic; data from outside the program (labels) is checked and returned as an error. Results
//! do not depend on the number of rayon threads: sums are cut into tiles by the extents alone.

pub(crate) mod multiversion;
pub(crate) mod row_tiles;

pub mod batchnorm2d;
pub mod conv2d;
pub mod dropout;
pub mod elementwise;
pub mod input;
pub mod linear;
pub mod norm;
pub mod pad_shortcut;
pub mod pool2d;
pub mod relu;
pub mod simd;
pub mod softmax_xent;
