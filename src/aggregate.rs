//! From the gradients of all devices to one: weights, the weighted sum, and which collective moves fewer bytes.

use crate::train::config::Aggregation;
use rayon::prelude::*;

/// Elements of one tile of the weighted sum: 32 KiB of output, summed over all inputs while it is in cache.
const TILE_LEN: usize = 8192;
/// Inputs added in one read and write of the tile.
const INPUTS_AT_ONCE: usize = 4;
const DENSE_BYTES_PER_ELEMENT: u64 = 4;

/// Bad input to aggregation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AggregateError {
    /// An input has another length than the output.
    #[error(
        "gradient of rank {rank} has {found} elements, the sum {expected}: the devices train different networks"
    )]
    Length {
        /// Whose gradient.
        rank: usize,
        /// Elements of the output.
        expected: usize,
        /// Elements of the input.
        found: usize,
    },
    /// Not one weight for each input.
    #[error("{found} weights for {expected} gradients")]
    Weights {
        /// Inputs.
        expected: usize,
        /// Weights.
        found: usize,
    },
}

/// Weight of each device's mean gradient in a step, from the samples that each trained on.
///
/// They sum to 1, to rounding; a device without samples has weight 0. If nobody has samples all are 0.
///
/// # Example
/// ```
/// use scadles::{aggregate::agg_weights, train::config::Aggregation};
/// assert_eq!(agg_weights(&[48, 16, 0], Aggregation::BySamples), [0.75, 0.25, 0.0]);
/// assert_eq!(agg_weights(&[48, 16, 0], Aggregation::Uniform), [0.5, 0.5, 0.0]);
/// assert_eq!(agg_weights(&[0, 0], Aggregation::BySamples), [0.0, 0.0]);
/// ```
pub fn agg_weights(local_batch: &[usize], aggregation: Aggregation) -> Vec<f64> {
    let shares = |batch: usize| match aggregation {
        Aggregation::BySamples => batch as f64,
        Aggregation::Uniform => f64::from(u8::from(batch > 0)),
    };
    let total: f64 = local_batch.iter().map(|&batch| shares(batch)).sum();
    local_batch.iter().map(|&batch| if batch == 0 { 0.0 } else { shares(batch) / total }).collect()
}

/// `out = sum over ranks of weights[rank] * inputs[rank]`, added in the order of ranks whatever the threads.
///
/// An input of weight 0 is not read: what a device without samples has in its buffer does not matter.
///
/// # Errors
/// Inputs, weights or `out` of different lengths.
///
/// # Example
/// ```
/// use scadles::aggregate::weighted_sum;
/// let mut out = [0.0; 2];
/// weighted_sum(&[&[4.0, 8.0], &[f32::NAN, 0.0], &[1.0, 2.0]], &[0.25, 0.0, 0.5], &mut out)?;
/// assert_eq!(out, [1.5, 3.0]);
/// # Ok::<(), scadles::aggregate::AggregateError>(())
/// ```
pub fn weighted_sum(inputs: &[&[f32]], weights: &[f32], out: &mut [f32]) -> Result<(), AggregateError> {
    if inputs.len() != weights.len() {
        return Err(AggregateError::Weights { expected: inputs.len(), found: weights.len() });
    }
    let wrong = |(_, input): &(usize, &&[f32])| input.len() != out.len();
    if let Some((rank, input)) = inputs.iter().enumerate().find(wrong) {
        return Err(AggregateError::Length { rank, expected: out.len(), found: input.len() });
    }
    let used = inputs.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
    let used: Vec<(&[f32], f32)> = used.map(|(input, weight)| (*input, *weight)).collect();
    out.par_chunks_mut(TILE_LEN).enumerate().for_each(|(i, tile)| {
        tile.fill(0.0);
        for inputs in used.chunks(INPUTS_AT_ONCE) {
            add_inputs(inputs, i * TILE_LEN, tile);
        }
    });
    Ok(())
}

