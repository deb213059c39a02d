//! Exact top-k by magnitude, in one pass over memory when a sampled guess holds.
//!
//! 1. A sample brackets the smallest kept magnitude of each group ([`super::bracket`]).
//! 2. One parallel pass over the tiles updates the vector, sums squares, counts what lies above the bracket, and lists
//!    where that and what lies inside is ([`super::scan`]).
//! 3. The exact key is found among the keys inside. If the guess was wrong, three histogram passes find it instead.
//! 4. The lists lose what is not kept: from here on the kept elements are known by position, and packing them need
//!    not read the vector again.
//!
//! Of equal magnitudes the lower index is kept. The result depends on the vector alone, never on threads or guesses; nor
//! on earlier steps, or a device restored from a checkpoint could differ in the last bit of a norm.
//!
//! Memory traffic with error feedback, the floor: 12 bytes an element (gradient and residual in, residual out). Beside it:
//! 2 bytes for each position listed, 6 for each key inside the bracket.

use super::bracket;
use super::error::{CompressError, check_density, check_len};
use super::plan::{BLOCK_LEN, Plan, Tile, num_kept};
use super::scan::{Bracket, Term, TileScan, key};
use rayon::prelude::*;
use std::ops::Range;

/// Norms of a vector and of its top-k; what a gate looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// `|p|^2`.
    pub squared: f64,
    /// `|topk(p)|^2`.
    pub topk_squared: f64,
    /// Sum over layers l of `|p_l|`, not squared.
    pub layer_sum: f64,
    /// Sum over layers l of `|topk(p)_l|`, not squared.
    pub layer_topk_sum: f64,
    /// Elements of the top-k.
    pub num_kept: usize,
}

/// The kept elements of one vector: a threshold per tile, and their positions where these are few.
#[derive(Clone, Debug)]
pub struct Selection {
    pub(super) cuts: Vec<TileCut>,
    scans: Vec<TileScan>,
    num_kept: usize,
}

/// What is kept of one tile: every key above `key`, and the first `kept_ties` of the `ties` keys equal to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileCut {
    pub key: u32,
    pub ties: usize,
    pub kept_ties: usize,
    pub kept: usize,
}

/// Selects the top-k of `x`, `num_kept(len, density)` elements of each group of the plan.
///
/// # Errors
/// Wrong length, density outside (0, 1], a value that is not finite.
///
/// # Example
/// ```
/// use scadles::compress::{Plan, top_k};
/// use scadles::train::config::TopKScope;
/// let plan = Plan::new(5, &[], TopKScope::Vector)?;
/// let x = [1.0, -3.0, 2.0, 0.0, -2.0];
/// let (selection, norms) = top_k(&x, &plan, 0.4)?;
/// assert_eq!(selection.indices(&plan, &x), [1, 2]); // 2.0 and -2.0 tie: the lower index
/// assert_eq!((norms.squared, norms.topk_squared), (18.0, 13.0));
/// # Ok::<(), scadles::compress::CompressError>(())
/// ```
pub fn top_k(x: &[f32], plan: &Plan, density: f64) -> Result<(Selection, Norms), CompressError> {
    check_len("x", x.len(), plan.numel())?;
    check_density(density)?;
    let brackets = guess_brackets(plan, density, |i| x[i]);
    let mut scans = vec![TileScan::default(); plan.tiles.len()];
    let look = |(i, scan): (usize, &mut TileScan)| {
        scan.look(&x[plan.tiles[i].range.clone()], brackets.of_tile[i], brackets.limit[i])
    };
    let seen: Vec<_> = scans.par_iter_mut().enumerate().map(look).collect();
    all_finite(plan, &seen).map_err(|index| not_finite("x", index, x))?;
    Ok(resolve(plan, &brackets, scans, x))
}

/// Applies a term to each tile of `acc`, then selects its top-k, in the same pass over memory.
///
/// `brackets` were guessed from the values that the elements are going to have; `scans` may hold those of an earlier
/// selection, whose memory is used again. `Err` is the smallest index that is not finite afterwards.
///
/// # Safety
/// There is one term for each tile, made for a tile of that length.
pub(super) unsafe fn update_and_select<T: Term>(
    plan: &Plan,
    brackets: Brackets,
    acc: &mut [f32],
    terms: Vec<T>,
    mut scans: Vec<TileScan>,
) -> Result<(Selection, Norms), usize> {
    scans.resize_with(plan.tiles.len(), TileScan::default);
    let tiles: Vec<_> = plan.split_mut(acc).into_iter().zip(terms).zip(&mut scans).collect();
    let update = |(i, ((tile, mut term), scan)): (usize, ((&mut [f32], T), &mut TileScan))| {
        // SAFETY: the caller's promise.
        unsafe { scan.update(tile, &mut term, brackets.of_tile[i], brackets.limit[i]) }
    };
    let seen: Vec<_> = tiles.into_par_iter().enumerate().map(update).collect();
    all_finite(plan, &seen)?;
    Ok(resolve(plan, &brackets, scans, acc))
}

