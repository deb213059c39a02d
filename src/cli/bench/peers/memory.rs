//! Most memory that something took, as Linux counts it.

use std::fs;

/// Counts from where it begins.
pub(super) struct Peak {
    before: u64,
}

impl Peak {
    pub fn begin() -> Self {
        // Without it the count goes on from the peak before, and tells too much: then nothing is told.
        let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
        Self { before: if reset { resident("VmRSS:").unwrap_or(u64::MAX) } else { u64::MAX } }
    }

    /// Bytes above those of the beginning; 0 where that cannot be told.
    pub fn bytes(&self) -> u64 {
        resident("VmHWM:").unwrap_or(0).saturating_sub(self.before)
    }
}

fn resident(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(1024 * line.split_whitespace().next()?.parse::<u64>().ok()?)
}
