//! From selections to payloads: `kernels/topk_pack.cu`, `coding.cu`; and the dense step: `topk_dense.cu`.

use super::accumulate::{Cuts, grid};
use super::staged::{Staged, grow, grow_pinned};
use super::tables::Tables;
use crate::compress::PayloadInfo;
use crate::compress::coding::{BlockHead, Coding, HEADER_BYTES, front};
use crate::compress::plan::{BLOCK_LEN, Plan};
use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, PinnedBuffer, View, ViewMut, check_len};
use crate::train::config::{IndexCoding, ValueCoding};
use rayon::prelude::*;

/// Words of a block's head: kept elements, whether they are a bitmap, index bytes.
pub(super) const HEAD_WORDS: usize = 3;
const WHAT: &str = "the payloads of compressed gradients";
/// Devices that one launch of a dense step adds.
pub(super) const DENSE_DEVICES: usize = 4;

/// The elements that one device sent last, as a receiver decodes them.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Inside their payload block.
    pub positions: Option<DeviceBuffer<u16>>,
    pub values: Option<DeviceBuffer<f32>>,
}

/// Where payload bytes are made: on the GPU for one device at a time, on the host for all.
#[derive(Debug)]
pub(super) struct Rooms {
    /// Of all devices.
    pub heads: Staged<u32>,
    offsets: Vec<Staged<i64>>,
    body: Option<DeviceBuffer<u8>>,
    bodies: Vec<Option<PinnedBuffer<u8>>>,
}

impl Rooms {
    pub fn new(device: &CudaDevice, blocks: usize, devices: usize) -> Result<Self, CudaError> {
        Ok(Self {
            heads: Staged::new(device, HEAD_WORDS * blocks * devices, WHAT)?,
            offsets: (0..devices).map(|_| Staged::default()).collect(),
            body: None,
            bodies: (0..devices).map(|_| None).collect(),
        })
    }

    /// The blocks' heads of one device, after their download.
    pub fn heads_of(&self, index: usize, blocks: usize) -> Vec<BlockHead> {
        let words = &self.heads.host()[HEAD_WORDS * blocks * index..][..HEAD_WORDS * blocks];
        let head = |words: &[u32]| BlockHead {
            kept: words[0] as usize,
            bitmap: words[1] != 0,
            index_bytes: words[2] as usize,
        };
        words.chunks_exact(HEAD_WORDS).map(head).collect()
    }
}

/// The size of the payload with these heads.
pub(super) fn info(numel: usize, coding: Coding, heads: &[BlockHead]) -> PayloadInfo {
    let body: usize = heads.iter().map(|head| head.bytes(coding.values)).sum();
    PayloadInfo {
        bytes: (front(numel, coding.values, heads).len() + body) as u64,
        elements: heads.iter().map(|head| head.kept).sum(),
    }
}

/// The size of a payload that keeps nothing.
pub(super) fn empty_info() -> PayloadInfo {
    PayloadInfo { bytes: HEADER_BYTES as u64, elements: 0 }
}

/// What the launches of this module share.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    device: &'a CudaDevice,
    plan: &'a Plan,
    tables: &'a Tables,
    coding: Coding,
}

impl<'a> Context<'a> {
    pub fn new(device: &'a CudaDevice, plan: &'a Plan, tables: &'a Tables, coding: Coding) -> Self {
        Self { device, plan, tables, coding }
    }

    pub fn blocks(&self) -> usize {
        self.plan.block_tiles.len()
    }

    fn shapes(&self) -> String {
        format!(
            "vector [{}], {} kept, {} payload blocks",
            self.plan.numel(),
            self.tables.num_kept,
            self.blocks()
        )
    }

    /// Queues the copy of the selected elements of `vector` to `sent`, and the heads of their blocks.
    pub fn pack(
        &self,
        vector: View<'_, f32>,
        cuts: &Cuts,
        sent: &mut Sent,
        mut heads: ViewMut<'_, u32>,
    ) -> Result<(), CudaError> {
        let (device, tables) = (self.device, self.tables);
        grow(&mut sent.positions, device, tables.num_kept, WHAT)?;
        grow(&mut sent.values, device, tables.num_kept, WHAT)?;
        let (Some(positions), Some(values)) = (&mut sent.positions, &mut sent.values) else {
            unreachable!("room was just made");
        };
        let mut launch = device.launch("topk_pack_f32")?;
        launch.output(&mut positions.view_mut()).output(&mut values.view_mut()).input(&vector);
        launch.input(&cuts.smallest.view()).input(&cuts.ties.view()).input(&cuts.first.view());
        launch.input(&tables.chunk_start.view()).input(&tables.strip_chunk.view());
        launch.scalar(self.plan.numel() as i64).scalar(i32::from(self.coding.values == ValueCoding::Bf16));
        // SAFETY: the arguments are the kernel's, in order and type; the cuts keep as many elements as there is room for.
        unsafe { launch.run(grid(tables.strips, 256), || self.shapes()) }?;

        let mut launch = device.launch("coding_measure")?;
        launch.output(&mut heads).input(&positions.view()).input(&cuts.first.view());
        launch.input(&tables.block_chunk.view()).scalar(self.plan.numel() as i64);
        launch.scalar(i32::from(self.coding.indices != IndexCoding::Bitmap));
        launch.scalar(i32::from(self.coding.indices != IndexCoding::Delta));
        // SAFETY: the arguments are the kernel's, in order and type; heads has three words for each block.
        unsafe { launch.run(grid(self.blocks(), 256), || self.shapes()) }
    }

