//! Launch of `kernels/sgd.cu`.

use super::device::{CudaDevice, check_len};
use super::error::CudaError;
use super::memory::{View, ViewMut};

/// The momentum of an update: its vector on the device, and its factor in [0, 1).
#[derive(Debug)]
pub enum DeviceMomentum<'a> {
    /// None.
    Plain,
    /// `w -= lr * v`
    Classic(ViewMut<'a, f32>, f32),
    /// `w -= lr * (d + momentum * v)`
    Nesterov(ViewMut<'a, f32>, f32),
}

/// The numbers of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate, finite and at least 0.
    pub lr: f32,
    /// Weight decay, finite and at least 0.
    pub weight_decay: f32,
}

impl CudaDevice {
    /// One update of `params`, with the bits of [`crate::optim::Sgd::step`].
    ///
    /// # Shapes
    /// `params`, `grad`, the velocity: `[numel]`
    ///
    /// # Errors
    /// Wrong lengths, a number outside its range, or the driver refuses the launch.
    pub fn sgd(
        &self,
        params: ViewMut<'_, f32>,
        grad: View<'_, f32>,
        momentum: DeviceMomentum<'_>,
        step: SgdStep,
    ) -> Result<(), CudaError> {
        self.sgd_or_none(params, grad, momentum, step, None)
    }

    /// As [`Self::sgd`], but changes nothing if `squared_norm`, a number on the GPU, is infinite or NaN.
    ///
    /// # Shapes
    /// `params`, `grad`, the velocity: `[numel]`; `squared_norm`: `[1]`
    ///
    /// # Errors
    /// As [`Self::sgd`].
    pub fn sgd_guarded(
        &self,
        params: ViewMut<'_, f32>,
        grad: View<'_, f32>,
        momentum: DeviceMomentum<'_>,
        step: SgdStep,
        squared_norm: View<'_, f64>,
    ) -> Result<(), CudaError> {
        self.sgd_or_none(params, grad, momentum, step, Some(squared_norm))
    }

    fn sgd_or_none(
        &self,
        mut params: ViewMut<'_, f32>,
        grad: View<'_, f32>,
        momentum: DeviceMomentum<'_>,
        step: SgdStep,
        squared_norm: Option<View<'_, f64>>,
    ) -> Result<(), CudaError> {
        let numel = params.len();
        let (kernel, velocity) = match momentum {
            DeviceMomentum::Plain => ("sgd_f32", None),
            DeviceMomentum::Classic(velocity, momentum) => ("sgd_momentum_f32", Some((velocity, momentum))),
            DeviceMomentum::Nesterov(velocity, momentum) => ("sgd_nesterov_f32", Some((velocity, momentum))),
        };
        check(kernel, numel, &grad, step)?;
        check_len(kernel, "squared_norm", squared_norm.map_or(1, |norm| norm.len()), 1)?;
        if let Some((velocity, momentum)) = &velocity {
            check_len(kernel, "velocity", velocity.len(), numel)?;
            check_range(kernel, "momentum", *momentum, 0.0..1.0, "in [0, 1)")?;
        }
        if numel == 0 {
            return Ok(());
        }
        let mut launch = self.launch(kernel)?;
        launch.output(&mut params);
        match velocity {
            None => launch.input(&grad).optional_input(squared_norm.as_ref()).scalar(step.lr),
            Some((mut velocity, momentum)) => {
                launch.output(&mut velocity).input(&grad).optional_input(squared_norm.as_ref());
                launch.scalar(step.lr).scalar(momentum)
            }
        };
        launch.scalar(step.weight_decay).scalar(numel as i64);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `numel` elements.
        unsafe { launch.run(self.grid_stride(numel), || format!("params, grad [{numel}]")) }
    }
}

fn check(kernel: &'static str, numel: usize, grad: &View<'_, f32>, step: SgdStep) -> Result<(), CudaError> {
    check_len(kernel, "grad", grad.len(), numel)?;
    check_range(kernel, "lr", step.lr, 0.0..f32::INFINITY, "finite and at least 0")?;
    check_range(kernel, "weight_decay", step.weight_decay, 0.0..f32::INFINITY, "finite and at least 0")
}

fn check_range(
    kernel: &'static str,
    what: &'static str,
    value: f32,
    range: std::ops::Range<f32>,
    words: &'static str,
) -> Result<(), CudaError> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(CudaError::OutOfRange { kernel, what, value, range: words })
    }
}
