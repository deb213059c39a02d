//! Launches of the top-k selection: `kernels/topk_bracket.cu`, `topk_update.cu`, `topk_select.cu`.

use super::tables::{BINS, Tables};
use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, Grid, View, ViewMut};

/// Words of 8 bytes that `kernels/topk.cuh` keeps of a group.
const STATE_WORDS: usize = 9;
/// Launches that narrow a search: 31 bits of a key, 11 at a time.
const NARROW_PASSES: usize = 3;
/// Blocks of 256 threads a multiprocessor that share the chunks.
const NARROW_BLOCKS: usize = 8;
/// As above, of 1024 threads.
const CUT_BLOCKS: usize = 1;
/// Words behind the numbers kept of the tiles: what is not finite, the bits there, groups whose bracket was of no use.
pub(super) const EXTRA_WORDS: usize = 3;
/// What a pack of four `f32` must be aligned to.
const PACK_BYTES: u64 = 16;

/// What one selection needs while it runs; devices use it one after another.
#[derive(Debug)]
pub(super) struct Scratch {
    states: DeviceBuffer<u64>,
    histograms: DeviceBuffer<u32>,
    sample_keys: DeviceBuffer<u32>,
    candidates: DeviceBuffer<u32>,
    chunk_sq: DeviceBuffer<f64>,
    chunk_above_sq: DeviceBuffer<f64>,
    chunk_kept_sq: DeviceBuffer<f64>,
    chunk_counts: DeviceBuffer<u32>,
    larger: DeviceBuffer<u32>,
    ties: DeviceBuffer<u32>,
}

impl Scratch {
    pub fn new(device: &CudaDevice, tables: &Tables) -> Result<Self, CudaError> {
        let what = "the selection of gradient elements";
        Ok(Self {
            states: device.zeros(STATE_WORDS * tables.groups, what)?,
            histograms: device.zeros(BINS * tables.large_groups, what)?,
            sample_keys: device.zeros(tables.samples, what)?,
            candidates: device.zeros(tables.candidates, what)?,
            chunk_sq: device.zeros(tables.chunks, what)?,
            chunk_above_sq: device.zeros(tables.chunks, what)?,
            chunk_kept_sq: device.zeros(tables.chunks, what)?,
            chunk_counts: device.zeros(4 * tables.chunks, what)?,
            larger: device.zeros(tables.chunks, what)?,
            ties: device.zeros(tables.chunks, what)?,
        })
    }
}

/// What is kept of one device's vector, on the GPU, per chunk.
#[derive(Debug)]
pub(super) struct Cuts {
    pub smallest: DeviceBuffer<u32>,
    pub ties: DeviceBuffer<u32>,
    /// Kept elements before the chunk, and all of them.
    pub first: DeviceBuffer<i64>,
}

impl Cuts {
    pub fn new(device: &CudaDevice, tables: &Tables) -> Result<Self, CudaError> {
        let what = "the selection of gradient elements";
        let mut first = vec![0; tables.chunks];
        first.push(tables.num_kept as i64);
        Ok(Self {
            smallest: device.zeros(tables.chunks, what)?,
            ties: device.zeros(tables.chunks, what)?,
            first: device.upload(&first)?,
        })
    }
}

/// One selection: `vector += weight * grad`, then its top-k.
pub(super) struct Accumulation<'a> {
    pub device: &'a CudaDevice,
    pub tables: &'a Tables,
    pub scratch: &'a mut Scratch,
    /// With room for whole packs of four.
    pub vector: &'a mut DeviceBuffer<f32>,
    pub cuts: &'a mut Cuts,
    pub grad: View<'a, f32>,
    pub weight: f32,
    /// Squares of all and of kept elements: `[2, tiles]`.
    pub sums: ViewMut<'a, f64>,
    /// Kept elements of the tiles, then [`EXTRA_WORDS`].
    pub counts: ViewMut<'a, u64>,
}

