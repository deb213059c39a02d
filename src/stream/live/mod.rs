//! A device's stream on the wall clock: a thread feeds a lock-free ring, the trainer reads from it in place.

mod feeder;

use super::policy::{Policy, PolicyBuffer};
use super::ring::{Consumer, ring};
use super::source::Source;
use super::virtual_stream::{sample_bytes, truncation_keep};
use super::{DeviceStream, SampleView, StreamCounters, StreamError};
use crate::train::config::{BufferConfig, BufferPolicy};
use crate::units::{Bytes, SamplesPerSec};
use feeder::{Feeder, Published};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a live stream is set up.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Samples in the ring: at least the largest batch, so that one batch can be held at once.
    pub ring_samples: usize,
    /// Buffer rule and its limits; the ring counts towards the memory cap.
    pub buffer: BufferConfig,
    /// Seed of the run.
    pub seed: u64,
    /// Device, from 0.
    pub device: u64,
    /// Cluster time 0.
    pub epoch: Instant,
}

/// Samples that arrive in real time. Its own thread reads the source into the ring; what the full ring cannot take waits
/// in a [`PolicyBuffer`] of that thread, under the same policy. Dropping the stream stops and joins the thread.
///
/// - Persistence keeps the order: the ring holds the oldest, then memory, then disk.
/// - Truncation drops in the ring and, by the feeder's hand a moment later, behind it; a sample that the feeder is
///   moving just then may stay on top of `keep`.
/// - Reservoir: the ring holds samples already chosen; the random subset is kept of those behind it.
///
/// [`DeviceStream::held`] counts what is in the ring; samples behind it count in the occupancy.
pub struct LiveStream {
    consumer: Consumer,
    published: Arc<Published>,
    feeder: FeederThread,
    held: usize,
    taken: u64,
    sample_bytes: u64,
    options: LiveOptions,
}

enum FeederThread {
    Running(JoinHandle<Result<(), StreamError>>),
    /// The source has ended and everything is in the ring.
    Ended,
    /// Its error has been returned.
    Failed,
}

/// Bounds of one sleep while waiting for samples: long enough not to spin, short against a step.
const SLEEP: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

impl LiveStream {
    /// Starts the thread that feeds the ring from `source`.
    ///
    /// # Errors
    /// [`StreamError::RingOverCap`], [`StreamError::Ring`], [`StreamError::Spawn`], or a spill folder that does not
    /// exist.
    pub fn spawn(source: Box<dyn Source>, options: LiveOptions) -> Result<Self, StreamError> {
        let sample_bytes = sample_bytes(source.pixel_bytes());
        let cap_bytes = Bytes::mib(options.buffer.memory_cap_mib).0;
        let ring_bytes = sample_bytes.saturating_mul(options.ring_samples as u64);
        if ring_bytes.saturating_add(sample_bytes) > cap_bytes {
            return Err(StreamError::RingOverCap { ring_bytes, cap_bytes });
        }
        let (producer, consumer) = ring(options.ring_samples, source.pixel_bytes())?;
        let policy = Policy::from_config(&options.buffer, options.seed, options.device);
        let behind = PolicyBuffer::new(cap_bytes - ring_bytes, policy)?;
        let published = Arc::new(Published::new(source.rate(Duration::ZERO)));
        let feeder = Feeder::new(source, producer, behind, Arc::clone(&published), options.epoch);
        let handle = std::thread::Builder::new()
            .name(format!("feeder-{}", options.device))
            .spawn(move || feeder.run())
            .map_err(|source| StreamError::Spawn { device: options.device, source })?;
        let feeder = FeederThread::Running(handle);
        Ok(Self { consumer, published, feeder, held: 0, taken: 0, sample_bytes, options })
    }

    /// Updates `held`; returns whether no sample will come any more.
    fn look(&mut self) -> Result<bool, StreamError> {
        // In this order: after "abandoned" the number of samples is final.
        let last = self.consumer.is_abandoned();
        self.check_feeder(last)?;
        self.held = self.consumer.slots();
        Ok(last)
    }

