//! Which algorithm each pass of a shape uses.

use super::winograd::{self, TileSize};
use crate::shape::Conv2dShape;
use std::sync::OnceLock;

/// How a pass is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// A multiply-accumulate for each tap; any shape.
    #[default]
    Direct,
    /// Winograd's F(2x2, 3x3).
    Winograd2,
    /// Winograd's F(4x4, 3x3).
    Winograd4,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 3] = [Algorithm::Direct, Algorithm::Winograd2, Algorithm::Winograd4];

    /// Whether it can compute `shape`: Winograd's take 3x3 filters, stride and dilation 1, padding up to 2, and channels
    /// that are multiples of 16, at most 2048.
    pub fn supports(self, shape: &Conv2dShape) -> bool {
        self.tile_size().is_none() || winograd::supports(shape)
    }

    pub(super) fn tile_size(self) -> Option<TileSize> {
        match self {
            Self::Direct => None,
            Self::Winograd2 => Some(TileSize::Two),
            Self::Winograd4 => Some(TileSize::Four),
        }
    }
}

/// The algorithms of the three passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Algorithms {
    /// Of `fprop`.
    pub fprop: Algorithm,
    /// Of `dgrad`.
    pub dgrad: Algorithm,
    /// Of `wgrad`.
    pub wgrad: Algorithm,
}

impl Algorithms {
    /// One algorithm for all passes.
    pub const fn all(algorithm: Algorithm) -> Self {
        Self { fprop: algorithm, dgrad: algorithm, wgrad: algorithm }
    }

    /// Whether they can compute `shape`.
    pub fn support(&self, shape: &Conv2dShape) -> bool {
        [self.fprop, self.dgrad, self.wgrad].iter().all(|algorithm| algorithm.supports(shape))
    }

    /// What is fastest for batches of about `n` images of `shape`; the direct algorithms where the environment variable
    /// `SCADLES_WINOGRAD` is `off` (read once).
    pub fn choose(shape: &Conv2dShape, n: usize) -> Self {
        static OFF: OnceLock<bool> = OnceLock::new();
        let off = *OFF.get_or_init(|| std::env::var("SCADLES_WINOGRAD").is_ok_and(|value| value == "off"));
        if off { Self::default() } else { Self::fastest(shape, n) }
    }

    fn fastest(shape: &Conv2dShape, _n: usize) -> Self {
        if !winograd::supports(shape) { Self::default() } else { Self::all(Algorithm::Winograd4) }
    }
}
