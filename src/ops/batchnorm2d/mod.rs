//! Batch normalisation over the rows of `x` `[rows, C]`, fused with the shortcut add and the ReLU that follow
//! it.
//!
//! `y = relu?(gamma * (x - mean) * inv_std + beta + shortcut?)` per channel, where in training `mean` and the
//! *biased* variance are taken over the batch's `rows = N*H*W` values and `inv_std = 1 / sqrt(var + EPS)`; in
//! evaluation the running statistics stand in. Source: Ioffe and Szegedy, "Batch Normalization" (arXiv
//! 1502.03167); defaults and the update of the running statistics are PyTorch's `BatchNorm2d`:
//! `running = (1 - MOMENTUM) * running + MOMENTUM * new` with the *unbiased* variance. A batch of one row has
//! no unbiased variance (PyTorch refuses to train on it); here it contributes the biased one, 0. A batch of 0
//! rows leaves all statistics as they are.
//!
//! Statistics are summed per tile relative to a pivot (the mean of the tile's first rows) in f32 and merged
//! in f64, so a large common offset costs no precision: the error of the variance is bounded by a small
//! multiple of its own size.
//!
//! # Shapes
//! `x`, `y`, `dy`, `dx`, `shortcut`: `[rows, C]`; `gamma`, `beta`, all means, variances and their gradients:
//! `[C]`. A length that disagrees panics.
//!
//! # Example
//! ```
//! use scadles::ops::batchnorm2d::{self, Epilogue, Extent, Parameters, TrainStatistics};
//!
//! let extent = Extent { rows: 2, c: 1 };
//! let (mut y, mut scratch) = ([0.0; 2], vec![0.0; batchnorm2d::scratch_len(2, 1)]);
//! let (mut mean, mut inv_std, mut running_mean, mut running_var) = ([0.0], [0.0], [0.0], [1.0]);
//! let statistics = TrainStatistics {
//!     saved_mean: &mut mean,
//!     saved_inv_std: &mut inv_std,
//!     running_mean: &mut running_mean,
//!     running_var: &mut running_var,
//! };
//! let parameters = Parameters { gamma: &[1.0], beta: &[0.0] };
//! let epilogue = Epilogue { shortcut: None, relu: true };
//! batchnorm2d::forward_train(extent, &[3.0, 5.0], parameters, epilogue, &mut y, statistics, &mut scratch);
//! assert_eq!(mean, [4.0]);
//! assert!(y[0] == 0.0 && (y[1] - 1.0).abs() < 1e-4);
//! ```

mod cpu;
pub mod cuda;

use crate::element::Element;

/// Added to the variance before the square root.
pub const EPS: f32 = 1e-5;

/// Share of the new value in the running statistics.
pub const MOMENTUM: f32 = 0.1;

/// Extents of a batch: `rows = N * H * W` vectors of `c` channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// N * H * W; may be 0.
    pub rows: usize,
    /// Channels C; at least 1.
    pub c: usize,
}

/// The learned scale and offset, each `[C]`.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Offset.
    pub beta: &'a [f32],
}

/// What follows the normalisation in the same pass over memory.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, E = f32> {
    /// The other branch of a residual block, `[rows, C]`, added before the ReLU.
    pub shortcut: Option<&'a [E]>,
    /// Whether negative results become 0.
    pub relu: bool,
}

/// Statistics a training step writes, each `[C]`.
#[derive(Debug)]
pub struct TrainStatistics<'a> {
    /// The batch's mean, written; `backward` reads it.
    pub saved_mean: &'a mut [f32],
    /// `1 / sqrt(biased variance + EPS)` of the batch, written; `backward` reads it.
    pub saved_inv_std: &'a mut [f32],
    /// Updated by `MOMENTUM`.
    pub running_mean: &'a mut [f32],
    /// Updated by `MOMENTUM` with the unbiased variance.
    pub running_var: &'a mut [f32],
}

/// Running statistics that evaluation reads, each `[C]`.
#[derive(Clone, Copy, Debug)]
pub struct RunningStatistics<'a> {
    /// Mean.
    pub mean: &'a [f32],
    /// Variance, before `EPS` is added.
    pub var: &'a [f32],
}

/// What `backward` needs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, E = f32> {
    /// The input, `[rows, C]`.
    pub x: &'a [E],
    /// The output, `[rows, C]`, read for the ReLU's mask only; `None` when the forward pass had no ReLU.
    pub relu_y: Option<&'a [E]>,
    /// The scale used, `[C]`.
    pub gamma: &'a [f32],
    /// `saved_mean`, `[C]`.
    pub mean: &'a [f32],
    /// `saved_inv_std`, `[C]`.
    pub inv_std: &'a [f32],
}