fn add_inputs(inputs: &[(&[f32], f32)], start: usize, tile: &mut [f32]) {
    let len = tile.len();
    let part = |i: usize| (&inputs[i].0[start..start + len], inputs[i].1);
    if inputs.len() < INPUTS_AT_ONCE {
        for i in 0..inputs.len() {
            let (x, weight) = part(i);
            tile.iter_mut().zip(x).for_each(|(out, x)| *out += weight * x);
        }
        return;
    }
    let [(a, wa), (b, wb), (c, wc), (d, wd)] = std::array::from_fn(part);
    for ((((out, a), b), c), d) in tile.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *out = *out + wa * a + wb * b + wc * c + wd * d;
    }
}

/// `out += weight * x`: the weighted sum one rank at a time, for gradients that exist one after another. From a zero
/// vector it gives the same bits as [`weighted_sum`]. With weight 0, `x` is not read.
///
/// # Errors
/// `x` of another length than `out`; it is reported as rank `rank`.
pub fn add_scaled(rank: usize, x: &[f32], weight: f32, out: &mut [f32]) -> Result<(), AggregateError> {
    if x.len() != out.len() {
        return Err(AggregateError::Length { rank, expected: out.len(), found: x.len() });
    }
    if weight != 0.0 {
        let tiles = out.par_chunks_mut(TILE_LEN).zip(x.par_chunks(TILE_LEN));
        tiles.for_each(|(out, x)| out.iter_mut().zip(x).for_each(|(out, x)| *out += weight * x));
    }
    Ok(())
}

/// How the gradients of a step are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collective {
    /// Ring all-reduce of the whole f32 vector.
    DenseAllReduce,
    /// All-gather of payloads.
    SparseAllGather,
}

/// Bytes that each device sends, and receives, in a ring all-reduce of `numel` f32: `2 (N - 1) / N` vectors, rounded up.
pub fn dense_all_reduce_bytes(numel: usize, world_size: usize) -> u64 {
    let world_size = world_size.max(1) as u64;
    (2 * (world_size - 1) * DENSE_BYTES_PER_ELEMENT * numel as u64).div_ceil(world_size)
}

/// Bytes that the device with the smallest payload, and so the most to receive, receives in an all-gather.
pub fn sparse_all_gather_bytes(payload_bytes_per_rank: &[u64]) -> u64 {
    payload_bytes_per_rank.iter().sum::<u64>() - payload_bytes_per_rank.iter().min().copied().unwrap_or(0)
}

/// Bytes that each device receives in the reference code's all-gather of f32 values and i64 indices, padded to the same
/// length.
pub fn reference_all_gather_bytes(num_kept: usize, world_size: usize) -> u64 {
    12 * num_kept as u64 * world_size.saturating_sub(1) as u64
}

/// Density above which an all-gather of `bytes_per_kept` bytes an element moves more than a ring all-reduce: `8 / (N b)`.
pub fn break_even_density(world_size: usize, bytes_per_kept: f64) -> f64 {
    8.0 / (world_size as f64 * bytes_per_kept)
}

