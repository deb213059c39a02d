//! One block: indices as varint gaps or bitmap, then values.

use super::{Coding, CodingError, value_bytes};
use crate::train::config::{IndexCoding, ValueCoding};
use half::bf16;

/// Where a block writer takes values from.
pub(in crate::compress) trait Values {
    /// Value at a position of the block, rounded by `round` to what the payload can hold; the writer keeps exactly
    /// what `round` returns.
    fn send(&mut self, position: usize, round: impl Fn(f32) -> f32) -> f32;
}

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

    /// Writes the block to the front of `out`, which holds at least its bytes.
    pub fn write(&self, positions: &[u16], values: &mut impl Values, out: &mut [u8]) -> BlockHead {
        let head = self.head(positions);
        let (indices, rest) = out.split_at_mut(head.index_bytes);
        if head.bitmap {
            indices.fill(0);
            positions.iter().for_each(|&p| indices[usize::from(p) / 8] |= 1 << (p % 8));
        } else {
            write_gaps(positions, indices);
        }
        match self.coding.values {
            ValueCoding::F32 => {
                for (bytes, &position) in rest.as_chunks_mut().0.iter_mut().zip(positions) {
                    *bytes = values.send(position.into(), |x| x).to_le_bytes();
                }
            }
            ValueCoding::Bf16 => {
                for (bytes, &position) in rest.as_chunks_mut().0.iter_mut().zip(positions) {
                    *bytes = bf16::from_f32(values.send(position.into(), round_to_bf16)).to_le_bytes();
                }
            }
        }
        head
    }
}

/// The nearest bf16, ties to even; at most the largest finite one.
pub(super) fn round_to_bf16(x: f32) -> f32 {
    let rounded = bf16::from_f32(x).to_f32();
    if rounded.is_infinite() && x.is_finite() { bf16::MAX.to_f32().copysign(x) } else { rounded }
}

fn gap_bytes(positions: &[u16]) -> usize {
    let mut bytes = varint_bytes(u32::from(positions[0]));
    for pair in positions.windows(2) {
        bytes += varint_bytes(u32::from(pair[1] - pair[0]) - 1);
    }
    bytes
}

fn varint_bytes(value: u32) -> usize {
    1 + usize::from(value >= 1 << 7) + usize::from(value >= 1 << 14)
}

fn write_gaps(positions: &[u16], out: &mut [u8]) {
    let (mut at, mut next) = (0, 0);
    for &position in positions {
        let mut gap = u32::from(position) - next;
        next = u32::from(position) + 1;
        while gap >= 0x80 {
            out[at] = gap as u8 | 0x80;
            (at, gap) = (at + 1, gap >> 7);
        }
        out[at] = gap as u8;
        at += 1;
    }
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
