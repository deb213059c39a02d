//! A device's share of a data set, replayed for ever at an arrival process.

use super::{Poll, SampleSlot, Source, SourceError};
use crate::rng::{Philox, Stream};
use crate::stream::rates::Arrivals;
use crate::stream::ring::SampleMeta;
use crate::units::SamplesPerSec;
use std::sync::Arc;
use std::time::Duration;

/// A data set to replay: images of one size with labels. Indices are `0..len`.
pub trait Samples: Send + Sync {
    /// Samples of the data set.
    fn len(&self) -> usize;
    /// Whether it holds none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of one image.
    fn pixel_bytes(&self) -> usize;
    /// One image, `pixel_bytes` bytes.
    fn pixels(&self, index: u32) -> &[u8];
    /// Its class.
    fn label(&self, index: u32) -> u32;
}

/// A replayed sample by reference: 24 bytes that stand for an image in the shared data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRef {
    /// Index in the data set.
    pub index: u32,
    /// Position in the stream, from 0.
    pub offset: u64,
    /// Cluster time of arrival.
    pub arrival: Duration,
}

/// Replays the samples of one device's partition, in a new random order each epoch, each at its arrival time.
pub struct ReplaySource {
    samples: Arc<dyn Samples>,
    partition: Vec<u32>,
    /// The partition in the order of the present epoch.
    order: Vec<u32>,
    arrivals: Arrivals,
    /// Arrival of the sample at `offset`; none when the arrival process has ended.
    next_arrival: Option<Duration>,
    offset: u64,
    seed: u64,
    device: u64,
}

impl ReplaySource {
    /// Replays `partition`, indices into `samples`, as device number `device`.
    ///
    /// # Errors
    /// [`SourceError::EmptyPartition`], [`SourceError::Index`].
    pub fn new(
        samples: Arc<dyn Samples>,
        partition: Vec<u32>,
        mut arrivals: Arrivals,
        seed: u64,
        device: u64,
    ) -> Result<Self, SourceError> {
        if partition.is_empty() {
            return Err(SourceError::EmptyPartition { device });
        }
        if let Some(&index) = partition.iter().find(|index| **index as usize >= samples.len()) {
            return Err(SourceError::Index { device, index, len: samples.len() });
        }
        let next_arrival = arrivals.next();
        let order = partition.clone();
        Ok(Self { samples, partition, order, arrivals, next_arrival, offset: 0, seed, device })
    }

    /// The data set.
    pub fn samples(&self) -> &Arc<dyn Samples> {
        &self.samples
    }

    /// When the next sample arrives; none if never.
    pub fn peek(&self) -> Option<Duration> {
        self.next_arrival
    }

    /// The next sample if it has arrived by `now`.
    pub fn next_ref(&mut self, now: Duration) -> Option<SampleRef> {
        let arrival = self.next_arrival.filter(|arrival| *arrival <= now)?;
        let position = (self.offset % self.order.len() as u64) as usize;
        if position == 0 {
            self.begin_epoch(self.offset / self.order.len() as u64);
        }
        let sample = SampleRef { index: self.order[position], offset: self.offset, arrival };
        self.offset += 1;
        self.next_arrival = self.arrivals.next();
        Some(sample)
    }

    /// Expected rate.
    pub fn rate(&self, now: Duration) -> SamplesPerSec {
        self.arrivals.rate_at(now)
    }

    /// The order of an epoch depends on `(seed, device, epoch)` only, not on the epochs before.
    fn begin_epoch(&mut self, epoch: u64) {
        self.order.copy_from_slice(&self.partition);
        let index = self.device << 32 | epoch & 0xffff_ffff;
        Philox::new(self.seed, Stream::Replay, index).shuffle(&mut self.order);
    }
}

impl Source for ReplaySource {
    fn pixel_bytes(&self) -> usize {
        self.samples.pixel_bytes()
    }

    fn next_arrival(&mut self) -> Result<Option<Duration>, SourceError> {
        Ok(self.peek())
    }

    fn poll(&mut self, now: Duration, slot: &mut SampleSlot<'_>) -> Result<Poll, SourceError> {
        let Some(sample) = self.next_ref(now) else {
            return Ok(self.peek().map_or(Poll::End, |next| Poll::NotYet(Some(next))));
        };
        slot.pixels.copy_from_slice(self.samples.pixels(sample.index));
        slot.meta = SampleMeta {
            label: self.samples.label(sample.index),
            offset: sample.offset,
            arrival_ns: u64::try_from(sample.arrival.as_nanos())
                .expect("arrivals end before u64 nanoseconds do"),
        };
        Ok(Poll::Ready)
    }

    fn rate(&self, now: Duration) -> SamplesPerSec {
        ReplaySource::rate(self, now)
    }
}
