//! Deep gradient compression (Lin et al., arXiv 1712.01887): momentum correction, clipping, momentum factor masking,
//! density warm-up.
//!
//! ```text
//! u <- momentum * u + g        g = agg_weight * gradient, clipped to clip_norm / sqrt(N)
//! v <- v + u
//! send top-k(v); where sent: v <- v - sent, u <- 0
//! ```
//!
//! Momentum is applied here, per device, so the optimizer must not apply it again: see [`optimizer_momentum`].

use super::coding::Coding;
use super::error::{CompressError, check_contribution, check_density, check_len, check_range};
use super::error_feedback::fill_zero;
use super::pack::{Companion, PayloadInfo, empty_payload, pack, payload_bytes_bound};
use super::plan::{BLOCK_LEN, Plan};
use super::scan::{PREFETCH_AHEAD, Term, TileScan, sum_of_squares};
use super::topk::{Norms, Selection, guess_brackets, not_finite, update_and_select};
use super::wide::Wide;
use crate::train::config::{CompressionConfig, DgcConfig, IndexCoding};
use rayon::prelude::*;
use std::sync::Arc;

/// Density of the first warm-up stage.
const WARMUP_DENSITY: f64 = 0.25;
const WARMUP_STAGES: u32 = 4;

/// The momentum that the optimizer applies when the run is configured with `momentum`: none under DGC, whose devices
/// have applied it already.
pub fn optimizer_momentum(compression: &CompressionConfig, momentum: f64) -> f64 {
    if matches!(compression, CompressionConfig::Dgc(_)) { 0.0 } else { momentum }
}

/// Density at `progress`, a share of the run in [0, 1]: 25 % at first, falling exponentially in 4 equal stages of the
/// warm-up to the configured one. With the paper's 0.1 %: 25, 6.3, 1.6, 0.4, then 0.1 %.
pub fn density_at(config: &DgcConfig, progress: f64) -> f64 {
    if progress >= config.warmup || config.density >= WARMUP_DENSITY {
        return config.density;
    }
    let stage = (progress / config.warmup * f64::from(WARMUP_STAGES)).floor();
    WARMUP_DENSITY * (config.density / WARMUP_DENSITY).powf(stage / f64::from(WARMUP_STAGES))
}

/// DGC state of one device: two vectors.
#[derive(Clone, Debug)]
pub struct DgcCompressor {
    plan: Arc<Plan>,
    config: DgcConfig,
    momentum: f32,
    /// `clip_norm / sqrt(N)`; infinite when clipping is off.
    max_norm: f64,
    u: Vec<f32>,
    v: Vec<f32>,
    selection: Option<Selection>,
    /// Memory of an earlier selection.
    spare: Vec<TileScan>,
    poisoned: bool,
}

impl DgcCompressor {
    /// A device of a cluster of `devices`, with the run's `momentum`.
    ///
    /// # Errors
    /// Density, momentum or clip norm outside the ranges that [`DgcConfig`] states, or no devices.
    pub fn new(
        plan: Arc<Plan>,
        config: &DgcConfig,
        momentum: f64,
        devices: usize,
    ) -> Result<Self, CompressError> {
        check_density(config.density)?;
        check_range("momentum", momentum, 0.0..1.0, "in [0, 1)")?;
        check_range("warmup", config.warmup, 0.0..1.0, "in [0, 1)")?;
        let clip = config.clip_norm;
        check_range("clip_norm", clip, 0.0..f64::INFINITY, "finite and at least 0")?;
        check_range("devices", devices as f64, 1.0..f64::INFINITY, "at least 1")?;
        let max_norm = if clip == 0.0 { f64::INFINITY } else { clip / (devices as f64).sqrt() };
        let (u, v) = (vec![0.0; plan.numel()], vec![0.0; plan.numel()]);
        let momentum = momentum as f32;
        let (selection, spare, poisoned) = (None, Vec::new(), false);
        Ok(Self { plan, config: *config, momentum, max_norm, u, v, selection, spare, poisoned })
    }

