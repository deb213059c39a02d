//! Filter gradient: inputs and gradients of a block of tiles are transformed, multiplied position by position, summed
//! over tiles, and the sums transformed back.
//!
//! Where the sums of all positions are small they stay in the scratch until the last block of tiles; where they are not,
//! a thread sums all positions of a few channels and adds them to the filter gradient after each block.

use super::lanes::{Lane, over_lanes};
use super::plane::{Products, Target, map_plane};
use super::scheme::Scheme;
use super::split::Split;
use super::tiles::Tiles;
use crate::ops::conv2d::cpu::level::{self, Work};
use crate::ops::conv2d::cpu::product::Output;
use crate::ops::conv2d::cpu::wgrad::k_tiles;
use crate::ops::conv2d::cpu::wgrad_tile::{Block, PixelPair};
use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::Lanes;
use crate::ops::simd::stored::Stored;
use crate::shape::Conv2dShape;
use std::marker::PhantomData;
use std::ops::Range;

/// Input or output channels that lie together, and that one unit of work multiplies.
const BLOCK_CHANNELS: usize = 64;

/// Tiles whose addresses are computed ahead of the microkernel.
const GROUP_TILES: usize = 128;

/// Floats of transformed inputs and gradients of a block of tiles: they should stay in the L3 cache.
const BLOCK_FLOATS: usize = 5 * 1024 * 1024;

/// Floats of sums up to which they stay in the scratch.
const KEPT_FLOATS: usize = 3 * 1024 * 1024;

/// How one filter gradient is cut up; depends on the shape and N alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    positions: usize,
    tiles: usize,
    /// Tiles of a block.
    block: usize,
    /// The largest block of any batch of up to as many tiles.
    most: usize,
    c: usize,
    k: usize,
    /// Whether the sums stay in the scratch.
    kept: bool,
}

impl Plan {
    pub fn new(shape: &Conv2dShape, tiles: &Tiles, n: usize, positions: usize) -> Self {
        let (c, k, count) = (shape.c, shape.k, tiles.count(n));
        let most = (BLOCK_FLOATS / (positions * (c + k))).max(32);
        let blocks = count.div_ceil(most).max(1);
        Self {
            positions,
            tiles: count,
            most: most.min(count.max(1)),
            block: count.div_ceil(blocks).max(1),
            c,
            k,
            kept: positions * c * k <= KEPT_FLOATS,
        }
    }

    fn blocks(&self) -> usize {
        self.tiles.div_ceil(self.block)
    }

    fn range(&self, block: usize) -> Range<usize> {
        block * self.block..self.tiles.min((block + 1) * self.block)
    }

    /// Where the blocks of channels of x and of dy lie.
    fn sides(&self) -> [Side; 2] {
        let x = Side::new(0, self.c, self.block, self.positions);
        [x, Side::new(x.end(self.c), self.k, self.block, self.positions)]
    }

    fn sums_first(&self) -> usize {
        self.sides()[1].end(self.k)
    }

    /// Rows of sums (an output channel each), positions, and lanes.
    fn sums_row(&self) -> usize {
        if self.kept { self.c } else { BLOCK_CHANNELS }
    }

    fn sums_position(&self) -> usize {
        if self.kept { self.k * self.c + 16 } else { BLOCK_CHANNELS * BLOCK_CHANNELS + 16 }
    }

    fn sums_len(&self) -> usize {
        self.positions * self.sums_position()
    }

    fn channel_blocks(&self) -> usize {
        self.c.div_ceil(BLOCK_CHANNELS) * self.k.div_ceil(BLOCK_CHANNELS)
    }

    /// Floats of scratch for batches of up to as many images.
    pub fn scratch_len(mut self) -> usize {
        self.block = self.most;
        let lanes = if self.kept { 1 } else { Lane::count(self.channel_blocks()) };
        self.sums_first() + lanes * self.sums_len()
    }
}

/// Transformed tiles of x or dy: `[block of channels][position][tile][channel]`.
#[derive(Clone, Copy)]
struct Side {
    first: usize,
    /// Floats from one tile to the next, one position to the next, and one block of channels to the next.
    tile: usize,
    position: usize,
    channels: usize,
}

impl Side {
    fn new(first: usize, channels: usize, tiles: usize, positions: usize) -> Self {
        let tile = channels.min(BLOCK_CHANNELS);
        let position = tiles * tile + 16;
        Self { first, tile, position, channels: positions * position }
    }

    fn end(&self, channels: usize) -> usize {
        self.first + channels.div_ceil(BLOCK_CHANNELS) * self.channels
    }
}

/// One filter gradient over `n` images.
pub(super) struct FilterGradient<'a, E, S, const A: usize, const M: usize> {
    pub plan: Plan,
    pub tiles: Tiles,
    pub x: &'a [E],
    pub dy: &'a [E],
    pub scheme: PhantomData<S>,
}

