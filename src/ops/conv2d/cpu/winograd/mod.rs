//! Winograd's algorithms for 3x3 convolutions of stride 1: F(2x2, 3x3) and F(4x4, 3x3), all three passes.
//!
//! An output tile of 2x2 or 4x4 pixels and its window of 4x4 or 6x6 inputs are transformed so that one product per input
//! and output channel and *position* is left: 16 for 36 multiplications of the direct sum, or 36 for 144 (`scheme`). Each
//! position is a matrix product of tiles by channels, on the microkernels of the direct algorithms.
//!
//! ```text
//! fprop, dgrad:  input --window--> [position][tile][C] x filter [position][C][K] --> [position][tile][K] --> output
//! wgrad:         input, gradient --> [position][tile][C], [position][tile][K] --> [position][K][C] --> filter gradient
//! ```
//!
//! `dgrad` is `fprop` with the filter turned by half a turn, channels exchanged. The first and last arrow of `wgrad` are the
//! transposes of those of `fprop`.
//!
//! # Memory
//! No transformed tensor is ever whole. Tiles go through in blocks: where the transformed filter is small, each thread
//! takes blocks of its own that stay in the L2 cache; where it is large, it is read once for a block that all threads
//! share and that stays in the L3 cache (`product`). Filter gradients keep the sums of all positions in the scratch, or, if
//! these are large, transform them back while they are in the L2 cache (`wgrad`). How work is cut does not depend on the
//! number of threads, so neither do results. A packed filter has 16/9 or 4 times the floats of the filter.
//!
//! # Error
//! Against f64, the largest error is 1.4e-7 (F(2x2)) and 2.0e-6 (F(4x4)) of the largest sum of magnitudes of an output's
//! terms, over the layers of ResNet and VGG; `tests/ops/winograd.rs` holds them to 1e-6 and 1e-5. Relative to the largest
//! output, F(4x4) is off by about 2e-5, and by 5e-5 for the gradient of a filter over 10^5 pixels. A value that is not
//! finite spoils its whole tile, and infinity may come out as NaN.

mod filter;
mod lanes;
mod multiply;
mod plane;
mod product;
mod scheme;
mod split;
mod tiles;
mod wgrad;

use super::product::Epilogue;
use crate::ops::simd::SimdLevel;
use crate::ops::simd::stored::Stored;
use crate::shape::Conv2dShape;
use filter::Pass;
use product::Convolution;
use scheme::{F2, F4};
use std::marker::PhantomData;
use tiles::{MAX_CHANNELS, Tiles};

/// Channels are a multiple of this: of the lanes of every level.
const CHANNEL_STEP: usize = 16;

/// Output pixels of a tile, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TileSize {
    /// F(2x2, 3x3): 16 products for 36.
    Two,
    /// F(4x4, 3x3): 36 products for 144.
    Four,
}

