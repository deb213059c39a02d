//! How a flat vector is cut for selection and for work: layers, selection groups, tiles, blocks.
//!
//! A *group* is the range of one top-k selection (the whole vector or one layer). A *block* is [`BLOCK_LEN`] elements
//! of the vector, the unit of the payload. A *tile* is the part of a layer inside one block, the unit of parallel work.
//! All are fixed by the vector alone, so sums over tiles do not depend on the number of threads.

use super::error::CompressError;
use crate::train::config::TopKScope;
use std::ops::Range;

/// Elements of one payload block; the last block of a vector may be shorter.
pub const BLOCK_LEN: usize = 1 << 16;

/// Elements kept of `numel` at a density in (0, 1]: `max(1, ceil(density * numel))`.
///
/// A product within a relative 1e-12 of a whole number counts as that number: 0.07 of 100 is 7, although the product
/// of the doubles is a little more.
pub fn num_kept(numel: usize, density: f64) -> usize {
    let product = density * numel as f64;
    let whole = product.round();
    let kept = if (product - whole).abs() <= 1e-12 * whole { whole } else { product.ceil() };
    (kept as usize).clamp(1, numel.max(1))
}

/// Part of one layer inside one block.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    pub range: Range<usize>,
    pub layer: usize,
}

/// The cuts of one flat vector; shared by all devices of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    scope: TopKScope,
    numel: usize,
    num_layers: usize,
    /// Element ranges of the selections.
    pub(super) groups: Vec<Range<usize>>,
    /// In ascending order; together they cover the vector.
    pub(super) tiles: Vec<Tile>,
    /// Tiles of each group.
    pub(super) group_tiles: Vec<Range<usize>>,
    /// Tiles of each block.
    pub(super) block_tiles: Vec<Range<usize>>,
}

impl Plan {
    /// Cuts `numel` elements into `layers`, given as ascending ranges that cover the vector; none means one layer.
    ///
    /// # Errors
    /// [`CompressError::Empty`] for no elements, [`CompressError::Layers`] for a gap, an overlap or an empty layer.
    ///
    /// # Example
    /// ```
    /// use scadles::compress::Plan;
    /// use scadles::train::config::TopKScope;
    /// let plan = Plan::new(10, &[0..4, 4..10], TopKScope::Layer)?;
    /// assert_eq!(plan.num_kept(0.5), 2 + 3);
    /// # Ok::<(), scadles::compress::CompressError>(())
    /// ```
    pub fn new(numel: usize, layers: &[Range<usize>], scope: TopKScope) -> Result<Self, CompressError> {
        if numel == 0 {
            return Err(CompressError::Empty);
        }
        let whole = Vec::from([Range { start: 0, end: numel }]);
        let layers = if layers.is_empty() { &whole } else { layers };
        check_layers(numel, layers)?;
        let groups = match scope {
            TopKScope::Vector => whole.clone(),
            TopKScope::Layer => layers.to_vec(),
        };
        let tiles: Vec<Tile> =
            layers.iter().enumerate().flat_map(|(layer, range)| cut(layer, range)).collect();
        let blocks = (0..numel).step_by(BLOCK_LEN).map(|start| start..(start + BLOCK_LEN).min(numel));
        let block_tiles = tiles_of(&tiles, blocks);
        let group_tiles = tiles_of(&tiles, groups.iter().cloned());
        Ok(Self { scope, numel, num_layers: layers.len(), groups, tiles, group_tiles, block_tiles })
    }

    /// Elements of the vector.
    pub fn numel(&self) -> usize {
        self.numel
    }

    /// Range of one selection.
    pub fn scope(&self) -> TopKScope {
        self.scope
    }

    /// Elements kept at `density`, over all groups.
    pub fn num_kept(&self, density: f64) -> usize {
        self.groups.iter().map(|group| num_kept(group.len(), density)).sum()
    }

    pub(super) fn num_layers(&self) -> usize {
        self.num_layers
    }

    /// One mutable slice per tile.
    pub(super) fn split_mut<'a>(&self, mut data: &'a mut [f32]) -> Vec<&'a mut [f32]> {
        let mut slices = Vec::with_capacity(self.tiles.len());
        for tile in &self.tiles {
            let (head, rest) = data.split_at_mut(tile.range.len());
            slices.push(head);
            data = rest;
        }
        slices
    }
}

fn check_layers(numel: usize, layers: &[Range<usize>]) -> Result<(), CompressError> {
    let mut expected = 0;
    for (layer, range) in layers.iter().enumerate() {
        let last_is_short = layer + 1 == layers.len() && range.end != numel;
        if range.start != expected || range.end <= range.start || range.end > numel || last_is_short {
            return Err(CompressError::Layers { layer, start: range.start, end: range.end, expected, numel });
        }
        expected = range.end;
    }
    Ok(())
}

fn cut(layer: usize, range: &Range<usize>) -> impl Iterator<Item = Tile> {
    let (mut start, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let stop = (start / BLOCK_LEN + 1).saturating_mul(BLOCK_LEN).min(end);
        let tile = Tile { range: start..stop, layer };
        let more = start < end;
        start = stop;
        more.then_some(tile)
    })
}

fn tiles_of(tiles: &[Tile], parts: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut first = 0;
    parts
        .map(|part| {
            let count = tiles[first..].iter().take_while(|tile| tile.range.end <= part.end).count();
            first += count;
            first - count..first
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn num_kept_is_the_ceiling_and_at_least_one() {
        assert_eq!(num_kept(100, 0.07), 7);
        assert_eq!(num_kept(1000, 0.001), 1);
        assert_eq!(num_kept(1001, 0.001), 2);
        assert_eq!(num_kept(5, 1e-9), 1);
        assert_eq!(num_kept(7, 1.0), 7);
        assert_eq!(num_kept(1, 0.5), 1);
        assert_eq!(num_kept(60_200_000, 0.1), 6_020_000);
    }

    #[test]
    fn tiles_cover_the_vector_and_respect_layers_and_blocks() {
        let numel = 3 * BLOCK_LEN + 17;
        let layers = [0..5, 5..BLOCK_LEN + 1, BLOCK_LEN + 1..2 * BLOCK_LEN, 2 * BLOCK_LEN..numel];
        let plan = Plan::new(numel, &layers, TopKScope::Layer).unwrap();
        let mut next = 0;
        for tile in &plan.tiles {
            assert_eq!(tile.range.start, next);
            assert_eq!(tile.range.start / BLOCK_LEN, (tile.range.end - 1) / BLOCK_LEN);
            assert!(layers[tile.layer].start <= tile.range.start && tile.range.end <= layers[tile.layer].end);
            next = tile.range.end;
        }
        assert_eq!(next, numel);
        assert_eq!(plan.block_tiles, [0..2, 2..4, 4..5, 5..6]);
        assert_eq!(plan.group_tiles, [0..1, 1..3, 3..4, 4..6]);
    }

    #[test]
    fn layers_with_gap_overlap_or_short_end_are_refused() {
        for layers in
            [&[0..4, 5..10][..], &[0..4, 3..10], &[0..4, 4..9], &[0..4, 4..4, 4..10], &[0..4, 4..11]]
        {
            let refused = Plan::new(10, layers, TopKScope::Vector);
            assert!(matches!(refused, Err(CompressError::Layers { .. })), "{layers:?}");
        }
        assert_eq!(Plan::new(0, &[], TopKScope::Vector).unwrap_err(), CompressError::Empty);
    }
}
