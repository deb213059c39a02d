//! What this processor can do at best, for the rates of layers.

use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::{Array8, Lanes};
#[cfg(target_arch = "x86_64")]
use crate::ops::simd::lanes::{M256, M512};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Independent sums, enough to hide the latency of a multiply-add on two units.
const CHAINS: usize = 12;
const ROUNDS: usize = 2_000_000;
const TRIES: usize = 3;
/// Bytes of the vector that is copied: far more than any cache holds.
const COPY_LEN: usize = 1 << 26;
const TILE_LEN: usize = 1 << 16;

/// f32 operations per second of all threads, the best of a few tries.
pub(super) fn flops() -> f64 {
    let flop = |lanes: usize| (2 * CHAINS * ROUNDS * lanes * rayon::current_num_threads()) as f64;
    best(|| {
        let lanes = rayon::broadcast(|_| multiply_add());
        flop(lanes[0])
    })
}

/// Bytes per second that a copy reads and writes.
pub(super) fn copy_bytes() -> f64 {
    let (from, mut to) = (vec![1.0f32; COPY_LEN], vec![0.0f32; COPY_LEN]);
    best(|| {
        to.par_chunks_mut(TILE_LEN)
            .zip(from.par_chunks(TILE_LEN))
            .for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&mut to);
        (2 * COPY_LEN * size_of::<f32>()) as f64
    })
}

fn best(mut work: impl FnMut() -> f64) -> f64 {
    work();
    let rate = |_| {
        let began = Instant::now();
        let amount = work();
        amount / began.elapsed().as_secs_f64()
    };
    (0..TRIES).map(rate).fold(0.0, f64::max)
}

/// Multiplies and adds for a while; returns the lanes of its vectors.
fn multiply_add() -> usize {
    // SAFETY: a current level is available.
    unsafe {
        match SimdLevel::current() {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => avx512(),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => avx2(),
            _ => chains::<Array8>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512() -> usize {
    // SAFETY: as for `chains`.
    unsafe { chains::<M512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2() -> usize {
    // SAFETY: as for `chains`.
    unsafe { chains::<M256>() }
}

/// # Safety
/// `V`'s instructions are available.
#[inline(always)]
unsafe fn chains<V: Lanes>() -> usize {
    let factors = black_box([0.5f32, 0.25]);
    // SAFETY: both numbers are there, and the vector at the end has room for the lanes.
    unsafe {
        let (a, b) = (V::splat(&factors[0]), V::splat(&factors[1]));
        let mut sums = [V::zero(); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = sum.add_product(a, b);
            }
        }
        let mut out = [0.0f32; 64];
        for sum in sums {
            sum.store(out.as_mut_ptr());
            black_box(&out);
        }
    }
    V::LANES
}