impl<E: Stored, S: Scheme<A, M> + Sync, const A: usize, const M: usize> FilterGradient<'_, E, S, A, M> {
    /// Writes `dfilter`, whose length, like that of every slice, the caller has checked.
    pub fn run(&self, level: SimdLevel, dfilter: &mut [f32], scratch: &mut [f32]) {
        let plan = &self.plan;
        if plan.tiles == 0 {
            dfilter.fill(0.0);
            return;
        }
        let (dfilter, memory) = (Output(dfilter.as_mut_ptr()), Output(scratch.as_mut_ptr()));
        for block in 0..plan.blocks() {
            let run = |phase| {
                let (dfilter, memory) = (&dfilter, &memory);
                let part = Part {
                    gradient: self,
                    tiles: plan.range(block),
                    memory: memory.0,
                    dfilter: dfilter.0,
                    phase,
                };
                // SAFETY: the level is available (checked when it was chosen), the slices fit the plan; the units of one
                // phase write tiles, channels, positions or lanes of their own, and read what the phase before wrote.
                unsafe { level::run(level, part) };
            };
            let tiles = plan.range(block).len();
            let last = block + 1 == plan.blocks();
            Split::tiles(tiles, plan.c + plan.k, BLOCK_CHANNELS)
                .for_each(|tiles, channels| run(Phase::Transform { tiles, channels }));
            let blocks = plan.channel_blocks();
            if plan.kept {
                let split = Split { rows: plan.positions, row_step: 1, cols: blocks, col_step: 1 };
                split.for_each(|positions, channels| {
                    let sums = Sums { channels: channels.start, accumulate: block > 0, lane: 0 };
                    run(Phase::Multiply { positions, sums });
                });
                if last {
                    Split { rows: plan.k, row_step: 4, cols: 1, col_step: 1 }
                        .for_each(|k, _| run(Phase::Finish { k }));
                }
            } else {
                over_lanes(blocks, |lane, channels| {
                    let sums = Sums { channels, accumulate: block > 0, lane };
                    run(Phase::All { sums });
                });
            }
        }
    }
}

/// Which sums.
#[derive(Clone, Copy)]
struct Sums {
    /// Block of input and output channels.
    channels: usize,
    accumulate: bool,
    lane: usize,
}

enum Phase {
    /// Channels of x, then of dy.
    Transform {
        tiles: Range<usize>,
        channels: Range<usize>,
    },
    Multiply {
        positions: Range<usize>,
        sums: Sums,
    },
    Finish {
        k: Range<usize>,
    },
    /// Multiplies all positions and adds them to the filter gradient.
    All {
        sums: Sums,
    },
}

/// A phase of one block of tiles.
struct Part<'a, E, S, const A: usize, const M: usize> {
    gradient: &'a FilterGradient<'a, E, S, A, M>,
    tiles: Range<usize>,
    memory: *mut f32,
    dfilter: *mut f32,
    phase: Phase,
}

impl<E: Stored, S: Scheme<A, M> + Sync, const A: usize, const M: usize> Work for Part<'_, E, S, A, M> {
    #[inline(always)]
    unsafe fn run<V: Lanes, const MR: usize, const NV: usize>(self) {
        let plan = &self.gradient.plan;
        // SAFETY: as the caller vouches.
        unsafe {
            match &self.phase {
                Phase::Transform { tiles, channels } => {
                    self.transform::<V>(tiles.clone(), channels.clone());
                }
                Phase::Multiply { positions, sums } => self.multiply::<V>(positions.clone(), *sums),
                Phase::Finish { k } => {
                    let sums = self.memory.wrapping_add(plan.sums_first());
                    self.finish::<V>(sums, k.clone(), 0..plan.c, false);
                }
                Phase::All { sums } => {
                    self.multiply::<V>(0..A * A, Sums { accumulate: false, ..*sums });
                    let (c, k) = self.channels(sums.channels);
                    let first = self.sums(*sums).wrapping_sub(k.start * BLOCK_CHANNELS + c.start);
                    self.finish::<V>(first, k, c, sums.accumulate);
                }
            }
        }
    }
}

