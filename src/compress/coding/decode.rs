//! Reading a payload from anyone: everything is checked before anything is used.

use super::block::{BlockHead, read_positions, take_varint};
use super::{CodingError, HEADER_BYTES, MAGIC, VERSION, value_bytes};
use crate::compress::BLOCK_LEN;
use crate::train::config::ValueCoding;
use half::bf16;
use rayon::prelude::*;

/// A valid payload, borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct Payload<'a> {
    numel: usize,
    num_kept: usize,
    values: ValueCoding,
    /// Empty if nothing is kept.
    blocks: Vec<Block<'a>>,
}

#[derive(Clone, Debug)]
struct Block<'a> {
    number: usize,
    len: usize,
    head: BlockHead,
    indices: &'a [u8],
    values: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Checks all of `bytes`: header, table, every index and every value.
    ///
    /// Memory is bounded by the length of `bytes`, whatever they state.
    ///
    /// # Errors
    /// The first [`CodingError`] found. It does not panic on any input.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CodingError> {
        let payload = Self::outline(bytes)?;
        // By hand instead of `try_for_each`: the first error by position, not by time.
        let checked: Vec<_> = payload.blocks.par_iter().map(|block| payload.check(block)).collect();
        checked.into_iter().collect::<Result<(), _>>()?;
        Ok(payload)
    }

    /// Checks header, table and lengths, but no index and no value.
    pub(in crate::compress) fn outline(bytes: &'a [u8]) -> Result<Self, CodingError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(CodingError::Truncated { part: "header", needed: HEADER_BYTES, found: bytes.len() });
        };
        let (numel, num_kept, values) = parse_header(header)?;
        let (heads, body) =
            if num_kept == 0 { (Vec::new(), body) } else { parse_table(numel, num_kept, body)? };
        let blocks = split_blocks(numel, values, heads, body)?;
        Ok(Self { numel, num_kept, values, blocks })
    }

    /// How values are written.
    pub(in crate::compress) fn values(&self) -> ValueCoding {
        self.values
    }

    /// Head of every block; none if nothing is kept.
    pub(in crate::compress) fn heads(&self) -> impl Iterator<Item = &BlockHead> {
        self.blocks.iter().map(|block| &block.head)
    }

    /// Elements of the encoded vector.
    pub fn numel(&self) -> usize {
        self.numel
    }

    /// Kept elements.
    pub fn num_kept(&self) -> usize {
        self.num_kept
    }

    /// Adds the kept elements to `out`.
    ///
    /// # Errors
    /// [`CodingError::Length`] if `out` has another length than the encoded vector.
    pub fn add_to(&self, out: &mut [f32]) -> Result<(), CodingError> {
        if out.len() != self.numel {
            return Err(CodingError::Length { payload: self.numel, found: out.len() });
        }
        out.par_chunks_mut(BLOCK_LEN).zip(&self.blocks).for_each(|(out, block)| {
            self.visit(block, |position, value| out[position] += value);
        });
        Ok(())
    }

    /// Kept elements as (index, value), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, f32)> {
        self.blocks.iter().flat_map(|block| {
            let mut elements = Vec::with_capacity(block.head.kept);
            self.visit(block, |position, value| elements.push((block.number * BLOCK_LEN + position, value)));
            elements
        })
    }

    fn check(&self, block: &Block) -> Result<(), CodingError> {
        let mut not_finite = None;
        self.try_visit(block, |position, value| {
            if !value.is_finite() && not_finite.is_none() {
                not_finite =
                    Some(CodingError::NotFinite { index: block.number * BLOCK_LEN + position, value });
            }
        })?;
        not_finite.map_or(Ok(()), Err)
    }

    fn visit(&self, block: &Block, visit: impl FnMut(usize, f32)) {
        self.try_visit(block, visit).expect("parse has checked every block");
    }

    fn try_visit(&self, block: &Block, mut visit: impl FnMut(usize, f32)) -> Result<(), CodingError> {
        let Block { number, len, head, indices, values } = block;
        match self.values {
            ValueCoding::F32 => {
                let mut values = values.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
                let next = |position| values.next().into_iter().for_each(|value| visit(position, value));
                read_positions(head, *number, *len, indices, next)
            }
            ValueCoding::Bf16 => {
                let mut values =
                    values.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32());
                let next = |position| values.next().into_iter().for_each(|value| visit(position, value));
                read_positions(head, *number, *len, indices, next)
            }
        }
    }
}

