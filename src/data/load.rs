//! A folder in the original binary layout of CIFAR-10 or CIFAR-100 -> [`DataSets`].
//!
//! The folder is `DIR` itself or its subfolder `cifar-10-batches-bin` or `cifar-100-binary`, as the official archives
//! unpack.
//!
//! | Layout | Training | Test | Names (optional) |
//! | --- | --- | --- | --- |
//! | CIFAR-10 | `data_batch_1.bin` and those of 2 to 5 that exist, without a gap | `test_batch.bin` | `batches.meta.txt` |
//! | CIFAR-100 | `train.bin` | `test.bin` | `fine_label_names.txt` |

use super::cifar::{DecodeError, Format, Records, SHAPE, decode};
use super::{DataSets, Dataset, Normalization};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CIFAR10_TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
const CIFAR10_NAMES: &str = "airplane automobile bird cat deer dog frog horse ship truck";

/// Compressed forms of a file and the command that unpacks each.
const COMPRESSED: [(&str, &str); 3] = [("xz", "xz -dk"), ("gz", "gzip -dk"), ("bz2", "bzip2 -dk")];

/// Why a data set cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The folder does not exist or is not a folder.
    #[error("data folder {} does not exist (or is a file); give the folder that holds the .bin files", dir.display())]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder holds neither layout.
    #[error(
        "no CIFAR data in {}: expected data_batch_1.bin and test_batch.bin (CIFAR-10) or train.bin and test.bin \
         (CIFAR-100); `scadles fetch cifar10` downloads a set", dir.display()
    )]
    NoDataSet {
        /// The folder.
        dir: PathBuf,
    },
    /// Two layouts are there, and nothing says which one is meant.
    #[error(
        "two data sets in one folder: {} and {}; move one of them, or give the subfolder of the one you mean",
        first.display(), second.display()
    )]
    Ambiguous {
        /// A file of the one.
        first: PathBuf,
        /// A file of the other.
        second: PathBuf,
    },
    /// A file of the layout is missing.
    #[error("{} is missing, although {} is there; unpack or download the data set again", path.display(), present.display())]
    MissingFile {
        /// The missing file.
        path: PathBuf,
        /// A file that made the reader expect it.
        present: PathBuf,
    },
    /// A file is there in compressed form only.
    #[error("{} is compressed; unpack it first: {command}", path.display())]
    Compressed {
        /// The compressed file.
        path: PathBuf,
        /// What to run.
        command: String,
    },
    /// The operating system refused to read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        error: io::Error,
    },
    /// The content is not what the layout demands.
    #[error("{}: {error}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Record, offset, value and cure.
        error: DecodeError,
    },
    /// A names file does not hold one name per class.
    #[error(
        "{}: {found} names for {expected} classes; one name a line is expected: correct the file or delete it",
        path.display()
    )]
    Names {
        /// The names file.
        path: PathBuf,
        /// Number of classes.
        expected: usize,
        /// Number of lines that are not blank.
        found: usize,
    },
}

/// Loads the CIFAR-10 or CIFAR-100 files of `dir`, whichever is there.
///
/// # Errors
/// See [`DataError`]: each names the file, the record where there is one, and what to do.
///
/// # Example
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// # std::fs::write(dir.join("train.bin"), vec![3; 2 * 3074]).unwrap();
/// # std::fs::write(dir.join("test.bin"), vec![3; 3074]).unwrap();
/// let sets = scadles::data::load(dir).unwrap();
/// assert_eq!((sets.name.as_str(), sets.train.len(), sets.test.len()), ("cifar-100", 2, 1));
/// ```
pub fn load(dir: &Path) -> Result<DataSets, DataError> {
    let (dir, format) = find(dir)?;
    let train_files = match format {
        Format::Cifar10 => cifar10_train_files(&dir)?,
        Format::Cifar100 => vec![dir.join("train.bin")],
    };
    let test_file = dir.join(match format {
        Format::Cifar10 => "test_batch.bin",
        Format::Cifar100 => "test.bin",
    });
    // Both splits must be there before the long read starts.
    require(&train_files[0], &test_file)?;
    require(&test_file, &train_files[0])?;
    let mut train = Records::default();
    for file in &train_files {
        let mut records = read(format, file)?;
        train.images.append(&mut records.images);
        train.labels.append(&mut records.labels);
    }
    let test = read(format, &test_file)?;
    let names = Arc::new(class_names(&dir, format)?);
    let normalization = Normalization::measure(&train.images, SHAPE.c);
    Ok(DataSets {
        train: Dataset::new(train.images, train.labels, SHAPE, names.clone(), normalization.clone()),
        test: Dataset::new(test.images, test.labels, SHAPE, names, normalization),
        name: format.name().into(),
    })
}

