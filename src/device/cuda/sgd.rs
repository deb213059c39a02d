//! Launch of `kernels/sgd.cu`.

use super::device::{CudaDevice, check_len, launch_error};
use super::error::CudaError;
use cudarc::driver::{CudaFunction, CudaView, CudaViewMut, PushKernelArg};

/// The momentum of an update: its vector on the device, and its factor in [0, 1).
#[derive(Debug)]
pub enum DeviceMomentum<'a, 'v> {
    /// None.
    Plain,
    /// `w -= lr * v`
    Classic(&'a mut CudaViewMut<'v, f32>, f32),
    /// `w -= lr * (d + momentum * v)`
    Nesterov(&'a mut CudaViewMut<'v, f32>, f32),
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
        params: &mut CudaViewMut<'_, f32>,
        grad: &CudaView<'_, f32>,
        momentum: DeviceMomentum<'_, '_>,
        step: SgdStep,
    ) -> Result<(), CudaError> {
        let numel = params.len();
        let SgdStep { lr, weight_decay } = step;
        match momentum {
            DeviceMomentum::Plain => {
                const KERNEL: &str = "sgd_f32";
                check(KERNEL, numel, grad, step)?;
                if numel == 0 {
                    return Ok(());
                }
                let count = numel as i64;
                let mut launch = self.stream().launch_builder(&self.functions.sgd_f32);
                launch.arg(params).arg(grad).arg(&lr).arg(&weight_decay).arg(&count);
                // SAFETY: the arguments are the kernel's, in order and type; it stays below `count` elements.
                unsafe { launch.launch(self.grid_stride(numel)) }
                    .map_err(|error| launch_error(KERNEL, format!("params, grad [{numel}]"), error))?;
                Ok(())
            }
            DeviceMomentum::Classic(velocity, momentum) => {
                let entry = ("sgd_momentum_f32", &self.functions.sgd_momentum_f32);
                self.sgd_with_velocity(entry, params, grad, velocity, momentum, step)
            }
            DeviceMomentum::Nesterov(velocity, momentum) => {
                let entry = ("sgd_nesterov_f32", &self.functions.sgd_nesterov_f32);
                self.sgd_with_velocity(entry, params, grad, velocity, momentum, step)
            }
        }
    }

    fn sgd_with_velocity(
        &self,
        (kernel, function): (&'static str, &CudaFunction),
        params: &mut CudaViewMut<'_, f32>,
        grad: &CudaView<'_, f32>,
        velocity: &mut CudaViewMut<'_, f32>,
        momentum: f32,
        step: SgdStep,
    ) -> Result<(), CudaError> {
        let numel = params.len();
        let SgdStep { lr, weight_decay } = step;
        check(kernel, numel, grad, step)?;
        check_len(kernel, "velocity", velocity.len(), numel)?;
        check_range(kernel, "momentum", momentum, 0.0..1.0, "in [0, 1)")?;
        if numel == 0 {
            return Ok(());
        }
        let count = numel as i64;
        let mut launch = self.stream().launch_builder(function);
        launch.arg(params).arg(velocity).arg(grad).arg(&lr).arg(&momentum).arg(&weight_decay).arg(&count);
        // SAFETY: the arguments are those of both kernels with a velocity, in order and type; they stay below `count`
        // elements.
        unsafe { launch.launch(self.grid_stride(numel)) }
            .map_err(|error| launch_error(kernel, format!("params, velocity, grad [{numel}]"), error))?;
        Ok(())
    }
}

fn check(
    kernel: &'static str,
    numel: usize,
    grad: &CudaView<'_, f32>,
    step: SgdStep,
) -> Result<(), CudaError> {
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
