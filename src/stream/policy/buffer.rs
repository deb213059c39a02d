//! The buffer itself: items in memory under one of the policies, counted.

use super::spill::SpillQueue;
use super::{BufferError, Item};
use crate::rng::{Philox, Stream};
use crate::stream::StreamCounters;
use crate::train::config::{BufferConfig, BufferPolicy};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Samples kept by a reservoir whose configuration says 0.
const DEFAULT_RESERVOIR: usize = 1024;

/// What happens to items that are not taken in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All are kept; those beyond the cap in files under `spill_dir` (none: the system's temporary folder).
    Persistence {
        /// An existing folder.
        spill_dir: Option<PathBuf>,
    },
    /// The newest are kept.
    Truncation,
    /// A random subset is kept.
    Reservoir {
        /// Its size, at least 1.
        keep: usize,
        /// Seed of the run.
        seed: u64,
        /// Device, from 0.
        device: u64,
    },
}

impl Policy {
    /// The policy that a configuration asks for on one device.
    pub fn from_config(config: &BufferConfig, seed: u64, device: u64) -> Self {
        match config.policy {
            BufferPolicy::Persistence => Self::Persistence { spill_dir: config.spill_dir.clone() },
            BufferPolicy::Truncation => Self::Truncation,
            BufferPolicy::Reservoir => {
                let keep = if config.keep == 0 { DEFAULT_RESERVOIR } else { config.keep };
                Self::Reservoir { keep, seed, device }
            }
        }
    }
}

/// An item that a buffer could not take, handed back with the reason.
#[derive(Debug)]
pub struct Refused<T> {
    /// The item; it does not count as arrived.
    pub item: T,
    /// Why.
    pub error: BufferError,
}

impl<T> From<Refused<T>> for BufferError {
    fn from(refused: Refused<T>) -> Self {
        refused.error
    }
}

/// Items waiting for training, under a [`Policy`], in at most `cap_bytes` of memory.
///
/// The reservoir holds, between two calls of [`Self::take`], a uniform random subset (Vitter's algorithm R) of its
/// *candidates*: what was held after the last take, and everything that has arrived since. It hands out a uniform random
/// subset of itself, so what stays behind is no older and no newer than chance would have it. Uniformity supposes items
/// of one size; memory for fewer than `keep` makes the subset smaller.
///
/// # Example
/// ```
/// use scadles::stream::policy::{Item, Policy, PolicyBuffer};
///
/// struct Reading(u8);
/// impl Item for Reading {
///     fn stored_bytes(&self) -> u64 { 100 }
///     fn encode(&self, out: &mut Vec<u8>) { out.push(self.0) }
///     fn decode(bytes: &[u8]) -> Option<Self> { bytes.first().map(|byte| Self(*byte)) }
/// }
///
/// // Memory for three items: the other seven wait on disk.
/// let mut buffer = PolicyBuffer::new(300, Policy::Persistence { spill_dir: None })?;
/// for byte in 0..10 {
///     buffer.push(Reading(byte)).map_err(|refused| refused.error)?;
/// }
/// assert_eq!(buffer.counters().spilled_samples, 7);
/// let mut order = Vec::new();
/// buffer.take(10, &mut |reading| order.push(reading.0))?;
/// assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PolicyBuffer<T> {
    kind: Kind,
    cap_bytes: u64,
    /// Oldest first; the reservoir has no order.
    memory: VecDeque<T>,
    memory_bytes: u64,
    arrived: u64,
    taken: u64,
    dropped: u64,
}

#[derive(Debug)]
enum Kind {
    Persistence(Spilled),
    Truncation,
    Reservoir { keep: usize, rng: Philox, candidates: u32 },
}

/// Items behind those in memory.
#[derive(Debug)]
struct Spilled {
    queue: SpillQueue,
    bytes: u64,
    scratch: Vec<u8>,
}

impl<T: Item> PolicyBuffer<T> {
    /// An empty buffer.
    ///
    /// # Errors
    /// [`BufferError::SpillDir`] if the folder for spilled samples does not exist.
    pub fn new(cap_bytes: u64, policy: Policy) -> Result<Self, BufferError> {
        let kind = match policy {
            Policy::Persistence { spill_dir } => {
                let queue = SpillQueue::new(spill_dir.as_deref())?;
                Kind::Persistence(Spilled { queue, bytes: 0, scratch: Vec::new() })
            }
            Policy::Truncation => Kind::Truncation,
            Policy::Reservoir { keep, seed, device } => Kind::Reservoir {
                keep: keep.max(1),
                rng: Philox::new(seed, Stream::Reservoir, device),
                candidates: 0,
            },
        };
        let memory = VecDeque::new();
        Ok(Self { kind, cap_bytes, memory, memory_bytes: 0, arrived: 0, taken: 0, dropped: 0 })
    }

