//! Records out of bytes that come in pieces.

use super::{CHECKSUM_BYTES, HEADER_BYTES, Header, KIND_END, KIND_SAMPLE, MAGIC, Poison, VERSION};

/// Smallest buffer: one read of a socket.
const MIN_BUFFER: usize = 64 * 1024;

/// What the bytes so far hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A sample with its pixels.
    Sample(Header, &'a [u8]),
    /// The sender's last record: how many samples it sent.
    End(u64),
    /// Bytes that are no record; the decoder goes on behind them.
    Poison(Poison),
    /// More bytes are needed.
    Incomplete,
}

/// Finds records in a stream of bytes. Takes any bytes without panic, and finds the next whole record after damage: it
/// looks for the magic from the first byte that it has not accepted, so a wrong length costs no good record. A run of
/// damage is reported once for each magic in it.
pub struct Decoder {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    max_payload: usize,
    /// Inside damage that has been reported.
    lost: bool,
}

/// Answer without borrowed pixels.
enum Step {
    Sample(Header, std::ops::Range<usize>),
    End(u64),
    Poison(Poison),
    Incomplete,
}

impl Decoder {
    /// A decoder of records with at most `max_payload` bytes of pixels.
    pub fn new(max_payload: usize) -> Self {
        let record = max_payload.saturating_add(HEADER_BYTES + CHECKSUM_BYTES);
        let buffer = vec![0; record.saturating_mul(2).max(MIN_BUFFER)].into();
        Self { buffer, start: 0, end: 0, max_payload, lost: false }
    }

    /// Room for the next bytes; never empty once [`next_record`](Self::next_record) has answered `Incomplete`.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// Tells that the first `bytes` of [`space`](Self::space) have been filled.
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Bytes that wait to be decoded.
    pub fn held(&self) -> usize {
        self.end - self.start
    }

    /// The next record, or why there is none.
    pub fn next_record(&mut self) -> Decoded<'_> {
        match self.step() {
            Step::Sample(header, pixels) => Decoded::Sample(header, &self.buffer[pixels]),
            Step::End(samples) => Decoded::End(samples),
            Step::Poison(poison) => Decoded::Poison(poison),
            Step::Incomplete => Decoded::Incomplete,
        }
    }

    /// Ends the stream: forgets what is held, and tells when that was the begin of a record.
    pub fn finish(&mut self) -> Option<Poison> {
        let held = self.held();
        let poison = (held > 0 && !self.lost).then_some(Poison::Truncated { held });
        (self.start, self.end, self.lost) = (0, 0, false);
        poison
    }

    fn step(&mut self) -> Step {
        if self.skip_to_magic() && !self.lost {
            self.lost = true;
            return Step::Poison(Poison::Garbage);
        }
        let held = &self.buffer[self.start..self.end];
        let Some(bytes) = held.first_chunk::<HEADER_BYTES>() else { return Step::Incomplete };
        let length = u32_at(bytes, 32);
        let (kind, header) = match self.read_header(bytes, length) {
            Ok(read) => read,
            Err(poison) => return self.reject(poison),
        };
        // `read_header` has checked that the length is at most `max_payload`.
        let checked = HEADER_BYTES + length as usize;
        let Some(stored) = held.get(checked..checked + CHECKSUM_BYTES) else { return Step::Incomplete };
        let (found, computed) = (u32_at(stored, 0), crc32fast::hash(&held[..checked]));
        if found != computed {
            return self.reject(Poison::Checksum { found, computed });
        }
        let pixels = self.start + HEADER_BYTES..self.start + checked;
        self.start += checked + CHECKSUM_BYTES;
        self.lost = false;
        if kind == KIND_END { Step::End(header.sequence) } else { Step::Sample(header, pixels) }
    }

    /// Moves to the first place where a record may begin; whether bytes were left out.
    fn skip_to_magic(&mut self) -> bool {
        let held = &self.buffer[self.start..self.end];
        let begins = |at: &usize| {
            let rest = &held[*at..];
            let shown = rest.len().min(MAGIC.len());
            rest[..shown] == MAGIC[..shown]
        };
        let skipped = (0..held.len()).find(begins).unwrap_or(held.len());
        self.start += skipped;
        skipped > 0
    }

    fn read_header(&self, bytes: &[u8; HEADER_BYTES], length: u32) -> Result<(u8, Header), Poison> {
        let (version, kind) = (bytes[4], bytes[5]);
        if version != VERSION {
            return Err(Poison::Version(version));
        }
        if kind != KIND_SAMPLE && kind != KIND_END {
            return Err(Poison::Kind(kind));
        }
        let header = Header {
            height: u16::from_le_bytes([bytes[6], bytes[7]]),
            width: u16::from_le_bytes([bytes[8], bytes[9]]),
            channels: bytes[10],
            label: u32_at(bytes, 12),
            sequence: u64_at(bytes, 16),
            event_time_ns: u64_at(bytes, 24),
        };
        if u64::from(length) != header.pixel_bytes() {
            return Err(Poison::Length { length, pixels: header.pixel_bytes() });
        }
        if length as usize > self.max_payload {
            return Err(Poison::TooLong { length, max: self.max_payload });
        }
        Ok((kind, header))
    }

    /// Leaves the magic out, which overlaps with no other magic, and looks for the next one from there.
    fn reject(&mut self, poison: Poison) -> Step {
        self.start += MAGIC.len();
        self.lost = true;
        Step::Poison(poison)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
