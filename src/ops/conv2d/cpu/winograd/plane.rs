//! A map along both directions of a tile, a vector of channels at a time.

use super::scheme::Map;
use crate::ops::simd::lanes::Lanes;

/// Where the elements of a plane come from.
pub(super) trait Source<V: Lanes> {
    /// Element (`row`, `column`).
    ///
    /// # Safety
    /// `V`'s instructions are available and the element can be read.
    unsafe fn get(&self, row: usize, column: usize) -> V;
}

/// Where the elements of a plane go.
pub(super) trait Target<V: Lanes> {
    /// Stores element (`row`, `column`).
    ///
    /// # Safety
    /// `V`'s instructions are available and the element can be written.
    unsafe fn put(&self, row: usize, column: usize, value: V);
}

/// Planes of `A x A` products, `pitch` floats from one position to the next.
#[derive(Clone, Copy)]
pub(super) struct Products<const A: usize> {
    pub first: *mut f32,
    pub pitch: usize,
}

impl<V: Lanes, const A: usize> Source<V> for Products<A> {
    #[inline(always)]
    unsafe fn get(&self, row: usize, column: usize) -> V {
        // SAFETY: as the trait demands.
        unsafe { V::load(self.first.add((row * A + column) * self.pitch)) }
    }
}

impl<V: Lanes, const A: usize> Target<V> for Products<A> {
    #[inline(always)]
    unsafe fn put(&self, row: usize, column: usize, value: V) {
        // SAFETY: as the trait demands.
        unsafe { value.store(self.first.add((row * A + column) * self.pitch)) }
    }
}

/// `target = T source T^T` for the matrix `T` of `F`.
///
/// # Safety
/// `V`'s instructions are available, `source` has `I x I` and `target` `O x O` elements.
#[inline(always)]
pub(super) unsafe fn map_plane<V: Lanes, F: Map<I, O>, const I: usize, const O: usize>(
    source: &impl Source<V>,
    target: &impl Target<V>,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut half = [[V::zero(); I]; O];
        for column in 0..I {
            let mut from = [V::zero(); I];
            for (row, value) in from.iter_mut().enumerate() {
                *value = source.get(row, column);
            }
            for (row, &value) in half.iter_mut().zip(&F::map(from)) {
                row[column] = value;
            }
        }
        for (row, values) in half.iter().enumerate() {
            let to = F::map(*values);
            for (column, &value) in to.iter().enumerate() {
                target.put(row, column, value);
            }
        }
    }
}
