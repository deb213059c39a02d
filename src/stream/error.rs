//! What can go wrong between a source and the trainer.

use super::policy::BufferError;
use super::rates::RateError;
use super::ring::RingError;
use super::source::SourceError;

/// A device's stream failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Its rates or arrival process.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// Its source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its buffer.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// Its ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A live stream's ring leaves no room for a sample in the memory that its buffer may use.
    #[error(
        "a ring of {ring_bytes} bytes in a buffer capped at {cap_bytes}; raise buffer.memory-cap-mib or lower batch.max"
    )]
    RingOverCap {
        /// Bytes of the ring's samples.
        ring_bytes: u64,
        /// Cap of the buffer.
        cap_bytes: u64,
    },
    /// The thread that feeds the ring could not be started.
    #[error("no thread to feed the ring of device {device}: {source}")]
    Spawn {
        /// Device, from 0.
        device: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread that feeds the ring panicked.
    #[error("the thread that feeds the ring of device {device} panicked: {message}")]
    FeederPanicked {
        /// Device, from 0.
        device: u64,
        /// Its message.
        message: String,
    },
    /// An earlier call already returned why this stream failed.
    #[error("the stream of device {device} has failed before")]
    Failed {
        /// Device, from 0.
        device: u64,
    },
}
