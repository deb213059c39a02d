//! Everything that can go wrong with a download, each with what to do about it.

use super::ArchiveError;
use crate::data::DataError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a data set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {error}; check free space and permissions, or choose another folder", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The refusal.
        error: io::Error,
    },
    /// Something that is not the whole data set is where it should go.
    #[error("{} is there but is not the whole data set; move or delete it, then fetch again", dir.display())]
    InTheWay {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process is writing the same download.
    #[error("{} is being written by another process; wait for it, or choose another folder", part.display())]
    Busy {
        /// The unfinished download.
        part: PathBuf,
    },
    /// The address cannot be used.
    #[error("cannot fetch from {url:?}: {reason}; give an http:// or https:// address of the archive")]
    Address {
        /// As given.
        url: String,
        /// What is wrong with it, or with the certificate or redirect it led to.
        reason: String,
    },
    /// The expected checksum is not one.
    #[error("{given:?} is not a SHA-256 checksum: 64 hexadecimal digits are expected")]
    NotAChecksum {
        /// As given.
        given: String,
    },
    /// The server answered that it will not send the archive.
    #[error("the server answers {status} for {url}; check the address, or give a mirror with --url")]
    Status {
        /// Address of the archive.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The server could not be reached, or the connection was cut, in each attempt.
    #[error(
        "{url}: {reason} (attempt {attempts}); {received_bytes} bytes are kept in {}: fetch again to resume there",
        part.display()
    )]
    Cut {
        /// Address of the archive.
        url: String,
        /// What went wrong last.
        reason: String,
        /// Attempts made.
        attempts: u32,
        /// Bytes on disk.
        received_bytes: u64,
        /// The unfinished download.
        part: PathBuf,
    },
    /// The archive is longer than any of the published ones.
    #[error("{url} sends more than {limit_bytes} bytes: not the archive; give another address with --url")]
    TooLong {
        /// Address of the archive.
        url: String,
        /// Where the download was stopped.
        limit_bytes: u64,
    },
    /// The archive is not the expected one; it was deleted.
    #[error(
        "{url} has SHA-256 {found}, expected {expected}; the download was deleted: fetch again, or if you trust this \
         archive, give its sum with --sha256"
    )]
    Checksum {
        /// Address of the archive.
        url: String,
        /// Sum of the published archive, or as given.
        expected: String,
        /// Sum of the downloaded one.
        found: String,
    },
    /// The archive has the expected sum but cannot be used; it was deleted.
    #[error("archive of {url}: {error}")]
    Archive {
        /// Address of the archive.
        url: String,
        /// What is wrong inside.
        error: ArchiveError,
    },
    /// What was unpacked is not a data set; it was deleted.
    #[error("archive of {url} unpacks to something else than the data set: {error}")]
    NotTheDataSet {
        /// Address of the archive.
        url: String,
        /// What is wrong with it.
        error: DataError,
    },
}

/// Turns a refusal into [`FetchError::Disk`].
pub(super) fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_path_buf();
    move |error| FetchError::Disk { action, path, error }
}
