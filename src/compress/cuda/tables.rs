//! The plan of a vector as tables on the GPU: strips, chunks, groups and samples.
//!
//! A *strip* is 2^13 elements of the vector; a *chunk* is the part of a tile inside one strip, the unit of the GPU's work.

use crate::compress::bracket::{SMALL_LEN, sampling};
use crate::compress::plan::{BLOCK_LEN, Plan, num_kept};
use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer};

/// Elements of a strip: what `kernels/topk.cuh` calls kStripLen.
const STRIP_LEN: usize = 1 << 13;
/// Candidates that a chunk may collect: an eighth of a strip.
const MAX_CANDIDATES: usize = 1024;
/// Samples that one thread block draws.
const UNIT_SAMPLES: usize = 2048;
/// Bins of a group's histogram.
pub(super) const BINS: usize = 1 << 11;

/// The same for all devices; lists have one entry for each of what their name says, `_chunk` lists one more.
#[derive(Debug)]
pub(super) struct Tables {
    pub chunks: usize,
    pub strips: usize,
    pub tiles: usize,
    pub groups: usize,
    /// Groups of more than [`SMALL_LEN`] elements, by slot.
    pub large_groups: usize,
    pub small_groups: usize,
    /// Thread blocks that sample; none if no group is bracketed.
    pub units: usize,
    pub samples: usize,
    pub candidates: usize,
    pub num_kept: usize,
    pub chunk_start: DeviceBuffer<i64>,
    pub chunk_group: DeviceBuffer<i32>,
    /// Where the candidates of a chunk begin.
    pub room_start: DeviceBuffer<i64>,
    pub strip_chunk: DeviceBuffer<i32>,
    /// Of the payload blocks.
    pub block_chunk: DeviceBuffer<i32>,
    pub tile_chunk: DeviceBuffer<i32>,
    pub group_start: DeviceBuffer<i64>,
    pub group_chunk: DeviceBuffer<i32>,
    pub group_tile: DeviceBuffer<i32>,
    pub group_kept: DeviceBuffer<i64>,
    /// Kept elements before the group.
    pub group_first: DeviceBuffer<i64>,
    /// Slot of a large group; -1 for a small one.
    pub group_slot: DeviceBuffer<i32>,
    pub small_group: DeviceBuffer<i32>,
    pub slot_group: DeviceBuffer<i32>,
    pub slot_samples: DeviceBuffer<i32>,
    pub slot_first_sample: DeviceBuffer<i32>,
    /// Two per slot: the low end's and the high end's, from 1; 0 for an open end.
    pub ranks: DeviceBuffer<i32>,
    pub unit_slot: DeviceBuffer<i32>,
    pub unit_first: DeviceBuffer<i32>,
}

/// Samples of the large groups.
#[derive(Default)]
struct Samples {
    slot_group: Vec<i32>,
    group_slot: Vec<i32>,
    small_group: Vec<i32>,
    slot_samples: Vec<i32>,
    slot_first_sample: Vec<i32>,
    ranks: Vec<i32>,
    unit_slot: Vec<i32>,
    unit_first: Vec<i32>,
    total: usize,
}

impl Samples {
    fn new(plan: &Plan, density: f64) -> Self {
        let mut this = Self::default();
        for (group, range) in plan.groups.iter().enumerate() {
            if range.len() <= SMALL_LEN {
                this.group_slot.push(-1);
                this.small_group.push(group as i32);
                continue;
            }
            let slot = this.slot_group.len() as i32;
            this.group_slot.push(slot);
            this.slot_group.push(group as i32);
            this.slot_first_sample.push(this.total as i32);
            let sampling = sampling(range.len(), num_kept(range.len(), density));
            let samples = sampling.map_or(0, |sampling| sampling.samples);
            let rank = |rank: Option<usize>| rank.unwrap_or(0) as i32;
            this.ranks.push(rank(sampling.and_then(|sampling| sampling.low_rank)));
            this.ranks.push(rank(sampling.and_then(|sampling| sampling.high_rank)));
            this.slot_samples.push(samples as i32);
            for first in (0..samples).step_by(UNIT_SAMPLES) {
                this.unit_slot.push(slot);
                this.unit_first.push(first as i32);
            }
            this.total += samples;
        }
        this
    }
}

