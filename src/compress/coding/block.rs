//! One block: indices as varint gaps or bitmap, then values.

use super::{Coding, CodingError, value_bytes};
use crate::ops::multiversion::multiversion;
use crate::train::config::{IndexCoding, ValueCoding};
use half::bf16;

/// Where a block writer takes values from.
pub(in crate::compress) trait Values {
    /// Value at a position of the block, rounded by `round` to what the payload can hold; the writer keeps exactly
    /// what `round` returns.
    fn send(&mut self, position: usize, round: impl Fn(f32) -> f32) -> f32;

    /// Says that the value at a position is going to be sent soon.
    fn expect(&self, _position: usize) {}
}

/// Values between [`Values::expect`] and [`Values::send`] of a position.
const EXPECTED_AHEAD: usize = 24;
const GAPS_AT_ONCE: usize = 32;

/// Size and kind of a written block: what the table states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::compress) struct BlockHead {
    pub kept: usize,
    pub bitmap: bool,
    pub index_bytes: usize,
}

impl BlockHead {
    pub fn bytes(&self, values: ValueCoding) -> usize {
        self.index_bytes + self.kept * value_bytes(values)
    }
}

/// Writes one block of `len` elements.
pub(in crate::compress) struct BlockWriter {
    pub coding: Coding,
    pub len: usize,
}

impl BlockWriter {
    /// Kind and size of the block that keeps `positions` (ascending, below `len`).
    pub fn head(&self, positions: &[u16]) -> BlockHead {
        let kept = positions.len();
        if kept == 0 {
            return BlockHead::default();
        }
        let (delta, bitmap) = (gap_bytes(positions), self.len.div_ceil(8));
        let bitmap_wins = match self.coding.indices {
            IndexCoding::Smallest => bitmap < delta,
            IndexCoding::Delta => false,
            IndexCoding::Bitmap => true,
        };
        BlockHead { kept, bitmap: bitmap_wins, index_bytes: if bitmap_wins { bitmap } else { delta } }
    }

    /// Writes the block to `out`, which has the bytes that `head`, the head for `positions`, says.
    pub fn write(&self, head: &BlockHead, positions: &[u16], values: &mut impl Values, out: &mut [u8]) {
        let (indices, rest) = out.split_at_mut(head.index_bytes);
        if head.bitmap {
            indices.fill(0);
            positions.iter().for_each(|&p| indices[usize::from(p) / 8] |= 1 << (p % 8));
        } else {
            write_gaps(positions, indices);
        }
        let next = positions.iter().skip(EXPECTED_AHEAD).map(Some).chain(std::iter::repeat(None));
        let positions = positions.iter().zip(next);
        match self.coding.values {
            ValueCoding::F32 => {
                for (bytes, (&position, next)) in rest.as_chunks_mut().0.iter_mut().zip(positions) {
                    next.into_iter().for_each(|&next| values.expect(next.into()));
                    *bytes = values.send(position.into(), |x| x).to_le_bytes();
                }
            }
            ValueCoding::Bf16 => {
                for (bytes, (&position, next)) in rest.as_chunks_mut().0.iter_mut().zip(positions) {
                    next.into_iter().for_each(|&next| values.expect(next.into()));
                    *bytes = bf16::from_f32(values.send(position.into(), round_to_bf16)).to_le_bytes();
                }
            }
        }
    }
}

/// The nearest bf16, ties to even; at most the largest finite one.
pub(super) fn round_to_bf16(x: f32) -> f32 {
    let rounded = bf16::from_f32(x).to_f32();
    if rounded.is_infinite() && x.is_finite() { bf16::MAX.to_f32().copysign(x) } else { rounded }
}

fn gap_bytes(positions: &[u16]) -> usize {
    let first = u32::from(positions[0]);
    positions.len() + long_gaps(positions) + usize::from(first >= 1 << 7) + usize::from(first >= 1 << 14)
}

