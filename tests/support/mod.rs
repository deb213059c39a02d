//! What several test programs share.

use std::path::PathBuf;

/// Folder with the real data sets (`cifar-10-small`, `cifar-100-small`, ...): `SCADLES_DATA`, if set.
pub fn shared_data() -> Option<PathBuf> {
    std::env::var_os("SCADLES_DATA").filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A subfolder of [`shared_data`]; without it, says which test is skipped.
pub fn shared_data_or_skip(test: &str, folder: &str) -> Option<PathBuf> {
    let found = shared_data().map(|dir| dir.join(folder));
    if found.is_none() {
        println!("skipped: {test} (no SCADLES_DATA)");
    }
    found
}
