//! The half that puts samples in.

use super::shared::Shared;
use super::{PushError, RingCounters, SampleMeta};
use crate::stream::sync::{Arc, Ordering};
use std::cell::Cell;
use std::marker::PhantomData;

/// Puts samples into a ring. May move to another thread but not be shared between threads.
pub struct Producer {
    shared: Arc<Shared>,
    /// Exact: only this half stores `shared.tail`.
    tail: u64,
    /// `tail % capacity`.
    tail_slot: usize,
    /// `shared.head` as last loaded; may be stale, then too small, and the ring looks fuller than it is.
    cached_head: u64,
    not_sync: PhantomData<Cell<()>>,
}

impl Producer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tail: 0, tail_slot: 0, cached_head: 0, not_sync: PhantomData }
    }

    /// Copies a sample into the ring.
    ///
    /// # Errors
    /// [`PushError::Full`] (counted in `rejected`), [`PushError::Abandoned`], or [`PushError::PixelBytes`]; the ring is
    /// then unchanged.
    #[inline]
    pub fn push(&mut self, pixels: &[u8], meta: SampleMeta) -> Result<(), PushError> {
        let expected = self.shared.pixel_bytes;
        if pixels.len() != expected {
            return Err(PushError::PixelBytes { expected, found: pixels.len() });
        }
        if self.is_abandoned() {
            return Err(PushError::Abandoned);
        }
        match self.write_slot() {
            Some(mut slot) => {
                slot.pixels_mut().copy_from_slice(pixels);
                slot.commit(meta);
                Ok(())
            }
            None => {
                // Only this half writes the counter, so a load and a store do; Relaxed: see `Shared::counters`.
                let rejected = &self.shared.producer.0.rejected;
                rejected.store(rejected.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                Err(PushError::Full { capacity: self.shared.capacity })
            }
        }
    }

    /// The next free slot, to be filled in place; none if the ring is full. It is pushed by [`WriteSlot::commit`];
    /// dropping it instead leaves the ring as it was. Works on an abandoned ring as well, where nobody will read it.
    #[inline]
    pub fn write_slot(&mut self) -> Option<WriteSlot<'_>> {
        let capacity = self.shared.capacity as u64;
        if self.tail - self.cached_head == capacity {
            self.load_head();
            if self.tail - self.cached_head == capacity {
                return None;
            }
        }
        Some(WriteSlot { producer: self })
    }

    #[inline]
    fn load_head(&mut self) {
        // Acquire: pairs with the Release store of `head` in `Consumer::release`. The consumer's reads of the slots
        // below `head` happen before our writes to them.
        self.cached_head = self.shared.consumer.0.head.load(Ordering::Acquire);
    }

    /// Free slots; the consumer may free more at any time, nobody takes one away.
    pub fn slots(&mut self) -> usize {
        self.load_head();
        self.shared.capacity - (self.tail - self.cached_head) as usize
    }

    /// Samples in the ring; the consumer may take some at any time.
    pub fn len(&mut self) -> usize {
        self.shared.capacity - self.slots()
    }

    /// Whether the ring holds no sample; once true it stays so until this half pushes.
    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// Samples the ring can hold.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Bytes of one sample's pixels.
    pub fn pixel_bytes(&self) -> usize {
        self.shared.pixel_bytes
    }

    /// Whether the consumer is gone; once true it stays true.
    #[inline]
    pub fn is_abandoned(&self) -> bool {
        // Relaxed: nothing is read on the strength of it.
        self.shared.consumer_gone.load(Ordering::Relaxed)
    }

    /// Totals of the ring.
    pub fn counters(&self) -> RingCounters {
        self.shared.counters()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Release: pairs with the Acquire load in `Consumer::is_abandoned`: whoever sees it sees the last push as well.
        self.shared.producer_gone.store(true, Ordering::Release);
    }
}

/// A free slot, not yet pushed.
pub struct WriteSlot<'a> {
    producer: &'a mut Producer,
}

impl WriteSlot<'_> {
    /// The slot's pixels, with whatever an earlier sample left there.
    #[inline]
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        // SAFETY: `write_slot` saw `tail < head + capacity`, so the slot is the producer's until `tail` is stored, which
        // needs `self` by value; the borrow of `self` keeps this the only reference.
        unsafe { self.producer.shared.pixels_mut(self.producer.tail_slot) }
    }

    /// Pushes the sample.
    #[inline]
    pub fn commit(self, meta: SampleMeta) {
        let producer = self.producer;
        // SAFETY: as in `pixels_mut`.
        unsafe { producer.shared.set_meta(producer.tail_slot, meta) };
        producer.tail += 1;
        producer.tail_slot = producer.shared.slot_after(producer.tail_slot, 1);
        // Release: pairs with the Acquire load in `Consumer::load_tail`: our writes to the slot happen before its reads.
        producer.shared.producer.0.tail.store(producer.tail, Ordering::Release);
    }
}
