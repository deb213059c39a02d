//! Layer-wise adaptive rate scaling (You, Gitman, Ginsburg, arXiv 1708.03888), for large global batches.

use super::{OptimError, TILE_LEN, check_common, check_len, check_lr, check_range};
use crate::train::config::OptimizerConfig;
use rayon::prelude::*;
use std::ops::Range;

/// One parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LarsLayer {
    /// Its elements in the flat vector.
    pub range: Range<usize>,
    /// Whether its rate adapts: true for filters and matrices; biases and batch norm, whose norms say little, take the
    /// global rate and no weight decay.
    pub adapt: bool,
}

/// For the parameters w and gradient g of one layer (Algorithm 1 of the paper):
///
/// ```text
/// local_lr = trust * |w| / (|g| + weight_decay * |w|)     1 if the layer does not adapt or either norm is 0
/// v = momentum * v + lr * local_lr * (g + weight_decay * w)
/// w = w - v
/// ```
///
/// Unlike [`Sgd`](super::Sgd), v contains the learning rate. Norms are sums in f64 over fixed tiles.
#[derive(Clone, Debug)]
pub struct Lars {
    momentum: f32,
    weight_decay: f32,
    trust: f64,
    layers: Vec<LarsLayer>,
    velocity: Vec<f32>,
}

impl Lars {
    /// For `numel` parameters in `layers` (ascending, covering all), with zero momentum.
    ///
    /// # Errors
    /// A number outside its range, Nesterov (which LARS does not define), layers with a gap or an overlap.
    pub fn new(config: &OptimizerConfig, numel: usize, layers: Vec<LarsLayer>) -> Result<Self, OptimError> {
        check_common(config)?;
        check_range("trust", config.trust, f64::MIN_POSITIVE..f64::INFINITY, "finite and above 0")?;
        if config.nesterov {
            return Err(OptimError::OutOfRange { what: "nesterov", value: 1.0, range: "off with lars" });
        }
        let mut expected = 0;
        for (layer, LarsLayer { range: Range { start, end }, .. }) in layers.iter().enumerate() {
            if *start != expected || end < start || (layer + 1 == layers.len() && *end != numel) {
                return Err(OptimError::Layers { layer, start: *start, end: *end, expected, numel });
            }
            expected = *end;
        }
        check_len("layers", expected, numel)?;
        let (momentum, weight_decay) = (config.momentum as f32, config.weight_decay as f32);
        Ok(Self { momentum, weight_decay, trust: config.trust, layers, velocity: vec![0.0; numel] })
    }

    /// Updates `params` with `grad` at the learning rate `lr`.
    ///
    /// # Errors
    /// Wrong lengths, or a learning rate that is negative or not finite; then nothing changes.
    pub fn step(&mut self, params: &mut [f32], grad: &[f32], lr: f64) -> Result<(), OptimError> {
        check_len("parameters", params.len(), self.velocity.len())?;
        check_len("gradient", grad.len(), self.velocity.len())?;
        check_lr(lr)?;
        for layer in &self.layers {
            let range = layer.range.clone();
            let (w, g, v) = (&mut params[range.clone()], &grad[range.clone()], &mut self.velocity[range]);
            let decay = if layer.adapt { self.weight_decay } else { 0.0 };
            let local_lr = if layer.adapt { local_lr(w, g, f64::from(decay), self.trust) } else { 1.0 };
            let (rate, momentum) = ((lr * local_lr) as f32, self.momentum);
            let tiles =
                w.par_chunks_mut(TILE_LEN).zip(g.par_chunks(TILE_LEN)).zip(v.par_chunks_mut(TILE_LEN));
            tiles.for_each(|((w, g), v)| {
                for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
                    *v = momentum * *v + rate * (g + decay * *w);
                    *w -= *v;
                }
            });
        }
        Ok(())
    }

    /// Momentum, one element per parameter.
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

fn local_lr(w: &[f32], g: &[f32], weight_decay: f64, trust: f64) -> f64 {
    let (w_norm, g_norm) = (norm(w), norm(g));
    if w_norm == 0.0 || g_norm == 0.0 {
        return 1.0;
    }
    trust * w_norm / (g_norm + weight_decay * w_norm)
}

fn norm(x: &[f32]) -> f64 {
    let square = |tile: &[f32]| tile.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let squares: Vec<f64> = x.par_chunks(TILE_LEN).map(square).collect();
    squares.iter().sum::<f64>().sqrt()
}