    /// Lets an item in; other items may be dropped for it, or the item itself, as the policy says.
    ///
    /// # Errors
    /// The item comes back with [`BufferError::CapTooSmall`] or a failure to write it to disk; the buffer is as before.
    pub fn push(&mut self, item: T) -> Result<(), Refused<T>> {
        let item_bytes = item.stored_bytes();
        if item_bytes > self.cap_bytes {
            let error = BufferError::CapTooSmall { item_bytes, cap_bytes: self.cap_bytes };
            return Err(Refused { item, error });
        }
        let fits = self.memory_bytes + item_bytes <= self.cap_bytes;
        match &mut self.kind {
            Kind::Persistence(spilled) if !fits || spilled.queue.len() > 0 => {
                spilled.scratch.clear();
                item.encode(&mut spilled.scratch);
                if let Err(error) = spilled.queue.push(&spilled.scratch) {
                    return Err(Refused { item, error });
                }
                spilled.bytes += item_bytes;
            }
            Kind::Persistence(_) => self.hold(item),
            Kind::Truncation => {
                while self.memory_bytes + item_bytes > self.cap_bytes {
                    self.drop_oldest();
                }
                self.hold(item);
            }
            Kind::Reservoir { keep, rng, candidates } => {
                *candidates = candidates.saturating_add(1);
                if fits && self.memory.len() < *keep {
                    self.hold(item);
                } else {
                    let slot = rng.below(*candidates) as usize;
                    self.replace_or_drop(slot, item);
                }
            }
        }
        self.arrived += 1;
        Ok(())
    }

    fn hold(&mut self, item: T) {
        self.memory_bytes += item.stored_bytes();
        self.memory.push_back(item);
    }

    fn drop_oldest(&mut self) {
        if let Some(item) = self.memory.pop_front() {
            self.memory_bytes -= item.stored_bytes();
            self.dropped += 1;
        }
    }

    /// Puts `item` in place of the one at `slot`; one of the two is dropped.
    fn replace_or_drop(&mut self, slot: usize, item: T) {
        self.dropped += 1;
        if let Some(old) = self.memory.get_mut(slot) {
            let bytes = self.memory_bytes - old.stored_bytes() + item.stored_bytes();
            if bytes <= self.cap_bytes {
                self.memory_bytes = bytes;
                *old = item;
            }
        }
    }

    /// Hands `n` items (fewer if fewer are held) to `visit`, then removes them; returns how many. Oldest first; the
    /// reservoir gives a random subset of itself.
    ///
    /// # Errors
    /// A spilled item cannot be read. It and those after it stay; those already visited are taken.
    pub fn take(&mut self, n: usize, visit: &mut dyn FnMut(&T)) -> Result<usize, BufferError> {
        let n = n.min(self.held());
        for _ in 0..n {
            let from_memory = match &mut self.kind {
                Kind::Reservoir { rng, .. } => {
                    let slot = rng.below(self.memory.len() as u32) as usize;
                    self.memory.swap_remove_back(slot)
                }
                _ => self.memory.pop_front(),
            };
            if let Some(item) = from_memory {
                self.memory_bytes -= item.stored_bytes();
                visit(&item);
            } else if let Kind::Persistence(spilled) = &mut self.kind
                && let Some(item) = spilled.queue.pop(T::decode)?
            {
                spilled.bytes = spilled.bytes.saturating_sub(item.stored_bytes());
                visit(&item);
            }
            self.taken += 1;
        }
        if let Kind::Reservoir { candidates, .. } = &mut self.kind
            && n > 0
        {
            *candidates = u32::try_from(self.memory.len()).unwrap_or(u32::MAX);
        }
        Ok(n)
    }

    /// Ends a step: truncation drops all but the newest `keep`; the other policies keep what they hold.
    pub fn after_step(&mut self, keep: usize) {
        if matches!(self.kind, Kind::Truncation) {
            while self.memory.len() > keep {
                self.drop_oldest();
            }
        }
    }

    /// Items held, in memory or on disk.
    pub fn held(&self) -> usize {
        self.memory.len() + self.spilled().map_or(0, |spilled| spilled.queue.len())
    }

    /// Most items of `item_bytes` each that this buffer will ever hold; none: no limit.
    pub fn most_items(&self, item_bytes: u64) -> Option<usize> {
        let by_cap = usize::try_from(self.cap_bytes / item_bytes.max(1)).unwrap_or(usize::MAX);
        match self.kind {
            Kind::Persistence(_) => None,
            Kind::Truncation => Some(by_cap),
            Kind::Reservoir { keep, .. } => Some(by_cap.min(keep)),
        }
    }

    fn spilled(&self) -> Option<&Spilled> {
        match &self.kind {
            Kind::Persistence(spilled) => Some(spilled),
            _ => None,
        }
    }

    /// Totals so far.
    pub fn counters(&self) -> StreamCounters {
        let (spilled_samples, spilled_bytes) =
            self.spilled().map_or((0, 0), |spilled| (spilled.queue.len() as u64, spilled.bytes));
        StreamCounters {
            arrived: self.arrived,
            taken: self.taken,
            dropped: self.dropped,
            occupancy_samples: self.memory.len() as u64 + spilled_samples,
            occupancy_bytes: self.memory_bytes + spilled_bytes,
            memory_bytes: self.memory_bytes,
            spilled_samples,
            dead_lettered: 0,
            lag_samples: 0,
        }
    }

    /// The smallest `arrival` of the items in memory; items of a buffer with an order must have been pushed in that order.
    pub fn oldest<A: Ord>(&self, arrival: impl Fn(&T) -> A) -> Option<A> {
        match self.kind {
            Kind::Reservoir { .. } => self.memory.iter().map(arrival).min(),
            Kind::Persistence(_) | Kind::Truncation => self.memory.front().map(arrival),
        }
    }
}
