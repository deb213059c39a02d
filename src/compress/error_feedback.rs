//! Top-k with error feedback: what is not sent is added to the next gradient.
//!
//! One vector per device holds both the residual and, between [`DeviceCompressor::accumulate`] and sending, the
//! compensated gradient `p = residual + agg_weight * gradient`. On every step, dense or sparse, elementwise and bit for
//! bit,
//!
//! ```text
//! sent + residual_after == p
//! ```
//!
//! The weight of a device acts before compensation and selection, so that the sum over devices of sent values and new
//! residuals equals the weighted sum of gradients plus the old residuals even when weights change from step to step.

use super::coding::Coding;
use super::error::{CompressError, check_contribution, check_density, check_len};
use super::pack::{Companion, PayloadInfo, empty_payload, pack, payload_bytes_bound};
use super::plan::Plan;
use super::scan::{PREFETCH_AHEAD, Term, TileScan};
use super::topk::{Norms, Selection, guess_brackets, not_finite, update_and_select};
use super::wide::Wide;
use crate::train::config::TopKConfig;
use rayon::prelude::*;
use std::sync::Arc;

/// Residual and compression state of one device.
///
/// # Example
/// ```
/// use scadles::compress::{DeviceCompressor, Plan, coding::decode_add};
/// use scadles::train::config::{TopKConfig, TopKScope};
/// use std::sync::Arc;
/// let plan = Arc::new(Plan::new(4, &[], TopKScope::Vector)?);
/// let mut device = DeviceCompressor::new(plan, &TopKConfig { density: 0.25, ..TopKConfig::default() })?;
/// device.accumulate(&[1.0, -8.0, 2.0, 4.0], 0.5)?;
/// let mut payload = Vec::new();
/// device.encode_sparse(&mut payload);
/// let mut sum = [0.0; 4];
/// decode_add(&payload, &mut sum)?;
/// assert_eq!(sum, [0.0, -4.0, 0.0, 0.0]);
/// assert_eq!(device.residual(), [0.5, 0.0, 1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeviceCompressor {
    plan: Arc<Plan>,
    density: f64,
    error_feedback: bool,
    coding: Coding,
    /// The residual; while `selection` is set, the compensated gradient.
    acc: Vec<f32>,
    selection: Option<Selection>,
    /// Memory of an earlier selection.
    spare: Vec<TileScan>,
    poisoned: bool,
}

impl DeviceCompressor {
    /// A device with a residual of 0. The gate of the configuration is not used here: see [`Gate`](super::Gate).
    ///
    /// # Errors
    /// Density outside (0, 1], or a plan of another scope than the configuration.
    pub fn new(plan: Arc<Plan>, config: &TopKConfig) -> Result<Self, CompressError> {
        check_density(config.density)?;
        if plan.scope() != config.scope {
            return Err(CompressError::Scope { plan: plan.scope(), config: config.scope });
        }
        Ok(Self {
            acc: vec![0.0; plan.numel()],
            plan,
            density: config.density,
            error_feedback: config.error_feedback,
            coding: Coding { values: config.values, indices: config.indices },
            selection: None,
            spare: Vec::new(),
            poisoned: false,
        })
    }

    /// Adds `agg_weight * grad` to the residual, selects the top-k of the sum p and returns the norms of that same p.
    ///
    /// `None` if `agg_weight` is 0: a device without samples adds nothing, sends nothing, keeps its residual, and has
    /// no say in the gate. Its `grad` is not read.
    ///
    /// # Errors
    /// Wrong length; a weight that is negative or not finite; an element of `grad` or of p that is not finite. After
    /// the last the residual is lost, and the device refuses to go on until [`DeviceCompressor::reset`] or
    /// [`DeviceCompressor::load_residual`].
    pub fn accumulate(&mut self, grad: &[f32], agg_weight: f32) -> Result<Option<Norms>, CompressError> {
        check_contribution(grad.len(), self.plan.numel(), agg_weight, self.poisoned)?;
        self.forget_selection();
        if agg_weight == 0.0 {
            return Ok(None);
        }
        let terms =
            (self.plan.tiles.iter()).map(|tile| AddScaled { x: &grad[tile.range.clone()], agg_weight });
        let terms = terms.collect();
        let brackets = guess_brackets(&self.plan, self.density, |i| self.acc[i] + agg_weight * grad[i]);
        let scans = std::mem::take(&mut self.spare);
        // SAFETY: the terms were cut by the plan's tiles.
        let selected = unsafe { update_and_select(&self.plan, brackets, &mut self.acc, terms, scans) };
        match selected {
            Ok((selection, norms)) => {
                self.selection = Some(selection);
                Ok(Some(norms))
            }
            Err(index) => {
                self.poisoned = true;
                Err(match grad[index].is_finite() {
                    false => not_finite("gradient", index, grad),
                    true => not_finite("compensated gradient", index, &self.acc),
                })
            }
        }
    }

