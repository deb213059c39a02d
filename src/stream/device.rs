//! A device's stream as the trainer sees it, whatever the clock.

use crate::stream::{StreamError, ring::SampleMeta};
use crate::units::SamplesPerSec;
use std::time::Duration;

/// One held sample, lent.
#[derive(Clone, Copy, Debug)]
pub struct SampleView<'a> {
    /// The image as stored, `pixel_bytes` bytes.
    pub pixels: &'a [u8],
    /// Class.
    pub label: u32,
    /// Position in its source, from 0.
    pub offset: u64,
    /// Cluster time of arrival.
    pub arrival: Duration,
}

impl<'a> SampleView<'a> {
    /// A view of `pixels` and what travels with them.
    pub fn new(pixels: &'a [u8], meta: SampleMeta) -> Self {
        Self { pixels, label: meta.label, offset: meta.offset, arrival: meta.arrival() }
    }
}

/// Totals of a device's stream. Always `arrived == taken + dropped + occupancy_samples`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Samples let in so far.
    pub arrived: u64,
    /// Samples handed out so far.
    pub taken: u64,
    /// Samples dropped by the buffer policy so far.
    pub dropped: u64,
    /// Samples held now, in memory or on disk.
    pub occupancy_samples: u64,
    /// Bytes of those samples.
    pub occupancy_bytes: u64,
    /// Bytes of those samples that are in memory; at most the buffer's cap.
    pub memory_bytes: u64,
    /// Samples on disk now.
    pub spilled_samples: u64,
    /// Messages so far that were no samples; they do not count as arrived.
    pub dead_lettered: u64,
    /// Samples that have not arrived yet but wait in the system outside, as far as it tells.
    pub lag_samples: u64,
}

/// Samples of one device: what has arrived, what is held, what is handed to training.
///
/// All times are cluster times, counted from the start of the run. Implemented by [`crate::stream::VirtualStream`]
/// (computed time) and [`crate::stream::LiveStream`] (wall clock).
pub trait DeviceStream: Send {
    /// Samples that [`Self::take`] can hand out, as of the last `advance` or `wait_for`.
    fn held(&self) -> usize;

    /// Lets in everything that has arrived by `now`.
    fn advance(&mut self, now: Duration) -> Result<(), StreamError>;

    /// Lets samples in until `want` are held, and returns the time at which that is so: `now` if they already are,
    /// never later than `deadline` (a cluster time, taken as `now` if earlier). On return everything that arrived by
    /// the returned time is let in, and the caller looks at [`Self::held`], since fewer than `want` are held
    /// - when the deadline came first (the deadline is returned),
    /// - when the stream has ended, or the buffer holds all it can: then without any further wait.
    fn wait_for(&mut self, want: usize, now: Duration, deadline: Duration) -> Result<Duration, StreamError>;

    /// When the next sample arrives, if that is known now: in computed time, as long as the stream goes on.
    fn next_arrival(&self) -> Option<Duration>;

    /// Hands `n` held samples (fewer if fewer are held) to `visit` without copying pixels, then removes them; returns
    /// how many. The oldest first, except under the reservoir policy, which hands out a random subset.
    fn take(&mut self, n: usize, visit: &mut dyn FnMut(SampleView<'_>)) -> Result<usize, StreamError>;

    /// Ends a step: applies the buffer policy to what is left over.
    fn after_step(&mut self, now: Duration) -> Result<(), StreamError>;

    /// Drops all held samples but the newest `keep`, under truncation; the other policies do not drop by age.
    fn keep_newest(&mut self, keep: usize);

    /// When the oldest sample arrived that is held in memory; none if none is. Live streams look in the ring only, where
    /// the oldest are, except under the reservoir policy, which has no order behind it.
    fn oldest_arrival(&mut self) -> Option<Duration>;

    /// Rate for the batch rule `b_i = S_i`.
    fn rate(&self, now: Duration) -> SamplesPerSec;

    /// Totals so far.
    fn counters(&self) -> StreamCounters;
}
