//! What several test programs share.

use std::path::{Path, PathBuf};

/// Folder with the real data sets (`cifar-10-small`, `cifar-100-small`, ...): `SCADLES_DATA`, else `../shared/data`
/// beside the checkout if it exists.
pub fn shared_data() -> Option<PathBuf> {
    match std::env::var_os("SCADLES_DATA") {
        Some(dir) if !dir.is_empty() => Some(dir.into()),
        _ => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).filter(|dir| dir.is_dir()),
    }
}

/// A subfolder of [`shared_data`]; without it, says which test is skipped.
pub fn shared_data_or_skip(test: &str, folder: &str) -> Option<PathBuf> {
    let found = shared_data().map(|dir| dir.join(folder));
    if found.is_none() {
        println!("skipped: {test} (no SCADLES_DATA)");
    }
    found
}