impl Selection {
    /// Kept elements.
    pub fn num_kept(&self) -> usize {
        self.num_kept
    }

    /// Ascending indices of the kept elements of `x`, the vector that was selected from.
    pub fn indices(&self, plan: &Plan, x: &[f32]) -> Vec<usize> {
        let mut indices = Vec::with_capacity(self.num_kept);
        let mut room = vec![0; BLOCK_LEN];
        for (i, tile) in plan.tiles.iter().enumerate() {
            let count = self.gather(i, &x[tile.range.clone()], 0, &mut room);
            indices.extend(room[..count].iter().map(|&at| tile.range.start + usize::from(at)));
        }
        indices
    }

    /// Kept positions of tile `i`, ascending, if they are listed.
    pub(super) fn listed(&self, i: usize) -> Option<&[u16]> {
        self.scans[i].listed.then_some(&self.scans[i].found[..])
    }

    /// Writes each kept position of tile `i`, which is `tile`, plus `offset` to the front of `into`, ascending, and returns
    /// their number. `into` has room for the whole tile.
    pub(super) fn gather(&self, i: usize, tile: &[f32], offset: usize, into: &mut [u16]) -> usize {
        let Some(found) = self.listed(i) else { return self.cuts[i].gather(tile, offset, into) };
        into.iter_mut().zip(found).for_each(|(to, &at)| *to = at + offset as u16);
        found.len()
    }

    /// The scans, for the memory of their lists.
    pub(super) fn into_scans(self) -> Vec<TileScan> {
        self.scans
    }
}

impl TileCut {
    /// Calls `keep` with each kept position of the tile, ascending.
    fn visit(&self, tile: &[f32], mut keep: impl FnMut(usize)) {
        let mut ties = self.kept_ties;
        for (i, &x) in tile.iter().enumerate() {
            let tie = key(x) == self.key && ties > 0;
            ties -= usize::from(tie);
            if tie || key(x) > self.key {
                keep(i);
            }
        }
    }

    /// As [`Selection::gather`], by a look at every element.
    fn gather(&self, tile: &[f32], offset: usize, into: &mut [u16]) -> usize {
        let mut count = 0;
        if self.kept_ties != 0 && self.kept_ties != self.ties {
            self.visit(tile, |i| {
                into[count] = (offset + i) as u16;
                count += 1;
            });
            return count;
        }
        // All ties or none: one comparison, and no branch that density 0.1 would make unpredictable.
        let smallest = (self.key + u32::from(self.kept_ties == 0)) as i32;
        for (i, &x) in tile.iter().enumerate() {
            into[count] = (offset + i) as u16;
            count += usize::from(key(x) as i32 >= smallest);
        }
        count
    }
}

/// The error for `values[index]`.
pub(super) fn not_finite(what: &'static str, index: usize, values: &[f32]) -> CompressError {
    CompressError::NotFinite { what, index, value: values[index] }
}

/// Where the smallest kept key of each group is expected.
pub(super) struct Brackets {
    density: f64,
    of_group: Vec<Bracket>,
    of_tile: Vec<Bracket>,
    /// Candidates that a tile may collect.
    limit: Vec<usize>,
}

/// Guesses from `sample(i)`, the value of element i.
pub(super) fn guess_brackets(plan: &Plan, density: f64, sample: impl Fn(usize) -> f32 + Sync) -> Brackets {
    let guess = |group: &Range<usize>| {
        bracket::guess(group.len(), num_kept(group.len(), density), |i| sample(group.start + i))
    };
    let of_group: Vec<Bracket> = plan.groups.par_iter().map(guess).collect();
    let of_tile =
        (plan.group_tiles.iter().zip(&of_group)).flat_map(|(tiles, &b)| tiles.clone().map(move |_| b));
    // Without a guess all keys are candidates; with one, an eighth is far more than it should leave in doubt.
    let limit = (of_tile.clone().zip(&plan.tiles)).map(|(bracket, tile)| match bracket {
        Bracket::ALL => tile.range.len(),
        _ => (tile.range.len() / 8).max(1024),
    });
    Brackets { density, limit: limit.collect(), of_tile: of_tile.collect(), of_group }
}