    /// Joins the feeder if it has finished, and returns what made it fail. One that is `gone` from the ring is about to
    /// finish and waited for: a failure must not pass for the end of the stream.
    fn check_feeder(&mut self, gone: bool) -> Result<(), StreamError> {
        let device = self.options.device;
        match std::mem::replace(&mut self.feeder, FeederThread::Failed) {
            FeederThread::Running(handle) if gone || handle.is_finished() => match handle.join() {
                Ok(result) => result?,
                Err(panic) => {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
                    let message = message.unwrap_or_else(|| "without a message".into());
                    return Err(StreamError::FeederPanicked { device, message });
                }
            },
            FeederThread::Failed => return Err(StreamError::Failed { device }),
            unchanged => {
                self.feeder = unchanged;
                return Ok(());
            }
        }
        self.feeder = FeederThread::Ended;
        Ok(())
    }

    fn wake_feeder(&self) {
        if let FeederThread::Running(handle) = &self.feeder {
            handle.thread().unpark();
        }
    }
}

impl DeviceStream for LiveStream {
    fn held(&self) -> usize {
        self.held
    }

    fn advance(&mut self, _now: Duration) -> Result<(), StreamError> {
        self.look().map(|_| ())
    }

    fn wait_for(&mut self, want: usize, now: Duration, deadline: Duration) -> Result<Duration, StreamError> {
        let want = want.min(self.consumer.capacity());
        loop {
            let last = self.look()?;
            let time = self.options.epoch.elapsed().max(now);
            if self.held >= want || last || time >= deadline {
                return Ok(time);
            }
            // Half the time that the missing samples should take: a few looks per wait, none far too late.
            let missing = (want - self.held) as f64;
            let expected = Duration::try_from_secs_f64(missing / self.rate(time).0 / 2.0).unwrap_or(SLEEP.1);
            std::thread::sleep(expected.clamp(SLEEP.0, SLEEP.1).min(deadline - time));
        }
    }

    fn next_arrival(&self) -> Option<Duration> {
        None
    }

    fn take(&mut self, n: usize, visit: &mut dyn FnMut(SampleView<'_>)) -> Result<usize, StreamError> {
        let chunk = self.consumer.read_chunk(n);
        let taken = chunk.len();
        chunk.iter().for_each(|(pixels, meta)| visit(SampleView::new(pixels, meta)));
        chunk.commit_all();
        self.taken += taken as u64;
        self.held = self.held.saturating_sub(taken);
        self.wake_feeder();
        Ok(taken)
    }

    fn after_step(&mut self, now: Duration) -> Result<(), StreamError> {
        self.keep_newest(truncation_keep(self.options.buffer.keep, self.rate(now)));
        self.look().map(|_| ())
    }

    fn oldest_arrival(&mut self) -> Option<Duration> {
        // Dropped without a commit, the chunk stays in the ring.
        self.consumer.read_chunk(1).iter().next().map(|(_, meta)| meta.arrival())
    }

    fn keep_newest(&mut self, keep: usize) {
        if self.options.buffer.policy == BufferPolicy::Truncation {
            // The newest wait behind the ring, if any do.
            let behind = self.published.behind.load(Ordering::Relaxed) as usize;
            self.consumer.discard_all_but(keep.saturating_sub(behind));
            self.published.truncate_to.store(keep as u64, Ordering::Relaxed);
            self.wake_feeder();
        }
    }

    fn rate(&self, _now: Duration) -> SamplesPerSec {
        self.published.rate()
    }

    fn counters(&self) -> StreamCounters {
        // Acquire: pairs with the Release store in `Published::count`, so `arrived` counts all that `dropped` does.
        let behind_dropped = self.published.dropped.load(Ordering::Acquire);
        let arrived = self.published.arrived.load(Ordering::Relaxed);
        let dropped = behind_dropped + self.consumer.counters().discarded;
        // What the feeder is moving this instant is in neither place, but still held: so held is what is left.
        let occupancy_samples = arrived - self.taken - dropped;
        let spilled_samples = self.published.spilled.load(Ordering::Relaxed).min(occupancy_samples);
        StreamCounters {
            arrived,
            taken: self.taken,
            dropped,
            occupancy_samples,
            occupancy_bytes: occupancy_samples * self.sample_bytes,
            memory_bytes: (occupancy_samples - spilled_samples) * self.sample_bytes,
            spilled_samples,
            dead_lettered: self.published.dead_lettered.load(Ordering::Relaxed),
            lag_samples: self.published.lag.load(Ordering::Relaxed),
        }
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        self.published.stop.store(true, Ordering::Relaxed);
        self.wake_feeder();
        if let FeederThread::Running(handle) = std::mem::replace(&mut self.feeder, FeederThread::Ended) {
            // Whoever drops the stream no longer asks how its thread ended, and a drop must not panic.
            let _ = handle.join();
        }
    }
}
