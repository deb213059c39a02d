//! A server's archive -> a folder that [`load()`](super::load()) reads: download with resume, checksum, safe unpacking.
//!
//! The archive is written to `<dest>/<archive>.part`. It is unpacked only if its SHA-256 is the expected one, into a
//! temporary folder that is checked as a data set and then renamed, so `<dest>/<folder>` is either whole or not there.
//! A download that was cut goes on where it stopped, in this call or in a later one.

mod download;
mod error;
mod unpack;

pub use error::FetchError;
pub use unpack::ArchiveError;

use super::cifar::Format;
use error::disk;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which data set to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchKind {
    /// CIFAR-10, binary version, 170 MB.
    Cifar10,
    /// CIFAR-100, binary version, 169 MB.
    Cifar100,
}

impl FetchKind {
    /// Where its authors publish it.
    pub const fn url(self) -> &'static str {
        match self {
            Self::Cifar10 => "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            Self::Cifar100 => "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        }
    }

    /// SHA-256 of the published archive, in hexadecimal.
    pub const fn sha256(self) -> &'static str {
        match self {
            Self::Cifar10 => "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            Self::Cifar100 => "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        }
    }

    /// Name of the published archive.
    pub const fn archive(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar-10-binary.tar.gz",
            Self::Cifar100 => "cifar-100-binary.tar.gz",
        }
    }

    /// The only folder of the archive.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar-10-batches-bin",
            Self::Cifar100 => "cifar-100-binary",
        }
    }

    /// Files of that folder that hold records; all must be there.
    const fn data_files(self) -> &'static [&'static str] {
        match self {
            Self::Cifar10 => &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
                "test_batch.bin",
            ],
            Self::Cifar100 => &["train.bin", "test.bin"],
        }
    }

    /// Files of that folder that are unpacked when there.
    const fn text_files(self) -> &'static [&'static str] {
        match self {
            Self::Cifar10 => &["batches.meta.txt", "readme.html"],
            Self::Cifar100 => &["coarse_label_names.txt", "fine_label_names.txt"],
        }
    }

    const fn format(self) -> Format {
        match self {
            Self::Cifar10 => Format::Cifar10,
            Self::Cifar100 => Format::Cifar100,
        }
    }
}

/// How to fetch; the default is the published archive with patience for a slow link.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Another place of the same archive, `http://` or `https://`. Default [`FetchKind::url`].
    pub url: Option<String>,
    /// Another SHA-256, 64 hexadecimal digits. Default [`FetchKind::sha256`].
    pub sha256: Option<String>,
    /// Longest wait for a connection. Default 20 s.
    pub connect_timeout: Duration,
    /// Longest wait for the next byte. Default 30 s.
    pub stall_timeout: Duration,
    /// Further attempts after a cut connection; they count anew after each received MiB. Default 5.
    pub retries: u32,
    /// Wait before the first further attempt; it doubles each time, up to 60 s. Default 1 s.
    pub backoff: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            url: None,
            sha256: None,
            connect_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(30),
            retries: 5,
            backoff: Duration::from_secs(1),
        }
    }
}

/// What [`fetch`] is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FetchEvent {
    /// The folder is there and whole: nothing is done.
    AlreadyThere {
        /// The folder.
        dir: PathBuf,
    },
    /// Bytes are arriving; comes about every 64 KiB.
    Downloading {
        /// Bytes on disk, those of an earlier call included.
        received_bytes: u64,
        /// Length of the archive, if the server says so.
        total_bytes: Option<u64>,
    },
    /// An attempt failed; the next one comes after a wait.
    Retrying {
        /// Number of the coming attempt, from 2.
        attempt: u32,
        /// The wait.
        wait: Duration,
        /// What went wrong.
        reason: String,
    },
    /// The checksum is being computed.
    Verifying,
    /// A file is being unpacked.
    Unpacking {
        /// Its name.
        file: String,
    },
}

/// Downloads and unpacks a data set below `dest`, which is made if needed; returns the folder with the files.
///
/// `progress` hears of each [`FetchEvent`]. If the data set is already there, nothing is touched.
///
/// # Errors
/// See [`FetchError`]. After [`FetchError::Cut`] the same call resumes; data that were there before are never deleted.
pub fn fetch(
    kind: FetchKind,
    dest: &Path,
    options: &FetchOptions,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, FetchError> {
    let url = options.url.clone().unwrap_or_else(|| kind.url().into());
    let expected = options.sha256.as_deref().unwrap_or(kind.sha256()).to_ascii_lowercase();
    if expected.len() != 64 || !expected.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(FetchError::NotAChecksum { given: expected });
    }
    let dir = dest.join(kind.folder());
    if is_whole(kind, &dir) {
        progress(FetchEvent::AlreadyThere { dir: dir.clone() });
        return Ok(dir);
    }
    if dir.symlink_metadata().is_ok() {
        return Err(FetchError::InTheWay { dir });
    }
    std::fs::create_dir_all(dest).map_err(disk("make the folder", dest))?;

    let part = dest.join(format!("{}.part", kind.archive()));
    let mut archive = download::download(&url, &part, options, progress)?;
    progress(FetchEvent::Verifying);
    let found = sha256_of(&mut archive).map_err(disk("read", &part))?;
    let result = if found == expected {
        install(kind, &url, &archive, dest, &dir, progress)
    } else {
        Err(FetchError::Checksum { url, expected, found })
    };
    // Resuming cannot mend what is wrong with a complete download, and a full disk is no reason to fetch it again.
    if !matches!(result, Err(FetchError::Disk { .. })) {
        std::fs::remove_file(&part).map_err(disk("delete", &part))?;
    }
    result
}

/// Unpacks the archive beside `dir`, checks the files, and renames the folder to `dir`.
fn install(
    kind: FetchKind,
    url: &str,
    mut archive: &File,
    dest: &Path,
    dir: &Path,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, FetchError> {
    io::Seek::rewind(&mut archive).map_err(disk("read", dest))?;
    let temporary = tempfile::Builder::new()
        .prefix(".unpack-")
        .tempdir_in(dest)
        .map_err(disk("make a folder in", dest))?;
    let unpacked = temporary.path().join(kind.folder());
    std::fs::create_dir(&unpacked).map_err(disk("make the folder", &unpacked))?;
    unpack::unpack(kind, archive, &unpacked, progress).map_err(|error| match error {
        unpack::UnpackError::Disk { action, path, error } => FetchError::Disk { action, path, error },
        unpack::UnpackError::Archive(error) => FetchError::Archive { url: url.into(), error },
    })?;
    super::load(&unpacked).map_err(|error| FetchError::NotTheDataSet { url: url.into(), error })?;
    std::fs::rename(&unpacked, dir).map_err(disk("rename the unpacked folder to", dir))?;
    Ok(dir.into())
}

/// Whether every data file is there with whole records.
fn is_whole(kind: FetchKind, dir: &Path) -> bool {
    let record_bytes = kind.format().record_bytes() as u64;
    kind.data_files().iter().all(|name| {
        std::fs::metadata(dir.join(name))
            .is_ok_and(|meta| meta.is_file() && meta.len() > 0 && meta.len() % record_bytes == 0)
    })
}

/// SHA-256 of a whole file, in hexadecimal.
fn sha256_of(file: &mut File) -> io::Result<String> {
    io::Seek::rewind(file)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
