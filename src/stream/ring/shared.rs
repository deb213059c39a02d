//! What both halves of a ring share: indices, flags, counters and the slots. All pointers of the ring are here.

use super::{RingCounters, RingError, SampleMeta};
use crate::stream::sync::{AtomicBool, AtomicU64, Ordering, UnsafeCell};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Keeps a value on cache lines of its own; 128 because x86 prefetches lines in pairs.
#[repr(align(128))]
pub(super) struct CachePadded<T>(pub(super) T);

/// Written by the producer only.
pub(super) struct ProducerSide {
    /// Samples pushed; the next goes to slot `tail % capacity`.
    pub(super) tail: AtomicU64,
    pub(super) rejected: AtomicU64,
}

/// Written by the consumer only.
pub(super) struct ConsumerSide {
    /// Samples released, `popped + discarded`; the oldest held one is in slot `head % capacity`.
    pub(super) head: AtomicU64,
    pub(super) popped: AtomicU64,
    pub(super) discarded: AtomicU64,
}

pub(super) struct Shared {
    pub(super) producer: CachePadded<ProducerSide>,
    pub(super) consumer: CachePadded<ConsumerSide>,
    /// Each set once, by the half that drops; beside values that never change, so reading them costs nothing.
    pub(super) producer_gone: AtomicBool,
    pub(super) consumer_gone: AtomicBool,
    pub(super) capacity: usize,
    pub(super) pixel_bytes: usize,
    /// `capacity * pixel_bytes` bytes, initialised; slot `s` at `s * pixel_bytes`.
    pixels: NonNull<u8>,
    layout: Layout,
    /// Every access to a slot, pixels included, goes through its cell here, which is where loom watches.
    meta: Box<[UnsafeCell<SampleMeta>]>,
}

// SAFETY: `pixels` is an allocation owned by this value and reached only through the slot functions below, whose
// contracts give every slot one owner at a time; nothing is tied to a thread.
unsafe impl Send for Shared {}
// SAFETY: as above; everything else that both threads reach is atomic or never changes.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(capacity: usize, pixel_bytes: usize) -> Result<Self, RingError> {
        if capacity == 0 || pixel_bytes == 0 {
            return Err(RingError::Empty { capacity, pixel_bytes });
        }
        let out_of_memory = RingError::OutOfMemory { capacity, pixel_bytes };
        // The page-aligned start keeps samples of a multiple of 64 bytes on their own cache lines.
        let layout =
            capacity.checked_mul(pixel_bytes).and_then(|bytes| Layout::from_size_align(bytes, 4096).ok());
        let layout = layout.ok_or(out_of_memory.clone())?;
        let mut meta = Vec::new();
        meta.try_reserve_exact(capacity).map_err(|_| out_of_memory.clone())?;
        meta.resize_with(capacity, || UnsafeCell::new(SampleMeta::default()));
        // SAFETY: both factors are above 0, so the size is not 0.
        let pixels = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(out_of_memory)?;
        Ok(Self {
            producer: CachePadded(ProducerSide { tail: AtomicU64::new(0), rejected: AtomicU64::new(0) }),
            consumer: CachePadded(ConsumerSide {
                head: AtomicU64::new(0),
                popped: AtomicU64::new(0),
                discarded: AtomicU64::new(0),
            }),
            producer_gone: AtomicBool::new(false),
            consumer_gone: AtomicBool::new(false),
            capacity,
            pixel_bytes,
            pixels,
            layout,
            meta: meta.into_boxed_slice(),
        })
    }

    /// The slot `count` places after `slot`; `slot < capacity`, `count <= capacity`.
    #[inline]
    pub(super) fn slot_after(&self, slot: usize, count: usize) -> usize {
        let sum = slot + count;
        if sum >= self.capacity { sum - self.capacity } else { sum }
    }

    /// Pixels of a slot, for writing.
    ///
    /// # Safety
    /// The caller is the producer, owns `slot` (see the module's proof), and for as long as the result lives makes no
    /// other reference into the slot and does not store `tail`.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "a slot is shared memory with one owner at a time")]
    pub(super) unsafe fn pixels_mut(&self, slot: usize) -> &mut [u8] {
        assert!(slot < self.capacity);
        self.meta[slot].with_mut(|_| {
            // SAFETY: inside the allocation, since slot < capacity; initialised by alloc_zeroed; alone by contract.
            unsafe {
                let start = self.pixels.as_ptr().add(slot * self.pixel_bytes);
                std::slice::from_raw_parts_mut(start, self.pixel_bytes)
            }
        })
    }

    /// Writes what travels with a slot's pixels.
    ///
    /// # Safety
    /// The caller is the producer and owns `slot`.
    #[inline]
    pub(super) unsafe fn set_meta(&self, slot: usize, meta: SampleMeta) {
        // SAFETY: the owner alone reaches the slot.
        self.meta[slot].with_mut(|cell| unsafe { *cell = meta });
    }

    /// Pixels and data of a slot, for reading.
    ///
    /// # Safety
    /// The caller is the consumer, owns `slot`, and does not store `head` past it while the pixels are borrowed.
    #[inline]
    pub(super) unsafe fn sample(&self, slot: usize) -> (&[u8], SampleMeta) {
        // SAFETY: the owner alone reaches the slot; SampleMeta is Copy.
        let meta = self.meta[slot].with(|cell| unsafe { *cell });
        // SAFETY: one slot, owned by the caller.
        (unsafe { self.pixels(slot, 1) }, meta)
    }

    /// Pixels of `count` slots from `slot` on, for reading.
    ///
    /// # Safety
    /// As for [`Self::sample`], for each of the slots.
    #[inline]
    pub(super) unsafe fn pixels(&self, slot: usize, count: usize) -> &[u8] {
        assert!(slot + count <= self.capacity);
        #[cfg(loom)]
        self.meta[slot..slot + count].iter().for_each(|cell| cell.with(|_| ()));
        // SAFETY: inside the allocation by the assertion, initialised, and no one writes while the consumer owns it.
        unsafe {
            let start = self.pixels.as_ptr().add(slot * self.pixel_bytes);
            std::slice::from_raw_parts(start, count * self.pixel_bytes)
        }
    }

    pub(super) fn counters(&self) -> RingCounters {
        // Relaxed: plain totals, no slot is reached through them.
        RingCounters {
            pushed: self.producer.0.tail.load(Ordering::Relaxed),
            popped: self.consumer.0.popped.load(Ordering::Relaxed),
            discarded: self.consumer.0.discarded.load(Ordering::Relaxed),
            rejected: self.producer.0.rejected.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; both halves are gone, so no slot is borrowed.
        unsafe { dealloc(self.pixels.as_ptr(), self.layout) }
    }
}