/// What `backward` writes (`=`, not `+=`).
#[derive(Debug)]
pub struct Gradients<'a, E = f32> {
    /// Gradient of `x`, `[rows, C]`.
    pub dx: &'a mut [E],
    /// Gradient of `gamma`, `[C]`.
    pub dgamma: &'a mut [f32],
    /// Gradient of `beta`, `[C]`.
    pub dbeta: &'a mut [f32],
}

/// Elements of scratch that [`forward_train`] and [`backward`] need for up to `max_rows` rows.
pub fn scratch_len(max_rows: usize, c: usize) -> usize {
    cpu::scratch_len(max_rows, c)
}

/// Normalises by the batch's statistics, saves them for [`backward`] and updates the running ones.
///
/// With 0 rows nothing is written.
pub fn forward_train<E: Element>(
    extent: Extent,
    x: &[E],
    parameters: Parameters<'_>,
    epilogue: Epilogue<'_, E>,
    y: &mut [E],
    statistics: TrainStatistics<'_>,
    scratch: &mut [f32],
) {
    extent.check(
        "forward_train",
        &[("x", x), ("y", y)],
        &[
            ("gamma", parameters.gamma),
            ("beta", parameters.beta),
            ("saved_mean", statistics.saved_mean),
            ("saved_inv_std", statistics.saved_inv_std),
            ("running_mean", statistics.running_mean),
            ("running_var", statistics.running_var),
        ],
    );
    extent.check_shortcut(epilogue);
    extent.check_scratch("forward_train", scratch);
    if extent.rows > 0 {
        cpu::forward_train(extent, x, parameters, epilogue, y, statistics, scratch);
    }
}

/// Normalises by the running statistics.
pub fn forward_eval<E: Element>(
    extent: Extent,
    x: &[E],
    parameters: Parameters<'_>,
    running: RunningStatistics<'_>,
    epilogue: Epilogue<'_, E>,
    y: &mut [E],
) {
    extent.check(
        "forward_eval",
        &[("x", x), ("y", y)],
        &[
            ("gamma", parameters.gamma),
            ("beta", parameters.beta),
            ("running_mean", running.mean),
            ("running_var", running.var),
        ],
    );
    extent.check_shortcut(epilogue);
    cpu::forward_eval(extent, x, parameters, running, epilogue, y);
}

/// Gradients of [`forward_train`].
///
/// `dy` is the gradient of the output. With a ReLU (`saved.relu_y` given) it is masked in place, to 0 where
/// `y <= 0`; afterwards it is in either case the gradient of the shortcut too. With 0 rows `dgamma` and
/// `dbeta` become 0.
pub fn backward<E: Element>(
    extent: Extent,
    saved: Saved<'_, E>,
    dy: &mut [E],
    gradients: Gradients<'_, E>,
    scratch: &mut [f32],
) {
    extent.check(
        "backward",
        &[("x", saved.x), ("y", saved.relu_y.unwrap_or(saved.x)), ("dy", dy), ("dx", gradients.dx)],
        &[
            ("gamma", saved.gamma),
            ("saved_mean", saved.mean),
            ("saved_inv_std", saved.inv_std),
            ("dgamma", gradients.dgamma),
            ("dbeta", gradients.dbeta),
        ],
    );
    extent.check_scratch("backward", scratch);
    cpu::backward(extent, saved, dy, gradients, scratch);
}

impl Extent {
    /// Panics unless each of `tensors` is `[rows, C]` and each of `vectors` `[C]`.
    fn check<E>(self, pass: &str, tensors: &[(&str, &[E])], vectors: &[(&str, &[f32])]) {
        let Self { rows, c } = self;
        assert!(c > 0, "batchnorm2d {pass}: no channels");
        for (name, tensor) in tensors {
            assert_eq!(tensor.len(), rows * c, "batchnorm2d {pass}: {name} is not [{rows}, {c}]");
        }
        for (name, vector) in vectors {
            assert_eq!(vector.len(), c, "batchnorm2d {pass}: {name} is not [{c}]");
        }
    }

    fn check_shortcut<E>(self, epilogue: Epilogue<'_, E>) {
        let Self { rows, c } = self;
        let len = epilogue.shortcut.map_or(rows * c, <[E]>::len);
        assert_eq!(len, rows * c, "batchnorm2d: shortcut is not [{rows}, {c}]");
    }

    fn check_scratch(self, pass: &str, scratch: &[f32]) {
        let need = scratch_len(self.rows, self.c);
        assert!(
            scratch.len() >= need,
            "batchnorm2d {pass}: scratch has {} of {need} elements",
            scratch.len()
        );
    }
}