impl Tables {
    pub fn new(device: &CudaDevice, plan: &Plan, density: f64) -> Result<Self, CudaError> {
        let samples = Samples::new(plan, density);
        let mut chunk_start = Vec::new();
        let mut tile_chunk = Vec::new();
        for tile in &plan.tiles {
            tile_chunk.push(chunk_start.len() as i32);
            let mut start = tile.range.start;
            while start < tile.range.end {
                chunk_start.push(start as i64);
                start = ((start / STRIP_LEN + 1) * STRIP_LEN).min(tile.range.end);
            }
        }
        let chunks = chunk_start.len();
        tile_chunk.push(chunks as i32);
        chunk_start.push(plan.numel() as i64);
        let chunks_before =
            |element: usize| chunk_start.partition_point(|&start| start < element as i64) as i32;
        let starts = |len: usize| -> Vec<i32> {
            let count = plan.numel().div_ceil(len);
            (0..=count).map(|i| chunks_before((i * len).min(plan.numel()))).collect()
        };
        let (strip_chunk, block_chunk) = (starts(STRIP_LEN), starts(BLOCK_LEN));
        let mut group_start: Vec<i64> = plan.groups.iter().map(|group| group.start as i64).collect();
        group_start.push(plan.numel() as i64);
        let group_chunk: Vec<i32> = group_start.iter().map(|&start| chunks_before(start as usize)).collect();
        let mut group_tile: Vec<i32> = plan.group_tiles.iter().map(|tiles| tiles.start as i32).collect();
        group_tile.push(plan.tiles.len() as i32);
        let kept: Vec<i64> = plan.groups.iter().map(|group| num_kept(group.len(), density) as i64).collect();
        let group_first = sums_before(kept.iter().copied());
        let group_of_chunk = (group_chunk.windows(2).enumerate())
            .flat_map(|(group, chunks)| (chunks[0]..chunks[1]).map(move |_| group as i32));
        let chunk_group: Vec<i32> = group_of_chunk.collect();
        let room = |chunk: usize| {
            let slot = samples.group_slot[chunk_group[chunk] as usize];
            let is_bracketed = slot >= 0 && samples.slot_samples[slot as usize] > 0;
            let len = chunk_start[chunk + 1] - chunk_start[chunk];
            if is_bracketed { len.min(MAX_CANDIDATES as i64) } else { 0 }
        };
        let room_start = sums_before((0..chunks).map(room));
        let last = |list: &[i64]| list.last().map_or(0, |&last| last as usize);
        Ok(Self {
            chunks,
            strips: strip_chunk.len() - 1,
            tiles: plan.tiles.len(),
            groups: plan.groups.len(),
            large_groups: samples.slot_group.len(),
            small_groups: samples.small_group.len(),
            units: samples.unit_slot.len(),
            samples: samples.total,
            candidates: last(&room_start),
            num_kept: last(&group_first),
            chunk_start: device.upload(&chunk_start)?,
            chunk_group: device.upload(&chunk_group)?,
            room_start: device.upload(&room_start)?,
            strip_chunk: device.upload(&strip_chunk)?,
            block_chunk: device.upload(&block_chunk)?,
            tile_chunk: device.upload(&tile_chunk)?,
            group_start: device.upload(&group_start)?,
            group_chunk: device.upload(&group_chunk)?,
            group_tile: device.upload(&group_tile)?,
            group_kept: device.upload(&kept)?,
            group_first: device.upload(&group_first)?,
            group_slot: device.upload(&samples.group_slot)?,
            small_group: device.upload(&samples.small_group)?,
            slot_group: device.upload(&samples.slot_group)?,
            slot_samples: device.upload(&samples.slot_samples)?,
            slot_first_sample: device.upload(&samples.slot_first_sample)?,
            ranks: device.upload(&samples.ranks)?,
            unit_slot: device.upload(&samples.unit_slot)?,
            unit_first: device.upload(&samples.unit_first)?,
        })
    }
}

/// The sum of what comes before each entry, and of all.
fn sums_before(list: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut sum = 0;
    let mut sums = vec![0];
    sums.extend(list.map(|entry| {
        sum += entry;
        sum
    }));
    sums
}
