//! Launches of `kernels/peak.cu` and `kernels/peak_wgmma.cu`: how fast a device multiplies at best, for benchmarks.
//!
//! Each writes `steps` times the product of two small matrices, added up step by step, once for every warp (block, thread)
//! that `out` has room for. Operands are bf16 or f32 and row-major, sums are f32.

use super::device::{CudaDevice, check_len};
use super::error::CudaError;
use super::launch::Grid;
use super::memory::{View, ViewMut};
use half::bf16;

/// What one part of the device multiplies in a step: `[rows, depth]` times the transpose of `[columns, depth]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of the left operand and of the result.
    pub rows: usize,
    /// Rows of the right operand, columns of the result.
    pub columns: usize,
    /// Columns of both operands.
    pub depth: usize,
    /// Results of a block.
    pub per_block: usize,
}

impl Product {
    /// By a warp's `mma.sync`.
    pub const MMA: Self = Self { rows: 32, columns: 64, depth: 16, per_block: THREADS as usize / 32 };
    /// By the warpgroup instructions of a block, on Hopper.
    pub const WGMMA: Self = Self { rows: 128, columns: 256, depth: 64, per_block: 1 };

    /// Elements of the result of `blocks` blocks.
    pub const fn out_len(self, blocks: usize) -> usize {
        self.rows * self.columns * self.per_block * blocks
    }

    /// Floating-point operations of a block's step.
    pub const fn flop(self) -> usize {
        2 * self.rows * self.columns * self.depth * self.per_block
    }
}

/// Threads of a block, also the rows of [`fma`]'s left operand.
pub const THREADS: u32 = 256;
/// Columns of [`fma`]'s left operand, elements of its right one.
pub const FMA_LANES: usize = 8;
/// Floating-point operations of a thread's step of [`fma`].
pub const FMA_FLOP: usize = 2 * FMA_LANES * FMA_LANES;

/// `out = steps * a * b^T` by tensor cores' warp instructions.
///
/// # Shapes
/// `out`: `[warps, 32, 64]`, whole blocks of 8 warps; `a`: `[32, 16]`; `b`: `[64, 16]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
pub fn mma(
    device: &CudaDevice,
    out: ViewMut<'_, f32>,
    a: View<'_, bf16>,
    b: View<'_, bf16>,
    steps: usize,
) -> Result<(), CudaError> {
    product(device, "peak_mma_bf16", Product::MMA, 0, out, (a, b), steps)
}

/// `out = steps * a * b^T` by warpgroup instructions; on Hopper only.
///
/// # Shapes
/// `out`: `[blocks, 128, 256]`; `a`: `[128, 64]`; `b`: `[256, 64]`
///
/// # Errors
/// As [`mma`], or the device has no such kernel.
pub fn wgmma(
    device: &CudaDevice,
    out: ViewMut<'_, f32>,
    a: View<'_, bf16>,
    b: View<'_, bf16>,
    steps: usize,
) -> Result<(), CudaError> {
    let Product { rows, columns, depth, .. } = Product::WGMMA;
    let shared_bytes = (rows + columns) * depth * size_of::<bf16>();
    product(device, "peak_wgmma_bf16", Product::WGMMA, shared_bytes as u32, out, (a, b), steps)
}

fn product(
    device: &CudaDevice,
    kernel: &'static str,
    shape: Product,
    shared_bytes: u32,
    mut out: ViewMut<'_, f32>,
    (a, b): (View<'_, bf16>, View<'_, bf16>),
    steps: usize,
) -> Result<(), CudaError> {
    let Product { rows, columns, depth, .. } = shape;
    let blocks = out.len().div_ceil(shape.out_len(1));
    check_len(kernel, "out", out.len(), shape.out_len(blocks))?;
    check_len(kernel, "a", a.len(), rows * depth)?;
    check_len(kernel, "b", b.len(), columns * depth)?;
    if blocks == 0 {
        return Ok(());
    }
    let grid = Grid { blocks: [blocks as u32, 1, 1], threads: THREADS, shared_bytes };
    let mut launch = device.launch(kernel)?;
    launch.output(&mut out).input(&a).input(&b).scalar(steps as i64);
    // SAFETY: the arguments are the kernel's, in order and type; each block writes its results, for which `out` has room, and
    // reads the operands, whose lengths were checked.
    unsafe { launch.run(grid, || format!("{blocks} blocks, {steps} steps")) }
}

/// `out[t] = steps * sum over i, j of a[t, i] * b[j]`, `t` counted within its block, by fused multiply-adds.
///
/// # Shapes
/// `out`: `[blocks, 256]`; `a`: `[256, 8]`; `b`: `[8]`
///
/// # Errors
/// Wrong lengths, or the driver refuses the launch.
pub fn fma(
    device: &CudaDevice,
    mut out: ViewMut<'_, f32>,
    a: View<'_, f32>,
    b: View<'_, f32>,
    steps: usize,
) -> Result<(), CudaError> {
    let kernel = "peak_fma_f32";
    let blocks = out.len().div_ceil(THREADS as usize);
    check_len(kernel, "out", out.len(), blocks * THREADS as usize)?;
    check_len(kernel, "a", a.len(), THREADS as usize * FMA_LANES)?;
    check_len(kernel, "b", b.len(), FMA_LANES)?;
    if blocks == 0 {
        return Ok(());
    }
    let grid = Grid { blocks: [blocks as u32, 1, 1], threads: THREADS, shared_bytes: 0 };
    let mut launch = device.launch(kernel)?;
    launch.output(&mut out).input(&a).input(&b).scalar(steps as i64);
    // SAFETY: as above; each thread writes one element.
    unsafe { launch.run(grid, || format!("{blocks} blocks, {steps} steps")) }
}
