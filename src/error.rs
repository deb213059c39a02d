//! Whatever can stop a run, from the module that knows the facts.

use crate::models::weights::WeightsError;
use crate::stream::StreamError;
use crate::stream::policy::BufferError;
use std::path::PathBuf;

/// `Result` with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done. Each variant is the error of the module that found it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::train::config::ConfigError),
    /// Data files.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// The split of the data over devices.
    #[error(transparent)]
    Partition(#[from] crate::data::PartitionError),
    /// The network asked for.
    #[error(transparent)]
    Model(#[from] crate::models::ModelError),
    /// A file of parameters.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Forward and backward.
    #[error(transparent)]
    Network(#[from] crate::nn::NnError),
    /// A device's stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Compression.
    #[error(transparent)]
    Compress(#[from] crate::compress::CompressError),
    /// A received payload.
    #[error(transparent)]
    Payload(#[from] crate::compress::coding::CodingError),
    /// Aggregation.
    #[error(transparent)]
    Aggregate(#[from] crate::aggregate::AggregateError),
    /// The optimizer.
    #[error(transparent)]
    Optim(#[from] crate::optim::OptimError),
    /// A collective.
    #[error(transparent)]
    Comm(#[from] crate::comm::CommError),
    /// Another process of the job ended, hangs, or does something else.
    #[error("step {step}: {source}{}", saved.as_ref().map_or_else(String::new, |path| format!("; the parameters of the last whole step are in {}", path.display())))]
    Lost {
        /// The step under way.
        step: u64,
        /// Where the parameters of the last whole step are.
        saved: Option<PathBuf>,
        /// What was seen.
        source: crate::comm::CommError,
    },
    /// The device to compute on.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// Computing on a GPU.
    #[error(transparent)]
    Cuda(#[from] crate::device::cuda::CudaError),
    /// A sink of records.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
    /// A device holds no training sample.
    #[error(
        "device {device} of {devices} gets no training sample of {samples}; use fewer devices, more data or another data.partition"
    )]
    EmptyDevice {
        /// The device.
        device: usize,
        /// Devices of the cluster.
        devices: usize,
        /// Training samples.
        samples: usize,
    },
    /// The threads could not be started.
    #[error("run.threads = {threads}: the threads could not be started: {source}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system said.
        source: rayon::ThreadPoolBuildError,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether what the user gave (configuration, data, files) is to blame, rather than the machine or a broken run.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Config(_)
            | Self::Data(_)
            | Self::Partition(_)
            | Self::Model(_)
            | Self::Device(_)
            | Self::EmptyDevice { .. }
            | Self::Threads { .. } => true,
            Self::Weights(error) => !matches!(error, WeightsError::Write { .. }),
            Self::Stream(error) => matches!(
                error,
                StreamError::Rate(_)
                    | StreamError::RingOverCap { .. }
                    | StreamError::Buffer(BufferError::SpillDir { .. } | BufferError::CapTooSmall { .. })
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_the_user_names_are_input_and_a_full_disk_is_not() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let spill = |error: BufferError| Error::Stream(error.into()).is_bad_input();
        assert!(spill(BufferError::SpillDir { path: "none".into(), source: full() }));
        assert!(!spill(BufferError::SpillIo { action: "write", path: "x".into(), source: full() }));
        let weights = |error: WeightsError| Error::Weights(error).is_bad_input();
        assert!(weights(WeightsError::Read { path: "none".into(), source: full() }));
        assert!(!weights(WeightsError::Write { path: "x".into(), reason: "disk full".into() }));
    }
}