/// `Err` is the smallest index that is not finite, from the first such position of each tile.
fn all_finite(plan: &Plan, seen: &[Result<(), usize>]) -> Result<(), usize> {
    let in_vector =
        |(seen, tile): (&Result<(), usize>, &Tile)| seen.map_err(|position| tile.range.start + position);
    seen.iter().zip(&plan.tiles).try_for_each(in_vector)
}

/// Turns scans into thresholds and norms. Sums run over tiles in order.
fn resolve(plan: &Plan, brackets: &Brackets, mut scans: Vec<TileScan>, x: &[f32]) -> (Selection, Norms) {
    let mut cuts = Vec::with_capacity(plan.tiles.len());
    let mut topk_sq = Vec::with_capacity(plan.tiles.len());
    for ((group, tiles), &bracket) in plan.groups.iter().zip(&plan.group_tiles).zip(&brackets.of_group) {
        let kept = num_kept(group.len(), brackets.density);
        let scans = &mut scans[tiles.clone()];
        let (bracket, found) = match exact_cuts(bracket, scans, kept) {
            Some(found) => (bracket, found),
            None => {
                let exact = Bracket::exactly(kth_largest_key(&x[group.clone()], kept));
                scans.par_iter_mut().zip(&plan.tiles[tiles.clone()]).for_each(|(scan, tile)| {
                    scan.look(&x[tile.range.clone()], exact, 0).expect("scanned before");
                });
                (exact, exact_cuts(exact, scans, kept).expect("a histogram finds the exact key"))
            }
        };
        scans.par_iter_mut().with_min_len(4).zip(&found).for_each(|(scan, (cut, _))| {
            scan.keep(bracket, cut.key, cut.ties, cut.kept_ties);
        });
        cuts.extend(found.iter().map(|(cut, _)| *cut));
        topk_sq.extend(found.iter().map(|(_, sq)| *sq));
    }
    let tiles =
        scans.iter().zip(&topk_sq).zip(&cuts).map(|((scan, topk_sq), cut)| (scan.sq, *topk_sq, cut.kept));
    let norms = norms_of_tiles(plan, tiles);
    (Selection { num_kept: norms.num_kept, cuts, scans }, norms)
}

/// Norms from the squares, the kept squares and the number kept of each tile, summed in order.
pub(super) fn norms_of_tiles(plan: &Plan, tiles: impl Iterator<Item = (f64, f64, usize)>) -> Norms {
    let mut norms = Norms::default();
    let mut layers = vec![(0.0, 0.0); plan.num_layers()];
    for (tile, (sq, topk_sq, kept)) in plan.tiles.iter().zip(tiles) {
        layers[tile.layer].0 += sq;
        layers[tile.layer].1 += topk_sq;
        norms.num_kept += kept;
    }
    for (squared, topk) in layers {
        norms.squared += squared;
        norms.topk_squared += topk;
        norms.layer_sum += squared.sqrt();
        norms.layer_topk_sum += topk.sqrt();
    }
    norms
}

/// Cut and sum of kept squares of each tile of a group; none if the smallest kept key is not among the candidates.
fn exact_cuts(bracket: Bracket, scans: &[TileScan], kept: usize) -> Option<Vec<(TileCut, f64)>> {
    let above: usize = scans.iter().map(|scan| scan.above).sum();
    let within: usize = scans.iter().map(|scan| scan.within).sum();
    if above > kept || above + within < kept || scans.iter().any(|scan| scan.overflow) {
        return None;
    }
    let wanted = kept - above;
    let one_key = bracket.is_one_key();
    let key = if one_key || wanted == 0 { bracket.high } else { nth_largest(scans, wanted, bracket) };
    let in_tile = |scan: &TileScan| {
        let larger = || scan.keys.iter().filter(|&&candidate| candidate > key);
        let ties = match one_key {
            true => scan.within,
            false => scan.keys.iter().filter(|&&candidate| candidate == key).count(),
        };
        let sq = larger().fold(scan.above_sq, |sum, &key| sum + f64::from(f32::from_bits(key)).powi(2));
        (scan.above + larger().count(), ties, sq)
    };
    let tiles: Vec<(usize, usize, f64)> = scans.par_iter().with_min_len(16).map(in_tile).collect();
    let mut free = kept - tiles.iter().map(|tile| tile.0).sum::<usize>();
    let cut = |(larger, ties, sq): (usize, usize, f64)| {
        let kept_ties = ties.min(free);
        free -= kept_ties;
        let sq = sq + kept_ties as f64 * f64::from(f32::from_bits(key)).powi(2);
        (TileCut { key, ties, kept_ties, kept: larger + kept_ties }, sq)
    };
    Some(tiles.into_iter().map(cut).collect())
}

