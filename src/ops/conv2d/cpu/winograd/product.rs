//! `fprop` and `dgrad`: blocks of tiles, each transformed, multiplied and transformed back within the scratch.

use super::lanes::{Lane, over_lanes};
use super::multiply::{self, multiply};
use super::plane::{Products, map_plane};
use super::scheme::Scheme;
use super::split::Split;
use super::tiles::Tiles;
use crate::ops::conv2d::cpu::level::{self, Work};
use crate::ops::conv2d::cpu::pack::panel_width;
use crate::ops::conv2d::cpu::product::{Epilogue, Output};
use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::Lanes;
use crate::ops::simd::stored::Stored;
use std::marker::PhantomData;
use std::ops::Range;

/// How the tiles are cut into blocks; depends on the shape and N alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Tiles of all images.
    tiles: usize,
    /// Tiles of a block.
    block: usize,
    /// Whether a thread works through a block alone, or all threads through one block after the other.
    alone: bool,
}

/// Floats of a block that one thread works through: with some of the filter they should stay in the L2 cache.
const ALONE_FLOATS: usize = 110 * 1024;

/// Tiles of such a block at least: fewer would not be worth reading the filter for.
const ALONE_TILES: usize = 24;

/// Floats of transformed filter up to which every block may read all of it.
const ALONE_FILTER_FLOATS: usize = 3 * 1024 * 1024;

/// Blocks below which all threads share each: they could not be spread evenly.
const ALONE_BLOCKS: usize = 8;

/// Floats of a block that all threads share: they should stay in the L3 cache.
const SHARED_FLOATS: usize = 5 * 1024 * 1024;

/// Tiles of a block are a multiple of this, which suits the microkernels.
const BLOCK_STEP: usize = 12;

impl Schedule {
    fn new(tiles: &Tiles, n: usize, positions: usize) -> Self {
        let (count, sizes) = (tiles.count(n), Sizes::new(tiles, positions));
        match sizes.alone {
            Some(block) if count > sizes.shared_tiles(count) => Self { tiles: count, block, alone: true },
            _ => {
                // Blocks of nearly equal size.
                let blocks = count.div_ceil(sizes.shared).max(1);
                Self { tiles: count, block: count.div_ceil(blocks).max(1), alone: false }
            }
        }
    }

    fn blocks(&self) -> usize {
        self.tiles.div_ceil(self.block)
    }

    fn range(&self, block: usize) -> Range<usize> {
        block * self.block..self.tiles.min((block + 1) * self.block)
    }
}

/// Tiles of a block at most; depends on the shape alone.
struct Sizes {
    /// Of a block that one thread works through, if the filter is small enough.
    alone: Option<usize>,
    /// Of a block that all threads share.
    shared: usize,
}

impl Sizes {
    fn new(tiles: &Tiles, positions: usize) -> Self {
        let (c_in, c_out) = (tiles.input.c, tiles.output.c);
        let whole = |floats: usize| floats / BLOCK_STEP * BLOCK_STEP;
        let alone = ALONE_FLOATS / ((positions + 1) * row_pitch(c_in.max(c_out)));
        let shared = SHARED_FLOATS / (positions * (row_pitch(c_in) + row_pitch(c_out)));
        let small = positions * c_in * c_out <= ALONE_FILTER_FLOATS;
        Self { alone: small.then(|| whole(alone).max(ALONE_TILES)), shared: whole(shared).max(BLOCK_STEP) }
    }

    /// The largest number of tiles, up to `count`, that threads share blocks of.
    fn shared_tiles(&self, count: usize) -> usize {
        self.alone.map_or(count, |block| count.min((ALONE_BLOCKS - 1) * block))
    }
}

/// Floats from one tile to the next within a position: rows that the microkernel reads together should not meet in one
/// set of the cache.
fn row_pitch(channels: usize) -> usize {
    channels + 16
}

/// Floats from one position to the next, an odd number of cache lines.
fn position_pitch(block: usize, channels: usize) -> usize {
    (block * row_pitch(channels)).next_multiple_of(32) + 16
}

/// Where a block's products lie.
#[derive(Clone, Copy)]
struct Layout {
    /// Of the transformed input.
    row_pitch: usize,
    position_pitch: usize,
    /// Of the products.
    output_row_pitch: usize,
    output_position_pitch: usize,
    /// First float of the transformed input; the products begin at 0.
    input_first: usize,
    len: usize,
}

