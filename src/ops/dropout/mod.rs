//! Inverted dropout: each element becomes 0 with probability `p`, the others are divided by `1 - p`.
//!
//! Source: Srivastava et al. 2014, in the inverted form of PyTorch's `Dropout`; evaluation uses no op at all.
//!
//! The mask is a function of `(seed, index, position)`, so nothing is stored, `backward` recomputes it and
//! any device can draw the same one: element `i` uses word `i % 4` of block `i / 4` of `Philox::new(seed,
//! Stream::Dropout, index)` and is kept if `(word >> 8) as f32 * 2^-24 >= p`. `index` counts draws, for
//! example `step * layers + layer`.
//!
//! # Shapes
//! Input and output have any shape and equal lengths; unequal ones panic, as does a `p` outside `[0, 1]`.
//!
//! # Example
//! ```
//! let (x, mut y) = ([1.0; 1000], [0.0; 1000]);
//! scadles::ops::dropout::forward(0.5, 1, 0, &x, &mut y);
//! assert!(y.iter().all(|&y| y == 0.0 || y == 2.0));
//! ```

pub mod cuda;

use super::multiversion::multiversion;
use crate::element::Element;
use crate::rng::{Philox, Stream};
use rayon::prelude::*;

/// Elements that one task handles, a multiple of `GROUP_LEN`.
const TILE_LEN: usize = 4 * 1024;

/// Blocks drawn side by side, so that the generator vectorises.
const GROUP_BLOCKS: usize = 16;

/// Elements of such a group: 4 words a block.
const GROUP_LEN: usize = 4 * GROUP_BLOCKS;

/// Writes `y = x * mask / (1 - p)`.
pub fn forward<E: Element>(p: f32, seed: u64, index: u64, x: &[E], y: &mut [E]) {
    assert!((0.0..=1.0).contains(&p), "dropout: p is {p}, not in [0, 1]");
    assert_eq!(x.len(), y.len(), "dropout: input and output differ in length");
    let rng = Philox::new(seed, Stream::Dropout, index);
    // With p = 1 nothing is kept and the scale is never used.
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    (x.par_chunks(TILE_LEN), y.par_chunks_mut(TILE_LEN))
        .into_par_iter()
        .enumerate()
        .for_each(|(tile, (x, y))| tile_apply(&rng, (tile * TILE_LEN / 4) as u64, p, scale, x, y));
}

/// Writes `dx = dy * mask / (1 - p)` with the mask that [`forward`] drew for the same `seed` and `index`.
pub fn backward<E: Element>(p: f32, seed: u64, index: u64, dy: &[E], dx: &mut [E]) {
    // The op is linear in its input and its own transpose.
    forward(p, seed, index, dy, dx);
}

multiversion! {
    fn tile_apply<E: Element>(rng: &Philox, first_block: u64, p: f32, scale: f32, x: &[E], y: &mut [E]) {
        for (group, (x, y)) in x.chunks(GROUP_LEN).zip(y.chunks_mut(GROUP_LEN)).enumerate() {
            let mut words = [[0u32; 4]; GROUP_BLOCKS];
            let block = first_block + (group * GROUP_BLOCKS) as u64;
            for (i, words) in words.iter_mut().enumerate() {
                *words = rng.block(block + i as u64);
            }
            for ((x, y), word) in x.iter().zip(y).zip(words.as_flattened()) {
                let uniform = (word >> 8) as f32 * (1.0 / 16_777_216.0);
                *y = E::from_f32(if uniform >= p { x.to_f32() * scale } else { 0.0 });
            }
        }
    }
}