impl<E: Stored, S: Scheme<A, M> + Sync, const A: usize, const M: usize> Part<'_, E, S, A, M> {
    /// Input and output channels of a block.
    fn channels(&self, block: usize) -> (Range<usize>, Range<usize>) {
        let plan = &self.gradient.plan;
        let c_blocks = plan.c.div_ceil(BLOCK_CHANNELS);
        let (c, k) = (block % c_blocks * BLOCK_CHANNELS, block / c_blocks * BLOCK_CHANNELS);
        (c..plan.c.min(c + BLOCK_CHANNELS), k..plan.k.min(k + BLOCK_CHANNELS))
    }

    /// First float of some sums.
    fn sums(&self, sums: Sums) -> *mut f32 {
        let plan = &self.gradient.plan;
        let (c, k) = self.channels(sums.channels);
        let offset = if plan.kept { k.start * plan.c + c.start } else { sums.lane * plan.sums_len() };
        self.memory.wrapping_add(plan.sums_first() + offset)
    }

    /// `channels` lie within one block of channels.
    #[inline(always)]
    unsafe fn transform<V: Lanes>(&self, tiles: Range<usize>, channels: Range<usize>) {
        let FilterGradient { plan, tiles: geometry, x, dy, .. } = self.gradient;
        let sides = plan.sides();
        for tile in tiles {
            let of_all = self.tiles.start + tile;
            let mut window = geometry.window::<E, A>(x.as_ptr(), of_all);
            // Gradients are only read.
            let pixels = geometry.patch::<E, M>(dy.as_ptr().cast_mut(), of_all);
            for channel in channels.clone().step_by(V::LANES) {
                let is_x = channel < plan.c;
                let (channel, side) = if is_x { (channel, sides[0]) } else { (channel - plan.c, sides[1]) };
                let block = side.first + channel / BLOCK_CHANNELS * side.channels;
                let offset = block + tile * side.tile + channel % BLOCK_CHANNELS;
                let products =
                    Products::<A> { first: self.memory.wrapping_add(offset), pitch: side.position };
                // SAFETY: channels are a multiple of the lanes; the window is inside x or the zeros, the patch inside dy,
                // the products inside the memory.
                unsafe {
                    if is_x {
                        window.channel = channel;
                        map_plane::<V, S::Window, A, A>(&window, &products);
                    } else {
                        let mut patch = pixels;
                        patch.first = patch.first.wrapping_add(channel);
                        map_plane::<V, S::Spread, M, A>(&patch, &products);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply<V: Lanes>(&self, positions: Range<usize>, sums: Sums) {
        let plan = &self.gradient.plan;
        let (c, k) = self.channels(sums.channels);
        let (first, sides) = (self.sums(sums), plan.sides());
        let mut pairs = [PixelPair { x: std::ptr::null(), dy: std::ptr::null() }; GROUP_TILES];
        for position in positions {
            let at = |side: Side, channel: usize| {
                let block = side.first + channel / BLOCK_CHANNELS * side.channels;
                self.memory.wrapping_add(block + position * side.position).cast_const()
            };
            let (x, dy) = (at(sides[0], c.start), at(sides[1], k.start));
            for tile in (0..self.tiles.len()).step_by(GROUP_TILES) {
                let count = GROUP_TILES.min(self.tiles.len() - tile);
                for (i, pair) in pairs[..count].iter_mut().enumerate() {
                    let tile = tile + i;
                    let (x, dy) =
                        (x.wrapping_add(tile * sides[0].tile), dy.wrapping_add(tile * sides[1].tile));
                    *pair = PixelPair { x, dy };
                }
                let mut column = 0;
                while column < c.len() {
                    let block = Block {
                        column,
                        columns: (c.len() - column).min(2 * V::LANES),
                        k: 0,
                        dfilter: first.wrapping_add(position * plan.sums_position()),
                        row_pitch: plan.sums_row(),
                        accumulate: sums.accumulate || tile > 0,
                    };
                    // SAFETY: the pairs point at a block of channels each; the sums are this unit's.
                    unsafe {
                        if block.columns <= V::LANES {
                            k_tiles::<V, 16, 1>(&pairs[..count], block, k.len());
                        } else if V::LANES == 16 {
                            k_tiles::<V, 14, 2>(&pairs[..count], block, k.len());
                        } else {
                            k_tiles::<V, 6, 2>(&pairs[..count], block, k.len());
                        }
                    }
                    column += block.columns;
                }
            }
        }
    }

    /// Transforms sums back: those of output channel `k` and input channel `c` begin at `first + k * row + c`.
    #[inline(always)]
    unsafe fn finish<V: Lanes>(&self, first: *mut f32, k: Range<usize>, c: Range<usize>, accumulate: bool) {
        let plan = &self.gradient.plan;
        for k in k {
            for channel in c.clone().step_by(V::LANES) {
                let sums = first.wrapping_add(k * plan.sums_row() + channel);
                let products = Products::<A> { first: sums, pitch: plan.sums_position() };
                let first = self.dfilter.wrapping_add(k * 9 * plan.c + channel);
                // SAFETY: the sums were written before; no other unit has these channels of the filter.
                unsafe {
                    map_plane::<V, S::FilterGradient, A, 3>(
                        &products,
                        &Taps { first, pitch: plan.c, accumulate },
                    );
                }
            }
        }
    }
}

/// The nine taps of the filter gradient, `pitch` floats apart.
struct Taps {
    first: *mut f32,
    pitch: usize,
    accumulate: bool,
}

impl<V: Lanes> Target<V> for Taps {
    #[inline(always)]
    unsafe fn put(&self, row: usize, column: usize, value: V) {
        // SAFETY: as the trait demands.
        unsafe {
            let to = self.first.add((3 * row + column) * self.pitch);
            let value = if self.accumulate { value.add(V::load(to)) } else { value };
            value.store(to);
        }
    }
}
