//! The thread between a source and the ring.

use crate::stream::StreamError;
use crate::stream::policy::{BufferError, Item, PolicyBuffer};
use crate::stream::ring::{Producer, SampleMeta};
use crate::stream::source::{Poll, SampleSlot, Source};
use crate::stream::virtual_stream::sample_bytes;
use crate::units::SamplesPerSec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest rest of the feeder; the trainer wakes it before that when it takes samples or stops it.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// Rest between two questions to a source that does not know when its next sample comes.
const REST_UNKNOWN: Duration = Duration::from_millis(2);
/// `truncate_to` when no truncation is asked for.
const NO_TRUNCATION: u64 = u64::MAX;

/// What feeder and trainer tell each other. All Relaxed (no memory is reached through any of it), except `dropped`.
pub(super) struct Published {
    /// Trainer to feeder: end.
    pub(super) stop: AtomicBool,
    /// Trainer to feeder: keep the newest so many behind the ring.
    pub(super) truncate_to: AtomicU64,
    /// Samples accepted from the source.
    pub(super) arrived: AtomicU64,
    /// Samples dropped behind the ring.
    pub(super) dropped: AtomicU64,
    /// Samples waiting behind the ring.
    pub(super) behind: AtomicU64,
    /// Those of them on disk.
    pub(super) spilled: AtomicU64,
    /// The source's messages that were no samples.
    pub(super) dead_lettered: AtomicU64,
    /// Samples that wait in front of the source.
    pub(super) lag: AtomicU64,
    /// The source's rate, as bits of an f64.
    rate: AtomicU64,
}

impl Published {
    pub(super) fn new(rate: SamplesPerSec) -> Self {
        Self {
            stop: AtomicBool::new(false),
            truncate_to: AtomicU64::new(NO_TRUNCATION),
            arrived: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            rate: AtomicU64::new(rate.0.to_bits()),
        }
    }

    pub(super) fn rate(&self) -> SamplesPerSec {
        SamplesPerSec(f64::from_bits(self.rate.load(Ordering::Relaxed)))
    }
}

pub(super) struct Feeder {
    source: Box<dyn Source>,
    producer: Producer,
    /// Samples newer than all in the ring.
    behind: PolicyBuffer<StoredSample>,
    published: Arc<Published>,
    epoch: Instant,
}

impl Feeder {
    pub(super) fn new(
        source: Box<dyn Source>,
        producer: Producer,
        behind: PolicyBuffer<StoredSample>,
        published: Arc<Published>,
        epoch: Instant,
    ) -> Self {
        Self { source, producer, behind, published, epoch }
    }

    /// Feeds until told to stop, the trainer is gone, or the source has ended and all its samples are in the ring.
    pub(super) fn run(mut self) -> Result<(), StreamError> {
        let mut ended = false;
        while !self.published.stop.load(Ordering::Relaxed) && !self.producer.is_abandoned() {
            self.truncate();
            self.refill_ring()?;
            let now = self.epoch.elapsed();
            let rate = self.source.rate(now).0.to_bits();
            self.published.rate.store(rate, Ordering::Relaxed);
            self.published.dead_lettered.store(self.source.dead_lettered(), Ordering::Relaxed);
            self.published.lag.store(self.source.lag_samples(), Ordering::Relaxed);
            if ended {
                if self.behind.held() == 0 {
                    break;
                }
                std::thread::park_timeout(LONGEST_REST);
                continue;
            }
            match self.let_in(now)? {
                Poll::Ready => {}
                Poll::NotYet(None) => std::thread::park_timeout(REST_UNKNOWN),
                Poll::NotYet(Some(next)) => {
                    std::thread::park_timeout(next.saturating_sub(now).min(LONGEST_REST));
                }
                Poll::End => ended = true,
            }
        }
        Ok(())
    }

    /// Reads one sample from the source: straight into the ring, or behind it if the ring is full.
    fn let_in(&mut self, now: Duration) -> Result<Poll, StreamError> {
        // The ring may have got room since `refill_ring`, but older samples go first.
        if self.behind.held() == 0
            && let Some(mut slot) = self.producer.write_slot()
        {
            let mut sample = SampleSlot { pixels: slot.pixels_mut(), meta: SampleMeta::default() };
            let answer = self.source.poll(now, &mut sample)?;
            if answer == Poll::Ready {
                let meta = sample.meta;
                // Before the commit, whose Release store shows it to the trainer along with the sample.
                self.published.arrived.fetch_add(1, Ordering::Relaxed);
                slot.commit(meta);
            }
            return Ok(answer);
        }
        let mut stored =
            StoredSample { pixels: vec![0; self.producer.pixel_bytes()].into(), meta: SampleMeta::default() };
        let mut sample = SampleSlot { pixels: &mut stored.pixels, meta: SampleMeta::default() };
        let answer = self.source.poll(now, &mut sample)?;
        if answer == Poll::Ready {
            stored.meta = sample.meta;
            self.behind.push(stored).map_err(BufferError::from)?;
            self.published.arrived.fetch_add(1, Ordering::Relaxed);
            self.count();
        }
        Ok(answer)
    }

    /// Moves samples from behind the ring into it while there is room.
    fn refill_ring(&mut self) -> Result<(), StreamError> {
        while self.behind.held() > 0
            && let Some(slot) = self.producer.write_slot()
        {
            let mut slot = Some(slot);
            self.behind.take(1, &mut |stored| {
                if let Some(mut slot) = slot.take() {
                    slot.pixels_mut().copy_from_slice(&stored.pixels);
                    slot.commit(stored.meta);
                }
            })?;
            self.count();
        }
        Ok(())
    }

    fn truncate(&mut self) {
        let keep = self.published.truncate_to.swap(NO_TRUNCATION, Ordering::Relaxed);
        if keep != NO_TRUNCATION {
            self.behind.after_step(usize::try_from(keep).unwrap_or(usize::MAX));
            self.count();
        }
    }

    /// Publishes the totals of the buffer behind the ring.
    fn count(&self) {
        let totals = self.behind.counters();
        self.published.behind.store(totals.occupancy_samples, Ordering::Relaxed);
        self.published.spilled.store(totals.spilled_samples, Ordering::Relaxed);
        // Release: pairs with the Acquire load in `LiveStream::counters`; `arrived` counted these samples before.
        self.published.dropped.store(totals.dropped, Ordering::Release);
    }
}

/// A sample behind the ring, on its own memory.
pub(super) struct StoredSample {
    pixels: Box<[u8]>,
    meta: SampleMeta,
}

impl Item for StoredSample {
    fn stored_bytes(&self) -> u64 {
        sample_bytes(self.pixels.len())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.meta.label.to_le_bytes());
        out.extend_from_slice(&self.meta.offset.to_le_bytes());
        out.extend_from_slice(&self.meta.arrival_ns.to_le_bytes());
        out.extend_from_slice(&self.pixels);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (label, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (arrival_ns, pixels) = rest.split_first_chunk()?;
        let meta = SampleMeta {
            label: u32::from_le_bytes(*label),
            offset: u64::from_le_bytes(*offset),
            arrival_ns: u64::from_le_bytes(*arrival_ns),
        };
        Some(Self { pixels: pixels.into(), meta })
    }
}