fn parse_header(header: &[u8; HEADER_BYTES]) -> Result<(usize, usize, ValueCoding), CodingError> {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let magic = [header[0], header[1], header[2], header[3]];
    if magic != MAGIC {
        return Err(CodingError::Magic { found: magic });
    }
    if header[4] != VERSION {
        return Err(CodingError::Version { found: header[4], supported: VERSION });
    }
    let values = match header[5] {
        0 => ValueCoding::F32,
        1 => ValueCoding::Bf16,
        found => return Err(CodingError::Header { offset: 5, found }),
    };
    if let Some(offset) = (6..8).find(|&i| header[i] != 0) {
        return Err(CodingError::Header { offset, found: header[offset] });
    }
    let (numel, kept) = (word(8), word(16));
    // What cannot be addressed in memory cannot be in it either.
    let Ok(len) = usize::try_from(numel) else {
        return Err(CodingError::Header { offset: 8, found: header[8] });
    };
    if kept > numel {
        return Err(CodingError::Count { what: "kept elements of the vector", stated: kept, found: numel });
    }
    Ok((len, kept as usize, values))
}

fn parse_table(numel: usize, kept: usize, mut bytes: &[u8]) -> Result<(Vec<BlockHead>, &[u8]), CodingError> {
    let blocks = numel.div_ceil(BLOCK_LEN);
    if blocks > bytes.len() {
        return Err(CodingError::Truncated { part: "table", needed: blocks, found: bytes.len() });
    }
    let mut heads = Vec::with_capacity(blocks);
    let mut sum = 0;
    for block in 0..blocks {
        let len = (numel - block * BLOCK_LEN).min(BLOCK_LEN);
        let head = parse_entry(block, len, &mut bytes)?;
        sum += head.kept;
        heads.push(head);
    }
    if sum != kept {
        return Err(CodingError::Count { what: "table", stated: kept as u64, found: sum as u64 });
    }
    Ok((heads, bytes))
}

fn parse_entry(block: usize, len: usize, bytes: &mut &[u8]) -> Result<BlockHead, CodingError> {
    let invalid = CodingError::Varint { part: "table entry", block };
    let entry = take_varint(bytes).ok_or(invalid.clone())?;
    let (kept, bitmap) = (entry / 2, entry % 2 == 1);
    if kept > len {
        let (stated, found) = (kept as u64, len as u64);
        return Err(CodingError::Count { what: "kept elements of a block", stated, found });
    }
    let index_bytes = match (kept, bitmap) {
        (0, false) => 0,
        (0, true) => return Err(invalid),
        (_, true) => len.div_ceil(8),
        (_, false) => kept + take_varint(bytes).filter(|&extra| extra <= 2 * kept).ok_or(invalid)?,
    };
    Ok(BlockHead { kept, bitmap, index_bytes })
}

fn split_blocks(
    numel: usize,
    values: ValueCoding,
    heads: Vec<BlockHead>,
    mut body: &[u8],
) -> Result<Vec<Block<'_>>, CodingError> {
    let mut blocks = Vec::with_capacity(heads.len());
    for (number, head) in heads.into_iter().enumerate() {
        let bytes = head.bytes(values);
        let Some((block, rest)) = body.split_at_checked(bytes) else {
            return Err(CodingError::Truncated { part: "blocks", needed: bytes, found: body.len() });
        };
        let (indices, kept_values) = block.split_at(bytes - head.kept * value_bytes(values));
        let len = (numel - number * BLOCK_LEN).min(BLOCK_LEN);
        blocks.push(Block { number, len, head, indices, values: kept_values });
        body = rest;
    }
    match body.len() {
        0 => Ok(blocks),
        extra => Err(CodingError::TrailingBytes { extra }),
    }
}
