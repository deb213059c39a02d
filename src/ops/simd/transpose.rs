//! Transposed copies of square blocks, as wide as a vector.

/// Copies `count` rows of `count` values: `to[j * to_pitch + i] = from[i * from_pitch + j]`, one value at a time.
///
/// # Safety
/// All rows are readable and writable as described.
#[inline(always)]
pub(super) unsafe fn plain(count: usize, from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
    for i in 0..count {
        for j in 0..count {
            // SAFETY: as the caller vouches.
            unsafe { *to.add(j * to_pitch + i) = *from.add(i * from_pitch + j) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{avx2, avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// 16 rows of 16 values.
    ///
    /// # Safety
    /// AVX-512F is available, and all rows are readable and writable as described for `plain`.
    #[inline(always)]
    pub(in crate::ops::simd) unsafe fn avx512(
        from: *const f32,
        from_pitch: usize,
        to: *mut f32,
        to_pitch: usize,
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 16];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.add(i * from_pitch));
            }
            // 4x4 blocks within the vectors' quarters: `quads[4 i + j]` has column 4 q + j of rows 4 i.. in quarter q.
            let mut quads = rows;
            for (quads, rows) in quads.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
                let [a, b] = [(rows[0], rows[1]), (rows[2], rows[3])].map(|(a, b)| {
                    let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                    (_mm512_castps_pd(low), _mm512_castps_pd(high))
                });
                quads[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a.0, b.0));
                quads[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a.0, b.0));
                quads[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(a.1, b.1));
                quads[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(a.1, b.1));
            }
            // Quarters of the four vectors of a column.
            const EVEN: i32 = 0b10_00_10_00;
            const ODD: i32 = 0b11_01_11_01;
            for j in 0..4 {
                let [a, b, c, d] = [quads[j], quads[4 + j], quads[8 + j], quads[12 + j]];
                let (ab_even, cd_even) =
                    (_mm512_shuffle_f32x4::<EVEN>(a, b), _mm512_shuffle_f32x4::<EVEN>(c, d));
                let (ab_odd, cd_odd) = (_mm512_shuffle_f32x4::<ODD>(a, b), _mm512_shuffle_f32x4::<ODD>(c, d));
                for (column, value) in [
                    (j, _mm512_shuffle_f32x4::<EVEN>(ab_even, cd_even)),
                    (4 + j, _mm512_shuffle_f32x4::<EVEN>(ab_odd, cd_odd)),
                    (8 + j, _mm512_shuffle_f32x4::<ODD>(ab_even, cd_even)),
                    (12 + j, _mm512_shuffle_f32x4::<ODD>(ab_odd, cd_odd)),
                ] {
                    _mm512_storeu_ps(to.add(column * to_pitch), value);
                }
            }
        }
    }

    /// 8 rows of 8 values.
    ///
    /// # Safety
    /// AVX2 is available, and all rows are readable and writable as described for `plain`.
    #[inline(always)]
    pub(in crate::ops::simd) unsafe fn avx2(
        from: *const f32,
        from_pitch: usize,
        to: *mut f32,
        to_pitch: usize,
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm256_loadu_ps(from.add(i * from_pitch));
            }
            // 4x4 blocks within the vectors' halves, as above.
            let mut quads = rows;
            for (quads, rows) in quads.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
                let [a, b] = [(rows[0], rows[1]), (rows[2], rows[3])].map(|(a, b)| {
                    let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                    (_mm256_castps_pd(low), _mm256_castps_pd(high))
                });
                quads[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a.0, b.0));
                quads[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a.0, b.0));
                quads[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(a.1, b.1));
                quads[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(a.1, b.1));
            }
            for j in 0..4 {
                let (a, b) = (quads[j], quads[4 + j]);
                _mm256_storeu_ps(to.add(j * to_pitch), _mm256_permute2f128_ps::<0x20>(a, b));
                _mm256_storeu_ps(to.add((4 + j) * to_pitch), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::simd::SimdLevel;
    use crate::ops::simd::lanes::{Array8, Lanes};

    type Transpose = unsafe fn(*const f32, usize, *mut f32, usize);

    fn check(count: usize, transpose: Transpose) {
        let (from_pitch, to_pitch) = (count + 3, count + 5);
        let from: Vec<f32> = (0..count * from_pitch).map(|i| i as f32).collect();
        let mut to = vec![-1.0; count * to_pitch];
        // SAFETY: the level is available, as the caller has checked; the rows lie inside the vectors.
        unsafe { transpose(from.as_ptr(), from_pitch, to.as_mut_ptr(), to_pitch) };
        for (i, &value) in to.iter().enumerate() {
            let (row, column) = (i / to_pitch, i % to_pitch);
            let expected = if column < count { from[column * from_pitch + row] } else { -1.0 };
            assert_eq!(value, expected, "row {row}, column {column} of {count}");
        }
    }

    #[test]
    fn every_level_transposes_and_writes_nothing_beside_the_block() {
        check(8, Array8::transpose_block);
        #[cfg(target_arch = "x86_64")]
        {
            use crate::ops::simd::lanes::{M256, M512};
            if SimdLevel::Avx2.is_available() {
                check(8, M256::transpose_block);
            }
            if SimdLevel::Avx512.is_available() {
                check(16, M512::transpose_block);
            }
        }
    }
}