impl TileSize {
    fn outputs(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Products of a tile, for each input and output channel.
    pub(super) fn positions(self) -> usize {
        (self.outputs() + 2).pow(2)
    }
}

/// Whether `shape` can be computed here.
pub(super) fn supports(shape: &Conv2dShape) -> bool {
    let channels = |count: usize| count.is_multiple_of(CHANNEL_STEP) && count <= MAX_CHANNELS;
    (shape.r, shape.s, shape.stride, shape.dilation) == (3, 3, 1, 1)
        && shape.pad <= 2
        && channels(shape.c)
        && channels(shape.k)
}

/// Products of one image, for each input and output channel.
pub(super) fn products(size: TileSize, shape: &Conv2dShape) -> usize {
    Tiles::fprop(shape, size.outputs()).count(1) * size.positions()
}

/// Floats of the filter packed for either pass.
pub(super) fn packed_len(size: TileSize, shape: &Conv2dShape) -> usize {
    filter::packed_len(shape, size.positions())
}

/// Packs `from` (KRSC) for `fprop`.
pub(super) fn pack_fprop(
    level: SimdLevel,
    size: TileSize,
    shape: &Conv2dShape,
    from: &[f32],
    to: &mut [f32],
) {
    pack(level, size, Pass::Fprop, shape, from, to);
}

/// Packs `from` (KRSC) for `dgrad`.
pub(super) fn pack_dgrad(
    level: SimdLevel,
    size: TileSize,
    shape: &Conv2dShape,
    from: &[f32],
    to: &mut [f32],
) {
    pack(level, size, Pass::Dgrad, shape, from, to);
}

fn pack(level: SimdLevel, size: TileSize, pass: Pass, shape: &Conv2dShape, from: &[f32], to: &mut [f32]) {
    match size {
        TileSize::Two => filter::pack::<F2, 4, 2>(level, pass, shape, from, to),
        TileSize::Four => filter::pack::<F4, 6, 4>(level, pass, shape, from, to),
    }
}

/// Floats of scratch of `fprop` for up to `max_n` images.
pub(super) fn fprop_scratch_len(size: TileSize, shape: &Conv2dShape, max_n: usize) -> usize {
    product::scratch_len(&Tiles::fprop(shape, size.outputs()), max_n, size.positions())
}

/// The same of `dgrad`.
pub(super) fn dgrad_scratch_len(size: TileSize, shape: &Conv2dShape, max_n: usize) -> usize {
    product::scratch_len(&Tiles::dgrad(shape, size.outputs()), max_n, size.positions())
}

/// The same of `wgrad`.
pub(super) fn wgrad_scratch_len(size: TileSize, shape: &Conv2dShape, max_n: usize) -> usize {
    let tiles = Tiles::fprop(shape, size.outputs());
    wgrad::Plan::new(shape, &tiles, max_n, size.positions()).scratch_len()
}

/// What `fprop` and `dgrad` take; lengths are checked.
pub(super) struct Arguments<'a, E> {
    pub n: usize,
    pub input: &'a [E],
    pub packed: &'a [f32],
    pub epilogue: Epilogue<'a>,
    pub scratch: &'a mut [f32],
}

/// Overwrites `y`.
pub(super) fn fprop<E: Stored>(
    level: SimdLevel,
    size: TileSize,
    shape: &Conv2dShape,
    arguments: Arguments<E>,
    y: &mut [E],
) {
    product(level, size, Tiles::fprop(shape, size.outputs()), arguments, y);
}

/// Overwrites `dx`.
pub(super) fn dgrad<E: Stored>(
    level: SimdLevel,
    size: TileSize,
    shape: &Conv2dShape,
    arguments: Arguments<E>,
    dx: &mut [E],
) {
    product(level, size, Tiles::dgrad(shape, size.outputs()), arguments, dx);
}

fn product<E: Stored>(
    level: SimdLevel,
    size: TileSize,
    tiles: Tiles,
    arguments: Arguments<E>,
    output: &mut [E],
) {
    let Arguments { n, input, packed, epilogue, scratch } = arguments;
    match size {
        TileSize::Two => {
            Convolution::<E, F2, 4, 2> { tiles, n, input, packed, epilogue, scheme: PhantomData }
                .run(level, output, scratch)
        }
        TileSize::Four => {
            Convolution::<E, F4, 6, 4> { tiles, n, input, packed, epilogue, scheme: PhantomData }
                .run(level, output, scratch)
        }
    }
}

/// Overwrites `dfilter`; lengths are checked.
pub(super) fn wgrad<E: Stored>(
    level: SimdLevel,
    size: TileSize,
    (shape, n): (&Conv2dShape, usize),
    (x, dy): (&[E], &[E]),
    dfilter: &mut [f32],
    scratch: &mut [f32],
) {
    let tiles = Tiles::fprop(shape, size.outputs());
    let plan = wgrad::Plan::new(shape, &tiles, n, size.positions());
    match size {
        TileSize::Two => {
            wgrad::FilterGradient::<E, F2, 4, 2> { plan, tiles, x, dy, scheme: PhantomData }
                .run(level, dfilter, scratch);
        }
        TileSize::Four => {
            wgrad::FilterGradient::<E, F4, 6, 4> { plan, tiles, x, dy, scheme: PhantomData }
                .run(level, dfilter, scratch);
        }
    }
}
