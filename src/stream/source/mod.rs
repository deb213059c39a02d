//! Where samples come from: something that yields them with arrival time and offset, and never blocks.

mod replay;
mod socket;

pub use replay::{ReplaySource, SampleRef, Samples};
pub use socket::{SocketOptions, SocketSource};

use crate::stream::ring::SampleMeta;
use crate::units::SamplesPerSec;
use std::time::Duration;

/// Place for one sample: pixels to fill in, and what travels with them.
pub struct SampleSlot<'a> {
    /// Exactly [`Source::pixel_bytes`] bytes, filled by the source.
    pub pixels: &'a mut [u8],
    /// Set by the source.
    pub meta: SampleMeta,
}

/// Answer of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The slot holds the next sample.
    Ready,
    /// No sample has arrived; the time of the next one, where the source knows it.
    NotYet(Option<Duration>),
    /// No sample will ever arrive again.
    End,
}

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A device without samples to replay.
    #[error("device {device} has no samples to replay: its partition is empty")]
    EmptyPartition {
        /// Device, from 0.
        device: u64,
    },
    /// A partition points outside the data set.
    #[error("device {device} is given sample {index}, the data set has {len}")]
    Index {
        /// Device, from 0.
        device: u64,
        /// As given.
        index: u32,
        /// Samples of the data set.
        len: usize,
    },
    /// What an outside system reported (a broker, a folder).
    #[error("source {name}: {reason}")]
    Outside {
        /// Address or path.
        name: String,
        /// Its error.
        #[source]
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A stream of samples in order of arrival. No call blocks: a source that waits for the network answers "not yet".
pub trait Source: Send {
    /// Bytes of one sample's pixels.
    fn pixel_bytes(&self) -> usize;

    /// When the next sample arrives; none if unknown or never. Does not consume it.
    fn next_arrival(&mut self) -> Result<Option<Duration>, SourceError>;

    /// Fills `slot` with the next sample if it has arrived by `now` (cluster time).
    fn poll(&mut self, now: Duration, slot: &mut SampleSlot<'_>) -> Result<Poll, SourceError>;

    /// Messages so far that were no samples and have been put aside with the reason.
    fn dead_lettered(&self) -> u64 {
        0
    }

    /// Samples that wait in the system outside, as far as it tells.
    fn lag_samples(&self) -> u64 {
        0
    }

    /// Expected or measured rate.
    fn rate(&self, now: Duration) -> SamplesPerSec;
}
