//! Whatever can stop a run, from the module that knows the facts.

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
    Weights(#[from] crate::models::weights::WeightsError),
    /// Forward and backward.
    #[error(transparent)]
    Network(#[from] crate::nn::NnError),
    /// A device's stream.
    #[error(transparent)]
    Stream(#[from] crate::stream::StreamError),
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
    /// The device to compute on.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// A sink of records.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
    /// The data set has more classes than the network.
    #[error(
        "the data set {data_set} has {found} classes, model.classes is {classes}; set model.classes to {found} or more, or to 0"
    )]
    Classes {
        /// Name of the data set.
        data_set: String,
        /// Its classes.
        found: usize,
        /// Classes of the network.
        classes: usize,
    },
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
        matches!(
            self,
            Self::Config(_)
                | Self::Data(_)
                | Self::Partition(_)
                | Self::Model(_)
                | Self::Weights(_)
                | Self::Device(_)
                | Self::Classes { .. }
                | Self::EmptyDevice { .. }
                | Self::Threads { .. }
                | Self::Stream(
                    crate::stream::StreamError::Rate(_) | crate::stream::StreamError::RingOverCap { .. }
                )
        )
    }
}