    /// Takes a gradient into u and v and selects the top-k of v at the density of `progress`; returns the norms of v.
    ///
    /// `None` if `agg_weight` is 0: a device without samples changes nothing and sends nothing; `grad` is not read.
    ///
    /// # Errors
    /// As [`DeviceCompressor::accumulate`](super::DeviceCompressor::accumulate). A gradient that is not finite is
    /// noticed before anything changes if clipping is on.
    pub fn accumulate(
        &mut self,
        grad: &[f32],
        agg_weight: f32,
        progress: f64,
    ) -> Result<Option<Norms>, CompressError> {
        check_contribution(grad.len(), self.plan.numel(), agg_weight, self.poisoned)?;
        self.forget_selection();
        if agg_weight == 0.0 {
            return Ok(None);
        }
        let (scale, momentum) = (self.clipped_scale(grad, agg_weight)?, self.momentum);
        let corrected = |u: f32, g: f32| momentum * u + scale * g;
        let density = density_at(&self.config, progress);
        let brackets = guess_brackets(&self.plan, density, |i| self.v[i] + corrected(self.u[i], grad[i]));
        let grads = self.plan.tiles.iter().map(|tile| &grad[tile.range.clone()]);
        let of_tile = |(u, grad)| Corrected { u, grad, momentum, scale };
        let terms = self.plan.split_mut(&mut self.u).into_iter().zip(grads).map(of_tile).collect();
        let scans = std::mem::take(&mut self.spare);
        // SAFETY: the terms were cut by the plan's tiles.
        match unsafe { update_and_select(&self.plan, brackets, &mut self.v, terms, scans) } {
            Ok((selection, norms)) => {
                self.selection = Some(selection);
                Ok(Some(norms))
            }
            Err(index) => {
                self.poisoned = true;
                Err(match grad[index].is_finite() {
                    false => not_finite("gradient", index, grad),
                    true => not_finite("accumulated gradient", index, &self.v),
                })
            }
        }
    }

    /// `agg_weight`, made smaller if the weighted gradient is longer than this device's share of the clip norm.
    ///
    /// The weighted gradient is what the paper calls the local gradient: it too carries its share of the global batch.
    fn clipped_scale(&self, grad: &[f32], agg_weight: f32) -> Result<f32, CompressError> {
        if self.max_norm.is_infinite() {
            return Ok(agg_weight);
        }
        let squares: Vec<f64> = grad.par_chunks(BLOCK_LEN).map(sum_of_squares).collect();
        let norm = f64::from(agg_weight) * squares.iter().sum::<f64>().sqrt();
        if let Some(index) = (!norm.is_finite()).then(|| grad.iter().position(|g| !g.is_finite())).flatten() {
            return Err(not_finite("gradient", index, grad));
        }
        Ok(if norm > self.max_norm {
            (f64::from(agg_weight) * self.max_norm / norm) as f32
        } else {
            agg_weight
        })
    }

    /// Most bytes that [`DgcCompressor::encode_sparse`] is going to write.
    pub fn payload_bytes_bound(&self) -> u64 {
        match &self.selection {
            Some(selection) => payload_bytes_bound(&self.plan, selection, self.coding()),
            None => super::coding::HEADER_BYTES as u64,
        }
    }

    /// Writes the top-k of v into `out`, replacing its content; where sent, u becomes 0 and v what a receiver does not
    /// get (0 with f32 values). Without an accumulated gradient the payload is empty and nothing changes.
    pub fn encode_sparse(&mut self, out: &mut Vec<u8>) -> PayloadInfo {
        let coding = self.coding();
        match self.selection.take() {
            Some(selection) => {
                let companion = Companion::Masked(&mut self.u);
                let info = pack(&self.plan, &selection, &mut self.v, companion, false, coding, out);
                self.spare = selection.into_scans();
                info
            }
            None => empty_payload(&self.plan, coding, out),
        }
    }

    /// The whole v, for a dense step; `None` without an accumulated gradient.
    pub fn dense(&self) -> Option<&[f32]> {
        self.selection.as_ref().map(|_| &self.v[..])
    }

    /// States that all of v was sent: v becomes 0. u stays: masking is against momentum of delayed gradients, and
    /// nothing is delayed in a dense step, so that dense steps alone are SGD with momentum.
    pub fn finish_dense(&mut self) {
        if self.forget_selection() {
            fill_zero(&mut self.v);
        }
    }

    /// Whether there was one. Its memory is kept for the next.
    fn forget_selection(&mut self) -> bool {
        let selection = self.selection.take();
        let found = selection.is_some();
        self.spare = selection.map_or_else(|| std::mem::take(&mut self.spare), Selection::into_scans);
        found
    }

