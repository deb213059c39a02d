//! A device's stream in computed time: no threads, exactly reproducible.

use super::policy::{BufferError, Item, Policy, PolicyBuffer};
use super::ring::SampleMeta;
use super::source::{ReplaySource, SampleRef, Samples};
use super::{DeviceStream, SampleView, StreamCounters, StreamError};
use crate::train::config::BufferConfig;
use crate::units::{Bytes, SamplesPerSec};
use std::sync::Arc;
use std::time::Duration;

/// Samples that arrive in computed time. It holds references into the shared data set, and counts, caps and spills them
/// as the images that a real device would hold: `pixel_bytes` plus the size of a [`SampleMeta`] each.
pub struct VirtualStream {
    source: ReplaySource,
    samples: Arc<dyn Samples>,
    buffer: PolicyBuffer<HeldRef>,
    sample_bytes: u64,
    /// Samples kept by truncation; 0: what one second brings.
    keep: usize,
}

impl VirtualStream {
    /// The stream of device number `device`, with the buffer that `config` describes; `seed` moves a reservoir's choices.
    ///
    /// # Errors
    /// [`BufferError`]: a cap below one sample, a spill folder that does not exist.
    pub fn new(
        source: ReplaySource,
        config: &BufferConfig,
        seed: u64,
        device: u64,
    ) -> Result<Self, StreamError> {
        let samples = Arc::clone(source.samples());
        let sample_bytes = sample_bytes(samples.pixel_bytes());
        let cap_bytes = Bytes::mib(config.memory_cap_mib).0;
        if cap_bytes < sample_bytes {
            return Err(BufferError::CapTooSmall { item_bytes: sample_bytes, cap_bytes }.into());
        }
        let buffer = PolicyBuffer::new(cap_bytes, Policy::from_config(config, seed, device))?;
        Ok(Self { source, samples, buffer, sample_bytes, keep: config.keep })
    }

    /// Lets the next sample in if it has arrived by `now`.
    fn let_in(&mut self, now: Duration) -> Result<bool, StreamError> {
        let Some(sample) = self.source.next_ref(now) else { return Ok(false) };
        self.buffer.push(HeldRef { sample, bytes: self.sample_bytes }).map_err(BufferError::from)?;
        Ok(true)
    }
}

impl DeviceStream for VirtualStream {
    fn held(&self) -> usize {
        self.buffer.held()
    }

    fn advance(&mut self, now: Duration) -> Result<(), StreamError> {
        while self.let_in(now)? {}
        Ok(())
    }

    fn wait_for(&mut self, want: usize, now: Duration, deadline: Duration) -> Result<Duration, StreamError> {
        self.advance(now)?;
        let want = self.buffer.most_items(self.sample_bytes).map_or(want, |most| want.min(most));
        let mut time = now;
        while self.held() < want {
            match self.source.peek() {
                Some(next) if next <= deadline => {
                    // With it everything that arrives at the same instant.
                    self.advance(next)?;
                    time = next;
                }
                Some(_) => return Ok(deadline.max(now)),
                None => break,
            }
        }
        Ok(time)
    }

    fn next_arrival(&self) -> Option<Duration> {
        self.source.peek()
    }

    fn take(&mut self, n: usize, visit: &mut dyn FnMut(SampleView<'_>)) -> Result<usize, StreamError> {
        let samples = &self.samples;
        let taken = self.buffer.take(n, &mut |held| {
            let SampleRef { index, offset, arrival } = held.sample;
            visit(SampleView { pixels: samples.pixels(index), label: samples.label(index), offset, arrival });
        })?;
        Ok(taken)
    }

    fn after_step(&mut self, now: Duration) -> Result<(), StreamError> {
        self.advance(now)?;
        self.buffer.after_step(truncation_keep(self.keep, self.source.rate(now)));
        Ok(())
    }

    fn oldest_arrival(&mut self) -> Option<Duration> {
        self.buffer.oldest(|held| held.sample.arrival)
    }

    fn keep_newest(&mut self, keep: usize) {
        self.buffer.after_step(keep);
    }

    fn rate(&self, now: Duration) -> SamplesPerSec {
        self.source.rate(now)
    }

    fn counters(&self) -> StreamCounters {
        self.buffer.counters()
    }
}

/// Bytes that a device holds for one waiting sample.
pub(super) fn sample_bytes(pixel_bytes: usize) -> u64 {
    (pixel_bytes + size_of::<SampleMeta>()) as u64
}

/// Samples kept by truncation: `keep`, or, if that is 0, what one second brings.
pub(super) fn truncation_keep(keep: usize, rate: SamplesPerSec) -> usize {
    if keep == 0 { rate.0.ceil() as usize } else { keep }
}

/// A reference with the bytes it stands for.
#[derive(Debug)]
struct HeldRef {
    sample: SampleRef,
    bytes: u64,
}

impl Item for HeldRef {
    fn stored_bytes(&self) -> u64 {
        self.bytes
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let arrival_ns = self.sample.arrival.as_nanos() as u64;
        out.extend_from_slice(&self.sample.index.to_le_bytes());
        for word in [self.sample.offset, arrival_ns, self.bytes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (index, words) = bytes.split_first_chunk::<4>()?;
        let (words, []) = words.as_chunks::<8>() else { return None };
        let [offset, arrival_ns, bytes] = *words else { return None };
        let sample = SampleRef {
            index: u32::from_le_bytes(*index),
            offset: u64::from_le_bytes(offset),
            arrival: Duration::from_nanos(u64::from_le_bytes(arrival_ns)),
        };
        Some(Self { sample, bytes: u64::from_le_bytes(bytes) })
    }
}
