//! 3x3 convolutions of stride 1 with fewer multiplications (Winograd).

mod filter;
mod lanes;
mod level;
mod multiply;
mod plane;
mod product;
mod scheme;
mod split;
mod tiles;
mod wgrad;

use super::product::Epilogue;
use crate::ops::simd::SimdLevel;
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

    fn positions(self) -> usize {
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

/// Products of one tile, for each input and output channel.
pub(super) fn positions(size: TileSize) -> usize {
    size.positions()
}

/// Floats of the filter packed for either pass.
pub(super) fn packed_len(size: TileSize, shape: &Conv2dShape) -> usize {
    filter::packed_len(shape, size.positions())
}

pub(super) fn pack_fprop(
    level: SimdLevel,
    size: TileSize,
    shape: &Conv2dShape,
    from: &[f32],
    to: &mut [f32],
) {
    pack(level, size, Pass::Fprop, shape, from, to);
}

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

/// Floats of scratch of each pass for up to `max_n` images.
pub(super) fn fprop_scratch_len(size: TileSize, shape: &Conv2dShape, max_n: usize) -> usize {
    product::scratch_len(&Tiles::fprop(shape, size.outputs()), max_n, size.positions())
}

pub(super) fn dgrad_scratch_len(size: TileSize, shape: &Conv2dShape, max_n: usize) -> usize {
    product::scratch_len(&Tiles::dgrad(shape, size.outputs()), max_n, size.positions())
}

pub(super) fn wgrad_scratch_len(size: TileSize, shape: &Conv2dShape, max_n: usize) -> usize {
    let tiles = Tiles::fprop(shape, size.outputs());
    wgrad::Plan::new(shape, &tiles, max_n, size.positions()).scratch_len()
}

/// What both products take.
pub(super) struct Arguments<'a> {
    pub n: usize,
    pub input: &'a [f32],
    pub packed: &'a [f32],
    pub epilogue: Epilogue<'a>,
    pub scratch: &'a mut [f32],
}

pub(super) fn fprop(
    level: SimdLevel,
    size: TileSize,
    shape: &Conv2dShape,
    arguments: Arguments,
    y: &mut [f32],
) {
    product(level, size, Tiles::fprop(shape, size.outputs()), arguments, y);
}

pub(super) fn dgrad(
    level: SimdLevel,
    size: TileSize,
    shape: &Conv2dShape,
    arguments: Arguments,
    dx: &mut [f32],
) {
    product(level, size, Tiles::dgrad(shape, size.outputs()), arguments, dx);
}

fn product(level: SimdLevel, size: TileSize, tiles: Tiles, arguments: Arguments, output: &mut [f32]) {
    let Arguments { n, input, packed, epilogue, scratch } = arguments;
    match size {
        TileSize::Two => Convolution::<F2, 4, 2> { tiles, n, input, packed, epilogue, scheme: PhantomData }
            .run(level, output, scratch),
        TileSize::Four => Convolution::<F4, 6, 4> { tiles, n, input, packed, epilogue, scheme: PhantomData }
            .run(level, output, scratch),
    }
}

pub(super) fn wgrad(
    level: SimdLevel,
    size: TileSize,
    (shape, n): (&Conv2dShape, usize),
    (x, dy): (&[f32], &[f32]),
    dfilter: &mut [f32],
    scratch: &mut [f32],
) {
    let tiles = Tiles::fprop(shape, size.outputs());
    let plan = wgrad::Plan::new(shape, &tiles, n, size.positions());
    match size {
        TileSize::Two => {
            wgrad::FilterGradient::<F2, 4, 2> { plan, tiles, x, dy, scheme: PhantomData }
                .run(level, dfilter, scratch);
        }
        TileSize::Four => {
            wgrad::FilterGradient::<F4, 6, 4> { plan, tiles, x, dy, scheme: PhantomData }
                .run(level, dfilter, scratch);
        }
    }
}
