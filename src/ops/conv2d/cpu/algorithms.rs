//! Which algorithm each pass of a shape uses.

use super::element::CpuElement;
use super::winograd::{self, TileSize};
use crate::ops::simd::{PairLevel, SimdLevel};
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

    /// As in the names of benchmark rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Winograd2 => "winograd2",
            Self::Winograd4 => "winograd4",
        }
    }

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

    /// What is fastest for `shape`; the direct algorithms where the environment variable `SCADLES_WINOGRAD` is `off` (read
    /// once).
    pub fn choose<E: CpuElement>(shape: &Conv2dShape) -> Self {
        static OFF: OnceLock<bool> = OnceLock::new();
        let off = *OFF.get_or_init(|| std::env::var("SCADLES_WINOGRAD").is_ok_and(|value| value == "off"));
        if off { Self::default() } else { Self::fastest::<E>(shape) }
    }

    /// What is fastest for `shape`: the algorithm of the lowest cost, where that is clearly below the direct one's.
    pub fn fastest<E: CpuElement>(shape: &Conv2dShape) -> Self {
        if !winograd::supports(shape) {
            return Self::default();
        }
        let fastest = |pass| {
            let cost = |algorithm: Algorithm| match algorithm {
                Algorithm::Direct => direct_share::<E>(pass) * cost(algorithm, shape, pass),
                _ => cost(algorithm, shape, pass),
            };
            let limit = cost(Algorithm::Direct) * WORTH;
            Algorithm::ALL
                .into_iter()
                .filter(|&algorithm| cost(algorithm) < limit)
                .min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
                .unwrap_or_default()
        };
        let product = fastest(Pass::Product);
        Self { fprop: product, dgrad: product, wgrad: fastest(Pass::FilterGradient) }
    }
}

/// Passes by what they cost.
#[derive(Clone, Copy)]
enum Pass {
    /// `fprop` and `dgrad`: the filter is packed once for all images.
    Product,
    /// `wgrad`.
    FilterGradient,
}

/// Images of a batch that the choice is made for. It is the same for every batch: results must not depend on the batch
/// that a network is planned for.
const IMAGES: f64 = 32.0;

/// Multiply-accumulates that take as long as one float of a transformed input or output, in `fprop` and `dgrad`.
const TRANSFORMED_FLOAT: f64 = 17.0;

/// The same of an input or gradient in `wgrad`, where transformed tiles go through the L3 cache.
const WGRAD_TRANSFORMED_FLOAT: f64 = 28.0;

/// Multiply-accumulates that take as long as one float of a packed filter.
const PACKED_FLOAT: f64 = 30.0;

/// The same of a sum that `wgrad` transforms back.
const SUMMED_FLOAT: f64 = 17.0;

/// Share of the direct algorithm's cost below which another one is used.
const WORTH: f64 = 0.9;

/// Cost of the direct algorithm relative to that on f32; Winograd's multiply f32 either way. Fitted to
/// `results/2026-11-25-zen4-2core/conv-algorithms-bf16.json`.
fn direct_share<E: CpuElement>(pass: Pass) -> f64 {
    match (E::IS_BF16, PairLevel::within(SimdLevel::current()), pass) {
        (false, ..) => 1.0,
        (true, PairLevel::Avx512Bf16, Pass::Product) => 0.53,
        // Two pixels are interleaved first.
        (true, PairLevel::Avx512Bf16, Pass::FilterGradient) => 0.68,
        // Pairs are widened.
        (true, PairLevel::Avx2 | PairLevel::Portable, _) => 2.2,
    }
}

/// Cost of a pass over [`IMAGES`] images in multiply-accumulates, fitted to the rows `conv2d-algorithm` of
/// `scadles-bench`, see `results/2026-11-25-zen4-2core/conv-algorithms.json`.
fn cost(algorithm: Algorithm, shape: &Conv2dShape, pass: Pass) -> f64 {
    let filter = (shape.c * shape.k) as f64;
    let (transformed, once) = match pass {
        Pass::Product => (TRANSFORMED_FLOAT, PACKED_FLOAT),
        Pass::FilterGradient if algorithm == Algorithm::Direct => (0.0, 0.0),
        Pass::FilterGradient => (WGRAD_TRANSFORMED_FLOAT, SUMMED_FLOAT),
    };
    let (image, positions) = match algorithm.tile_size() {
        None => {
            let taps = |input: usize, output: usize| {
                let inside = |p: usize| (0..3).filter(|r| (p + r).wrapping_sub(shape.pad) < input).count();
                (0..output).map(inside).sum::<usize>()
            };
            ((taps(shape.h, shape.p()) * taps(shape.w, shape.q())) as f64 * filter, 9.0)
        }
        Some(size) => {
            let products = winograd::products(size, shape) as f64;
            let transforms = transformed * (shape.c + shape.k) as f64;
            (products * (filter + transforms), size.positions() as f64)
        }
    };
    IMAGES * image + once * positions * filter
}
