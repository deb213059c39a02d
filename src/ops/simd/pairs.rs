//! Vectors that multiply pairs of bf16 and add the products up in f32.

use super::SimdLevel;
use super::lanes::{Array8, Lanes};
use crate::element::Element;
use half::bf16;

/// Which instructions multiply bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairLevel {
    /// 32 products an instruction (x86-64 with AVX512-BF16, and AVX-512BW for what is around it).
    Avx512Bf16,
    /// bf16 are widened to f32 (x86-64 with AVX2 and FMA).
    Avx2,
    /// bf16 are widened to f32; the compiler vectorises for the target it was given.
    Portable,
}

impl PairLevel {
    /// Every level, the widest first.
    pub const ALL: [PairLevel; 3] = [PairLevel::Avx512Bf16, PairLevel::Avx2, PairLevel::Portable];

    /// Whether this machine can execute the level's instructions.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            PairLevel::Avx512Bf16 => {
                SimdLevel::Avx512.is_available()
                    && std::is_x86_feature_detected!("avx512bf16")
                    && std::is_x86_feature_detected!("avx512bw")
            }
            #[cfg(not(target_arch = "x86_64"))]
            PairLevel::Avx512Bf16 => false,
            PairLevel::Avx2 => SimdLevel::Avx2.is_available(),
            PairLevel::Portable => true,
        }
    }

    /// The widest available level that needs no more than `level` allows.
    pub fn within(level: SimdLevel) -> PairLevel {
        let first = match level {
            SimdLevel::Avx512 => 0,
            SimdLevel::Avx2 => 1,
            SimdLevel::Portable => 2,
        };
        Self::ALL[first..].iter().copied().find(|level| level.is_available()).unwrap_or(PairLevel::Portable)
    }
}

/// Lanes of f32 that pairs of bf16 are summed in.
///
/// Each lane of `add_products` adds first the product of the second elements, then that of the first, and rounds after
/// each addition; products of bf16 are exact. So every implementation gives the same bits, but for numbers below the
/// normal range, which AVX512-BF16 takes as 0.
///
/// # Safety
/// As for [`Lanes`].
pub(crate) trait PairLanes: Lanes {
    /// A pair of bf16 for each lane.
    type Pairs: Copy;

    /// `2 * LANES` values from `from`, at any alignment.
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs;

    /// The two values at `from` in all lanes.
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs;

    /// The value at `from` and 0 in all lanes.
    unsafe fn splat_single(from: *const bf16) -> Self::Pairs;

    /// Writes the pairs of the `LANES` values at `a` and those at `b` to `to`.
    unsafe fn interleave(a: *const bf16, b: *const bf16, to: *mut [bf16; 2]);

    /// Adds both products of each pair.
    unsafe fn add_products(self, a: Self::Pairs, b: Self::Pairs) -> Self;

    /// `LANES` values to `to`, rounded to nearest even.
    unsafe fn store_rounded(self, to: *mut bf16);

    /// The first `count < LANES` lanes to `to`, rounded.
    unsafe fn store_rounded_first(self, to: *mut bf16, count: usize);
}

