//! Euclidean norms of gradients on the GPU, read by the host after a wait.

use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, PinnedBuffer, View};
use crate::ops::norm;

/// Norms of a few vectors of one length.
#[derive(Debug)]
pub(super) struct Norms {
    squared: DeviceBuffer<f64>,
    scratch: DeviceBuffer<f64>,
    host: PinnedBuffer<f64>,
}

impl Norms {
    /// `count` norms of 0, for vectors of `numel` elements.
    pub fn new(device: &CudaDevice, count: usize, numel: usize) -> Result<Self, CudaError> {
        let what = "the norms of gradients";
        Ok(Self {
            squared: device.zeros(count, what)?,
            scratch: device.zeros(norm::cuda::scratch_len(numel), what)?,
            host: device.pinned(count)?,
        })
    }

    /// Queues zeros for all of them.
    pub fn clear(&mut self, device: &CudaDevice) -> Result<(), CudaError> {
        device.fill_zero(self.squared.view_mut())
    }

    /// Queues the norm of a vector as number `index`.
    pub fn measure(&mut self, device: &CudaDevice, index: usize, x: View<'_, f32>) -> Result<(), CudaError> {
        let squared = self.squared.view_mut().part(index..index + 1);
        norm::cuda::sum_of_squares(device, x, squared, self.scratch.view_mut())
    }

    /// Square of norm number `index`, on the GPU.
    pub fn squared(&self, index: usize) -> View<'_, f64> {
        self.squared.view().slice(index..index + 1)
    }

    /// Queues the download of all norms.
    ///
    /// # Safety
    /// [`Self::get`] is called only after the device has been waited for.
    pub unsafe fn queue_download(&mut self, device: &CudaDevice) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { device.queue_download(self.squared.view(), &mut self.host) }
    }

    /// Norm number `index`, as it was downloaded last.
    pub fn get(&self, index: usize) -> f64 {
        self.host[index].sqrt()
    }
}
