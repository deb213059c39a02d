//! Samples as records on the wire: versioned, checksummed, readable from the middle of a damaged stream.
//!
//! All numbers are little-endian.
//!
//! | Offset | Bytes | Field | Meaning |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | `SCDL` |
//! | 4 | 1 | version | 1 |
//! | 5 | 1 | kind | 0: a sample; 1: the end of the stream, without pixels |
//! | 6 | 2 | height | pixels |
//! | 8 | 2 | width | pixels |
//! | 10 | 1 | channels | bytes of a pixel |
//! | 11 | 1 | reserved | 0 |
//! | 12 | 4 | label | class, from 0 |
//! | 16 | 8 | sequence | position in the stream, from 0 |
//! | 24 | 8 | event time | when the sample was taken, ns since 1970 |
//! | 32 | 4 | length | bytes of the payload: height x width x channels |
//! | 36 | length | payload | pixels in the order of rows, columns, channels |
//! | 36 + length | 4 | checksum | CRC-32 (IEEE) of all bytes before |

mod decoder;

pub use decoder::{Decoded, Decoder};

/// First bytes of every record.
pub const MAGIC: [u8; 4] = *b"SCDL";
/// The version that is written and read.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 36;
/// Bytes after the payload.
pub const CHECKSUM_BYTES: usize = 4;

const KIND_SAMPLE: u8 = 0;
const KIND_END: u8 = 1;

/// What travels with the pixels of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
    /// Bytes of a pixel.
    pub channels: u8,
    /// Class, from 0.
    pub label: u32,
    /// Position in the stream, from 0.
    pub sequence: u64,
    /// When the sample was taken, ns since 1970.
    pub event_time_ns: u64,
}

impl Header {
    /// Bytes of the pixels.
    pub fn pixel_bytes(&self) -> u64 {
        u64::from(self.height) * u64::from(self.width) * u64::from(self.channels)
    }
}

/// Why bytes are no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Poison {
    /// Bytes between records.
    #[error("bytes that do not begin a record")]
    Garbage,
    /// A version that this program does not read.
    #[error("record version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// Neither sample nor end.
    #[error("record kind {0}; it must be 0 (sample) or 1 (end)")]
    Kind(u8),
    /// A payload that is not the image.
    #[error("{length} bytes of pixels for an image of {pixels} bytes")]
    Length {
        /// As the record says.
        length: u32,
        /// Height x width x channels.
        pixels: u64,
    },
    /// More pixels than any sample of this stream has.
    #[error("{length} bytes of pixels; at most {max} are accepted")]
    TooLong {
        /// As the record says.
        length: u32,
        /// Limit of the reader.
        max: usize,
    },
    /// Damaged on the way.
    #[error("the checksum is {found:#010x}, the bytes give {computed:#010x}")]
    Checksum {
        /// As the record says.
        found: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// The stream broke off inside a record.
    #[error("the stream ends after {held} bytes of a record")]
    Truncated {
        /// Bytes of the record that came.
        held: usize,
    },
    /// An image of another size.
    #[error("an image of {height}x{width}x{channels}; the network is built for another size")]
    Shape {
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
        /// Bytes of a pixel.
        channels: u8,
    },
    /// A class that the data set does not have.
    #[error("label {label}; the data set has {classes} classes")]
    Label {
        /// As the record says.
        label: u32,
        /// Classes, counted from 0.
        classes: usize,
    },
}

/// Why a sample cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pixels} bytes of pixels for an image of {expected} bytes (at most {})", u32::MAX)]
pub struct EncodeError {
    /// Bytes given.
    pub pixels: usize,
    /// Bytes that the header stands for.
    pub expected: u64,
}

/// Appends a sample to `out`.
///
/// # Errors
/// Pixels that are not `height x width x channels` bytes.
pub fn encode_sample(header: &Header, pixels: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let error = EncodeError { pixels: pixels.len(), expected: header.pixel_bytes() };
    let length = u32::try_from(pixels.len()).map_err(|_| error)?;
    if u64::from(length) != header.pixel_bytes() {
        return Err(error);
    }
    encode(KIND_SAMPLE, header, length, pixels, out);
    Ok(())
}

/// Appends the end of a stream of `samples` samples to `out`.
pub fn encode_end(samples: u64, out: &mut Vec<u8>) {
    encode(KIND_END, &Header { sequence: samples, ..Header::default() }, 0, &[], out);
}

fn encode(kind: u8, header: &Header, length: u32, pixels: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&header.height.to_le_bytes());
    out.extend_from_slice(&header.width.to_le_bytes());
    out.extend_from_slice(&[header.channels, 0]);
    out.extend_from_slice(&header.label.to_le_bytes());
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.extend_from_slice(&header.event_time_ns.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(pixels);
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}
