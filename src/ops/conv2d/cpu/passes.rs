//! The passes of a shape, each with an algorithm of its own.

use super::algorithms::{Algorithm, Algorithms};
use super::element::CpuElement;
use super::product::Epilogue;
use super::{CpuConv2d, numel, winograd};
use crate::ops::simd::SimdLevel;
use crate::shape::Conv2dShape;
use std::marker::PhantomData;

/// One convolution shape at one SIMD level with an algorithm for each pass. Arguments and results are those of
/// [`conv2d`](crate::ops::conv2d)'s functions; each pass also takes scratch of [`Self::scratch_len`] floats or more, whose
/// contents do not matter.
#[derive(Clone, Copy, Debug)]
pub struct Passes<'a, E = f32> {
    direct: CpuConv2d<'a>,
    algorithms: Algorithms,
    element: PhantomData<fn(E) -> E>,
}

impl<'a, E: CpuElement> Passes<'a, E> {
    /// The passes of `shape` with `algorithms` and the instructions of `level`.
    ///
    /// # Panics
    /// As [`CpuConv2d::new`], and if an algorithm does not support the shape.
    pub fn new(level: SimdLevel, shape: &'a Conv2dShape, algorithms: Algorithms) -> Self {
        let direct = CpuConv2d::new(level, shape);
        assert!(algorithms.support(shape), "conv2d: {algorithms:?} cannot compute {shape:?}");
        Self { direct, algorithms, element: PhantomData }
    }

    /// Floats of the filter packed for [`Self::fprop`].
    pub fn packed_fprop_len(&self) -> usize {
        match self.algorithms.fprop.tile_size() {
            None => E::packed_fprop_len(&self.direct),
            Some(size) => winograd::packed_len(size, self.direct.shape),
        }
    }

    /// Floats of the filter packed for [`Self::dgrad`].
    pub fn packed_dgrad_len(&self) -> usize {
        match self.algorithms.dgrad.tile_size() {
            None => E::packed_dgrad_len(&self.direct),
            Some(size) => winograd::packed_len(size, self.direct.shape),
        }
    }

    /// Packs `filter` (KRSC) for [`Self::fprop`].
    pub fn pack_fprop(&self, filter: &[f32], packed: &mut [f32]) {
        let CpuConv2d { level, shape } = self.direct;
        match self.algorithms.fprop.tile_size() {
            None => E::pack_fprop(&self.direct, filter, packed),
            Some(size) => {
                self.direct.check("pack_fprop", "filter", filter.len(), shape.filter_len());
                self.direct.check("pack_fprop", "packed", packed.len(), self.packed_fprop_len());
                winograd::pack_fprop(level, size, shape, filter, packed);
            }
        }
    }

    /// Packs `filter` (KRSC) for [`Self::dgrad`].
    pub fn pack_dgrad(&self, filter: &[f32], packed: &mut [f32]) {
        let CpuConv2d { level, shape } = self.direct;
        match self.algorithms.dgrad.tile_size() {
            None => E::pack_dgrad(&self.direct, filter, packed),
            Some(size) => {
                self.direct.check("pack_dgrad", "filter", filter.len(), shape.filter_len());
                self.direct.check("pack_dgrad", "packed", packed.len(), self.packed_dgrad_len());
                winograd::pack_dgrad(level, size, shape, filter, packed);
            }
        }
    }

