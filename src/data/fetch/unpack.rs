//! A `.tar.gz` that nobody vouches for -> the files of the data set, and nothing else.

use super::{FetchEvent, FetchKind};
use flate2::read::GzDecoder;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Longest data file: CIFAR-100's `train.bin` has 153.7 MB.
const DATA_LIMIT_BYTES: u64 = 256 << 20;
/// Longest names or readme file.
const TEXT_LIMIT_BYTES: u64 = 1 << 20;
/// Longest archive once decompressed, files that are not unpacked included.
const TOTAL_LIMIT_BYTES: u64 = 1 << 30;

/// What is wrong inside an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// An entry would be written outside the folder, or is a link or a device. Nothing was kept.
    #[error("refused: entry {name:?} {why}; this archive is not the published one, do not use it")]
    Hostile {
        /// Path of the entry.
        name: String,
        /// What makes it unacceptable.
        why: &'static str,
    },
    /// A file is there twice.
    #[error("entry {name:?} is there twice; this archive is not the published one")]
    Twice {
        /// Path of the entry.
        name: String,
    },
    /// A file is longer than a data set needs.
    #[error("entry {name:?} has more than {limit_bytes} bytes; this archive is not the published one")]
    TooLong {
        /// Path of the entry.
        name: String,
        /// Bytes allowed.
        limit_bytes: u64,
    },
    /// A data file is not in the archive.
    #[error("{file:?} is missing; this archive is not the published binary version")]
    Missing {
        /// Its path.
        file: String,
    },
    /// Decompression or the tar structure failed.
    #[error("damaged: {0}; fetch it again or from another address")]
    Damaged(io::Error),
}

/// What stops unpacking: the archive or the disk.
pub(super) enum UnpackError {
    Archive(ArchiveError),
    Disk { action: &'static str, path: PathBuf, error: io::Error },
}

impl From<ArchiveError> for UnpackError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

/// Writes the data and text files of the archive into the empty folder `into`. Other regular files are passed over.
pub(super) fn unpack(
    kind: FetchKind,
    archive: impl Read,
    into: &Path,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive).take(TOTAL_LIMIT_BYTES));
    let mut unpacked = BTreeSet::new();
    for entry in archive.entries().map_err(ArchiveError::Damaged)? {
        let mut entry = entry.map_err(ArchiveError::Damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(file) = expected_file(kind, &name, entry.header().entry_type())? else { continue };
        let limit_bytes = if kind.data_files().contains(&file) { DATA_LIMIT_BYTES } else { TEXT_LIMIT_BYTES };
        if entry.size() > limit_bytes {
            return Err(ArchiveError::TooLong { name, limit_bytes }.into());
        }
        if !unpacked.insert(file) {
            return Err(ArchiveError::Twice { name }.into());
        }
        progress(FetchEvent::Unpacking { file: file.into() });
        write(&mut entry, &into.join(file))?;
    }
    // Reading to the end makes the decoder compare its own checksum and length.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(ArchiveError::Damaged)?;
    match kind.data_files().iter().find(|file| !unpacked.contains(*file)) {
        Some(file) => Err(ArchiveError::Missing { file: format!("{}/{file}", kind.folder()) }.into()),
        None => Ok(()),
    }
}

/// The file of the data set that an entry is, if it is one. Anything but plain files and folders is refused.
fn expected_file(
    kind: FetchKind,
    name: &str,
    entry: EntryType,
) -> Result<Option<&'static str>, ArchiveError> {
    let hostile = |why| Err(ArchiveError::Hostile { name: name.into(), why });
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir => return hostile("leaves the folder"),
            Component::RootDir | Component::Prefix(_) => return hostile("is an absolute path"),
        }
    }
    match entry {
        EntryType::Regular | EntryType::Continuous => {}
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(None),
        EntryType::Symlink | EntryType::Link => return hostile("is a link"),
        _ => return hostile("is neither a file nor a folder"),
    }
    let [folder, file] = parts[..] else { return Ok(None) };
    let mut expected = kind.data_files().iter().chain(kind.text_files());
    Ok(expected.find(|expected| folder == kind.folder() && file == **expected).copied())
}

/// Writes one file, telling a damaged archive from a refusing disk.
fn write(entry: &mut impl Read, path: &Path) -> Result<(), UnpackError> {
    let disk = |action| move |error| UnpackError::Disk { action, path: path.into(), error };
    let mut file: File =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(disk("create"))?;
    let mut chunk = vec![0; 1 << 16];
    loop {
        let count = match entry.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ArchiveError::Damaged(error).into()),
        };
        io::Write::write_all(&mut file, &chunk[..count]).map_err(disk("write"))?;
    }
    file.sync_all().map_err(disk("write"))
}
