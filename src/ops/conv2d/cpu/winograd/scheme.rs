//! The transforms of F(2x2, 3x3) and F(4x4, 3x3) along one direction.
//!
//! With `U = G g G^T`, `V = B^T d B` for a window `d` of the input, an output tile is `A^T (U . V) A`, products taken
//! position by position. The filter gradient of a tile is the transpose: `G^T (V . (A dy A^T)) G`. Every method below is
//! one of these matrices times a vector; along both directions, see [`super::plane`]. F(2) evaluates at 0, 1, -1 and
//! infinity, F(4) also at 2 and -2.

use crate::ops::simd::lanes::Lanes;

/// A matrix of `O` rows and `I` columns.
pub(super) trait Map<const I: usize, const O: usize> {
    /// The matrix times `d`, lane by lane.
    ///
    /// # Safety
    /// `V`'s instructions are available.
    unsafe fn map<V: Lanes>(d: [V; I]) -> [V; O];
}

/// The five matrices of tiles of `M` outputs and windows of `A = M + 2` inputs.
pub(super) trait Scheme<const A: usize, const M: usize> {
    /// `B^T`: window of the input to products.
    type Window: Map<A, A>;
    /// `A^T`: products to outputs.
    type Output: Map<A, M>;
    /// `A`: gradients of the outputs to products.
    type Spread: Map<M, A>;
    /// `G`: filter to products.
    type Filter: Map<3, A>;
    /// `G^T`: products to gradient of the filter.
    type FilterGradient: Map<A, 3>;
}

/// F(2, 3).
pub(super) struct F2;

/// F(4, 3).
pub(super) struct F4;

pub(super) struct Window;
pub(super) struct Output;
pub(super) struct Spread;
pub(super) struct Filter;
pub(super) struct FilterGradient;

impl Scheme<4, 2> for F2 {
    type Window = Window;
    type Output = Output;
    type Spread = Spread;
    type Filter = Filter;
    type FilterGradient = FilterGradient;
}

impl Scheme<6, 4> for F4 {
    type Window = Window;
    type Output = Output;
    type Spread = Spread;
    type Filter = Filter;
    type FilterGradient = FilterGradient;
}

/// `factor * a`.
#[inline(always)]
unsafe fn times<V: Lanes>(factor: f32, a: V) -> V {
    // SAFETY: `V`'s instructions are available to the callers.
    unsafe { V::splat(&raw const factor).mul(a) }
}

/// `sum + factor * a`.
#[inline(always)]
unsafe fn plus<V: Lanes>(sum: V, factor: f32, a: V) -> V {
    // SAFETY: as for `times`.
    unsafe { sum.add_product(V::splat(&raw const factor), a) }
}

// SAFETY (every block below): `V`'s instructions are available, as the trait demands.
impl Map<4, 4> for Window {
    #[inline(always)]
    unsafe fn map<V: Lanes>([d0, d1, d2, d3]: [V; 4]) -> [V; 4] {
        // SAFETY: see the impl.
        unsafe { [d0.sub(d2), d1.add(d2), d2.sub(d1), d3.sub(d1)] }
    }
}

impl Map<4, 2> for Output {
    #[inline(always)]
    unsafe fn map<V: Lanes>([m0, m1, m2, m3]: [V; 4]) -> [V; 2] {
        // SAFETY: see the impl of `Window`.
        unsafe { [m0.add(m1).add(m2), m1.sub(m2).add(m3)] }
    }
}

impl Map<2, 4> for Spread {
    #[inline(always)]
    unsafe fn map<V: Lanes>([y0, y1]: [V; 2]) -> [V; 4] {
        // SAFETY: see the impl of `Window`.
        unsafe { [y0, y0.add(y1), y0.sub(y1), y1] }
    }
}

impl Map<3, 4> for Filter {
    #[inline(always)]
    unsafe fn map<V: Lanes>([g0, g1, g2]: [V; 3]) -> [V; 4] {
        // SAFETY: see the impl of `Window`.
        unsafe {
            let outer = times(0.5, g0.add(g2));
            [g0, plus(outer, 0.5, g1), plus(outer, -0.5, g1), g2]
        }
    }
}

