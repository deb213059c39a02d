//! All devices in this process: nothing moves, time and bytes are those of the ring algorithms over the link.

use super::{CommError, Communicator, Traffic};
use crate::cluster::link::{Link, all_gather_sent_bytes, all_reduce_sent_bytes};
use std::ops::Range;

/// The communicator of a simulated cluster.
#[derive(Clone, Debug)]
pub struct LocalCommunicator {
    world_size: usize,
    link: Link,
}

impl LocalCommunicator {
    /// A cluster of `world_size` devices, each behind `link`.
    pub fn new(world_size: usize, link: Link) -> Self {
        Self { world_size, link }
    }

    fn check(&self, op: &'static str, found: usize) -> Result<(), CommError> {
        if found == self.world_size {
            return Ok(());
        }
        Err(CommError::Contributions { op, expected: self.world_size, found })
    }

    fn reduced(&self, numel: usize) -> Traffic {
        let bytes = (numel * size_of::<f32>()) as u64;
        let sent_bytes = all_reduce_sent_bytes(bytes, self.world_size);
        let elapsed = self.link.all_reduce_time(bytes, self.world_size);
        Traffic { sent_bytes, received_bytes: sent_bytes, elapsed }
    }

    fn gathered(&self, bytes_per_rank: impl Iterator<Item = u64> + Clone) -> Traffic {
        let bytes = all_gather_sent_bytes(bytes_per_rank.clone());
        Traffic {
            sent_bytes: bytes,
            received_bytes: bytes,
            elapsed: self.link.all_gather_time(bytes_per_rank),
        }
    }
}

impl Communicator for LocalCommunicator {
    fn world_size(&self) -> usize {
        self.world_size
    }

    fn local_ranks(&self) -> Range<usize> {
        0..self.world_size
    }

    fn all_gather_scalars(&mut self, local: &[f64], all: &mut [f64]) -> Result<Traffic, CommError> {
        self.check("all_gather_scalars", local.len())?;
        all.copy_from_slice(local);
        Ok(self.gathered(local.iter().map(|_| size_of::<f64>() as u64)))
    }

    fn all_reduce_sum(&mut self, vector: &mut [f32]) -> Result<Traffic, CommError> {
        Ok(self.reduced(vector.len()))
    }

    fn all_gather_bytes(
        &mut self,
        local: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<Traffic, CommError> {
        self.check("all_gather_bytes", local.len())?;
        local.iter().enumerate().for_each(|(rank, block)| visit(rank, block));
        Ok(self.gathered(local.iter().map(|block| block.len() as u64)))
    }

    fn all_reduce_hosted(&mut self, numel: usize) -> Result<Traffic, CommError> {
        Ok(self.reduced(numel))
    }

    fn all_gather_hosted(&mut self, bytes: &[u64]) -> Result<Traffic, CommError> {
        self.check("all_gather_hosted", bytes.len())?;
        Ok(self.gathered(bytes.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::LinkConfig;

    fn cluster(world_size: usize) -> LocalCommunicator {
        LocalCommunicator::new(world_size, Link::new(&LinkConfig::default()))
    }

    #[test]
    fn blocks_come_in_rank_order_and_every_hop_is_counted() {
        let mut seen = Vec::new();
        let blocks = [vec![1, 2], vec![], vec![3]];
        let traffic = cluster(3)
            .all_gather_bytes(&blocks, &mut |rank, block| seen.push((rank, block.to_vec())))
            .unwrap();
        assert_eq!(seen, [(0, vec![1, 2]), (1, vec![]), (2, vec![3])]);
        assert_eq!(cluster(3).all_gather_hosted(&[2, 0, 1]).unwrap(), traffic);
        assert_eq!((traffic.sent_bytes, traffic.received_bytes), (6, 6));
    }

    #[test]
    fn a_missing_device_is_an_error_not_a_hang() {
        let error = cluster(3).all_gather_scalars(&[1.0, 2.0], &mut [0.0; 3]).unwrap_err();
        assert!(error.to_string().contains("2 contributions for 3 devices"), "{error}");
    }

    #[test]
    fn one_device_moves_nothing() {
        assert_eq!(cluster(1).all_reduce_sum(&mut [1.0; 10]).unwrap(), Traffic::default());
    }
}
