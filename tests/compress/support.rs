//! Inputs and naive references.

use scadles::compress::coding::Payload;
use scadles::compress::num_kept;
use scadles::rng::{Philox, Stream};
use std::ops::Range;

/// Kinds of vectors on which selections go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    /// A few distinct magnitudes of both signs.
    Ties,
    /// Mostly zeros of both signs.
    Zeros,
    /// From the smallest denormal up.
    Denormals,
    AllEqual,
    /// Magnitudes from 1e-40 to 1e38.
    Wide,
    /// Ascending, so that position and magnitude agree.
    Sorted,
}

pub const KINDS: [Kind; 7] =
    [Kind::Normal, Kind::Ties, Kind::Zeros, Kind::Denormals, Kind::AllEqual, Kind::Wide, Kind::Sorted];

/// A seeded vector of one kind.
pub fn vector(kind: Kind, numel: usize, seed: u64) -> Vec<f32> {
    let mut rng = Philox::new(seed, Stream::Init, 0);
    let mut value = |i: usize| match kind {
        Kind::Normal => rng.normal() as f32,
        Kind::Ties => (rng.below(7) as f32 - 3.0) * 0.5,
        Kind::Zeros => [0.0, -0.0, 0.0, rng.normal() as f32][rng.below(4) as usize],
        Kind::Denormals => f32::from_bits(rng.below(1 << 24)).copysign(rng.normal() as f32),
        Kind::AllEqual => 0.25,
        Kind::Wide => (rng.normal() * 10f64.powi(rng.below(78) as i32 - 40)) as f32,
        Kind::Sorted => i as f32 - 100.0,
    };
    (0..numel).map(&mut value).collect()
}

/// Top-k by a full sort: descending magnitude, then ascending index; returned ascending.
pub fn sorted_top_k(x: &[f32], groups: &[Range<usize>], density: f64) -> Vec<usize> {
    let mut kept = Vec::new();
    for group in groups {
        let mut order: Vec<usize> = group.clone().collect();
        order.sort_by(|&a, &b| x[b].abs().total_cmp(&x[a].abs()).then(a.cmp(&b)));
        kept.extend_from_slice(&order[..num_kept(group.len(), density)]);
    }
    kept.sort_unstable();
    kept
}

/// The decoded payload as a dense vector; a receiver's view, independent of `add_to`.
pub fn decoded(bytes: &[u8], numel: usize) -> Vec<f32> {
    let payload = Payload::parse(bytes).expect("a valid payload");
    assert_eq!(payload.numel(), numel);
    let mut dense = vec![0.0; numel];
    payload.iter().for_each(|(index, value)| dense[index] = value);
    dense
}

/// Fails at the first element whose bits differ.
#[track_caller]
pub fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(a.to_bits() == b.to_bits(), "{what}[{i}]: found {a:e}, expected {b:e}");
    }
}
