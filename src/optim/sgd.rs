//! SGD with momentum, Nesterov momentum and weight decay, as PyTorch defines them, in one pass over memory.

use super::{OptimError, TILE_LEN, check_common, check_len, check_lr};
use crate::train::config::OptimizerConfig;
use rayon::prelude::*;

/// For parameters w and gradient g:
///
/// ```text
/// d = g + weight_decay * w
/// v = momentum * v + d              v starts at 0
/// w = w - lr * v                    or, with Nesterov, w - lr * (d + momentum * v)
/// ```
///
/// # Example
/// ```
/// use scadles::{optim::Sgd, train::config::OptimizerConfig};
/// let mut sgd = Sgd::new(&OptimizerConfig { momentum: 0.5, weight_decay: 0.0, ..Default::default() }, 1)?;
/// let mut w = [1.0];
/// sgd.step(&mut w, &[1.0], 0.25)?;
/// sgd.step(&mut w, &[1.0], 0.25)?;
/// assert_eq!(w, [1.0 - 0.25 - 0.25 * 1.5]);
/// # Ok::<(), scadles::optim::OptimError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sgd {
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
    numel: usize,
    /// Empty without momentum.
    velocity: Vec<f32>,
}

impl Sgd {
    /// For `numel` parameters, with zero momentum; `lr` and the schedule of `config` are not used here.
    ///
    /// # Errors
    /// Momentum or weight decay outside its range, or Nesterov without momentum.
    pub fn new(config: &OptimizerConfig, numel: usize) -> Result<Self, OptimError> {
        check_common(config)?;
        if config.nesterov && config.momentum == 0.0 {
            return Err(OptimError::OutOfRange {
                what: "momentum",
                value: 0.0,
                range: "above 0 with nesterov",
            });
        }
        let velocity = vec![0.0; if config.momentum > 0.0 { numel } else { 0 }];
        let (momentum, weight_decay) = (config.momentum as f32, config.weight_decay as f32);
        Ok(Self { momentum, nesterov: config.nesterov, weight_decay, numel, velocity })
    }

    /// Updates `params` with `grad` at the learning rate `lr`.
    ///
    /// # Errors
    /// Wrong lengths, or a learning rate that is negative or not finite; then nothing changes.
    pub fn step(&mut self, params: &mut [f32], grad: &[f32], lr: f64) -> Result<(), OptimError> {
        check_len("parameters", params.len(), self.numel)?;
        check_len("gradient", grad.len(), self.numel)?;
        check_lr(lr)?;
        let (lr, momentum, weight_decay) = (lr as f32, self.momentum, self.weight_decay);
        let tiles = params.par_chunks_mut(TILE_LEN).zip(grad.par_chunks(TILE_LEN));
        if self.velocity.is_empty() {
            tiles.for_each(|(w, g)| {
                w.iter_mut().zip(g).for_each(|(w, g)| *w -= lr * (g + weight_decay * *w));
            });
            return Ok(());
        }
        let nesterov = self.nesterov;
        tiles.zip(self.velocity.par_chunks_mut(TILE_LEN)).for_each(|((w, g), v)| {
            let elements = w.iter_mut().zip(g).zip(v);
            if nesterov {
                elements.for_each(|((w, g), v)| {
                    let d = g + weight_decay * *w;
                    *v = momentum * *v + d;
                    *w -= lr * (d + momentum * *v);
                });
            } else {
                elements.for_each(|((w, g), v)| {
                    *v = momentum * *v + (g + weight_decay * *w);
                    *w -= lr * *v;
                });
            }
        });
        Ok(())
    }

    /// Momentum, one element per parameter; empty without momentum.
    pub fn velocity(&self) -> &[f32] {
        &self.velocity
    }

    /// Replaces the momentum, as when a checkpoint is loaded.
    ///
    /// # Errors
    /// Wrong length; then nothing changes.
    pub fn load_velocity(&mut self, velocity: &[f32]) -> Result<(), OptimError> {
        check_len("velocity", velocity.len(), self.velocity.len())?;
        self.velocity.copy_from_slice(velocity);
        Ok(())
    }
}
