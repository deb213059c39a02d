//! Launch of `kernels/add_scaled.cu`.

use super::device::{CudaDevice, check_len};
use super::error::CudaError;
use super::memory::{View, ViewMut};

const KERNEL: &str = "add_scaled_f32";

impl CudaDevice {
    /// `out += weight * x`, with the bits of [`crate::aggregate::add_scaled`]. With weight 0, `x` is not read.
    ///
    /// # Shapes
    /// `out`, `x`: `[numel]`
    ///
    /// # Errors
    /// `x` of another length than `out`, or the driver refuses the launch.
    pub fn add_scaled(
        &self,
        mut out: ViewMut<'_, f32>,
        x: View<'_, f32>,
        weight: f32,
    ) -> Result<(), CudaError> {
        let numel = out.len();
        check_len(KERNEL, "x", x.len(), numel)?;
        if numel == 0 || weight == 0.0 {
            return Ok(());
        }
        let mut launch = self.launch(KERNEL)?;
        launch.output(&mut out).input(&x).scalar(weight).scalar(numel as i64);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `numel` elements of both vectors.
        unsafe { launch.run(self.grid_stride(numel), || format!("out, x [{numel}]")) }
    }
}