impl Layout {
    fn new(block: usize, alone: bool, tiles: &Tiles, positions: usize) -> Self {
        let (c_in, c_out) = (tiles.input.c, tiles.output.c);
        if alone {
            // Products overwrite the input of the position before.
            let channels = c_in.max(c_out);
            let pitch = position_pitch(block, channels);
            Self {
                row_pitch: row_pitch(channels),
                position_pitch: pitch,
                output_row_pitch: row_pitch(channels),
                output_position_pitch: pitch,
                input_first: pitch,
                len: (positions + 1) * pitch,
            }
        } else {
            let (input, output) = (position_pitch(block, c_in), position_pitch(block, c_out));
            Self {
                row_pitch: row_pitch(c_in),
                position_pitch: input,
                output_row_pitch: row_pitch(c_out),
                output_position_pitch: output,
                input_first: positions * output,
                len: positions * (input + output),
            }
        }
    }
}

/// Floats of scratch for up to `max_n` images.
pub(super) fn scratch_len(tiles: &Tiles, max_n: usize, positions: usize) -> usize {
    let (count, sizes) = (tiles.count(max_n), Sizes::new(tiles, positions));
    let len = |block: usize, alone: bool| Layout::new(block, alone, tiles, positions).len;
    let shared = len(sizes.shared_tiles(count).min(sizes.shared), false);
    match sizes.alone {
        Some(block) if count > sizes.shared_tiles(count) => {
            shared.max(Lane::count(count.div_ceil(block)) * len(block, true))
        }
        _ => shared,
    }
}

/// One pass over `n` images with the filter packed for it.
pub(super) struct Convolution<'a, E, S, const A: usize, const M: usize> {
    pub tiles: Tiles,
    pub n: usize,
    pub input: &'a [E],
    pub packed: &'a [f32],
    pub epilogue: Epilogue<'a>,
    pub scheme: PhantomData<S>,
}

impl<E: Stored, S: Scheme<A, M> + Sync, const A: usize, const M: usize> Convolution<'_, E, S, A, M> {
    /// Writes all of `output`, whose length, like that of every slice, the caller has checked.
    pub fn run(&self, level: SimdLevel, output: &mut [E], scratch: &mut [f32]) {
        let schedule = Schedule::new(&self.tiles, self.n, A * A);
        let layout = Layout::new(schedule.block, schedule.alone, &self.tiles, A * A);
        let (output, memory) = (Output(output.as_mut_ptr()), Output(scratch.as_mut_ptr()));
        let panels = self.tiles.output.c.div_ceil(panel_width(level));
        let part = |tiles: Range<usize>, lane: usize, phase: Phase| {
            let (output, memory) = (&output, &memory);
            let memory = memory.0.wrapping_add(lane * layout.len);
            let (first, count) = (tiles.start, tiles.len());
            Part { convolution: self, layout, first, count, memory, output: output.0, phase }
        };
        if schedule.alone {
            over_lanes(schedule.blocks(), |lane, block| {
                let part = part(schedule.range(block), lane, Phase::All { panels });
                // SAFETY: the level is available (checked when it was chosen), the slices fit the tiles, and no two
                // blocks share output pixels or, at the same time, a lane.
                unsafe { level::run(level, part) };
            });
            return;
        }
        let (c_in, c_out) = (self.tiles.input.c, self.tiles.output.c);
        for block in 0..schedule.blocks() {
            let tiles = schedule.range(block);
            let run = |phase| {
                // SAFETY: as above; the units of one phase write tiles and channels, or positions and panels, of their
                // own, and read what the phase before has written.
                unsafe { level::run(level, part(tiles.clone(), 0, phase)) };
            };
            Split::tiles(tiles.len(), c_in, 64)
                .for_each(|tiles, channels| run(Phase::Transform { tiles, channels }));
            let split = Split { rows: A * A, row_step: 1, cols: panels, col_step: panels.div_ceil(4) };
            split.for_each(|positions, panels| run(Phase::Multiply { positions, panels }));
            Split::tiles(tiles.len(), c_out, 64)
                .for_each(|tiles, channels| run(Phase::Finish { tiles, channels }));
        }
    }
}

/// What is done to a block of tiles; tiles are counted from the block's first.
enum Phase {
    All { panels: usize },
    Transform { tiles: Range<usize>, channels: Range<usize> },
    Multiply { positions: Range<usize>, panels: Range<usize> },
    Finish { tiles: Range<usize>, channels: Range<usize> },
}

