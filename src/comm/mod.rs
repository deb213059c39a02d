//! Collectives between devices. A process hosts one or more devices (`local_ranks`); what it hosts it has already
//! summed or concatenated in rank order, so one call per process moves everything.
//!
//! | implementation | devices | time |
//! | --- | --- | --- |
//! | [`LocalCommunicator`] | all of them in this process | computed from the link and the bytes of the ring algorithms |
//! | [`ProcessCommunicator`] | in several processes, over TCP | measured, or computed likewise |

mod local;
mod processes;

pub use local::LocalCommunicator;
pub use processes::{Place, ProcessCommunicator};

use std::ops::Range;
use std::time::Duration;

/// What one collective moved, over all devices of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// How long it took: measured, or computed from the link in a simulated cluster.
    pub elapsed: Duration,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.elapsed += other.elapsed;
    }
}

/// A collective failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// A contribution for each hosted device is needed, in rank order.
    #[error(
        "{op}: {found} contributions for {expected} devices of this process; pass one per device, empty if it has nothing"
    )]
    Contributions {
        /// The collective.
        op: &'static str,
        /// Devices of this process.
        expected: usize,
        /// Contributions passed.
        found: usize,
    },
    /// A collective of one process was asked for, but there are more.
    #[error(
        "{op}: {hosted} of {world_size} devices are of this process; the others must take part: send the data"
    )]
    NotHosted {
        /// The collective.
        op: &'static str,
        /// Devices of this process.
        hosted: usize,
        /// Devices of the cluster.
        world_size: usize,
    },
    /// The processes of a job do not come together.
    #[error("the processes of the job do not come together: {reason}")]
    Setup {
        /// Who or what is missing or wrong.
        reason: String,
    },
    /// Another process is lost, or does not do the same.
    #[error("process {process} is lost in {op}: {reason}")]
    Peer {
        /// That process, from 0.
        process: usize,
        /// The collective.
        op: &'static str,
        /// What was seen of it.
        reason: String,
    },
    /// Another process has noticed first that a process is lost.
    #[error("process {process} is lost, as another process says: {reason}")]
    Aborted {
        /// The lost process, from 0.
        process: usize,
        /// What the other one saw of it.
        reason: String,
    },
    /// What must be equal on all processes is not.
    #[error(
        "{what} of processes {processes:?} differ from those of process 0; start the job again from the last parameters that were saved"
    )]
    Differs {
        /// What was compared.
        what: &'static str,
        /// The processes that differ.
        processes: Vec<usize>,
    },
}

/// Collectives over `world_size` devices. Every process calls the same operations in the same order; a device without
/// samples contributes zeros or an empty payload. Results are equal on all processes to the last bit.
pub trait Communicator: Send {
    /// Devices of the cluster.
    fn world_size(&self) -> usize;

    /// Ranks of the devices that this process hosts.
    fn local_ranks(&self) -> Range<usize>;

    /// Whether this process hosts every device, so that its sums are already everybody's and nothing has to leave a GPU.
    fn hosts_all(&self) -> bool {
        self.local_ranks() == (0..self.world_size())
    }

    /// Gathers one number per hosted device into `all`, one per rank.
    fn all_gather_scalars(&mut self, local: &[f64], all: &mut [f64]) -> Result<Traffic, CommError>;

    /// Replaces `vector`, the sum over the hosted devices, by the sum over all devices.
    fn all_reduce_sum(&mut self, vector: &mut [f32]) -> Result<Traffic, CommError>;

    /// Gathers one block of bytes per hosted device and calls `visit(rank, block)` for every rank, ascending.
    fn all_gather_bytes(
        &mut self,
        local: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<Traffic, CommError>;

    /// What [`Self::all_reduce_sum`] of `numel` elements costs where this process hosts every device.
    ///
    /// # Errors
    /// [`CommError::NotHosted`] where others must take part.
    fn all_reduce_hosted(&mut self, numel: usize) -> Result<Traffic, CommError>;

    /// What [`Self::all_gather_bytes`] of blocks of these sizes costs where this process hosts every device.
    ///
    /// # Errors
    /// [`CommError::NotHosted`] where others must take part, or not one size per device.
    fn all_gather_hosted(&mut self, bytes: &[u64]) -> Result<Traffic, CommError>;

    /// One row of numbers of each process, in their order, for what all must decide alike; rows may differ in length. No part
    /// of the method: its bytes and time are not counted. With one process, the row itself.
    ///
    /// # Errors
    /// Another process is lost.
    fn share(&mut self, row: &[f64]) -> Result<Vec<Vec<f64>>, CommError> {
        Ok(vec![row.to_vec()])
    }

    /// Whether any process says so.
    ///
    /// # Errors
    /// As [`Self::share`].
    fn any(&mut self, flag: bool) -> Result<bool, CommError> {
        Ok(self.share(&[f64::from(u8::from(flag))])?.iter().flatten().any(|&flag| flag != 0.0))
    }

    /// Replaces `vector` by that of the process that hosts rank 0. Not counted, as [`Self::share`].
    ///
    /// # Errors
    /// As [`Self::share`].
    fn broadcast(&mut self, _vector: &mut [f32]) -> Result<(), CommError> {
        Ok(())
    }

    /// Compares a checksum of something that must be equal on all processes.
    ///
    /// # Errors
    /// [`CommError::Differs`], or as [`Self::share`].
    fn check_equal(&mut self, what: &'static str, checksum: u32) -> Result<(), CommError> {
        let rows = self.share(&[f64::from(checksum)])?;
        let differ: Vec<usize> = (0..rows.len()).filter(|&process| rows[process] != rows[0]).collect();
        if differ.is_empty() { Ok(()) } else { Err(CommError::Differs { what, processes: differ }) }
    }
}
