//! Header, table and assembly of blocks into a payload.

use super::block::{BlockHead, BlockWriter, Values, push_varint};
use super::{Coding, CodingError, HEADER_BYTES, MAGIC, VERSION, value_bytes};
use crate::compress::BLOCK_LEN;
use crate::train::config::{IndexCoding, ValueCoding};
use std::ops::Range;

/// Most bytes that the table takes for one block: 3 for `2 * kept + bitmap`, 3 for the index bytes.
const TABLE_BYTES: usize = 6;

/// Most bytes of a block of `len` elements of which `kept` are kept.
pub(in crate::compress) fn block_len_bound(len: usize, kept: usize, coding: Coding) -> usize {
    if kept == 0 {
        return 0;
    }
    // A gap of g elements takes a second byte only if g >= 2^7, a third only if g >= 2^14, and gaps sum to less than len.
    let delta = kept + kept.min(len >> 7) + kept.min(len >> 14);
    let bitmap = len.div_ceil(8);
    let indices = match coding.indices {
        IndexCoding::Smallest => delta.min(bitmap),
        IndexCoding::Delta => delta,
        IndexCoding::Bitmap => bitmap,
    };
    indices + kept * value_bytes(coding.values)
}

/// Most bytes of a payload whose blocks take at most these.
pub(in crate::compress) fn payload_len_bound(block_bounds: &[usize]) -> usize {
    match block_bounds.iter().sum::<usize>() {
        0 => HEADER_BYTES,
        blocks => HEADER_BYTES + TABLE_BYTES * block_bounds.len() + blocks,
    }
}

/// Writes header and table for blocks with these heads into `out`, whose content is replaced, and returns the room of each
/// block; all of it must be written.
pub(in crate::compress) fn assemble<'a>(
    out: &'a mut Vec<u8>,
    numel: usize,
    values: ValueCoding,
    heads: &[BlockHead],
) -> Vec<&'a mut [u8]> {
    let front = front(numel, values, heads);
    let bytes = front.len() + heads.iter().map(|head| head.bytes(values)).sum::<usize>();
    // Not cleared first: everything is overwritten, and zeroing 30 MB each step takes milliseconds.
    out.resize(bytes, 0);
    let (start, mut rest) = out.split_at_mut(front.len());
    start.copy_from_slice(&front);
    let mut rooms = Vec::with_capacity(heads.len());
    for head in heads {
        let (room, tail) = rest.split_at_mut(head.bytes(values));
        rooms.push(room);
        rest = tail;
    }
    rooms
}

/// Header and table.
pub(in crate::compress) fn front(numel: usize, values: ValueCoding, heads: &[BlockHead]) -> Vec<u8> {
    let kept: usize = heads.iter().map(|head| head.kept).sum();
    let mut front = header(numel, kept, values);
    if kept > 0 {
        heads.iter().for_each(|head| push_table_entry(head, &mut front));
    }
    front
}

fn header(numel: usize, kept: usize, values: ValueCoding) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend(MAGIC);
    bytes.extend([VERSION, u8::from(values == ValueCoding::Bf16), 0, 0]);
    bytes.extend((numel as u64).to_le_bytes());
    bytes.extend((kept as u64).to_le_bytes());
    bytes
}

fn push_table_entry(head: &BlockHead, out: &mut Vec<u8>) {
    push_varint((2 * head.kept + usize::from(head.bitmap)) as u64, out);
    if head.kept > 0 && !head.bitmap {
        push_varint((head.index_bytes - head.kept) as u64, out);
    }
}

/// Encodes given elements of a vector of `numel` elements; replaces the content of `out`.
///
/// # Errors
/// Indices that do not ascend or reach `numel`, another number of values than of indices, values not finite.
///
/// # Example
/// ```
/// use scadles::compress::coding::{Coding, decode_add, encode};
/// let mut bytes = Vec::new();
/// encode(1000, &[3, 700], &[0.5, -2.0], Coding::default(), &mut bytes)?;
/// let mut sum = vec![1.0; 1000];
/// decode_add(&bytes, &mut sum)?;
/// assert_eq!((sum[3], sum[4], sum[700]), (1.5, 1.0, -1.0));
/// # Ok::<(), scadles::compress::coding::CodingError>(())
/// ```
pub fn encode(
    numel: usize,
    indices: &[usize],
    values: &[f32],
    coding: Coding,
    out: &mut Vec<u8>,
) -> Result<(), CodingError> {
    check(numel, indices, values)?;
    if indices.is_empty() {
        assemble(out, numel, coding.values, &[]);
        return Ok(());
    }
    let blocks: Vec<(usize, Range<usize>)> = (0..numel.div_ceil(BLOCK_LEN))
        .map(|block| {
            let first = |block: usize| indices.partition_point(|&index| index / BLOCK_LEN < block);
            ((numel - block * BLOCK_LEN).min(BLOCK_LEN), first(block)..first(block + 1))
        })
        .collect();
    let positions_of = |kept: &Range<usize>| -> Vec<u16> {
        indices[kept.clone()].iter().map(|i| (i % BLOCK_LEN) as u16).collect()
    };
    let writer = |len: usize| BlockWriter { coding, len };
    let heads: Vec<BlockHead> =
        blocks.iter().map(|(len, kept)| writer(*len).head(&positions_of(kept))).collect();
    let rooms = assemble(out, numel, coding.values, &heads);
    for (((len, kept), head), room) in blocks.into_iter().zip(&heads).zip(rooms) {
        writer(len).write(head, &positions_of(&kept), &mut Listed(values[kept].iter()), room);
    }
    Ok(())
}

struct Listed<'a>(std::slice::Iter<'a, f32>);

impl Values for Listed<'_> {
    fn send(&mut self, _: usize, round: impl Fn(f32) -> f32) -> f32 {
        round(*self.0.next().expect("one value per index"))
    }
}

fn check(numel: usize, indices: &[usize], values: &[f32]) -> Result<(), CodingError> {
    if indices.len() != values.len() {
        let (stated, found) = (indices.len() as u64, values.len() as u64);
        return Err(CodingError::Count { what: "values to encode", stated, found });
    }
    if let Some(pair) = indices.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(CodingError::NotAscending { previous: pair[0], index: pair[1] });
    }
    if let Some(&index) = indices.last().filter(|&&index| index >= numel) {
        let (block, index) = (index / BLOCK_LEN, index % BLOCK_LEN);
        let len = numel.saturating_sub(block * BLOCK_LEN).min(BLOCK_LEN);
        return Err(CodingError::IndexOutOfRange { block, index, len });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(CodingError::NotFinite { index: indices[at], value: values[at] }),
        None => Ok(()),
    }
}
