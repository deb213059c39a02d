//! From an aggregated gradient to parameters: SGD and LARS over flat vectors, and the learning rate of each step.

mod lars;
pub mod schedule;
mod sgd;

pub use lars::{Lars, LarsLayer};
pub use sgd::Sgd;

use crate::train::config::{OptimizerConfig, OptimizerKind};

/// Bad input to an optimizer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A slice has another length than the optimizer.
    #[error("{what}: {found} elements, expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// A number outside its range.
    #[error("{what} is {value}; it must be {range}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// The number given.
        value: f64,
        /// Its range, in words.
        range: &'static str,
    },
    /// Layers that do not tile the parameters.
    #[error(
        "layer {layer} is {start}..{end}; expected a range that starts at {expected}, the last one ending at {numel}"
    )]
    Layers {
        /// Position in the list of layers.
        layer: usize,
        /// Its first element.
        start: usize,
        /// One past its last element.
        end: usize,
        /// Where it had to start.
        expected: usize,
        /// Elements of the vector.
        numel: usize,
    },
}

/// The configured optimizer.
#[derive(Clone, Debug)]
pub enum Optimizer {
    /// SGD with momentum.
    Sgd(Sgd),
    /// Layer-wise adaptive rate scaling.
    Lars(Lars),
}

impl Optimizer {
    /// The optimizer of `config` for `numel` parameters in `layers`, which only LARS looks at.
    ///
    /// # Errors
    /// A number outside its range; for LARS also layers that do not tile the parameters.
    pub fn new(config: &OptimizerConfig, numel: usize, layers: Vec<LarsLayer>) -> Result<Self, OptimError> {
        Ok(match config.kind {
            OptimizerKind::Sgd => Self::Sgd(Sgd::new(config, numel)?),
            OptimizerKind::Lars => Self::Lars(Lars::new(config, numel, layers)?),
        })
    }

    /// Updates `params` with `grad` at the learning rate `lr`.
    ///
    /// # Errors
    /// Wrong lengths, or a learning rate that is negative or not finite; then nothing changes.
    pub fn step(&mut self, params: &mut [f32], grad: &[f32], lr: f64) -> Result<(), OptimError> {
        match self {
            Self::Sgd(sgd) => sgd.step(params, grad, lr),
            Self::Lars(lars) => lars.step(params, grad, lr),
        }
    }

    /// Momentum, one element per parameter; empty without momentum.
    pub fn velocity(&self) -> &[f32] {
        match self {
            Self::Sgd(sgd) => sgd.velocity(),
            Self::Lars(lars) => lars.velocity(),
        }
    }

    /// Replaces the momentum, as when a checkpoint is loaded.
    ///
    /// # Errors
    /// Wrong length; then nothing changes.
    pub fn load_velocity(&mut self, velocity: &[f32]) -> Result<(), OptimError> {
        match self {
            Self::Sgd(sgd) => sgd.load_velocity(velocity),
            Self::Lars(lars) => lars.load_velocity(velocity),
        }
    }
}

/// Elements that one task updates.
const TILE_LEN: usize = 1 << 14;

fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), OptimError> {
    if found == expected { Ok(()) } else { Err(OptimError::Length { what, expected, found }) }
}

fn check_range(
    what: &'static str,
    value: f64,
    range: std::ops::Range<f64>,
    words: &'static str,
) -> Result<(), OptimError> {
    if range.contains(&value) { Ok(()) } else { Err(OptimError::OutOfRange { what, value, range: words }) }
}

fn check_common(config: &OptimizerConfig) -> Result<(), OptimError> {
    check_range("momentum", config.momentum, 0.0..1.0, "in [0, 1)")?;
    check_range("weight-decay", config.weight_decay, 0.0..f64::INFINITY, "finite and at least 0")
}

fn check_lr(lr: f64) -> Result<(), OptimError> {
    check_range("lr", lr, 0.0..f64::INFINITY, "finite and at least 0")
}