    /// Writes the payloads of the devices that have `sent` something. Waits once.
    pub fn write(
        &self,
        rooms: &mut Rooms,
        sent: &[Option<(&Sent, &Cuts)>],
        payloads: &mut [Vec<u8>],
    ) -> Result<(), CudaError> {
        let heads: Vec<Vec<BlockHead>> = (sent.iter().enumerate())
            .map(|(i, sent)| sent.map_or_else(Vec::new, |_| rooms.heads_of(i, self.blocks())))
            .collect();
        let bytes_of = |heads: &[BlockHead]| heads.iter().map(|head| head.bytes(self.coding.values)).sum();
        let bodies: Vec<usize> = heads.iter().map(|heads| bytes_of(heads)).collect();
        grow(&mut rooms.body, self.device, bodies.iter().copied().max().unwrap_or(0), WHAT)?;
        let queued = (sent.iter().enumerate()).try_for_each(|(i, sent)| match sent {
            Some((sent, cuts)) => self.write_one(rooms, i, sent, cuts, &heads[i], bodies[i]),
            None => Ok(()),
        });
        // Whatever was refused: copies queued before it use memory that the next call writes.
        let waited = self.device.synchronize();
        queued?;
        waited?;
        let rooms = rooms.bodies.iter().zip(&bodies);
        let rooms: Vec<&[u8]> =
            rooms.map(|(room, &bytes)| room.as_deref().map_or(&[][..], |room| &room[..bytes])).collect();
        payloads.par_iter_mut().zip(&heads).zip(rooms).for_each(|((payload, heads), body)| {
            payload.clear();
            payload.extend(front(self.plan.numel(), self.coding.values, heads));
            payload.extend_from_slice(body);
        });
        Ok(())
    }

    fn write_one(
        &self,
        rooms: &mut Rooms,
        index: usize,
        sent: &Sent,
        cuts: &Cuts,
        heads: &[BlockHead],
        bytes: usize,
    ) -> Result<(), CudaError> {
        let (device, tables, blocks) = (self.device, self.tables, self.blocks());
        let (Some(positions), Some(values)) = (&sent.positions, &sent.values) else {
            unreachable!("what was sent has a room");
        };
        let offsets = &mut rooms.offsets[index];
        offsets.grow(device, blocks, WHAT)?;
        let mut next = 0;
        for (offset, head) in offsets.host_mut().iter_mut().zip(heads) {
            *offset = next;
            next += head.bytes(self.coding.values) as i64;
        }
        // SAFETY: `write` waits before it returns, and offsets are written here only.
        unsafe { offsets.queue_upload(device, blocks) }?;
        let body = rooms.body.as_mut().expect("room was just made");
        let mut launch = device.launch("coding_write")?;
        launch.output(&mut body.view_mut()).input(&offsets.view(blocks));
        let first_head = HEAD_WORDS * blocks * index;
        launch.input(&rooms.heads.view(first_head + HEAD_WORDS * blocks).slice(first_head..));
        launch.input(&positions.view()).input(&values.view()).input(&cuts.first.view());
        launch.input(&tables.block_chunk.view()).scalar(i32::from(self.coding.values == ValueCoding::Bf16));
        // SAFETY: the arguments are the kernel's, in order and type; a block fills the bytes of its head, `bytes` in all.
        unsafe { launch.run(grid(blocks, 256), || self.shapes()) }?;
        grow_pinned(&mut rooms.bodies[index], device, bytes)?;
        let room = rooms.bodies[index].as_mut().expect("room was just made");
        // SAFETY: `write` waits before it reads.
        unsafe { device.queue_download(body.view().slice(..bytes), room) }
    }
}

/// What [`add`] does with values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

/// Adds values to `sum` at their positions, or subtracts them, unless `invalid` is set. `first` counts the elements before
/// each payload block, or before each chunk, where `block_chunk` names each block's first.
pub(super) fn add(
    device: &CudaDevice,
    mut sum: ViewMut<'_, f32>,
    sign: Sign,
    (positions, values): (View<'_, u16>, View<'_, f32>),
    first: View<'_, i64>,
    block_chunk: Option<View<'_, i32>>,
    invalid: Option<View<'_, u32>>,
) -> Result<(), CudaError> {
    let (numel, kept) = (sum.len(), values.len());
    let mut launch = device.launch("coding_add_f32")?;
    launch.output(&mut sum).input(&positions).input(&values).input(&first);
    launch.optional_input(block_chunk.as_ref()).optional_input(invalid.as_ref());
    launch.scalar(i32::from(sign == Sign::Minus));
    // SAFETY: the arguments are the kernel's, in order and type; positions lie inside their block, which lies inside `sum`.
    unsafe { launch.run(grid(numel.div_ceil(BLOCK_LEN), 256), || format!("sum [{numel}], {kept} values")) }
}

/// `sum += p` for up to [`DENSE_DEVICES`] vectors in order; they become 0.
pub(super) fn add_dense(
    device: &CudaDevice,
    mut sum: ViewMut<'_, f32>,
    vectors: &mut [&mut DeviceBuffer<f32>],
    numel: usize,
) -> Result<(), CudaError> {
    check_len("topk_dense_f32", "sum", sum.len(), numel)?;
    let is_aligned = i32::from(sum.address().is_multiple_of(16));
    let mut launch = device.launch("topk_dense_f32")?;
    launch.output(&mut sum);
    for i in 0..DENSE_DEVICES {
        launch.optional_output(vectors.get_mut(i).map(|vector| vector.view_mut()).as_mut());
    }
    launch.scalar(numel as i64).scalar(is_aligned);
    // SAFETY: the arguments are the kernel's, in order and type; the vectors have room for whole packs of four.
    unsafe { launch.run(device.grid_stride(numel.div_ceil(4)), || format!("sum [{numel}]")) }
}
