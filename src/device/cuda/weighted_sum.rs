//! Launch of `kernels/weighted_sum.cu`.

use super::device::{CudaDevice, check_len, launch_error};
use super::error::CudaError;
use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

const KERNEL: &str = "weighted_sum_f32";

impl CudaDevice {
    /// `out = sum over ranks of weights[rank] * inputs[rank]`, with the bits of [`crate::aggregate::weighted_sum`]. An
    /// input of weight 0 is not read.
    ///
    /// # Shapes
    /// `out`: `[numel]`; `inputs`: `[num_ranks, numel]`; `weights`: `[num_ranks]`
    ///
    /// # Errors
    /// `inputs` is not as long as weights times `out`, or the driver refuses the launch.
    pub fn weighted_sum(
        &self,
        out: &mut CudaViewMut<'_, f32>,
        inputs: &CudaView<'_, f32>,
        weights: &CudaView<'_, f32>,
    ) -> Result<(), CudaError> {
        let (numel, num_ranks) = (out.len(), weights.len());
        check_len(KERNEL, "inputs", inputs.len(), num_ranks.saturating_mul(numel))?;
        if numel == 0 {
            return Ok(());
        }
        let (ranks, count) = (num_ranks as i64, numel as i64);
        let mut launch = self.stream().launch_builder(&self.functions.weighted_sum_f32);
        launch.arg(out).arg(inputs).arg(weights).arg(&ranks).arg(&count);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `count` elements of `out`, `ranks` of
        // `weights` and `ranks * count` of `inputs`.
        unsafe { launch.launch(self.grid_stride(numel)) }
            .map_err(|error| launch_error(KERNEL, format!("inputs [{num_ranks}, {numel}]"), error))?;
        Ok(())
    }
}