impl Map<4, 3> for FilterGradient {
    #[inline(always)]
    unsafe fn map<V: Lanes>([m0, m1, m2, m3]: [V; 4]) -> [V; 3] {
        // SAFETY: see the impl of `Window`.
        unsafe {
            let sum = m1.add(m2);
            [plus(m0, 0.5, sum), times(0.5, m1.sub(m2)), plus(m3, 0.5, sum)]
        }
    }
}

impl Map<6, 6> for Window {
    #[inline(always)]
    unsafe fn map<V: Lanes>([d0, d1, d2, d3, d4, d5]: [V; 6]) -> [V; 6] {
        // SAFETY: see the impl of `Window`.
        unsafe {
            let even = plus(d4, -4.0, d2);
            let odd = plus(d3, -4.0, d1);
            let even2 = d4.sub(d2);
            let odd2 = d3.sub(d1);
            [
                plus(plus(d4, -5.0, d2), 4.0, d0),
                even.add(odd),
                even.sub(odd),
                plus(even2, 2.0, odd2),
                plus(even2, -2.0, odd2),
                plus(plus(d5, -5.0, d3), 4.0, d1),
            ]
        }
    }
}

impl Map<6, 4> for Output {
    #[inline(always)]
    unsafe fn map<V: Lanes>([m0, m1, m2, m3, m4, m5]: [V; 6]) -> [V; 4] {
        // SAFETY: see the impl of `Window`.
        unsafe {
            let (sum, difference) = (m1.add(m2), m1.sub(m2));
            let (sum2, difference2) = (m3.add(m4), m3.sub(m4));
            [
                m0.add(sum).add(sum2),
                plus(difference, 2.0, difference2),
                plus(sum, 4.0, sum2),
                plus(difference, 8.0, difference2).add(m5),
            ]
        }
    }
}

impl Map<4, 6> for Spread {
    #[inline(always)]
    unsafe fn map<V: Lanes>([y0, y1, y2, y3]: [V; 4]) -> [V; 6] {
        // SAFETY: see the impl of `Window`.
        unsafe {
            let (even, odd) = (y0.add(y2), y1.add(y3));
            let even2 = plus(y0, 4.0, y2);
            let odd2 = plus(times(2.0, y1), 8.0, y3);
            [y0, even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), y3]
        }
    }
}

impl Map<3, 6> for Filter {
    #[inline(always)]
    unsafe fn map<V: Lanes>([g0, g1, g2]: [V; 3]) -> [V; 6] {
        // SAFETY: see the impl of `Window`.
        unsafe {
            let outer = times(-1.0 / 6.0, g0.add(g2));
            let outer2 = plus(times(1.0 / 6.0, g2), 1.0 / 24.0, g0);
            [
                times(0.25, g0),
                plus(outer, -1.0 / 6.0, g1),
                plus(outer, 1.0 / 6.0, g1),
                plus(outer2, 1.0 / 12.0, g1),
                plus(outer2, -1.0 / 12.0, g1),
                g2,
            ]
        }
    }
}

impl Map<6, 3> for FilterGradient {
    #[inline(always)]
    unsafe fn map<V: Lanes>([m0, m1, m2, m3, m4, m5]: [V; 6]) -> [V; 3] {
        // SAFETY: see the impl of `Window`.
        unsafe {
            let (sum, difference) = (m1.add(m2), m2.sub(m1));
            let (sum2, difference2) = (m3.add(m4), m3.sub(m4));
            [
                plus(plus(times(0.25, m0), -1.0 / 6.0, sum), 1.0 / 24.0, sum2),
                plus(times(1.0 / 6.0, difference), 1.0 / 12.0, difference2),
                plus(m5, 1.0 / 6.0, sum2.sub(sum)),
            ]
        }
    }
}