impl Accumulation<'_> {
    /// Queues all of it.
    pub fn run(mut self) -> Result<(), CudaError> {
        let tiles = self.tables.tiles;
        self.device.fill_zero(self.counts.slice_mut(tiles..))?;
        self.bracket()?;
        self.update()?;
        if self.tables.units > 0 {
            for _ in 0..NARROW_PASSES {
                self.narrow()?;
            }
        }
        self.select_small()?;
        self.cut()
    }

    fn shapes(&self) -> String {
        let Tables { chunks, groups, .. } = self.tables;
        format!("vector, grad [{}], {chunks} chunks, {groups} groups", self.grad.len())
    }

    fn bracket(&mut self) -> Result<(), CudaError> {
        let Tables { units, .. } = *self.tables;
        if units == 0 {
            return Ok(());
        }
        let (tables, scratch) = (self.tables, &mut *self.scratch);
        let mut launch = self.device.launch("topk_bracket_f32")?;
        launch.output(&mut scratch.states.view_mut()).output(&mut scratch.sample_keys.view_mut());
        launch.output(&mut scratch.histograms.view_mut()).input(&self.vector.view()).input(&self.grad);
        launch.input(&tables.unit_slot.view()).input(&tables.unit_first.view());
        launch.input(&tables.slot_group.view()).input(&tables.slot_samples.view());
        launch.input(&tables.slot_first_sample.view()).input(&tables.ranks.view());
        launch.input(&tables.group_start.view()).scalar(self.weight);
        // SAFETY: the arguments are the kernel's, in order and type; positions lie inside their group, samples inside theirs.
        unsafe { launch.run(grid(units, 1024), || self.shapes()) }
    }

    fn update(&mut self) -> Result<(), CudaError> {
        let (tables, scratch) = (self.tables, &mut *self.scratch);
        let mut launch = self.device.launch("topk_update_f32")?;
        launch.output(&mut self.vector.view_mut());
        launch.output(&mut scratch.chunk_sq.view_mut()).output(&mut scratch.chunk_above_sq.view_mut());
        launch.output(&mut scratch.chunk_counts.view_mut()).output(&mut scratch.candidates.view_mut());
        launch.output(&mut scratch.states.view_mut()).output(&mut scratch.histograms.view_mut());
        launch.output(&mut self.counts.slice_mut(tables.tiles..)).input(&self.grad);
        launch.input(&tables.chunk_start.view()).input(&tables.chunk_group.view());
        launch.input(&tables.room_start.view()).input(&tables.group_slot.view());
        launch.input(&tables.group_chunk.view()).input(&tables.group_kept.view()).scalar(self.weight);
        launch.scalar(i32::from(self.grad.address().is_multiple_of(PACK_BYTES)));
        // SAFETY: the arguments are the kernel's, in order and type; chunks lie inside the vector, candidates in their rooms.
        unsafe { launch.run(grid(tables.chunks, 256), || self.shapes()) }
    }

    fn narrow(&mut self) -> Result<(), CudaError> {
        let (blocks, per_block) = self.shares(NARROW_BLOCKS);
        let (tables, scratch) = (self.tables, &mut *self.scratch);
        let mut launch = self.device.launch("topk_select_narrow_f32")?;
        launch.output(&mut scratch.states.view_mut()).output(&mut scratch.histograms.view_mut());
        launch.input(&self.vector.view()).input(&scratch.candidates.view());
        launch.input(&scratch.chunk_counts.view()).input(&tables.chunk_start.view());
        launch.input(&tables.chunk_group.view()).input(&tables.room_start.view());
        launch.input(&tables.group_slot.view()).input(&tables.group_chunk.view());
        launch.scalar(tables.chunks as i32).scalar(per_block as i32);
        // SAFETY: as for the update; keys outside the search are not counted, those inside fall into its bins.
        unsafe { launch.run(grid(blocks, 256), || self.shapes()) }
    }

    fn select_small(&mut self) -> Result<(), CudaError> {
        let (tables, scratch) = (self.tables, &mut *self.scratch);
        if tables.small_groups == 0 {
            return Ok(());
        }
        let mut launch = self.device.launch("topk_select_small_f32")?;
        launch.output(&mut scratch.states.view_mut()).input(&self.vector.view());
        launch.input(&tables.small_group.view()).input(&tables.group_start.view());
        launch.input(&tables.group_kept.view());
        // SAFETY: as for the update.
        unsafe { launch.run(grid(tables.small_groups, 512), || self.shapes()) }
    }

    fn cut(&mut self) -> Result<(), CudaError> {
        let (blocks, per_block) = self.shares(CUT_BLOCKS);
        let (tables, scratch) = (self.tables, &mut *self.scratch);
        let mut launch = self.device.launch("topk_select_cut_f32")?;
        launch.output(&mut self.cuts.smallest.view_mut()).output(&mut self.cuts.ties.view_mut());
        launch.output(&mut self.cuts.first.view_mut()).output(&mut self.sums).output(&mut self.counts);
        launch.output(&mut scratch.states.view_mut()).output(&mut scratch.larger.view_mut());
        launch.output(&mut scratch.ties.view_mut()).output(&mut scratch.chunk_kept_sq.view_mut());
        launch.input(&self.vector.view()).input(&self.grad).input(&scratch.candidates.view());
        launch.input(&scratch.chunk_counts.view()).input(&scratch.chunk_sq.view());
        launch.input(&scratch.chunk_above_sq.view()).input(&tables.chunk_start.view());
        launch.input(&tables.chunk_group.view()).input(&tables.room_start.view());
        launch.input(&tables.group_slot.view()).input(&tables.group_chunk.view());
        launch.input(&tables.group_kept.view()).input(&tables.group_first.view());
        launch.input(&tables.group_tile.view()).input(&tables.tile_chunk.view());
        launch.scalar(tables.tiles as i32).scalar(tables.chunks as i32).scalar(per_block as i32);
        // SAFETY: as for the update; all else has one entry per chunk, group or tile.
        unsafe { launch.run(grid(blocks, 1024), || self.shapes()) }
    }

    /// Blocks, and the chunks of each, where a multiprocessor holds `per_multiprocessor` blocks.
    fn shares(&self, per_multiprocessor: usize) -> (usize, usize) {
        let resident = self.device.multiprocessors() as usize * per_multiprocessor;
        let per_block = self.tables.chunks.div_ceil(resident).max(1);
        (self.tables.chunks.div_ceil(per_block), per_block)
    }
}

/// A 1-D grid without dynamic shared memory.
pub(super) fn grid(blocks: usize, threads: u32) -> Grid {
    Grid { blocks: [blocks as u32, 1, 1], threads, shared_bytes: 0 }
}