/// The collective for payloads of these sizes, one per rank: sparse, unless it moves more bytes than dense.
///
/// Sizes may be upper bounds known before encoding, so that the choice can be made while everything is still unsent.
///
/// # Example
/// ```
/// use scadles::aggregate::{Collective, choose_collective};
/// assert_eq!(choose_collective(&[1_000; 10], 1_000), Collective::DenseAllReduce);
/// assert_eq!(choose_collective(&[500; 10], 1_000), Collective::SparseAllGather);
/// ```
pub fn choose_collective(payload_bytes_per_rank: &[u64], numel: usize) -> Collective {
    let dense = dense_all_reduce_bytes(numel, payload_bytes_per_rank.len());
    if sparse_all_gather_bytes(payload_bytes_per_rank) > dense {
        Collective::DenseAllReduce
    } else {
        Collective::SparseAllGather
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};

    fn inputs(ranks: usize, len: usize) -> Vec<Vec<f32>> {
        (0..ranks)
            .map(|rank| {
                let mut rng = Philox::new(5, Stream::Init, rank as u64);
                (0..len).map(|_| rng.normal() as f32).collect()
            })
            .collect()
    }

    #[test]
    fn weights_sum_to_one_and_follow_samples() {
        for batches in [&[50usize, 38, 12, 36, 34, 13, 82, 40][..], &[7], &[0, 3, 0, 5]] {
            for aggregation in [Aggregation::BySamples, Aggregation::Uniform] {
                let weights = agg_weights(batches, aggregation);
                assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-15);
                assert!(
                    batches.iter().zip(&weights).all(|(&batch, &weight)| (batch == 0) == (weight == 0.0))
                );
            }
        }
    }

    #[test]
    fn small_integers_and_power_of_two_weights_are_exact() {
        let ranks: Vec<Vec<f32>> =
            (0..7).map(|rank| (0..20_000).map(|i| ((i * 31 + rank * 17) % 255) as f32).collect()).collect();
        let weights = [0.5, 0.25, 0.0, 0.125, 0.0625, 0.03125, 0.03125];
        let slices: Vec<&[f32]> = ranks.iter().map(Vec::as_slice).collect();
        let mut out = vec![f32::NAN; 20_000];
        weighted_sum(&slices, &weights, &mut out).unwrap();
        for (i, &found) in out.iter().enumerate() {
            let expected: f64 = ranks.iter().zip(weights).map(|(x, w)| f64::from(w) * f64::from(x[i])).sum();
            assert_eq!(f64::from(found), expected, "element {i}");
        }
    }

    #[test]
    fn one_at_a_time_gives_the_same_bits_on_any_number_of_threads() {
        for ranks in [1, 3, 4, 5, 9] {
            let data = inputs(ranks, 30_001);
            let slices: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
            let weights: Vec<f32> =
                (0..ranks).map(|rank| if rank == 2 { 0.0 } else { 0.1 + rank as f32 }).collect();
            let sum = |threads: usize| {
                let mut out = vec![0.0; 30_001];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| weighted_sum(&slices, &weights, &mut out)).unwrap();
                out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
            };
            let mut single = vec![0.0; 30_001];
            for (rank, (x, &weight)) in slices.iter().zip(&weights).enumerate() {
                add_scaled(rank, x, weight, &mut single).unwrap();
            }
            let single: Vec<u32> = single.iter().map(|x| x.to_bits()).collect();
            assert_eq!(sum(1), single);
            assert_eq!(sum(3), single);
        }
    }

    #[test]
    fn wrong_lengths_are_named() {
        let mut out = [0.0; 3];
        let error = weighted_sum(&[&[0.0; 3], &[0.0; 2]], &[1.0, 1.0], &mut out).unwrap_err();
        assert_eq!(error, AggregateError::Length { rank: 1, expected: 3, found: 2 });
        let error = weighted_sum(&[&[0.0; 3]], &[], &mut out).unwrap_err();
        assert_eq!(error, AggregateError::Weights { expected: 1, found: 0 });
        assert!(add_scaled(4, &[0.0; 2], 1.0, &mut out).is_err());
    }

    #[test]
    fn byte_counts_follow_the_formulas() {
        assert_eq!(dense_all_reduce_bytes(1_000, 10), 7_200);
        assert_eq!(dense_all_reduce_bytes(1_000, 1), 0);
        assert_eq!(sparse_all_gather_bytes(&[10, 30, 20]), 50);
        assert_eq!(sparse_all_gather_bytes(&[]), 0);
        assert_eq!(sparse_all_gather_bytes(&[99]), 0);
        assert_eq!(break_even_density(10, 8.0), 0.1);
    }
}
