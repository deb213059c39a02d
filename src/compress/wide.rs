//! Sixteen floats at once: what the scan of a tile is written in, per instruction set. All give the same bits.

use crate::ops::simd::SimdLevel;

/// Floats of one step of a scan.
pub(super) const WIDTH: usize = 16;

/// The level the scan uses: [`SimdLevel::current`], unless its instructions lack the bit count.
pub(super) fn level() -> SimdLevel {
    let level = SimdLevel::current();
    if can_run(level) { level } else { SimdLevel::Portable }
}

/// Whether this machine can run the scan of `level`.
pub(super) fn can_run(level: SimdLevel) -> bool {
    #[cfg(target_arch = "x86_64")]
    let counts_bits = std::is_x86_feature_detected!("popcnt");
    #[cfg(not(target_arch = "x86_64"))]
    let counts_bits = false;
    level == SimdLevel::Portable || (counts_bits && level.is_available())
}

/// Asks for the cache line that holds `value`.
#[inline(always)]
pub(super) fn prefetch(value: &f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that every x86-64 has.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// [`WIDTH`] values of f32.
///
/// # Safety
/// Every method needs the instructions of its type, `popcnt` included, and pointers to 16 values of any alignment.
pub(super) trait Wide: Copy {
    /// Sums of squares, one f64 per lane.
    type Squares: Copy;

    /// Values from `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// Values to `to`.
    unsafe fn store(self, to: *mut f32);
    /// `value` in all lanes.
    unsafe fn splat(value: f32) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// Bit i: the magnitude of lane i has bits above `key`. Bits are compared as signed numbers; NaN is above all.
    unsafe fn above(self, key: i32) -> u16;
    /// Sums of 0.
    unsafe fn no_squares() -> Self::Squares;
    /// `squares + value^2` in the lanes of `mask`. The square of a float is exact in f64: fused or not, the same bits.
    unsafe fn add_squares(self, mask: u16, squares: Self::Squares) -> Self::Squares;
    /// The lanes in order.
    unsafe fn lanes(squares: Self::Squares) -> [f64; WIDTH];
    /// Writes `base + i` for each bit i of `mask`, ascending, to the front of `to`; all 16 places may be overwritten.
    unsafe fn positions(mask: u16, base: u16, to: *mut u16);
    /// Asks for the cache line at `from`, an address that need not be valid.
    unsafe fn prefetch(from: *const f32);
}

/// Plain arithmetic, vectorised by the compiler as it can.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; WIDTH]);

// SAFETY (of every block below): no instructions are asked for, and the caller vouches for 16 values at each pointer.
impl Wide for Plain {
    type Squares = [f64; WIDTH];

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see the impl.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; WIDTH])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    unsafe fn above(self, key: i32) -> u16 {
        let mut mask = 0;
        for (i, x) in self.0.iter().enumerate() {
            mask |= u16::from((x.to_bits() & 0x7fff_ffff) as i32 > key) << i;
        }
        mask
    }

    #[inline(always)]
    unsafe fn no_squares() -> Self::Squares {
        [0.0; WIDTH]
    }

    #[inline(always)]
    unsafe fn add_squares(self, mask: u16, mut squares: Self::Squares) -> Self::Squares {
        for (i, (sum, &x)) in squares.iter_mut().zip(&self.0).enumerate() {
            let x = f64::from(if mask >> i & 1 == 1 { x } else { 0.0 });
            *sum += x * x;
        }
        squares
    }

    #[inline(always)]
    unsafe fn lanes(squares: Self::Squares) -> [f64; WIDTH] {
        squares
    }

    #[inline(always)]
    unsafe fn positions(mask: u16, base: u16, to: *mut u16) {
        let mut count = 0;
        for i in 0..WIDTH as u16 {
            // SAFETY: see the impl; `count` stays below 16.
            unsafe { to.add(count).write(base.wrapping_add(i)) };
            count += usize::from(mask >> i & 1);
        }
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{M256x2, M512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{WIDTH, Wide};
    use std::arch::x86_64::*;

    /// AVX-512F.
    #[derive(Clone, Copy)]
    pub(in crate::compress) struct M512(__m512);

    // SAFETY (of every block below): AVX-512F is available and the pointers are valid, as the trait demands.
    impl Wide for M512 {
        type Squares = [__m512d; 2];

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn above(self, key: i32) -> u16 {
            // SAFETY: see the impl.
            unsafe {
                let keys = _mm512_and_si512(_mm512_castps_si512(self.0), _mm512_set1_epi32(0x7fff_ffff));
                _mm512_cmpgt_epi32_mask(keys, _mm512_set1_epi32(key))
            }
        }

        #[inline(always)]
        unsafe fn no_squares() -> Self::Squares {
            // SAFETY: see the impl.
            [unsafe { _mm512_setzero_pd() }; 2]
        }

        #[inline(always)]
        unsafe fn add_squares(self, mask: u16, squares: Self::Squares) -> Self::Squares {
            // SAFETY: see the impl.
            unsafe {
                let low = _mm512_cvtps_pd(_mm512_castps512_ps256(self.0));
                let high = _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(
                    _mm512_castps_pd(self.0),
                )));
                let high = _mm512_cvtps_pd(_mm512_castps512_ps256(high));
                [
                    _mm512_mask3_fmadd_pd(low, low, squares[0], mask as u8),
                    _mm512_mask3_fmadd_pd(high, high, squares[1], (mask >> 8) as u8),
                ]
            }
        }

        #[inline(always)]
        unsafe fn lanes(squares: Self::Squares) -> [f64; WIDTH] {
            let mut lanes = [0.0; WIDTH];
            // SAFETY: see the impl; `lanes` has room for both.
            unsafe {
                _mm512_storeu_pd(lanes.as_mut_ptr(), squares[0]);
                _mm512_storeu_pd(lanes.as_mut_ptr().add(8), squares[1]);
            }
            lanes
        }

        #[inline(always)]
        unsafe fn positions(mask: u16, base: u16, to: *mut u16) {
            // SAFETY: see the impl. Compressed in a register: a compressing store is microcode on Zen 4.
            unsafe {
                let ascending = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let all = _mm512_add_epi32(ascending, _mm512_set1_epi32(base.into()));
                let found = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(mask, all));
                _mm256_storeu_si256(to.cast(), found);
            }
        }

        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            // SAFETY: a hint; it never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
    }

    /// AVX2 with FMA: two registers of 8.
    #[derive(Clone, Copy)]
    pub(in crate::compress) struct M256x2([__m256; 2]);

    /// For each mask of 8 lanes, the set ones in order.
    static SET_LANES: [[u8; 8]; 256] = set_lanes();

    const fn set_lanes() -> [[u8; 8]; 256] {
        let mut table = [[0; 8]; 256];
        let mut mask = 0;
        while mask < 256 {
            let (mut lane, mut count) = (0, 0);
            while lane < 8 {
                if mask >> lane & 1 == 1 {
                    table[mask][count] = lane as u8;
                    count += 1;
                }
                lane += 1;
            }
            mask += 1;
        }
        table
    }

    // Functions, not closures: those would be compiled without the instructions that they use.

    #[inline(always)]
    unsafe fn half_above(x: __m256, key: i32) -> u16 {
        // SAFETY: the callers have AVX2.
        unsafe {
            let keys = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fff_ffff));
            let above = _mm256_cmpgt_epi32(keys, _mm256_set1_epi32(key));
            _mm256_movemask_ps(_mm256_castsi256_ps(above)) as u16
        }
    }

    /// The lanes of the lower 8 bits of `mask`, the others 0.
    #[inline(always)]
    unsafe fn masked(x: __m256, mask: u16) -> __m256 {
        // SAFETY: the callers have AVX2.
        unsafe {
            let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let chosen = _mm256_and_si256(_mm256_set1_epi32(i32::from(mask)), bits);
            _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(chosen, bits)))
        }
    }

    #[inline(always)]
    unsafe fn add_square(x: __m128, sum: __m256d) -> __m256d {
        // SAFETY: the callers have AVX2 and FMA.
        unsafe {
            let x = _mm256_cvtps_pd(x);
            _mm256_fmadd_pd(x, x, sum)
        }
    }

    /// # Safety
    /// AVX2; room for 8 positions at `to`.
    #[inline(always)]
    unsafe fn half_positions(mask: u16, base: u16, to: *mut u16) {
        // SAFETY: the caller's promise; the table's rows have 8 bytes.
        unsafe {
            let lanes = _mm_loadl_epi64(SET_LANES[usize::from(mask & 0xff)].as_ptr().cast());
            let found = _mm_add_epi16(_mm_cvtepu8_epi16(lanes), _mm_set1_epi16(base as i16));
            _mm_storeu_si128(to.cast(), found);
        }
    }

    // SAFETY (of every block below): AVX2 and FMA are available and the pointers are valid, as the trait demands.
    impl Wide for M256x2 {
        type Squares = [__m256d; 4];

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe {
                _mm256_storeu_ps(to, self.0[0]);
                _mm256_storeu_ps(to.add(8), self.0[1]);
            }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the impl.
            Self([unsafe { _mm256_set1_ps(value) }; 2])
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { [_mm256_add_ps(self.0[0], other.0[0]), _mm256_add_ps(self.0[1], other.0[1])] })
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { [_mm256_mul_ps(self.0[0], other.0[0]), _mm256_mul_ps(self.0[1], other.0[1])] })
        }

        #[inline(always)]
        unsafe fn above(self, key: i32) -> u16 {
            // SAFETY: see the impl.
            unsafe { half_above(self.0[0], key) | half_above(self.0[1], key) << 8 }
        }

        #[inline(always)]
        unsafe fn no_squares() -> Self::Squares {
            // SAFETY: see the impl.
            [unsafe { _mm256_setzero_pd() }; 4]
        }

        #[inline(always)]
        unsafe fn add_squares(self, mask: u16, squares: Self::Squares) -> Self::Squares {
            let [a, b, c, d] = squares;
            // SAFETY: see the impl.
            unsafe {
                let (low, high) = (masked(self.0[0], mask), masked(self.0[1], mask >> 8));
                [
                    add_square(_mm256_castps256_ps128(low), a),
                    add_square(_mm256_extractf128_ps::<1>(low), b),
                    add_square(_mm256_castps256_ps128(high), c),
                    add_square(_mm256_extractf128_ps::<1>(high), d),
                ]
            }
        }

        #[inline(always)]
        unsafe fn lanes(squares: Self::Squares) -> [f64; WIDTH] {
            let mut lanes = [0.0; WIDTH];
            for (i, four) in squares.into_iter().enumerate() {
                // SAFETY: see the impl; `lanes` has room for four times four.
                unsafe { _mm256_storeu_pd(lanes.as_mut_ptr().add(4 * i), four) };
            }
            lanes
        }

        #[inline(always)]
        unsafe fn positions(mask: u16, base: u16, to: *mut u16) {
            // SAFETY: see the impl; at most 8 of the 16 places lie before the upper half's.
            unsafe {
                half_positions(mask, base, to);
                let count = (mask & 0xff).count_ones() as usize;
                half_positions(mask >> 8, base.wrapping_add(8), to.add(count));
            }
        }

        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            // SAFETY: a hint; it never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
    }
}
