//! Memory on both sides of the bus.

use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, PinnedBuffer, View, ViewMut};
use bytemuck::Pod;

/// Elements that are copied between the GPU and page-locked memory of the host. They only grow.
///
/// Copies are queued. Whoever queues one waits for the stream before the host's side is touched again.
#[derive(Debug, Default)]
pub(super) struct Staged<T> {
    pub host: Option<PinnedBuffer<T>>,
    pub device: Option<DeviceBuffer<T>>,
}

impl<T: Pod> Staged<T> {
    pub fn new(device: &CudaDevice, len: usize, what: &'static str) -> Result<Self, CudaError> {
        let mut this = Self { host: None, device: None };
        this.grow(device, len, what)?;
        Ok(this)
    }

    /// Makes room for `len` elements on both sides; what was there may be lost.
    pub fn grow(&mut self, device: &CudaDevice, len: usize, what: &'static str) -> Result<(), CudaError> {
        grow(&mut self.device, device, len, what)?;
        grow_pinned(&mut self.host, device, len)
    }

    /// The host's elements.
    pub fn host(&self) -> &[T] {
        self.host.as_deref().unwrap_or_default()
    }

    /// The host's elements, to fill.
    pub fn host_mut(&mut self) -> &mut [T] {
        self.host.as_deref_mut().unwrap_or_default()
    }

    /// The first `len` elements on the GPU.
    ///
    /// # Panics
    /// If there was never room made for as many.
    pub fn view(&self, len: usize) -> View<'_, T> {
        self.device.as_ref().expect("room was made").view().slice(..len)
    }

    /// Elements on the GPU, to write.
    ///
    /// # Panics
    /// As [`Self::view`].
    pub fn view_mut(&mut self, range: std::ops::Range<usize>) -> ViewMut<'_, T> {
        self.device.as_mut().expect("room was made").view_mut().part(range)
    }

    /// Queues the copy of the first `len` elements to the GPU.
    ///
    /// # Safety
    /// The host's side must not be written before the stream was waited for.
    pub unsafe fn queue_upload(&mut self, device: &CudaDevice, len: usize) -> Result<(), CudaError> {
        let (Some(host), Some(buffer)) = (&self.host, &mut self.device) else { return Ok(()) };
        let (to, _) = buffer.view_mut().split_at_mut(len);
        // SAFETY: the caller's promise.
        unsafe { device.queue_upload(device.stream(), host, to) }
    }

    /// Queues the copy of the first `len` elements from the GPU.
    ///
    /// # Safety
    /// The host's side must not be touched before the stream was waited for.
    pub unsafe fn queue_download(&mut self, device: &CudaDevice, len: usize) -> Result<(), CudaError> {
        let (Some(host), Some(buffer)) = (&mut self.host, &self.device) else { return Ok(()) };
        // SAFETY: the caller's promise.
        unsafe { device.queue_download(buffer.view().slice(..len), host) }
    }
}

/// Makes room for `len` elements on the GPU; what was there may be lost.
pub(super) fn grow<T: Pod>(
    buffer: &mut Option<DeviceBuffer<T>>,
    device: &CudaDevice,
    len: usize,
    what: &'static str,
) -> Result<(), CudaError> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < len) {
        *buffer = None; // freed before the next is allocated
        *buffer = Some(device.zeros(len, what)?);
    }
    Ok(())
}

/// Makes room for `len` elements of the host; what was there may be lost.
pub(super) fn grow_pinned<T: Pod>(
    buffer: &mut Option<PinnedBuffer<T>>,
    device: &CudaDevice,
    len: usize,
) -> Result<(), CudaError> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < len) {
        *buffer = None;
        *buffer = Some(device.pinned(len)?);
    }
    Ok(())
}
