//! The passes with activations in bf16: the direct algorithms, summed in f32. Filters are kept in f32 and rounded when
//! they are packed; filter gradients are f32.

mod pack;
mod patch;
mod product;
mod tile;
mod wgrad;
mod wgrad_tile;

use super::gather::Gather;
use super::numel;
use super::product::Epilogue;
use super::wgrad::{Plan, max_scratch_len};
use crate::ops::simd::PairLevel;
use crate::shape::Conv2dShape;
use half::bf16;
use product::Product;

/// One convolution shape with activations in bf16 (NHWC, NPQK) and filters and their gradients in f32 (KRSC), by the
/// direct algorithms. Every sum is one of f32; a result in bf16 is rounded to nearest even once, after bias and ReLU.
#[derive(Clone, Copy, Debug)]
pub struct Bf16Conv2d<'a> {
    level: PairLevel,
    shape: &'a Conv2dShape,
}

impl<'a> Bf16Conv2d<'a> {
    /// The passes of `shape` with the instructions of `level`.
    ///
    /// # Panics
    /// If `level` is not available on this machine or `shape` is no convolution ([`Conv2dShape::validate`]): the passes
    /// trust both when they compute addresses.
    pub fn new(level: PairLevel, shape: &'a Conv2dShape) -> Self {
        assert!(level.is_available(), "conv2d: {level:?} is not available on this machine");
        if let Err(error) = shape.validate() {
            panic!("conv2d: {error}");
        }
        Self { level, shape }
    }

    /// Elements of the filter packed for [`Self::fprop`].
    pub fn packed_fprop_len(&self) -> usize {
        pack::packed_len(&Gather::fprop(self.shape))
    }

    /// Elements of the filter packed for [`Self::dgrad`].
    pub fn packed_dgrad_len(&self) -> usize {
        Gather::dgrad_phases(self.shape).map(|gather| pack::packed_len(&gather)).sum()
    }

    /// Packs `filter` (KRSC) for [`Self::fprop`], rounded to nearest even.
    pub fn pack_fprop(&self, filter: &[f32], packed: &mut [bf16]) {
        self.check("pack_fprop", "filter", filter.len(), self.shape.filter_len());
        self.check("pack_fprop", "packed", packed.len(), self.packed_fprop_len());
        pack::fprop(self.level, self.shape, filter, packed);
    }

    /// Packs `filter` (KRSC) for [`Self::dgrad`], rounded to nearest even.
    pub fn pack_dgrad(&self, filter: &[f32], packed: &mut [bf16]) {
        self.check("pack_dgrad", "filter", filter.len(), self.shape.filter_len());
        self.check("pack_dgrad", "packed", packed.len(), self.packed_dgrad_len());
        let mut rest = packed;
        for gather in Gather::dgrad_phases(self.shape) {
            let (phase, after) = rest.split_at_mut(pack::packed_len(&gather));
            pack::dgrad(self.level, self.shape, &gather, filter, phase);
            rest = after;
        }
    }

    /// See [`fprop`](crate::ops::conv2d::fprop).
    pub fn fprop(&self, n: usize, x: &[bf16], packed: &[bf16], epilogue: Epilogue, y: &mut [bf16]) {
        self.check("fprop", "x", x.len(), numel(n, self.shape.x_len()));
        self.check("fprop", "packed", packed.len(), self.packed_fprop_len());
        self.check("fprop", "bias", epilogue.bias.map_or(self.shape.k, <[f32]>::len), self.shape.k);
        self.check("fprop", "y", y.len(), numel(n, self.shape.y_len()));
        let gather = Gather::fprop(self.shape);
        Product { gather: &gather, n, input: x, packed, epilogue }.run(self.level, y);
    }

    /// See [`dgrad`](crate::ops::conv2d::dgrad).
    pub fn dgrad(&self, n: usize, dy: &[bf16], packed: &[bf16], dx: &mut [bf16]) {
        self.check("dgrad", "dy", dy.len(), numel(n, self.shape.y_len()));
        self.check("dgrad", "packed", packed.len(), self.packed_dgrad_len());
        self.check("dgrad", "dx", dx.len(), numel(n, self.shape.x_len()));
        let mut rest = packed;
        for gather in Gather::dgrad_phases(self.shape) {
            let (packed, after) = rest.split_at(pack::packed_len(&gather));
            Product { gather: &gather, n, input: dy, packed, epilogue: Epilogue::default() }
                .run(self.level, dx);
            rest = after;
        }
    }

    /// See [`wgrad`](crate::ops::conv2d::wgrad).
    pub fn wgrad(&self, n: usize, x: &[bf16], dy: &[bf16], dfilter: &mut [f32], scratch: &mut [f32]) {
        self.check("wgrad", "x", x.len(), numel(n, self.shape.x_len()));
        self.check("wgrad", "dy", dy.len(), numel(n, self.shape.y_len()));
        self.check("wgrad", "dfilter", dfilter.len(), self.shape.filter_len());
        let plan = Plan::new(self.shape, n, wgrad::blocks(self.shape));
        let scratch_len = plan.scratch_len();
        assert!(
            scratch.len() >= scratch_len,
            "conv2d wgrad: scratch holds {} floats, needs {scratch_len} for {n} images of {:?}",
            scratch.len(),
            self.shape,
        );
        wgrad::run(self.level, &plan, x, dy, dfilter, &mut scratch[..scratch_len]);
    }

    /// Floats of scratch that [`Self::wgrad`] needs for up to `max_n` images, whatever the number of threads.
    pub fn wgrad_scratch_len(&self, max_n: usize) -> usize {
        max_scratch_len(self.shape, max_n, wgrad::blocks(self.shape))
    }

    fn check(&self, pass: &str, slice: &str, found: usize, expected: usize) {
        assert!(
            found == expected,
            "conv2d {pass}: {slice} holds {found} elements, expected {expected} for {:?}",
            self.shape,
        );
    }
}
