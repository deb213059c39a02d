//! Vectors of f32 from and to memory that holds f32 or bf16.

use super::lanes::{Array8, Lanes};
use crate::element::Element;
use half::bf16;

/// Vectors that are widened from bf16 and rounded to it, as [`Element`] rounds.
///
/// # Safety
/// As for [`Lanes`]: the instructions are available.
pub trait Widen: Copy {
    /// As many values as lanes from `from`, at any alignment.
    unsafe fn load_bf16(from: *const bf16) -> Self;

    /// As many values as lanes to `to`, at any alignment.
    unsafe fn store_bf16(self, to: *mut bf16);
}

/// Elements that vectors are loaded from and stored to.
pub trait Stored: Element {
    /// A vector from `from`, at any alignment.
    ///
    /// # Safety
    /// `V`'s instructions are available and its number of elements can be read.
    unsafe fn load<V: Lanes>(from: *const Self) -> V;

    /// A vector to `to`, at any alignment, rounded.
    ///
    /// # Safety
    /// `V`'s instructions are available and its number of elements can be written.
    unsafe fn store<V: Lanes>(value: V, to: *mut Self);
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const f32) -> V {
        // SAFETY: as the caller vouches.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(value: V, to: *mut f32) {
        // SAFETY: as the caller vouches.
        unsafe { value.store(to) }
    }
}

impl Stored for bf16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const bf16) -> V {
        // SAFETY: as the caller vouches.
        unsafe { V::load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes>(value: V, to: *mut bf16) {
        // SAFETY: as the caller vouches.
        unsafe { value.store_bf16(to) }
    }
}

impl Widen for Array8 {
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller vouches for 8 readable values.
        Self(unsafe { from.cast::<[bf16; 8]>().read_unaligned() }.map(Element::to_f32))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        // SAFETY: the caller vouches for 8 writable values.
        unsafe { to.cast::<[bf16; 8]>().write_unaligned(self.0.map(Element::from_f32)) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Widen;
    use crate::ops::simd::lanes::{M256, M512};
    use half::bf16;
    use std::arch::x86_64::*;

    // SAFETY (every block below): AVX-512F or AVX2 is available and the pointers are valid, as the trait demands.
    impl Widen for M512 {
        #[inline(always)]
        unsafe fn load_bf16(from: *const bf16) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
            }
        }

        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut bf16) {
            // SAFETY: see the impl.
            unsafe {
                let bits = _mm512_castps_si512(self.0);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
                let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
                let rounded = _mm512_mask_mov_epi32(_mm512_add_epi32(bits, half), nan, quiet);
                _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded)));
            }
        }
    }

    impl Widen for M256 {
        #[inline(always)]
        unsafe fn load_bf16(from: *const bf16) -> Self {
            // SAFETY: see above.
            unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)))
            }
        }

        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut bf16) {
            // SAFETY: see above.
            unsafe {
                let bits = _mm256_castps_si256(self.0);
                let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
                let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
                let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
                let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
                let rounded = _mm256_blendv_epi8(_mm256_add_epi32(bits, half), quiet, nan);
                // The packing works within halves of 128 bits.
                let high = _mm256_srli_epi32::<16>(rounded);
                let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(high, high));
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::simd::SimdLevel;

    fn convert<V: Lanes>() {
        // Ties, NaNs with low bits only, infinities, subnormals, the largest number (which rounds to infinity).
        let bits = [
            0,
            1,
            0x8000,
            0x1_8000,
            0x7fff,
            0x3f80_7fff,
            0x3f80_8000,
            0x3f81_8000,
            0x3f80_8001,
            0x7f80_0000,
            0x7f80_0001,
            0xffff_ffff,
            0x7f7f_ffff,
            0xff80_0000,
            0x8000_0001,
            0xc2f7_1234,
        ];
        let values: Vec<f32> = bits.map(f32::from_bits).to_vec();
        let mut rounded = [bf16::ZERO; 16];
        let mut widened = [0.0f32; 16];
        for first in (0..16).step_by(V::LANES) {
            // SAFETY: the caller asked whether the level is available; 16 is a multiple of the lanes.
            unsafe {
                <bf16 as Stored>::store(
                    <f32 as Stored>::load::<V>(values[first..].as_ptr()),
                    rounded[first..].as_mut_ptr(),
                );
                <f32 as Stored>::store(
                    <bf16 as Stored>::load::<V>(rounded[first..].as_ptr()),
                    widened[first..].as_mut_ptr(),
                );
            }
        }
        for ((value, rounded), widened) in values.iter().zip(rounded).zip(widened) {
            assert_eq!(rounded.to_bits(), bf16::from_f32(*value).to_bits(), "{value:e}");
            assert_eq!(widened.to_bits(), rounded.to_f32().to_bits(), "{value:e}");
        }
    }

    #[test]
    fn every_level_rounds_as_half_does() {
        convert::<Array8>();
        #[cfg(target_arch = "x86_64")]
        {
            use crate::ops::simd::lanes::{M256, M512};
            if SimdLevel::Avx2.is_available() {
                convert::<M256>();
            }
            if SimdLevel::Avx512.is_available() {
                convert::<M512>();
            }
        }
    }
}
