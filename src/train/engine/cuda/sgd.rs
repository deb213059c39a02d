//! SGD's numbers for parameters on the GPU.

use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, DeviceMomentum, SgdStep, View, ViewMut};
use crate::train::config::OptimizerConfig;

/// The optimizer of one run; whoever has parameters keeps their velocity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sgd {
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
}

impl Sgd {
    /// SGD as configured.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self {
            momentum: config.momentum as f32,
            nesterov: config.nesterov,
            weight_decay: config.weight_decay as f32,
        }
    }

    /// The velocity of `numel` parameters at rest; without momentum it is empty.
    pub fn velocity(&self, device: &CudaDevice, numel: usize) -> Result<DeviceBuffer<f32>, CudaError> {
        device.zeros(if self.momentum > 0.0 { numel } else { 0 }, "momentum")
    }

    /// Queues one step; with `squared_norm`, only if that is finite.
    pub fn step(
        &self,
        device: &CudaDevice,
        params: ViewMut<'_, f32>,
        grad: View<'_, f32>,
        velocity: &mut DeviceBuffer<f32>,
        lr: f64,
        squared_norm: Option<View<'_, f64>>,
    ) -> Result<(), CudaError> {
        let momentum = match (self.momentum > 0.0, self.nesterov) {
            (false, _) => DeviceMomentum::Plain,
            (true, false) => DeviceMomentum::Classic(velocity.view_mut(), self.momentum),
            (true, true) => DeviceMomentum::Nesterov(velocity.view_mut(), self.momentum),
        };
        let step = SgdStep { lr: lr as f32, weight_decay: self.weight_decay };
        match squared_norm {
            None => device.sgd(params, grad, momentum, step),
            Some(norm) => device.sgd_guarded(params, grad, momentum, step, norm),
        }
    }
}
