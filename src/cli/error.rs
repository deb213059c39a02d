//! Why a command failed, and its exit code.

use crate::data::fetch::FetchError;
use crate::metrics::MetricsError;
use crate::metrics::serve::ServeError;
use crate::models::ModelError;
use crate::stream::publish::PublishError;
use crate::train::config::ConfigError;
use std::path::PathBuf;

/// A command that could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The configuration or a flag that changes it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The output folder cannot be used.
    #[error("{source}; choose another folder with --out")]
    Output {
        /// What was refused.
        source: MetricsError,
    },
    /// A record could not be read, written or drawn.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Something to compare is none of the things that can be compared.
    #[error(
        "`{given}` is no preset ({}), no configuration file and no folder of a finished run{}",
        presets.join(", "),
        near.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
    )]
    NotComparable {
        /// As given.
        given: String,
        /// Known presets.
        presets: Vec<&'static str>,
        /// The nearest of them.
        near: Option<String>,
    },
    /// A comparison of one run.
    #[error(
        "there is only one run to compare ({given}); name at least two presets, configurations or run folders"
    )]
    OnlyOne {
        /// As given.
        given: String,
    },
    /// Interrupted before there were two runs to compare.
    #[error("interrupted before a second run was finished; the finished ones are in {}", out.display())]
    Interrupted {
        /// The comparison's folder.
        out: PathBuf,
    },
    /// A value of a flag that no configuration key describes.
    #[error("{flag} {given}: expected {expected}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Its value.
        given: String,
        /// What belongs there.
        expected: String,
    },
    /// The live page cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A network cannot be built.
    #[error(transparent)]
    Model(Box<ModelError>),
    /// A data set cannot be fetched.
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// The loss is no longer finite.
    #[error("the run diverged: its loss is no longer finite; try a lower learning rate (--lr); the report is {}", report.display())]
    Diverged {
        /// The report.
        report: PathBuf,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with --to")]
    Listen {
        /// The address.
        address: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A device's stream can no longer be published.
    #[error("device {device}: {source}")]
    Publish {
        /// Device, from 0.
        device: usize,
        /// What went wrong.
        source: PublishError,
    },
    /// The processes of a job failed, or could not be started.
    #[error("the job failed: {reason}")]
    Launch {
        /// Which, and how they ended.
        reason: String,
    },
    /// Training failed.
    #[error(transparent)]
    Run(Box<crate::Error>),
}

impl CliError {
    /// 2 where the user's input is to blame, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Output { .. } | Self::NotComparable { .. } | Self::OnlyOne { .. } => 2,
            Self::Flag { .. } | Self::Model(_) | Self::Listen { .. } => 2,
            Self::Metrics(error) => match error {
                MetricsError::NoRun { .. } | MetricsError::Json { .. } => 2,
                _ => 1,
            },
            Self::Serve(error) => 1 + u8::from(error.is_bad_input()),
            Self::Fetch(error) => match **error {
                FetchError::NotAChecksum { .. }
                | FetchError::Address { .. }
                | FetchError::InTheWay { .. } => 2,
                _ => 1,
            },
            Self::Run(error) => 1 + u8::from(error.is_bad_input()),
            Self::Interrupted { .. } | Self::Diverged { .. } => 1,
            Self::Publish { .. } | Self::Launch { .. } => 1,
        }
    }
}

impl From<FetchError> for CliError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        Self::Model(Box::new(error))
    }
}

impl From<crate::Error> for CliError {
    fn from(error: crate::Error) -> Self {
        Self::Run(Box::new(error))
    }
}
