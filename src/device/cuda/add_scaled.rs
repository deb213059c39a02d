//! Launch of `kernels/add_scaled.cu`.

use super::device::{CudaDevice, check_len, launch_error};
use super::error::CudaError;
use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

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
        out: &mut CudaViewMut<'_, f32>,
        x: &CudaView<'_, f32>,
        weight: f32,
    ) -> Result<(), CudaError> {
        let numel = out.len();
        check_len(KERNEL, "x", x.len(), numel)?;
        if numel == 0 || weight == 0.0 {
            return Ok(());
        }
        let count = numel as i64;
        let mut launch = self.stream().launch_builder(&self.functions.add_scaled_f32);
        launch.arg(out).arg(x).arg(&weight).arg(&count);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `count` elements of both vectors.
        unsafe { launch.launch(self.grid_stride(numel)) }
            .map_err(|error| launch_error(KERNEL, format!("out, x [{numel}]"), error))?;
        Ok(())
    }
}
