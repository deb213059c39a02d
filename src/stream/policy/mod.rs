//! What a device does with samples that arrive faster than it trains on them.
//!
//! [`PolicyBuffer`] holds items under one of three policies within a cap of memory and counts every one of them:
//! `arrived == taken + dropped + held`, always.
//!
//! - **persistence** keeps all, in order. Beyond the cap items go to segment files; while any are there, newer ones
//!   follow them, so order is memory first, then disk;
//! - **truncation** keeps the newest: after a step only so many, and at any time only what the cap holds;
//! - **reservoir** keeps a uniform random subset of a fixed size (see [`PolicyBuffer`] for of what).

mod buffer;
mod growth;
mod spill;

pub use buffer::{Policy, PolicyBuffer, Refused};
pub use growth::{queue_growth, queue_growth_fast_stream};

use std::path::PathBuf;

/// Something a buffer can hold, in memory or in a file.
pub trait Item: Sized {
    /// Bytes of memory it stands for; may be more than this value itself takes (a reference to an image).
    fn stored_bytes(&self) -> u64;
    /// Appends the item as bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// The item that [`Self::encode`] wrote; none if these bytes are no such item.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Why a buffer cannot hold or give an item. Files are those of samples spilled under persistence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BufferError {
    /// One item is larger than the whole buffer.
    #[error("a sample of {item_bytes} bytes in a buffer capped at {cap_bytes}; raise buffer.memory-cap-mib")]
    CapTooSmall {
        /// Bytes of the item.
        item_bytes: u64,
        /// Cap of the buffer.
        cap_bytes: u64,
    },
    /// The folder for spilled samples is not one.
    #[error("cannot spill samples to {}: {source}; set buffer.spill-dir to an existing folder", path.display())]
    SpillDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file operation failed (disk full, folder gone).
    #[error("cannot {action} spilled samples {} {}: {source}", if *action == "write" { "to" } else { "from" }, path.display())]
    SpillIo {
        /// `write` or `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A spilled sample is not what was written.
    #[error("spilled samples in {} are damaged at byte {at_byte}: {found}", path.display())]
    SpillDamaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record begins.
        at_byte: u64,
        /// What was found there.
        found: &'static str,
    },
}
