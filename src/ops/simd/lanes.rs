//! A vector of f32 lanes: the few operations that the microkernels are written in, once per instruction set.

use super::stored::Widen;
use super::transpose;

/// A vector of `LANES` f32 values.
///
/// # Safety
/// Every method needs the instructions of its type to be available on the machine it runs on. The implementations are
/// `#[inline(always)]` so that they melt into a caller compiled with the matching `#[target_feature]`.
pub trait Lanes: Widen {
    /// Values in one vector.
    const LANES: usize;

    /// All lanes 0.
    unsafe fn zero() -> Self;

    /// `LANES` values from `from`, at any alignment.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `count < LANES` lanes from `from`, the others 0; reads only `count` values.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;

    /// The value at `from` in all lanes.
    unsafe fn splat(from: *const f32) -> Self;

    /// `LANES` values to `to`, at any alignment.
    unsafe fn store(self, to: *mut f32);

    /// `LANES` values to `to`, aligned to the vector's size, past the caches where the instruction set can. Only after
    /// [`Self::fence`] may another thread be told of them.
    unsafe fn stream(self, to: *mut f32);

    /// Orders what [`Self::stream`] has stored before all later stores.
    unsafe fn fence();

    /// The first `count < LANES` lanes to `to`; writes only `count` values.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// `self + a * b` (one rounding where the instruction set has it).
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// `self + a`.
    unsafe fn add(self, a: Self) -> Self;

    /// `self - a`.
    unsafe fn sub(self, a: Self) -> Self;

    /// `self * a`.
    unsafe fn mul(self, a: Self) -> Self;

    /// `max(self, 0)`.
    unsafe fn relu(self) -> Self;

    /// Copies `LANES` rows of `LANES` values transposed: `to[j * to_pitch + i] = from[i * from_pitch + j]`.
    unsafe fn transpose_block(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize);
}

/// Portable lanes: plain arithmetic over an array that the compiler vectorises as it can.
#[derive(Clone, Copy)]
pub(crate) struct Array8(pub(super) [f32; 8]);

// The intrinsics below need only what the trait demands: available instructions and valid pointers.
impl Lanes for Array8 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 8 readable values.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut values = [0.0; 8];
        // SAFETY: the caller vouches for `count` readable values and `count < 8`.
        unsafe { std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), count) };
        Self(values)
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller vouches for one readable value.
        Self([unsafe { *from }; 8])
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 8 writable values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: as for `store`.
        unsafe { self.store(to) }
    }

    #[inline(always)]
    unsafe fn fence() {}

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: the caller vouches for `count` writable values and `count < 8`.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, count) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        let mut sum = self.0;
        for (i, value) in sum.iter_mut().enumerate() {
            *value += a.0[i] * b.0[i];
        }
        Self(sum)
    }

    #[inline(always)]
    unsafe fn add(self, a: Self) -> Self {
        let mut sum = self.0;
        for (i, value) in sum.iter_mut().enumerate() {
            *value += a.0[i];
        }
        Self(sum)
    }

    #[inline(always)]
    unsafe fn sub(self, a: Self) -> Self {
        let mut difference = self.0;
        for (i, value) in difference.iter_mut().enumerate() {
            *value -= a.0[i];
        }
        Self(difference)
    }

    #[inline(always)]
    unsafe fn mul(self, a: Self) -> Self {
        let mut product = self.0;
        for (i, value) in product.iter_mut().enumerate() {
            *value *= a.0[i];
        }
        Self(product)
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|value| if value < 0.0 { 0.0 } else { value }))
    }

    #[inline(always)]
    unsafe fn transpose_block(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        // SAFETY: the caller vouches for the rows.
        unsafe { transpose::plain(8, from, from_pitch, to, to_pitch) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{M256, M512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, transpose};
    use std::arch::x86_64::*;

    /// 16 lanes of AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct M512(pub(in crate::ops::simd) __m512);

    // SAFETY (every block below): AVX-512F is available and the pointers are valid, as the trait demands.
    impl Lanes for M512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: see the impl; masked-off lanes are not read.
            Self(unsafe { _mm512_maskz_loadu_ps((1u16 << count).wrapping_sub(1), from) })
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_set1_ps(*from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn stream(self, to: *mut f32) {
            // SAFETY: see the impl; the caller vouches for the alignment.
            unsafe { _mm512_stream_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn fence() {
            // SAFETY: every x86-64 has SSE.
            unsafe { _mm_sfence() }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: see the impl; masked-off lanes are not written.
            unsafe { _mm512_mask_storeu_ps(to, (1u16 << count).wrapping_sub(1), self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn add(self, a: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_add_ps(self.0, a.0) })
        }

        #[inline(always)]
        unsafe fn sub(self, a: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_sub_ps(self.0, a.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, a: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_mul_ps(self.0, a.0) })
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see the impl. The second operand is returned for NaN, so NaN stays visible.
            Self(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
        }

        #[inline(always)]
        unsafe fn transpose_block(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
            // SAFETY: see the impl.
            unsafe { transpose::avx512(from, from_pitch, to, to_pitch) }
        }
    }

    /// 8 lanes of AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct M256(pub(in crate::ops::simd) __m256);

    /// Eight set lanes, then eight clear ones: `lane_mask(count)` reads a window of it.
    static LANE_MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    #[inline(always)]
    pub(in crate::ops::simd) unsafe fn lane_mask(count: usize) -> __m256i {
        // SAFETY: `count < 8`, so the window lies inside the table; AVX2 is available to the callers.
        unsafe { _mm256_loadu_si256(LANE_MASKS.as_ptr().add(8 - count).cast()) }
    }

    // SAFETY (every block below): AVX2 and FMA are available and the pointers are valid, as the trait demands.
    impl Lanes for M256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: see the impl; masked-off lanes are not read.
            Self(unsafe { _mm256_maskload_ps(from, lane_mask(count)) })
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_set1_ps(*from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn stream(self, to: *mut f32) {
            // SAFETY: see the impl; the caller vouches for the alignment.
            unsafe { _mm256_stream_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn fence() {
            // SAFETY: every x86-64 has SSE.
            unsafe { _mm_sfence() }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: see the impl; masked-off lanes are not written.
            unsafe { _mm256_maskstore_ps(to, lane_mask(count), self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn add(self, a: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_add_ps(self.0, a.0) })
        }

        #[inline(always)]
        unsafe fn sub(self, a: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_sub_ps(self.0, a.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, a: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_mul_ps(self.0, a.0) })
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see the impl. The second operand is returned for NaN, so NaN stays visible.
            Self(unsafe { _mm256_max_ps(_mm256_setzero_ps(), self.0) })
        }

        #[inline(always)]
        unsafe fn transpose_block(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
            // SAFETY: see the impl.
            unsafe { transpose::avx2(from, from_pitch, to, to_pitch) }
        }
    }
}
