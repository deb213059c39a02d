//! Lock-free ring of fixed-size samples between one producer and one consumer thread.
//!
//! Storage is a structure of arrays, `pixels: capacity * pixel_bytes` bytes and one [`SampleMeta`] per slot, so that a
//! batch is read in place: [`Consumer::read_chunk`] lends the pixels, [`ReadChunk::commit`] gives the slots back.
//! Neither side ever waits for the other: a full ring refuses, an empty one has nothing to lend.
//!
//! # What the other thread may change meanwhile
//!
//! `head` counts samples released, `tail` samples pushed; both only grow (u64, no wrap-around in any run), sample
//! number `i` lives in slot `i % capacity`, and `head <= tail <= head + capacity` at all times.
//!
//! - Only the producer stores `tail`, only the consumer stores `head`; each knows its own exactly.
//! - Seen from the producer, `head` may be stale, and a stale `head` is too small: the ring looks fuller than it is, so
//!   a slot that looks free is free. Slots `tail..head + capacity` belong to the producer until it stores `tail`.
//! - Seen from the consumer, `tail` may be stale, and a stale `tail` is too small: the ring looks emptier than it is, so
//!   a sample that looks present is present. Slots `head..tail` belong to the consumer until it stores `head`.
//! - So a slot always has one owner. It changes hands by a release store of an index and an acquire load of the same
//!   index on the other side; whatever the old owner did to the slot happens before anything the new owner does.
//! - Each side keeps a copy of the other's index and reloads it only when the copy says "full" or "too few": in the
//!   steady state the two cache lines stay with their owners.
//!
//! `tests/ring_loom.rs` checks this in every interleaving of small models.
//!
//! # Example
//! ```
//! use scadles::stream::ring::{SampleMeta, ring};
//! let (mut producer, mut consumer) = ring(4, 2)?;
//! producer.push(&[7, 8], SampleMeta { label: 3, offset: 0, arrival_ns: 1_000 })?;
//! let chunk = consumer.read_chunk(64);
//! for (pixels, meta) in chunk.iter() {
//!     assert_eq!((pixels, meta.label), (&[7, 8][..], 3));
//! }
//! chunk.commit_all();
//! assert_eq!(consumer.counters().popped, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod consumer;
mod producer;
mod shared;

pub use consumer::{Consumer, ReadChunk};
pub use producer::{Producer, WriteSlot};

use crate::stream::sync::Arc;
use shared::Shared;
use std::time::Duration;

/// What travels with the pixels of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleMeta {
    /// Class.
    pub label: u32,
    /// Position in its source, from 0.
    pub offset: u64,
    /// Cluster time of arrival, nanoseconds.
    pub arrival_ns: u64,
}

impl SampleMeta {
    /// Cluster time of arrival.
    pub fn arrival(&self) -> Duration {
        Duration::from_nanos(self.arrival_ns)
    }
}

/// Totals since the ring was made. Each number is exact on the side that counts it (`pushed`, `rejected`: producer;
/// `popped`, `discarded`: consumer); the other side may see it late, never too large. Always
/// `pushed == popped + discarded + len`, read on a ring at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Samples put in.
    pub pushed: u64,
    /// Samples read and released.
    pub popped: u64,
    /// Samples dropped by [`Consumer::discard_all_but`].
    pub discarded: u64,
    /// [`Producer::push`] calls refused because the ring was full.
    pub rejected: u64,
}

/// Why a ring cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// No room for a single sample.
    #[error(
        "a ring needs room for at least 1 sample of at least 1 byte, not {capacity} of {pixel_bytes} bytes"
    )]
    Empty {
        /// Requested samples.
        capacity: usize,
        /// Requested bytes of one sample.
        pixel_bytes: usize,
    },
    /// More memory than can be addressed or had.
    #[error("no memory for a ring of {capacity} samples of {pixel_bytes} bytes; lower its capacity")]
    OutOfMemory {
        /// Requested samples.
        capacity: usize,
        /// Requested bytes of one sample.
        pixel_bytes: usize,
    },
}

/// Why a sample was not pushed; the pixels were only borrowed, so nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// All slots hold samples.
    #[error("the ring is full ({capacity} samples)")]
    Full {
        /// Samples the ring can hold.
        capacity: usize,
    },
    /// The consumer is gone: no push can ever be read.
    #[error("the consumer of the ring is gone")]
    Abandoned,
    /// The ring holds samples of another size.
    #[error("a sample of {found} bytes for a ring of {expected}-byte samples")]
    PixelBytes {
        /// Bytes of one sample of this ring.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}

/// A ring for `capacity` samples of `pixel_bytes` bytes each; all memory is allocated here.
///
/// # Errors
/// [`RingError::Empty`] if either is 0, [`RingError::OutOfMemory`] if they multiply to more than there is.
pub fn ring(capacity: usize, pixel_bytes: usize) -> Result<(Producer, Consumer), RingError> {
    let shared = Arc::new(Shared::new(capacity, pixel_bytes)?);
    Ok((Producer::new(Arc::clone(&shared)), Consumer::new(shared)))
}
