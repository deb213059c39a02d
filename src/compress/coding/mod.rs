//! Payloads: the kept elements of a vector as bytes, and back.
//!
//! All numbers are little-endian; *varint* is unsigned LEB128 in its shortest form.
//!
//! | Part | Bytes | Content |
//! | --- | --- | --- |
//! | header | 4 | `SDLP` |
//! | | 1 | version, 1 |
//! | | 1 | value coding: 0 f32, 1 bf16 |
//! | | 2 | zero |
//! | | 8 | elements of the vector |
//! | | 8 | kept elements |
//! | table | 1 or more per block | absent if nothing is kept. Varint `2 * kept + bitmap`; then, for a block that is not a bitmap and keeps something, varint `index bytes - kept` |
//! | blocks | | index bytes, then the values in ascending order of index; nothing for an empty block |
//!
//! A block is [`BLOCK_LEN`](super::BLOCK_LEN) elements of the vector. Its indices are either varints of
//! `index - previous - 1` (the first: `index`), so that they ascend by construction, or a bitmap, lowest bit first.
//! Each block takes the smaller one unless the configuration names one. Blocks can be written and read in parallel.

mod block;
mod decode;
mod encode;

pub(super) use block::{BlockHead, BlockWriter, Values};
pub use decode::Payload;
pub use encode::encode;
pub(super) use encode::{assemble, block_len_bound, front, payload_len_bound};

use crate::train::config::{IndexCoding, ValueCoding};

const MAGIC: [u8; 4] = *b"SDLP";
const VERSION: u8 = 1;
/// Bytes of the header; the whole payload when nothing is kept.
pub const HEADER_BYTES: usize = 24;

/// How values and indices are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coding {
    /// Values.
    pub values: ValueCoding,
    /// Indices.
    pub indices: IndexCoding,
}

/// Bytes that are not a payload, or elements that cannot become one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodingError {
    /// The bytes end inside a part.
    #[error("payload ends inside its {part}: {needed} bytes needed, {found} left")]
    Truncated {
        /// Which part.
        part: &'static str,
        /// Bytes that the part needs.
        needed: usize,
        /// Bytes that are left.
        found: usize,
    },
    /// The first bytes are not those of a payload.
    #[error("payload starts with {found:02x?}, not with \"SDLP\": these bytes are something else")]
    Magic {
        /// First bytes found.
        found: [u8; 4],
    },
    /// Written by another version of the format.
    #[error(
        "payload has version {found}; this program reads version {supported}: use one build on all devices"
    )]
    Version {
        /// Version found.
        found: u8,
        /// Version that can be read.
        supported: u8,
    },
    /// A byte of the header has no meaning.
    #[error("payload header byte {offset} is {found}, which has no meaning in this version")]
    Header {
        /// Its position.
        offset: usize,
        /// Its value.
        found: u8,
    },
    /// A varint is not in its shortest form or exceeds its field.
    #[error("{part} of block {block} holds a varint that is too long or too large")]
    Varint {
        /// Which part.
        part: &'static str,
        /// Which block.
        block: usize,
    },
    /// An index lies outside its block or vector.
    #[error("index {index} of block {block} is outside its {len} elements")]
    IndexOutOfRange {
        /// Which block.
        block: usize,
        /// The index, counted from the start of the block.
        index: usize,
        /// Elements of the block.
        len: usize,
    },
    /// Indices to encode do not ascend.
    #[error("index {index} follows {previous}: indices must ascend")]
    NotAscending {
        /// The index before.
        previous: usize,
        /// The index that does not exceed it.
        index: usize,
    },
    /// Two statements of the payload about a number of elements differ.
    #[error("{what}: {stated} elements stated, {found} found")]
    Count {
        /// What was counted.
        what: &'static str,
        /// The number stated.
        stated: u64,
        /// The number found.
        found: u64,
    },
    /// Bytes after the end.
    #[error("{extra} bytes follow the end of the payload")]
    TrailingBytes {
        /// Their number.
        extra: usize,
    },
    /// A value is NaN or infinite.
    #[error("value of index {index} is {value}")]
    NotFinite {
        /// Index in the vector.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The vector to add to has another length than the encoded one.
    #[error(
        "payload of a vector of {payload} elements, added to one of {found}: the devices train different networks"
    )]
    Length {
        /// Elements of the encoded vector.
        payload: usize,
        /// Elements of the vector given.
        found: usize,
    },
}

/// Checks `bytes` and adds the decoded elements to `out`; nothing is added unless everything is valid.
///
/// # Errors
/// See [`Payload::parse`]; also [`CodingError::Length`] if `out` has another length than the encoded vector.
pub fn decode_add(bytes: &[u8], out: &mut [f32]) -> Result<(), CodingError> {
    Payload::parse(bytes)?.add_to(out)
}

/// Bytes of one value.
pub(super) fn value_bytes(coding: ValueCoding) -> usize {
    match coding {
        ValueCoding::F32 => 4,
        ValueCoding::Bf16 => 2,
    }
}