    /// See [`fprop`](crate::ops::conv2d::fprop).
    pub fn fprop(
        &self,
        n: usize,
        x: &[E],
        packed: &[f32],
        epilogue: Epilogue,
        y: &mut [E],
        scratch: &mut [f32],
    ) {
        let CpuConv2d { level, shape } = self.direct;
        let Some(size) = self.algorithms.fprop.tile_size() else {
            return E::fprop(&self.direct, n, x, packed, epilogue, y);
        };
        self.direct.check("fprop", "x", x.len(), numel(n, shape.x_len()));
        self.direct.check("fprop", "packed", packed.len(), self.packed_fprop_len());
        self.direct.check("fprop", "bias", epilogue.bias.map_or(shape.k, <[f32]>::len), shape.k);
        self.direct.check("fprop", "y", y.len(), numel(n, shape.y_len()));
        self.check_scratch("fprop", n, scratch.len(), winograd::fprop_scratch_len(size, shape, n));
        let arguments = winograd::Arguments { n, input: x, packed, epilogue, scratch };
        winograd::fprop(level, size, shape, arguments, y);
    }

    /// See [`dgrad`](crate::ops::conv2d::dgrad).
    pub fn dgrad(&self, n: usize, dy: &[E], packed: &[f32], dx: &mut [E], scratch: &mut [f32]) {
        let CpuConv2d { level, shape } = self.direct;
        let Some(size) = self.algorithms.dgrad.tile_size() else {
            return E::dgrad(&self.direct, n, dy, packed, dx);
        };
        self.direct.check("dgrad", "dy", dy.len(), numel(n, shape.y_len()));
        self.direct.check("dgrad", "packed", packed.len(), self.packed_dgrad_len());
        self.direct.check("dgrad", "dx", dx.len(), numel(n, shape.x_len()));
        self.check_scratch("dgrad", n, scratch.len(), winograd::dgrad_scratch_len(size, shape, n));
        let arguments = winograd::Arguments { n, input: dy, packed, epilogue: Epilogue::default(), scratch };
        winograd::dgrad(level, size, shape, arguments, dx);
    }

    /// See [`wgrad`](crate::ops::conv2d::wgrad).
    pub fn wgrad(&self, n: usize, x: &[E], dy: &[E], dfilter: &mut [f32], scratch: &mut [f32]) {
        let CpuConv2d { level, shape } = self.direct;
        let Some(size) = self.algorithms.wgrad.tile_size() else {
            return E::wgrad(&self.direct, n, x, dy, dfilter, scratch);
        };
        self.direct.check("wgrad", "x", x.len(), numel(n, shape.x_len()));
        self.direct.check("wgrad", "dy", dy.len(), numel(n, shape.y_len()));
        self.direct.check("wgrad", "dfilter", dfilter.len(), shape.filter_len());
        self.check_scratch("wgrad", n, scratch.len(), winograd::wgrad_scratch_len(size, shape, n));
        winograd::wgrad(level, size, (shape, n), (x, dy), dfilter, scratch);
    }

    /// Floats of scratch that [`Self::fprop`] alone needs for up to `max_n` images.
    pub fn fprop_scratch_len(&self, max_n: usize) -> usize {
        let size = self.algorithms.fprop.tile_size();
        size.map_or(0, |size| winograd::fprop_scratch_len(size, self.direct.shape, max_n))
    }

    /// Floats of scratch that every pass needs for up to `max_n` images, whatever the number of threads.
    pub fn scratch_len(&self, max_n: usize) -> usize {
        let shape = self.direct.shape;
        let of = |algorithm: Algorithm, winograd: fn(_, _, _) -> usize, direct: usize| {
            algorithm.tile_size().map_or(direct, |size| winograd(size, shape, max_n))
        };
        let Algorithms { fprop, dgrad, wgrad } = self.algorithms;
        of(fprop, winograd::fprop_scratch_len, 0).max(of(dgrad, winograd::dgrad_scratch_len, 0)).max(of(
            wgrad,
            winograd::wgrad_scratch_len,
            E::wgrad_scratch_len(&self.direct, max_n),
        ))
    }

    fn check_scratch(&self, pass: &str, n: usize, found: usize, needed: usize) {
        let shape = self.direct.shape;
        assert!(
            found >= needed,
            "conv2d {pass}: scratch holds {found} floats, needs {needed} for {n} images of {shape:?}"
        );
    }
}
