//! 2-d convolution (cross-correlation): `fprop`, `dgrad`, `wgrad`, channels-last.
//!
//! ```text
//! y[n,p,q,k]      = sum_{r,s,c} x[n, p*stride - pad + r*dilation, q*stride - pad + s*dilation, c] * filter[k,r,s,c]
//! dx[n,h,w,c]     = sum over the (p,q,r,s) that read x[n,h,w,c], and k, of dy[n,p,q,k] * filter[k,r,s,c]
//! dfilter[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride - pad + r*dilation, q*stride - pad + s*dilation, c]
//! ```
//!
//! where `x` outside the image is 0. The passes `fprop` and `dgrad` read the filter in a packed form, made by
//! [`pack_fprop`] and [`pack_dgrad`] once per parameter update. No pass allocates; each is spread over rayon's current
//! thread pool, and its result does not depend on the number of threads.
//!
//! The functions here use the direct algorithms on f32. [`passes`] takes bf16 activations too (sums, filters and their
//! gradients stay f32), and also has Winograd's for 3x3 filters of stride 1, which
//! [`Algorithms::choose`] picks where they are faster; the environment variable `SCADLES_WINOGRAD=off` rules them out.
//!
//! # Shapes
//! `x`, `dx` NHWC; `filter`, `dfilter` KRSC; `y`, `dy` NPQK, row-major; extents in [`Conv2dShape`], N apart.
//! N = 0 is allowed: `fprop` and `dgrad` then do nothing and `wgrad` writes zeros.
//!
//! # Panics
//! Every function panics on a shape that [`Conv2dShape::validate`] refuses, and every pass, naming itself and the shape,
//! when a slice has a length other than the shape's (scratch may be longer).

pub mod cpu;
pub mod cuda;

pub use cpu::{Algorithm, Algorithms, CpuElement, Epilogue, Passes};

use crate::ops::simd::SimdLevel;
use crate::shape::Conv2dShape;
use cpu::CpuConv2d;

/// The passes of `shape` on the CPU with an algorithm for each.
///
/// # Panics
/// If `shape` is no convolution or an algorithm does not support it.
pub fn passes<E: CpuElement>(shape: &Conv2dShape, algorithms: Algorithms) -> Passes<'_, E> {
    Passes::new(SimdLevel::current(), shape, algorithms)
}

fn cpu(shape: &Conv2dShape) -> CpuConv2d<'_> {
    CpuConv2d::new(SimdLevel::current(), shape)
}

/// Floats of the filter packed for [`fprop`].
pub fn packed_fprop_len(shape: &Conv2dShape) -> usize {
    cpu(shape).packed_fprop_len()
}

/// Floats of the filter packed for [`dgrad`].
pub fn packed_dgrad_len(shape: &Conv2dShape) -> usize {
    cpu(shape).packed_dgrad_len()
}

/// Packs `filter` (KRSC) for [`fprop`].
pub fn pack_fprop(shape: &Conv2dShape, filter: &[f32], packed: &mut [f32]) {
    cpu(shape).pack_fprop(filter, packed);
}

/// Packs `filter` (KRSC) for [`dgrad`].
pub fn pack_dgrad(shape: &Conv2dShape, filter: &[f32], packed: &mut [f32]) {
    cpu(shape).pack_dgrad(filter, packed);
}

/// `y = conv(x, filter)`, plus `bias[k]` if given, then `max(0, y)` if `relu`; overwrites `y`.
pub fn fprop(
    shape: &Conv2dShape,
    n: usize,
    x: &[f32],
    packed: &[f32],
    bias: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    cpu(shape).fprop(n, x, packed, bias, relu, y);
}

/// Gradient of the input from the gradient `dy` of the output; overwrites `dx`.
pub fn dgrad(shape: &Conv2dShape, n: usize, dy: &[f32], packed: &[f32], dx: &mut [f32]) {
    cpu(shape).dgrad(n, dy, packed, dx);
}

/// Gradient of the filter (KRSC) from the input and the gradient `dy` of the output; overwrites `dfilter`.
pub fn wgrad(shape: &Conv2dShape, n: usize, x: &[f32], dy: &[f32], dfilter: &mut [f32], scratch: &mut [f32]) {
    cpu(shape).wgrad(n, x, dy, dfilter, scratch);
}

/// Floats of scratch that [`wgrad`] needs for up to `max_n` images, whatever the number of threads.
pub fn wgrad_scratch_len(shape: &Conv2dShape, max_n: usize) -> usize {
    cpu(shape).wgrad_scratch_len(max_n)
}
