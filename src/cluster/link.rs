//! Time and bytes of a collective over the links of a simulated cluster.
//!
//! Every device has one full-duplex link of the same bandwidth and latency. The formulas are those of the ring
//! algorithms that NCCL and MPI use for large messages; `nccl-tests` derives the same byte counts.

use crate::train::config::LinkConfig;
use std::time::Duration;

/// Bandwidth and latency of each device's link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    bytes_per_s: f64,
    latency_s: f64,
}

impl Link {
    /// The link of a configuration: the bandwidth counts times its reachable share.
    pub fn new(config: &LinkConfig) -> Self {
        Self {
            bytes_per_s: config.bandwidth_mbit_s * 1e6 / 8.0 * config.efficiency,
            latency_s: config.latency_ms * 1e-3,
        }
    }

    /// Ring all-reduce of `bytes` among `world_size` devices: 2(N-1) rounds of `bytes / N`.
    pub fn all_reduce_time(&self, bytes: u64, world_size: usize) -> Duration {
        if world_size < 2 || bytes == 0 {
            return Duration::ZERO;
        }
        let rounds = 2.0 * (world_size - 1) as f64;
        self.seconds(rounds, rounds * bytes as f64 / world_size as f64)
    }

    /// Ring all-gather of one block per device: N-1 rounds, each as long as its largest block.
    pub fn all_gather_time(&self, bytes_per_rank: impl IntoIterator<Item = u64>) -> Duration {
        let (world_size, largest) = bytes_per_rank
            .into_iter()
            .fold((0u64, 0), |(count, largest), bytes| (count + 1, bytes.max(largest)));
        if world_size < 2 || largest == 0 {
            return Duration::ZERO;
        }
        let rounds = (world_size - 1) as f64;
        self.seconds(rounds, rounds * largest as f64)
    }

    fn seconds(&self, messages: f64, bytes: f64) -> Duration {
        Duration::from_secs_f64(messages * self.latency_s + bytes / self.bytes_per_s)
    }
}

/// Bytes that all devices together send in a ring all-reduce of `bytes`: 2(N-1)/N each.
pub fn all_reduce_sent_bytes(bytes: u64, world_size: usize) -> u64 {
    2 * (world_size as u64).saturating_sub(1) * bytes
}

/// Bytes that all devices together send in a ring all-gather: each block travels N-1 hops.
pub fn all_gather_sent_bytes(bytes_per_rank: impl IntoIterator<Item = u64>) -> u64 {
    let (world_size, total) =
        bytes_per_rank.into_iter().fold((0u64, 0), |(n, total), bytes| (n + 1, total + bytes));
    world_size.saturating_sub(1) * total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gigabyte_link() -> Link {
        Link::new(&LinkConfig { bandwidth_mbit_s: 8000.0, latency_ms: 1.0, efficiency: 1.0 })
    }

    #[test]
    fn all_reduce_moves_two_n_minus_one_over_n() {
        // 4 devices, 4 MB: 6 rounds of 1 ms latency and 1 MB at 1 GB/s.
        assert_eq!(gigabyte_link().all_reduce_time(4_000_000, 4), Duration::from_millis(12));
        assert_eq!(all_reduce_sent_bytes(4_000_000, 4), 24_000_000);
        assert_eq!(all_reduce_sent_bytes(4_000_000, 1), 0);
    }

    #[test]
    fn all_gather_is_bound_by_its_largest_block() {
        assert_eq!(gigabyte_link().all_gather_time([1_000_000, 2_000_000, 0]), Duration::from_millis(6));
        assert_eq!(all_gather_sent_bytes([1, 2, 0]), 6);
        assert_eq!(gigabyte_link().all_gather_time([5]), Duration::ZERO);
    }

    #[test]
    fn the_default_link_reproduces_the_published_sync_of_resnet152() {
        // Fig. 4b: 1.05 s for 60.2 M f32 parameters on 8 devices (the default efficiency is calibrated on it).
        let sync = Link::new(&LinkConfig::default()).all_reduce_time(60_192_808 * 4, 8).as_secs_f64();
        assert!((sync - 1.05).abs() < 0.02, "{sync}");
    }
}