multiversion! {
    /// Bytes that the gaps between positions take beyond the first byte of each.
    fn long_gaps(positions: &[u16]) -> usize {
        let mut extra = 0;
        // Short enough for sums of 16 bits.
        for (from, to) in positions.chunks(GAPS_AT_ONCE).zip(positions[1..].chunks(GAPS_AT_ONCE)) {
            let long = |from: &u16, to: &u16| u16::from(to - from > 1 << 7) + u16::from(to - from > 1 << 14);
            extra += usize::from(from.iter().zip(to).map(|(from, to)| long(from, to)).sum::<u16>());
        }
        extra
    }
}

multiversion! {
    fn write_gaps(positions: &[u16], out: &mut [u8]) {
        let (mut at, mut next) = (0, 0);
        for positions in positions.chunks(GAPS_AT_ONCE) {
            let mut gaps = [0u16; GAPS_AT_ONCE];
            for (gap, pair) in gaps[1..].iter_mut().zip(positions.windows(2)) {
                *gap = pair[1] - pair[0] - 1;
            }
            gaps[0] = (u32::from(positions[0]) - next) as u16;
            next = u32::from(positions[positions.len() - 1]) + 1;
            let longest = gaps.iter().fold(0, |longest, &gap| longest.max(gap));
            if longest < 1 << 7 {
                let bytes = gaps.map(|gap| gap as u8);
                out[at..at + positions.len()].copy_from_slice(&bytes[..positions.len()]);
                at += positions.len();
                continue;
            }
            for &gap in &gaps[..positions.len()] {
                at = write_varint(gap, out, at);
            }
        }
    }
}

/// Writes a varint at `at`, and returns where it ends.
#[inline(always)]
fn write_varint(value: u16, out: &mut [u8], at: usize) -> usize {
    let more = value >= 1 << 7;
    out[at] = value as u8 & 0x7f | u8::from(more) << 7;
    let Some([second, third]) =
        out.get_mut(at + 1..at + 3).and_then(|rest| <&mut [u8; 2]>::try_from(rest).ok())
    else {
        // The last bytes of the list.
        if more {
            out[at + 1] = (value >> 7) as u8;
        }
        return at + 1 + usize::from(more);
    };
    // Written whether needed or not: what follows overwrites it, and there is no branch to mispredict.
    let long = value >= 1 << 14;
    *second = (value >> 7) as u8 & 0x7f | u8::from(long) << 7;
    *third = (value >> 14) as u8;
    at + 1 + usize::from(more) + usize::from(long)
}

/// Appends a varint.
pub(super) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint of at most 3 bytes from the front of `bytes`; none if it is cut off, overlong or longer.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for i in 0..3 {
        let byte = *bytes.get(i)?;
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return (byte != 0 || i == 0).then_some(value);
        }
    }
    None
}

/// Calls `visit` with each position of an encoded block of `len` elements, ascending.
pub(super) fn read_positions(
    head: &BlockHead,
    block: usize,
    len: usize,
    mut indices: &[u8],
    mut visit: impl FnMut(usize),
) -> Result<(), CodingError> {
    let outside = |index: usize| CodingError::IndexOutOfRange { block, index, len };
    if !head.bitmap {
        let mut next = 0;
        for _ in 0..head.kept {
            let gap = take_varint(&mut indices).ok_or(CodingError::Varint { part: "index list", block })?;
            let position = next + gap;
            if position >= len {
                return Err(outside(position));
            }
            visit(position);
            next = position + 1;
        }
        return match indices.len() {
            0 => Ok(()),
            _ => Err(CodingError::Varint { part: "index list", block }),
        };
    }
    let mut found = 0;
    for (i, &byte) in indices.iter().enumerate() {
        let mut bits = byte;
        while bits != 0 {
            let position = 8 * i + bits.trailing_zeros() as usize;
            if position >= len {
                return Err(outside(position));
            }
            visit(position);
            (bits, found) = (bits & (bits - 1), found + 1);
        }
    }
    if found != head.kept {
        let (stated, found) = (head.kept as u64, found as u64);
        return Err(CodingError::Count { what: "bitmap", stated, found });
    }
    Ok(())
}
