//! What can go wrong when records are written, read or drawn.

use std::io;
use std::path::{Path, PathBuf};

/// A record could not be written, read or drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A file or stream refused the operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `write`, `create`, `read`.
        action: &'static str,
        /// The file, or a name such as `standard output`.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file is not the JSON that this program writes.
    #[error("{} is not a run record of this program: {source}; run it again or choose another folder", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why parsing stopped.
        source: serde_json::Error,
    },
    /// A CSV file has another header than this version writes.
    #[error("{}: the header is not the one of this version; expected `{expected}`", path.display())]
    CsvHeader {
        /// The file.
        path: PathBuf,
        /// Column names, comma-separated.
        expected: String,
    },
    /// A CSV cell does not hold a value of its column's type.
    #[error("{}:{line}: column `{column}` holds `{found}`, which is not a valid value", path.display())]
    CsvCell {
        /// The file.
        path: PathBuf,
        /// Line number from 1, the header included.
        line: usize,
        /// Column name.
        column: &'static str,
        /// The cell's text.
        found: String,
    },
    /// A folder holds no finished run.
    #[error("{} holds no finished run: there is no run.json in it; give a folder written by `scadles run`", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// The image encoder refused the picture.
    #[error("cannot write the picture {}: {source}", path.display())]
    Png {
        /// The file.
        path: PathBuf,
        /// The encoder's answer.
        source: png::EncodingError,
    },
}

impl MetricsError {
    /// Turns the error of `action` on `path` into one that names both.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
