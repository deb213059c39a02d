//! The half that takes samples out.

use super::shared::Shared;
use super::{RingCounters, SampleMeta};
use crate::stream::sync::{Arc, Ordering};
use std::cell::Cell;
use std::marker::PhantomData;

/// Takes samples out of a ring, oldest first. May move to another thread but not be shared between threads.
pub struct Consumer {
    shared: Arc<Shared>,
    /// Exact: only this half stores `shared.head`.
    head: u64,
    /// `head % capacity`.
    head_slot: usize,
    /// `shared.tail` as last loaded; may be stale, then too small, and the ring looks emptier than it is.
    cached_tail: u64,
    not_sync: PhantomData<Cell<()>>,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, head: 0, head_slot: 0, cached_tail: 0, not_sync: PhantomData }
    }

    /// Lends the oldest samples, at most `max`: all that are there, perhaps none.
    #[inline]
    pub fn read_chunk(&mut self, max: usize) -> ReadChunk<'_> {
        if self.cached_len() < max {
            self.load_tail();
        }
        let len = self.cached_len().min(max);
        ReadChunk { consumer: self, len }
    }

    /// Lends the oldest `n` samples; none if fewer are there.
    #[inline]
    pub fn pop_chunk(&mut self, n: usize) -> Option<ReadChunk<'_>> {
        let chunk = self.read_chunk(n);
        if chunk.len() == n { Some(chunk) } else { None }
    }

    /// Drops the oldest samples so that the `newest` remain; returns how many were dropped. A sample pushed meanwhile
    /// may stay on top of that number.
    pub fn discard_all_but(&mut self, newest: usize) -> usize {
        let count = self.slots().saturating_sub(newest);
        if count > 0 {
            // Only this half writes the counter; Relaxed: see `Shared::counters`.
            let discarded = &self.shared.consumer.0.discarded;
            discarded.store(discarded.load(Ordering::Relaxed) + count as u64, Ordering::Relaxed);
            self.release(count);
        }
        count
    }

    #[inline]
    fn cached_len(&self) -> usize {
        (self.cached_tail - self.head) as usize
    }

    #[inline]
    fn load_tail(&mut self) {
        // Acquire: pairs with the Release store of `tail` in `WriteSlot::commit`. The producer's writes to the slots
        // below `tail` happen before our reads.
        self.cached_tail = self.shared.producer.0.tail.load(Ordering::Acquire);
    }

    /// Gives the oldest `count <= cached_len` slots back to the producer.
    #[inline]
    fn release(&mut self, count: usize) {
        debug_assert!(count <= self.cached_len());
        self.head += count as u64;
        self.head_slot = self.shared.slot_after(self.head_slot, count);
        // Release: pairs with the Acquire load in `Producer::load_head`: our reads of the slots happen before its writes.
        self.shared.consumer.0.head.store(self.head, Ordering::Release);
    }

    /// Samples that can be read now; the producer may add more at any time, nobody takes one away.
    pub fn slots(&mut self) -> usize {
        self.load_tail();
        self.cached_len()
    }

    /// The same as [`Self::slots`]: samples in the ring.
    pub fn len(&mut self) -> usize {
        self.slots()
    }

    /// Whether nothing can be read now.
    pub fn is_empty(&mut self) -> bool {
        self.slots() == 0
    }

    /// Samples the ring can hold.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Bytes of one sample's pixels.
    pub fn pixel_bytes(&self) -> usize {
        self.shared.pixel_bytes
    }

    /// Whether the producer is gone; once true it stays true, and a [`Self::slots`] called *after* it is final.
    pub fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the Release store in the producer's `drop`: its last `tail` is visible from here on.
        self.shared.producer_gone.load(Ordering::Acquire)
    }

    /// Totals of the ring.
    pub fn counters(&self) -> RingCounters {
        self.shared.counters()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Relaxed: pairs with the load in `Producer::is_abandoned`, which reads nothing on the strength of it.
        self.shared.consumer_gone.store(true, Ordering::Relaxed);
    }
}

/// Samples lent by the ring, oldest first. Dropped without a commit, they stay in the ring.
pub struct ReadChunk<'a> {
    consumer: &'a mut Consumer,
    len: usize,
}

impl ReadChunk<'_> {
    /// Samples in the chunk.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The samples in place: pixels and what travels with them.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], SampleMeta)> {
        let consumer = &*self.consumer;
        (0..self.len).map(move |i| {
            // SAFETY: `len` is at most `tail - head`, so the slot is the consumer's until `head` is stored, which needs
            // `self` by value while the pixels borrow it.
            unsafe { consumer.shared.sample(consumer.shared.slot_after(consumer.head_slot, i)) }
        })
    }

    /// All pixels as at most two runs of whole samples, in order; the second begins where the ring wraps.
    pub fn pixel_runs(&self) -> (&[u8], &[u8]) {
        let (shared, start) = (&self.consumer.shared, self.consumer.head_slot);
        let first = self.len.min(shared.capacity - start);
        // SAFETY: as in `iter`.
        unsafe { (shared.pixels(start, first), shared.pixels(0, self.len - first)) }
    }

    /// Releases the first `k` samples (all if `k` is larger); the rest stay in the ring.
    #[inline]
    pub fn commit(self, k: usize) {
        let count = k.min(self.len);
        // Only this half writes the counter; Relaxed: see `Shared::counters`.
        let popped = &self.consumer.shared.consumer.0.popped;
        popped.store(popped.load(Ordering::Relaxed) + count as u64, Ordering::Relaxed);
        self.consumer.release(count);
    }

    /// Releases every sample of the chunk.
    #[inline]
    pub fn commit_all(self) {
        let len = self.len;
        self.commit(len);
    }
}
