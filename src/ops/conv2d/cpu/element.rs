//! The direct algorithms by what the activations are stored as.

use super::product::Epilogue;
use super::{Bf16Conv2d, CpuConv2d};
use crate::ops::simd::PairLevel;
use crate::ops::simd::stored::Stored;
use bytemuck::{cast_slice, cast_slice_mut};
use half::bf16;

/// What the CPU's passes read and write: f32, or bf16 with sums in f32.
///
/// The functions are the direct algorithms; arguments and results are those of [`CpuConv2d`]'s. Packed filters are memory
/// of whole floats, whatever lies in it.
pub trait CpuElement: Stored {
    /// See [`CpuConv2d::packed_fprop_len`].
    fn packed_fprop_len(conv: &CpuConv2d) -> usize;

    /// See [`CpuConv2d::packed_dgrad_len`].
    fn packed_dgrad_len(conv: &CpuConv2d) -> usize;

    /// See [`CpuConv2d::pack_fprop`].
    fn pack_fprop(conv: &CpuConv2d, filter: &[f32], packed: &mut [f32]);

    /// See [`CpuConv2d::pack_dgrad`].
    fn pack_dgrad(conv: &CpuConv2d, filter: &[f32], packed: &mut [f32]);

    /// See [`CpuConv2d::fprop`].
    fn fprop(conv: &CpuConv2d, n: usize, x: &[Self], packed: &[f32], epilogue: Epilogue, y: &mut [Self]);

    /// See [`CpuConv2d::dgrad`].
    fn dgrad(conv: &CpuConv2d, n: usize, dy: &[Self], packed: &[f32], dx: &mut [Self]);

    /// See [`CpuConv2d::wgrad`].
    fn wgrad(conv: &CpuConv2d, n: usize, x: &[Self], dy: &[Self], dfilter: &mut [f32], scratch: &mut [f32]);

    /// See [`CpuConv2d::wgrad_scratch_len`].
    fn wgrad_scratch_len(conv: &CpuConv2d, max_n: usize) -> usize;
}

impl CpuElement for f32 {
    fn packed_fprop_len(conv: &CpuConv2d) -> usize {
        conv.packed_fprop_len()
    }

    fn packed_dgrad_len(conv: &CpuConv2d) -> usize {
        conv.packed_dgrad_len()
    }

    fn pack_fprop(conv: &CpuConv2d, filter: &[f32], packed: &mut [f32]) {
        conv.pack_fprop(filter, packed);
    }

    fn pack_dgrad(conv: &CpuConv2d, filter: &[f32], packed: &mut [f32]) {
        conv.pack_dgrad(filter, packed);
    }

    fn fprop(conv: &CpuConv2d, n: usize, x: &[f32], packed: &[f32], epilogue: Epilogue, y: &mut [f32]) {
        conv.fprop(n, x, packed, epilogue.bias, epilogue.relu, y);
    }

    fn dgrad(conv: &CpuConv2d, n: usize, dy: &[f32], packed: &[f32], dx: &mut [f32]) {
        conv.dgrad(n, dy, packed, dx);
    }

    fn wgrad(conv: &CpuConv2d, n: usize, x: &[f32], dy: &[f32], dfilter: &mut [f32], scratch: &mut [f32]) {
        conv.wgrad(n, x, dy, dfilter, scratch);
    }

    fn wgrad_scratch_len(conv: &CpuConv2d, max_n: usize) -> usize {
        conv.wgrad_scratch_len(max_n)
    }
}

/// Elements of bf16 in a float.
const IN_FLOAT: usize = size_of::<f32>() / size_of::<bf16>();

fn narrow<'a>(conv: &CpuConv2d<'a>) -> Bf16Conv2d<'a> {
    Bf16Conv2d::new(PairLevel::within(conv.level), conv.shape)
}

// Packed filters have an even number of elements: a pair for each output channel and row.
impl CpuElement for bf16 {
    fn packed_fprop_len(conv: &CpuConv2d) -> usize {
        narrow(conv).packed_fprop_len() / IN_FLOAT
    }

    fn packed_dgrad_len(conv: &CpuConv2d) -> usize {
        narrow(conv).packed_dgrad_len() / IN_FLOAT
    }

    fn pack_fprop(conv: &CpuConv2d, filter: &[f32], packed: &mut [f32]) {
        narrow(conv).pack_fprop(filter, cast_slice_mut(packed));
    }

    fn pack_dgrad(conv: &CpuConv2d, filter: &[f32], packed: &mut [f32]) {
        narrow(conv).pack_dgrad(filter, cast_slice_mut(packed));
    }

    fn fprop(conv: &CpuConv2d, n: usize, x: &[bf16], packed: &[f32], epilogue: Epilogue, y: &mut [bf16]) {
        narrow(conv).fprop(n, x, cast_slice(packed), epilogue, y);
    }

    fn dgrad(conv: &CpuConv2d, n: usize, dy: &[bf16], packed: &[f32], dx: &mut [bf16]) {
        narrow(conv).dgrad(n, dy, cast_slice(packed), dx);
    }

    fn wgrad(conv: &CpuConv2d, n: usize, x: &[bf16], dy: &[bf16], dfilter: &mut [f32], scratch: &mut [f32]) {
        narrow(conv).wgrad(n, x, dy, dfilter, scratch);
    }

    fn wgrad_scratch_len(conv: &CpuConv2d, max_n: usize) -> usize {
        narrow(conv).wgrad_scratch_len(max_n)
    }
}