/// The `rank`-th largest (from 1) of the scans' keys, all inside `bracket`: a histogram, then a selection in one bucket.
fn nth_largest(scans: &[TileScan], rank: usize, bracket: Bracket) -> u32 {
    const TILES_AT_ONCE: usize = 64;
    let shift = (u32::BITS - (bracket.high - bracket.low).leading_zeros()).saturating_sub(12);
    let bucket = |key: u32| ((key - bracket.low) >> shift) as usize;
    let count = |scans: &[TileScan]| {
        let mut counts = vec![0; 1 << 12];
        scans.iter().flat_map(|scan| &scan.keys).for_each(|&key| counts[bucket(key)] += 1);
        counts
    };
    let counts = scans.par_chunks(TILES_AT_ONCE).map(count).reduce(|| vec![0; 1 << 12], add_counts);
    let (found, rank) = bucket_of_rank(&counts, rank);
    let of_bucket = |scans: &[TileScan]| -> Vec<u32> {
        scans.iter().flat_map(|scan| &scan.keys).copied().filter(|&key| bucket(key) == found).collect()
    };
    let mut keys: Vec<u32> = scans.par_chunks(TILES_AT_ONCE).flat_map_iter(of_bucket).collect();
    *keys.select_nth_unstable_by(rank - 1, |a, b| b.cmp(a)).1
}

fn add_counts(mut a: Vec<usize>, b: Vec<usize>) -> Vec<usize> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// Bucket that holds the `rank`-th largest element, and its rank inside the bucket.
fn bucket_of_rank(counts: &[usize], mut rank: usize) -> (usize, usize) {
    for (bucket, &count) in counts.iter().enumerate().rev() {
        if rank <= count {
            return (bucket, rank);
        }
        rank -= count;
    }
    unreachable!("rank exceeds the number of elements")
}

/// The `kept`-th largest key of `x`, whatever its distribution: a radix selection of three passes over memory.
fn kth_largest_key(x: &[f32], kept: usize) -> u32 {
    let (mut prefix, mut rank) = (0u32, kept);
    for (shift, bits) in [(20, 11), (10, 10), (0, 10)] {
        let count = |chunk: &[f32]| {
            let mut counts = vec![0; 1 << bits];
            let keys = chunk.iter().map(|&x| key(x)).filter(|key| key >> (shift + bits) == prefix);
            keys.for_each(|key| counts[(key >> shift) as usize & ((1 << bits) - 1)] += 1);
            counts
        };
        let counts = x.par_chunks(4 * BLOCK_LEN).map(count).reduce(|| vec![0; 1 << bits], add_counts);
        let (bucket, rest) = bucket_of_rank(&counts, rank);
        (prefix, rank) = (prefix << bits | bucket as u32, rest);
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};

    #[test]
    fn histogram_and_candidate_selection_equal_a_sort() {
        let mut rng = Philox::new(2, Stream::Init, 0);
        let x: Vec<f32> =
            (0..40_000).map(|_| (rng.normal() * 10f64.powi(rng.below(60) as i32 - 45)) as f32).collect();
        let mut sorted: Vec<u32> = x.iter().map(|&x| key(x)).collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        for rank in [1, 2, 17, 1000, 39_999, 40_000] {
            assert_eq!(kth_largest_key(&x, rank), sorted[rank - 1]);
            let mut scans = vec![TileScan::default(); 3];
            scans
                .iter_mut()
                .zip(x.chunks(15_000))
                .for_each(|(scan, x)| scan.look(x, Bracket::ALL, 15_000).unwrap());
            assert_eq!(nth_largest(&scans, rank, Bracket::ALL), sorted[rank - 1]);
        }
    }

    #[test]
    fn a_wrong_guess_changes_nothing() {
        // Alternating blocks of very different size hide most of the vector from no sample, but a spike that the
        // sample misses and a plateau of ties put the key where no bracket expects it.
        let mut x = vec![1e-3f32; 200_000];
        x[70_000..70_040].iter_mut().enumerate().for_each(|(i, x)| *x = 5.0 + i as f32);
        let plan = Plan::new(x.len(), &[], Default::default()).unwrap();
        for density in [1e-5, 1e-4, 2e-4, 0.3] {
            let (selection, _) = top_k(&x, &plan, density).unwrap();
            let mut order: Vec<usize> = (0..x.len()).collect();
            order.sort_by(|&a, &b| x[b].abs().total_cmp(&x[a].abs()).then(a.cmp(&b)));
            order.truncate(selection.num_kept());
            order.sort_unstable();
            assert_eq!(selection.indices(&plan, &x), order, "density {density}");
        }
    }
}
