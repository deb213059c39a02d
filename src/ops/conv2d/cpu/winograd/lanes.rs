//! Lanes of scratch: work that needs memory of its own, on as many lanes as there are cores.

use rayon::prelude::*;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lanes of scratch memory.
pub(super) struct Lane;

impl Lane {
    /// Lanes for `blocks` blocks: one for each core of the machine, however many threads will run.
    pub fn count(blocks: usize) -> usize {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, Into::into));
        cores.min(blocks)
    }
}

/// Calls `work(lane, block)` once for each block; no two calls at the same time have the same lane.
///
/// Which lane a block gets depends on timing, so what `work` leaves there must not matter.
pub(super) fn over_lanes(blocks: usize, work: impl Fn(usize, usize) + Sync) {
    let next = AtomicUsize::new(0);
    (0..Lane::count(blocks)).into_par_iter().with_max_len(1).for_each(|lane| {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= blocks {
                break;
            }
            work(lane, block);
        }
    });
}
