//! The direct algorithms by what the activations are stored as.

use super::CpuConv2d;
use super::product::Epilogue;
use crate::ops::simd::stored::Stored;

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

impl CpuElement for half::bf16 {
    fn packed_fprop_len(_: &CpuConv2d) -> usize {
        0
    }
    fn packed_dgrad_len(_: &CpuConv2d) -> usize {
        0
    }
    fn pack_fprop(_: &CpuConv2d, _: &[f32], _: &mut [f32]) {}
    fn pack_dgrad(_: &CpuConv2d, _: &[f32], _: &mut [f32]) {}
    fn fprop(_: &CpuConv2d, _: usize, _: &[Self], _: &[f32], _: Epilogue, _: &mut [Self]) {
        unimplemented!()
    }
    fn dgrad(_: &CpuConv2d, _: usize, _: &[Self], _: &[f32], _: &mut [Self]) {
        unimplemented!()
    }
    fn wgrad(_: &CpuConv2d, _: usize, _: &[Self], _: &[Self], _: &mut [f32], _: &mut [f32]) {
        unimplemented!()
    }
    fn wgrad_scratch_len(_: &CpuConv2d, _: usize) -> usize {
        0
    }
}