/// A phase of one block of tiles.
struct Part<'a, E, S, const A: usize, const M: usize> {
    convolution: &'a Convolution<'a, E, S, A, M>,
    layout: Layout,
    first: usize,
    count: usize,
    memory: *mut f32,
    output: *mut E,
    phase: Phase,
}

impl<E: Stored, S: Scheme<A, M> + Sync, const A: usize, const M: usize> Work for Part<'_, E, S, A, M> {
    #[inline(always)]
    unsafe fn run<V: Lanes, const MR: usize, const NV: usize>(self) {
        let Tiles { input, output, .. } = self.convolution.tiles;
        // SAFETY: as the caller vouches.
        unsafe {
            match &self.phase {
                Phase::All { panels } => {
                    self.transform::<V>(0..self.count, 0..input.c);
                    self.multiply::<V, MR, NV>(0..A * A, 0..*panels);
                    self.finish::<V>(0..self.count, 0..output.c);
                }
                Phase::Transform { tiles, channels } => self.transform::<V>(tiles.clone(), channels.clone()),
                Phase::Multiply { positions, panels } => {
                    self.multiply::<V, MR, NV>(positions.clone(), panels.clone());
                }
                Phase::Finish { tiles, channels } => self.finish::<V>(tiles.clone(), channels.clone()),
            }
        }
    }
}

impl<E: Stored, S: Scheme<A, M> + Sync, const A: usize, const M: usize> Part<'_, E, S, A, M> {
    #[inline(always)]
    unsafe fn transform<V: Lanes>(&self, tiles: Range<usize>, channels: Range<usize>) {
        let Self { convolution, layout, .. } = self;
        for tile in tiles {
            let mut window = convolution.tiles.window::<E, A>(convolution.input.as_ptr(), self.first + tile);
            let first = self.memory.wrapping_add(layout.input_first + tile * layout.row_pitch);
            for channel in channels.clone().step_by(V::LANES) {
                window.channel = channel;
                let products =
                    Products::<A> { first: first.wrapping_add(channel), pitch: layout.position_pitch };
                // SAFETY: channels are a multiple of the lanes; the window is inside the input or the zeros, and the
                // products inside the memory.
                unsafe { map_plane::<V, S::Window, A, A>(&window, &products) };
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply<V: Lanes, const MR: usize, const NV: usize>(
        &self,
        positions: Range<usize>,
        panels: Range<usize>,
    ) {
        let Self { convolution, layout, .. } = self;
        let Tiles { input, output, .. } = convolution.tiles;
        for position in positions {
            let product = multiply::Product {
                rows: self.memory.wrapping_add(layout.input_first + position * layout.position_pitch),
                row_pitch: layout.row_pitch,
                count: self.count,
                depth: input.c,
                filter: convolution.packed.as_ptr(),
                panel_pitch: A * A * input.c * NV * V::LANES,
                channels: output.c,
                output: self.memory.wrapping_add(position * layout.output_position_pitch),
                output_pitch: layout.output_row_pitch,
            };
            // SAFETY: as the caller vouches; all of it lies inside the memory and the packed filter.
            unsafe { multiply::<V, MR, NV>(&product, position, panels.clone()) };
        }
    }

    #[inline(always)]
    unsafe fn finish<V: Lanes>(&self, tiles: Range<usize>, channels: Range<usize>) {
        let Self { convolution, layout, .. } = self;
        for tile in tiles {
            let pixels = convolution.tiles.patch::<E, M>(self.output, self.first + tile);
            let first = self.memory.wrapping_add(tile * layout.output_row_pitch);
            for channel in channels.clone().step_by(V::LANES) {
                let mut patch = pixels;
                patch.first = patch.first.wrapping_add(channel);
                patch.relu = convolution.epilogue.relu;
                if let Some(bias) = convolution.epilogue.bias {
                    patch.bias = bias.as_ptr().wrapping_add(channel);
                }
                let products =
                    Products::<A> { first: first.wrapping_add(channel), pitch: layout.output_position_pitch };
                // SAFETY: channels are a multiple of the lanes; the products lie inside the memory, the pixels inside
                // the output, and the bias has a value for each channel.
                unsafe { map_plane::<V, S::Output, A, M>(&products, &patch) };
            }
        }
    }
}