    /// Most bytes that [`DeviceCompressor::encode_sparse`] is going to write: known before anything is sent, so that
    /// the choice of the collective can still fall on the dense one. No pass over memory.
    pub fn payload_bytes_bound(&self) -> u64 {
        match &self.selection {
            Some(selection) => payload_bytes_bound(&self.plan, selection, self.coding),
            None => super::coding::HEADER_BYTES as u64,
        }
    }

    /// Writes the top-k of p into `out`, replacing its content; the residual becomes p minus the values that a
    /// receiver decodes, or 0 without error feedback. Without an accumulated gradient the payload is empty and the
    /// residual stays.
    pub fn encode_sparse(&mut self, out: &mut Vec<u8>) -> PayloadInfo {
        match self.selection.take() {
            Some(selection) => {
                let (plan, drop_remainder) = (&self.plan, !self.error_feedback);
                let info =
                    pack(plan, &selection, &mut self.acc, Companion::None, drop_remainder, self.coding, out);
                self.spare = selection.into_scans();
                info
            }
            None => empty_payload(&self.plan, self.coding, out),
        }
    }

    /// The whole p, for a dense step; `None` without an accumulated gradient. Follow it with
    /// [`DeviceCompressor::finish_dense`] once it is sent.
    pub fn dense(&self) -> Option<&[f32]> {
        self.selection.as_ref().map(|_| &self.acc[..])
    }

    /// States that all of p was sent: the residual becomes 0. Without an accumulated gradient it stays.
    pub fn finish_dense(&mut self) {
        if self.forget_selection() {
            fill_zero(&mut self.acc);
        }
    }

    /// Whether there was one. Its memory is kept for the next.
    fn forget_selection(&mut self) -> bool {
        let selection = self.selection.take();
        let found = selection.is_some();
        self.spare = selection.map_or_else(|| std::mem::take(&mut self.spare), Selection::into_scans);
        found
    }

    /// What was not sent so far. Between [`DeviceCompressor::accumulate`] and sending it includes the new gradient.
    pub fn residual(&self) -> &[f32] {
        &self.acc
    }

    /// Replaces the residual, as when a checkpoint is loaded.
    ///
    /// # Errors
    /// Wrong length, or an element that is not finite; then nothing changes.
    pub fn load_residual(&mut self, residual: &[f32]) -> Result<(), CompressError> {
        check_len("residual", residual.len(), self.plan.numel())?;
        if let Some(index) = residual.iter().position(|x| !x.is_finite()) {
            return Err(not_finite("residual", index, residual));
        }
        // Plus 0: a residual is never -0, or sent + residual could differ from p in the sign of a zero.
        self.acc.iter_mut().zip(residual).for_each(|(acc, x)| *acc = x + 0.0);
        (self.selection, self.poisoned) = (None, false);
        Ok(())
    }

    /// Sets the residual to 0.
    pub fn reset(&mut self) {
        fill_zero(&mut self.acc);
        (self.selection, self.poisoned) = (None, false);
    }
}

/// `acc + agg_weight * x`, in two roundings.
struct AddScaled<'a> {
    x: &'a [f32],
    agg_weight: f32,
}

impl Term for AddScaled<'_> {
    #[inline(always)]
    unsafe fn sixteen<V: Wide>(&mut self, acc: *mut f32, i: usize) -> V {
        // SAFETY: as the trait demands; `x` is as long as the tile.
        unsafe {
            let x = self.x.as_ptr();
            V::prefetch(x.wrapping_add(i + PREFETCH_AHEAD));
            let sum = V::load(acc.add(i)).add(V::splat(self.agg_weight).mul(V::load(x.add(i))));
            sum.store(acc.add(i));
            sum
        }
    }

    #[inline(always)]
    unsafe fn one(&mut self, acc: *mut f32, i: usize) -> f32 {
        // SAFETY: as the trait demands.
        unsafe {
            *acc.add(i) += self.agg_weight * self.x[i];
            *acc.add(i)
        }
    }
}

pub(super) fn fill_zero(values: &mut [f32]) {
    values.par_chunks_mut(super::plan::BLOCK_LEN).for_each(|chunk| chunk.fill(0.0));
}
