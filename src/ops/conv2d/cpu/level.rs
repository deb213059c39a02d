//! Runs work with the instructions of a level.

use crate::ops::simd::SimdLevel;
use crate::ops::simd::lanes::{Array8, Lanes};
#[cfg(target_arch = "x86_64")]
use crate::ops::simd::lanes::{M256, M512};

/// Work that is written once for all levels.
pub(super) trait Work {
    /// Does it with vectors `V`, microkernels of at most `MR` rows by `NV` vectors.
    ///
    /// # Safety
    /// `V`'s instructions are available, and whatever the work itself demands.
    unsafe fn run<V: Lanes, const MR: usize, const NV: usize>(self);
}

/// Does `work` with the instructions of `level`.
///
/// # Safety
/// `level` is available, and whatever the work itself demands.
pub(super) unsafe fn run(level: SimdLevel, work: impl Work) {
    // SAFETY: as the caller vouches.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => avx512(work),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => avx2(work),
            _ => work.run::<Array8, 4, 1>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(work: impl Work) {
    // SAFETY: as for `run`.
    unsafe { work.run::<M512, 14, 2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(work: impl Work) {
    // SAFETY: as for `run`.
    unsafe { work.run::<M256, 6, 2>() }
}
