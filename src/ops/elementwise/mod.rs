//! Elementwise sums that join the branches of a network.
//!
//! # Example
//! ```
//! let mut sum = [1.0, 2.0];
//! scadles::ops::elementwise::add_inplace(&mut sum, &[0.5, 0.25]);
//! assert_eq!(sum, [1.5, 2.25]);
//! ```

pub mod cuda;

use super::multiversion::multiversion;
use crate::element::Element;
use rayon::prelude::*;

/// Elements that one task of an elementwise op handles.
pub(super) const TILE_LEN: usize = 32 * 1024;

/// `dst += src`: collects the gradients of branches. The lengths must be equal.
pub fn add_inplace<E: Element>(dst: &mut [E], src: &[E]) {
    assert_eq!(dst.len(), src.len(), "add: dst and src differ in length");
    (dst.par_chunks_mut(TILE_LEN), src.par_chunks(TILE_LEN))
        .into_par_iter()
        .for_each(|(dst, src)| tile_add(dst, src));
}

/// `dst = max(dst + src, 0)`: joins a shortcut. The lengths must be equal.
pub fn add_relu_inplace<E: Element>(dst: &mut [E], src: &[E]) {
    assert_eq!(dst.len(), src.len(), "add: dst and src differ in length");
    (dst.par_chunks_mut(TILE_LEN), src.par_chunks(TILE_LEN))
        .into_par_iter()
        .for_each(|(dst, src)| tile_add_relu(dst, src));
}

multiversion! {
    fn tile_add_relu<E: Element>(dst: &mut [E], src: &[E]) {
        for (dst, src) in dst.iter_mut().zip(src) {
            let sum = dst.to_f32() + src.to_f32();
            *dst = E::from_f32(if sum <= 0.0 { 0.0 } else { sum });
        }
    }

    fn tile_add<E: Element>(dst: &mut [E], src: &[E]) {
        for (dst, src) in dst.iter_mut().zip(src) {
            *dst = E::from_f32(dst.to_f32() + src.to_f32());
        }
    }
}
