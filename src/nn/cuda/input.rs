//! Batches on their way to the GPU: copied on a stream of their own while the batch before is computed.

use super::CudaExecutor;
use crate::device::cuda::{
    Batch, CudaDevice, CudaError, DeviceBuffer, Element, PinnedBuffer, View, check_len, check_room,
};
use crate::nn::Plan;
use crate::ops::dropout::cuda::Draw;
use crate::ops::input;
use crate::shape::ImageShape;
use cudarc::driver::{CudaEvent, CudaStream};
use std::sync::Arc;

/// What errors name; `ops::input` launches kernels of its name.
const KERNEL: &str = "input";

/// Words of the header before the labels: the number of images, a gap, and the dropout draw's 64 bits.
const LABELS: usize = 4;
const DRAW: usize = 2;

/// A batch in pinned memory: the first `labels.len()` images of the pixels and placements.
#[derive(Clone, Copy, Debug)]
pub struct HostBatch<'a> {
    /// `[images, H, W, C]`
    pub pixels: &'a PinnedBuffer<u8>,
    /// `[images, 3]`: offsets of the crop in y and x, and whether to mirror.
    pub placements: &'a PinnedBuffer<i32>,
    /// One label an image.
    pub labels: &'a [u32],
    /// [`DropoutSeed::index`](crate::nn::DropoutSeed::index) of this pass.
    pub dropout_index: u64,
}

/// Pinned memory for the labels and numbers of one batch.
#[derive(Debug)]
pub struct HostHeader(PinnedBuffer<u32>);

impl HostHeader {
    /// For up to `max_batch` images.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(device: &CudaDevice, max_batch: usize) -> Result<Self, CudaError> {
        Ok(Self(device.pinned(LABELS + max_batch)?))
    }
}

/// Where the kernels find the numbers and labels of a batch.
#[derive(Debug)]
pub(super) struct Header {
    words: DeviceBuffer<u32>,
    seed: u64,
}

impl Header {
    pub fn count(&self) -> View<'_, i32> {
        self.words.view().slice(..1).cast()
    }

    /// Masks of one of the plan's dropout layers, as [`DropoutSeed`](crate::nn::DropoutSeed) draws them.
    pub fn dropout(&self, plan: &Plan, ordinal: u64) -> Draw<'_> {
        let index = self.words.view().slice(DRAW..DRAW + 2).cast();
        Draw { seed: self.seed, index, layers: plan.dropout_layers(), ordinal }
    }

    pub fn labels(&self, bucket: usize) -> View<'_, u32> {
        self.words.view().slice(LABELS..LABELS + bucket)
    }
}

/// Two rooms for batches on the GPU, used in turn. Recorded launches read the room that they were recorded with.
#[derive(Debug)]
pub(super) struct Slots {
    copy_stream: Arc<CudaStream>,
    slots: [Slot; 2],
    current: usize,
}

#[derive(Debug)]
struct Slot {
    pixels: DeviceBuffer<u8>,
    placements: DeviceBuffer<i32>,
    header: Header,
    /// The compute stream is done with the batch that was here last.
    free: Option<CudaEvent>,
}

impl Slots {
    /// Rooms for the plan's largest batch; `seed` is that of the dropout masks.
    pub fn new(device: &CudaDevice, plan: &Plan, seed: u64) -> Result<Self, CudaError> {
        let max = plan.max_batch();
        let slot = || -> Result<Slot, CudaError> {
            Ok(Slot {
                pixels: device.zeros(max * plan.image().numel(), "a batch's pixels")?,
                placements: device.zeros(3 * max, "a batch's placements")?,
                header: Header { words: device.zeros(LABELS + max, "labels")?, seed },
                free: None,
            })
        };
        let slots = Self { copy_stream: device.new_stream()?, slots: [slot()?, slot()?], current: 0 };
        // The zeros were written on the compute stream.
        device.synchronize()?;
        Ok(slots)
    }

    /// Which of the rooms holds the batch that was uploaded last.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Numbers and labels of that batch.
    pub fn header(&self) -> &Header {
        &self.slots[self.current].header
    }

    /// Marks the point where the compute stream, as queued by now, is done with that batch.
    pub fn release(&mut self, device: &CudaDevice) -> Result<(), CudaError> {
        self.slots[self.current].free = Some(device.record(device.stream())?);
        Ok(())
    }
}

impl<E: Element> CudaExecutor<E> {
    /// Queues the copy of a batch into the next room, and lets the compute stream wait for it.
    ///
    /// # Errors
    /// More images than planned or than the pinned memory has room for, or the driver refuses.
    ///
    /// # Safety
    /// Nobody writes to the pinned memory before the device has been waited for.
    pub(super) unsafe fn upload(
        &mut self,
        batch: HostBatch<'_>,
        host_header: &mut HostHeader,
    ) -> Result<(), CudaError> {
        let Self { device, plan, slots, .. } = self;
        let (n, image) = (batch.labels.len(), plan.image());
        let words = LABELS + n;
        // All before anything is queued, or the next room taken.
        if n > plan.max_batch() {
            check_len(KERNEL, "the batch", n, plan.max_batch())?;
        }
        check_room(KERNEL, "pixels", batch.pixels.len(), n * image.numel())?;
        check_room(KERNEL, "placements", batch.placements.len(), 3 * n)?;
        check_room(KERNEL, "the header", host_header.0.len(), words)?;
        host_header.0[..LABELS].copy_from_slice(&[
            n as u32,
            0,
            batch.dropout_index as u32,
            (batch.dropout_index >> 32) as u32,
        ]);
        host_header.0[LABELS..words].copy_from_slice(batch.labels);
        let Slots { copy_stream, slots, current } = slots;
        *current = 1 - *current;
        let Slot { pixels, placements, header, free } = &mut slots[*current];
        if let Some(free) = free {
            device.wait(copy_stream, free)?;
        }
        // SAFETY: the caller keeps the pinned memory until the device has been waited for.
        unsafe {
            device.queue_upload(copy_stream, batch.pixels, pixels.view_mut().part(..n * image.numel()))?;
            device.queue_upload(copy_stream, batch.placements, placements.view_mut().part(..3 * n))?;
            device.queue_upload(copy_stream, &host_header.0, header.words.view_mut().part(..words))?;
        }
        let uploaded = device.record(copy_stream)?;
        device.wait(device.stream(), &uploaded)
    }

    /// Queues the normalised images of the current batch, into the arena.
    pub(super) fn read_images(&mut self, bucket: usize) -> Result<(), CudaError> {
        let Self { device, plan, normalizer, buffers, slots, .. } = self;
        let image = plan.image();
        let Slot { pixels, placements, header, .. } = &slots.slots[slots.current];
        let x = buffers.arena.view_mut().part(plan.memory().tensors[0].range(bucket));
        let shape = ImageShape { h: image.h, w: image.w, c: image.c };
        let pixels = pixels.view().slice(..bucket * image.numel());
        let placements = placements.view().slice(..3 * bucket);
        let batch = Batch { bucket, count: header.count() };
        input::cuda::write_batch(device, shape, batch, pixels, placements, normalizer, x)
    }
}