impl PairLanes for Array8 {
    type Pairs = [[f32; 8]; 2];

    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs {
        // SAFETY: the caller vouches for 16 readable values.
        let values = unsafe { from.cast::<[bf16; 16]>().read_unaligned() };
        [0, 1].map(|second| std::array::from_fn(|lane| Element::to_f32(values[2 * lane + second])))
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs {
        // SAFETY: the caller vouches for two readable values.
        let pair = unsafe { from.cast::<[bf16; 2]>().read_unaligned() };
        pair.map(|value| [Element::to_f32(value); 8])
    }

    #[inline(always)]
    unsafe fn splat_single(from: *const bf16) -> Self::Pairs {
        // SAFETY: the caller vouches for one readable value.
        [[Element::to_f32(unsafe { *from }); 8], [0.0; 8]]
    }

    #[inline(always)]
    unsafe fn interleave(a: *const bf16, b: *const bf16, to: *mut [bf16; 2]) {
        for lane in 0..8 {
            // SAFETY: the caller vouches for 8 readable values at each and 8 writable pairs.
            unsafe { to.add(lane).write([*a.add(lane), *b.add(lane)]) };
        }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: Self::Pairs, b: Self::Pairs) -> Self {
        let mut sum = self.0;
        for (lane, value) in sum.iter_mut().enumerate() {
            *value += a[1][lane] * b[1][lane];
            *value += a[0][lane] * b[0][lane];
        }
        Self(sum)
    }

    #[inline(always)]
    unsafe fn store_rounded(self, to: *mut bf16) {
        // SAFETY: the caller vouches for 8 writable values.
        unsafe { to.cast::<[bf16; 8]>().write_unaligned(self.0.map(<bf16 as Element>::from_f32)) }
    }

    #[inline(always)]
    unsafe fn store_rounded_first(self, to: *mut bf16, count: usize) {
        let rounded = self.0.map(<bf16 as Element>::from_f32);
        // SAFETY: the caller vouches for `count` writable values and `count < 8`.
        unsafe { std::ptr::copy_nonoverlapping(rounded.as_ptr(), to, count) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::PairLanes;
    use crate::element::Element;
    use crate::ops::simd::lanes::{Lanes, M256, M512};
    use half::bf16;
    use std::arch::x86_64::*;

    // SAFETY (every block below): AVX-512F, -BW and -BF16 are available and the pointers are valid, as the trait demands.
    impl PairLanes for M512 {
        type Pairs = __m512i;

        #[inline(always)]
        unsafe fn load_pairs(from: *const bf16) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn splat_pair(from: *const bf16) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn splat_single(from: *const bf16) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_set1_epi32(i32::from((*from).to_bits())) }
        }

        #[inline(always)]
        unsafe fn interleave(a: *const bf16, b: *const bf16, to: *mut [bf16; 2]) {
            // SAFETY: see the impl.
            unsafe {
                let a = _mm512_cvtepu16_epi32(_mm256_loadu_si256(a.cast()));
                let b = _mm512_cvtepu16_epi32(_mm256_loadu_si256(b.cast()));
                _mm512_storeu_si512(to.cast(), _mm512_or_si512(a, _mm512_slli_epi32::<16>(b)));
            }
        }

        #[inline(always)]
        unsafe fn add_products(self, a: __m512i, b: __m512i) -> Self {
            // SAFETY: see the impl; both types are 512 bits without invalid values.
            unsafe {
                let [a, b] = [a, b].map(|pairs| std::mem::transmute::<__m512i, __m512bh>(pairs));
                Self(_mm512_dpbf16_ps(self.0, a, b))
            }
        }

        #[inline(always)]
        unsafe fn store_rounded(self, to: *mut bf16) {
            // SAFETY: see the impl; both types are 256 bits without invalid values.
            unsafe {
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
                _mm256_storeu_si256(to.cast(), rounded);
            }
        }

        #[inline(always)]
        unsafe fn store_rounded_first(self, to: *mut bf16, count: usize) {
            let mut rounded = [bf16::ZERO; 16];
            // SAFETY: see the impl; `count < 16`.
            unsafe {
                self.store_rounded(rounded.as_mut_ptr());
                std::ptr::copy_nonoverlapping(rounded.as_ptr(), to, count);
            }
        }
    }

    // SAFETY (every block below): AVX2 and FMA are available and the pointers are valid, as the trait demands.
    impl PairLanes for M256 {
        type Pairs = [__m256; 2];

        #[inline(always)]
        unsafe fn load_pairs(from: *const bf16) -> [__m256; 2] {
            // SAFETY: see the impl.
            unsafe { widen(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat_pair(from: *const bf16) -> [__m256; 2] {
            // SAFETY: see the impl.
            unsafe { widen(_mm256_set1_epi32(from.cast::<i32>().read_unaligned())) }
        }

        #[inline(always)]
        unsafe fn splat_single(from: *const bf16) -> [__m256; 2] {
            // SAFETY: see the impl.
            unsafe { widen(_mm256_set1_epi32(i32::from((*from).to_bits()))) }
        }

        #[inline(always)]
        unsafe fn interleave(a: *const bf16, b: *const bf16, to: *mut [bf16; 2]) {
            // SAFETY: see the impl.
            unsafe {
                let (a, b) = (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()));
                _mm_storeu_si128(to.cast(), _mm_unpacklo_epi16(a, b));
                _mm_storeu_si128(to.add(4).cast(), _mm_unpackhi_epi16(a, b));
            }
        }

        #[inline(always)]
        unsafe fn add_products(self, a: [__m256; 2], b: [__m256; 2]) -> Self {
            // SAFETY: see the impl. The product is exact, so that fusing it with the addition rounds once, as without.
            unsafe { Self(_mm256_fmadd_ps(a[0], b[0], _mm256_fmadd_ps(a[1], b[1], self.0))) }
        }

        #[inline(always)]
        unsafe fn store_rounded(self, to: *mut bf16) {
            let mut values = [0.0; 8];
            // SAFETY: see the impl.
            unsafe {
                self.store(values.as_mut_ptr());
                to.cast::<[bf16; 8]>().write_unaligned(values.map(<bf16 as Element>::from_f32));
            }
        }

        #[inline(always)]
        unsafe fn store_rounded_first(self, to: *mut bf16, count: usize) {
            let mut rounded = [bf16::ZERO; 8];
            // SAFETY: see the impl; `count < 8`.
            unsafe {
                self.store_rounded(rounded.as_mut_ptr());
                std::ptr::copy_nonoverlapping(rounded.as_ptr(), to, count);
            }
        }
    }

    /// First and second bf16 of each lane as f32.
    #[inline(always)]
    unsafe fn widen(pairs: __m256i) -> [__m256; 2] {
        // SAFETY: AVX2 is available to the callers.
        unsafe {
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)),
                _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000u32 as i32))),
            ]
        }
    }
}
