//! The CPU passes with the SIMD level named: what the parent module calls with the level of this machine.
//!
//! `fprop` and `dgrad` are one algorithm, an indirect matrix product (`gather`, `tile`): each output pixel sums
//! channel runs of the input pixels under the filter's taps, each times a panel of the packed filter (`pack`). `dgrad`
//! with a stride is one such product for each phase of the input pixel. `wgrad` is a product over pixels. These direct
//! algorithms ([`CpuConv2d`]) take any shape; for 3x3 filters there are Winograd's (`winograd`), and [`Passes`] computes
//! each pass with the algorithm it is given, such as the fastest ([`Algorithms::choose`]). With activations in bf16
//! ([`Bf16Conv2d`]) the direct algorithms sum products of pairs.

mod algorithms;
mod bf16;
mod element;
mod gather;
mod level;
mod pack;
mod passes;
mod patch;
mod pixels;
mod product;
mod segments;
mod tile;
mod wgrad;
mod wgrad_tile;
mod winograd;

pub use algorithms::{Algorithm, Algorithms};
pub use bf16::Bf16Conv2d;
pub use element::CpuElement;
pub use passes::Passes;
pub use product::Epilogue;

use crate::ops::simd::SimdLevel;
use crate::shape::Conv2dShape;
use gather::Gather;
use product::Product;

/// One convolution shape at one SIMD level, by the direct algorithms. The arguments and results are those of the parent module's functions.
#[derive(Clone, Copy, Debug)]
pub struct CpuConv2d<'a> {
    level: SimdLevel,
    shape: &'a Conv2dShape,
}

impl<'a> CpuConv2d<'a> {
    /// The passes of `shape` with the instructions of `level`.
    ///
    /// # Panics
    /// If `level` is not available on this machine or `shape` is no convolution ([`Conv2dShape::validate`]): the passes
    /// trust both when they compute addresses.
    pub fn new(level: SimdLevel, shape: &'a Conv2dShape) -> Self {
        assert!(level.is_available(), "conv2d: {level:?} is not available on this machine");
        if let Err(error) = shape.validate() {
            panic!("conv2d: {error}");
        }
        Self { level, shape }
    }

    /// See [`super::packed_fprop_len`].
    pub fn packed_fprop_len(&self) -> usize {
        Gather::fprop(self.shape).packed_len()
    }

    /// See [`super::packed_dgrad_len`].
    pub fn packed_dgrad_len(&self) -> usize {
        Gather::dgrad_phases(self.shape).map(|gather| gather.packed_len()).sum()
    }

    /// See [`super::pack_fprop`].
    pub fn pack_fprop(&self, filter: &[f32], packed: &mut [f32]) {
        self.check("pack_fprop", "filter", filter.len(), self.shape.filter_len());
        self.check("pack_fprop", "packed", packed.len(), self.packed_fprop_len());
        pack::fprop(self.level, self.shape, filter, packed);
    }

    /// See [`super::pack_dgrad`].
    pub fn pack_dgrad(&self, filter: &[f32], packed: &mut [f32]) {
        self.check("pack_dgrad", "filter", filter.len(), self.shape.filter_len());
        self.check("pack_dgrad", "packed", packed.len(), self.packed_dgrad_len());
        let mut rest = packed;
        for gather in Gather::dgrad_phases(self.shape) {
            let (phase, after) = rest.split_at_mut(gather.packed_len());
            pack::dgrad(self.level, self.shape, &gather, filter, phase);
            rest = after;
        }
    }

    /// See [`super::fprop`].
    pub fn fprop(
        &self,
        n: usize,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        relu: bool,
        y: &mut [f32],
    ) {
        self.check("fprop", "x", x.len(), numel(n, self.shape.x_len()));
        self.check("fprop", "packed", packed.len(), self.packed_fprop_len());
        self.check("fprop", "bias", bias.map_or(self.shape.k, <[f32]>::len), self.shape.k);
        self.check("fprop", "y", y.len(), numel(n, self.shape.y_len()));
        let gather = Gather::fprop(self.shape);
        Product { gather: &gather, n, input: x, packed, epilogue: Epilogue { bias, relu } }
            .run(self.level, y);
    }

    /// See [`super::dgrad`].
    pub fn dgrad(&self, n: usize, dy: &[f32], packed: &[f32], dx: &mut [f32]) {
        self.check("dgrad", "dy", dy.len(), numel(n, self.shape.y_len()));
        self.check("dgrad", "packed", packed.len(), self.packed_dgrad_len());
        self.check("dgrad", "dx", dx.len(), numel(n, self.shape.x_len()));
        let mut rest = packed;
        for gather in Gather::dgrad_phases(self.shape) {
            let (packed, after) = rest.split_at(gather.packed_len());
            let epilogue = Epilogue { bias: None, relu: false };
            Product { gather: &gather, n, input: dy, packed, epilogue }.run(self.level, dx);
            rest = after;
        }
    }

    /// See [`super::wgrad`].
    pub fn wgrad(&self, n: usize, x: &[f32], dy: &[f32], dfilter: &mut [f32], scratch: &mut [f32]) {
        self.check("wgrad", "x", x.len(), numel(n, self.shape.x_len()));
        self.check("wgrad", "dy", dy.len(), numel(n, self.shape.y_len()));
        self.check("wgrad", "dfilter", dfilter.len(), self.shape.filter_len());
        let plan = wgrad::Plan::new(self.shape, n, wgrad::BLOCKS);
        let scratch_len = plan.scratch_len();
        assert!(
            scratch.len() >= scratch_len,
            "conv2d wgrad: scratch holds {} floats, needs {scratch_len} for {n} images of {:?}",
            scratch.len(),
            self.shape,
        );
        wgrad::run(self.level, &plan, x, dy, dfilter, &mut scratch[..scratch_len]);
    }

    /// See [`super::wgrad_scratch_len`].
    pub fn wgrad_scratch_len(&self, max_n: usize) -> usize {
        wgrad::max_scratch_len(self.shape, max_n, wgrad::BLOCKS)
    }

    fn check(&self, pass: &str, slice: &str, found: usize, expected: usize) {
        assert!(
            found == expected,
            "conv2d {pass}: {slice} holds {found} floats, expected {expected} for {:?}",
            self.shape,
        );
    }
}

/// Elements of `n` images; a product that overflows becomes a length that no slice has.
fn numel(n: usize, image_len: usize) -> usize {
    n.saturating_mul(image_len)
}