/// The folder and layout of the only data set at `dir`.
fn find(dir: &Path) -> Result<(PathBuf, Format), DataError> {
    if !dir.is_dir() {
        return Err(DataError::NoFolder { dir: dir.into() });
    }
    let places = [
        (dir.to_path_buf(), Format::Cifar10),
        (dir.to_path_buf(), Format::Cifar100),
        (dir.join("cifar-10-batches-bin"), Format::Cifar10),
        (dir.join("cifar-100-binary"), Format::Cifar100),
    ];
    let mut found: Option<(PathBuf, Format, PathBuf)> = None;
    let mut compressed = None;
    for (folder, format) in places {
        let files = expected_files(format).map(|name| folder.join(name));
        let Some(file) = files.clone().find(|path| path.exists()) else {
            compressed = compressed.or_else(|| files.clone().find_map(|path| compressed_form(&path)));
            continue;
        };
        if let Some((_, _, first)) = found {
            return Err(DataError::Ambiguous { first, second: file });
        }
        found = Some((folder, format, file));
    }
    match (found, compressed.or_else(|| packed_archive(dir))) {
        (Some((folder, format, _)), _) => Ok((folder, format)),
        (None, Some(hint)) => Err(hint),
        (None, None) => Err(DataError::NoDataSet { dir: dir.into() }),
    }
}

/// Names of the data files of a layout.
fn expected_files(format: Format) -> impl Iterator<Item = &'static str> + Clone {
    let (train, test): (&[&str], &str) = match format {
        Format::Cifar10 => (&CIFAR10_TRAIN, "test_batch.bin"),
        Format::Cifar100 => (&["train.bin"], "test.bin"),
    };
    train.iter().copied().chain([test])
}

/// The training files from the first to the last that exists; a missing one before an existing one is an error.
fn cifar10_train_files(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files = CIFAR10_TRAIN.map(|name| dir.join(name));
    let there = |path: &PathBuf| path.exists() || compressed_form(path).is_some();
    let last = files.iter().rposition(there).unwrap_or(0);
    let test_file = dir.join("test_batch.bin");
    let present = files.iter().find(|path| path.exists()).unwrap_or(&test_file);
    files[..=last].iter().try_for_each(|path| require(path, present))?;
    Ok(files[..=last].to_vec())
}

/// Checks that `path` exists; `present` is a file that makes it expected.
fn require(path: &Path, present: &Path) -> Result<(), DataError> {
    if path.exists() {
        return Ok(());
    }
    Err(compressed_form(path)
        .unwrap_or_else(|| DataError::MissingFile { path: path.into(), present: present.into() }))
}

/// The hint for `path` if a compressed form of it exists.
fn compressed_form(path: &Path) -> Option<DataError> {
    COMPRESSED.iter().find_map(|(extension, command)| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{extension}"));
        let packed = PathBuf::from(name);
        let command = format!("{command} {}", packed.display());
        packed.exists().then_some(DataError::Compressed { path: packed, command })
    })
}

/// The hint for an official archive in `dir` that was not unpacked.
fn packed_archive(dir: &Path) -> Option<DataError> {
    ["cifar-10-binary.tar.gz", "cifar-100-binary.tar.gz"].iter().find_map(|name| {
        let path = dir.join(name);
        let command = format!("tar -xzf {} -C {}", path.display(), dir.display());
        path.exists().then_some(DataError::Compressed { path, command })
    })
}

fn read(format: Format, path: &Path) -> Result<Records, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::Io { path: path.into(), error })?;
    decode(format, &bytes).map_err(|error| DataError::Decode { path: path.into(), error })
}

/// Names from the folder's names file, else the names known for CIFAR-10, else `class-<label>`.
fn class_names(dir: &Path, format: Format) -> Result<Vec<String>, DataError> {
    let expected = format.classes();
    let path = dir.join(match format {
        Format::Cifar10 => "batches.meta.txt",
        Format::Cifar100 => "fine_label_names.txt",
    });
    if !path.exists() {
        return Ok(match format {
            Format::Cifar10 => CIFAR10_NAMES.split(' ').map(String::from).collect(),
            Format::Cifar100 => (0..expected).map(|label| format!("class-{label}")).collect(),
        });
    }
    let bytes = std::fs::read(&path).map_err(|error| DataError::Io { path: path.clone(), error })?;
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|n| !n.is_empty()).map(String::from).collect();
    if names.len() == expected {
        Ok(names)
    } else {
        Err(DataError::Names { path, expected, found: names.len() })
    }
}
