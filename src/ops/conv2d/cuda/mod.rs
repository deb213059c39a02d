//! Convolution on a GPU.

pub mod wgmma;

use crate::device::cuda::{View, ViewMut};

/// What fprop does to its output on the way.
#[derive(Debug, Default)]
pub struct Epilogue<'a> {
    /// Added per output channel.
    pub bias: Option<View<'a, f32>>,
    /// Negative values become 0.
    pub relu: bool,
    /// Sums and squared deviations of rows.
    pub statistics: Option<ViewMut<'a, f32>>,
}
