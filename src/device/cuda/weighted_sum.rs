//! Launch of `kernels/weighted_sum.cu`.

use super::device::{CudaDevice, check_len};
use super::error::CudaError;
use super::memory::{View, ViewMut};

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
        mut out: ViewMut<'_, f32>,
        inputs: View<'_, f32>,
        weights: View<'_, f32>,
    ) -> Result<(), CudaError> {
        let (numel, num_ranks) = (out.len(), weights.len());
        check_len(KERNEL, "inputs", inputs.len(), num_ranks.saturating_mul(numel))?;
        if numel == 0 {
            return Ok(());
        }
        let mut launch = self.launch(KERNEL)?;
        launch.output(&mut out).input(&inputs).input(&weights).scalar(num_ranks as i64).scalar(numel as i64);
        // SAFETY: the arguments are the kernel's, in order and type; it stays below `numel` elements of `out`, `num_ranks`
        // of `weights` and their product of `inputs`.
        unsafe { launch.run(self.grid_stride(numel), || format!("inputs [{num_ranks}, {numel}]")) }
    }
}