    /// Momentum u and unsent velocity v.
    pub fn state(&self) -> (&[f32], &[f32]) {
        (&self.u, &self.v)
    }

    /// Replaces u and v, as when a checkpoint is loaded.
    ///
    /// # Errors
    /// Wrong length, or an element that is not finite; then nothing changes.
    pub fn load_state(&mut self, u: &[f32], v: &[f32]) -> Result<(), CompressError> {
        for (what, values) in [("momentum", u), ("velocity", v)] {
            check_len(what, values.len(), self.plan.numel())?;
            if let Some(index) = values.iter().position(|x| !x.is_finite()) {
                return Err(not_finite(what, index, values));
            }
        }
        // Plus 0: neither vector ever holds -0, and sent + v must equal the old v in the sign of a zero too.
        self.u.iter_mut().zip(u).for_each(|(to, x)| *to = x + 0.0);
        self.v.iter_mut().zip(v).for_each(|(to, x)| *to = x + 0.0);
        (self.selection, self.poisoned) = (None, false);
        Ok(())
    }

    /// Sets u and v to 0.
    pub fn reset(&mut self) {
        fill_zero(&mut self.u);
        fill_zero(&mut self.v);
        (self.selection, self.poisoned) = (None, false);
    }

    fn coding(&self) -> Coding {
        Coding { values: self.config.values, indices: IndexCoding::Smallest }
    }
}

/// `u <- momentum * u + scale * grad`, then `v <- v + u`.
struct Corrected<'a> {
    u: &'a mut [f32],
    grad: &'a [f32],
    momentum: f32,
    scale: f32,
}

impl Term for Corrected<'_> {
    #[inline(always)]
    unsafe fn sixteen<V: Wide>(&mut self, v: *mut f32, i: usize) -> V {
        // SAFETY: as the trait demands; `u` and `grad` are as long as the tile.
        unsafe {
            let (u, grad) = (self.u.as_mut_ptr(), self.grad.as_ptr());
            V::prefetch(u.wrapping_add(i + PREFETCH_AHEAD));
            V::prefetch(grad.wrapping_add(i + PREFETCH_AHEAD));
            let decayed = V::splat(self.momentum).mul(V::load(u.add(i)));
            let velocity = decayed.add(V::splat(self.scale).mul(V::load(grad.add(i))));
            velocity.store(u.add(i));
            let sum = V::load(v.add(i)).add(velocity);
            sum.store(v.add(i));
            sum
        }
    }

    #[inline(always)]
    unsafe fn one(&mut self, v: *mut f32, i: usize) -> f32 {
        self.u[i] = self.momentum * self.u[i] + self.scale * self.grad[i];
        // SAFETY: as the trait demands.
        unsafe {
            *v.add(i) += self.u[i];
            *v.add(i)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::TopKConfig;

    #[test]
    fn the_density_falls_in_four_stages() {
        let config = DgcConfig { warmup: 0.2, ..DgcConfig::default() };
        let densities: Vec<f64> = [0.0, 0.051, 0.1, 0.151, 0.2, 1.0].map(|p| density_at(&config, p)).into();
        for (found, expected) in densities.iter().zip([0.25, 0.0629, 0.0158, 0.00398, 0.001, 0.001]) {
            assert!((found / expected - 1.0).abs() < 1e-2, "{densities:?}");
        }
    }

    #[test]
    fn without_warm_up_or_with_a_high_density_there_are_no_stages() {
        assert_eq!(density_at(&DgcConfig { warmup: 0.0, ..DgcConfig::default() }, 0.0), 0.001);
        assert_eq!(density_at(&DgcConfig { density: 0.5, ..DgcConfig::default() }, 0.0), 0.5);
    }

    #[test]
    fn the_optimizer_leaves_momentum_to_dgc() {
        assert_eq!(optimizer_momentum(&CompressionConfig::Dgc(DgcConfig::default()), 0.9), 0.0);
        assert_eq!(optimizer_momentum(&CompressionConfig::TopK(TopKConfig::default()), 0.9), 0.9);
        assert_eq!(optimizer_momentum(&CompressionConfig::None, 0.9), 0.9);
    }
}
