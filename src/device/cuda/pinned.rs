//! Host memory that the GPU copies from and to by itself, while the host goes on.

use super::device::{CudaDevice, check_room};
use super::error::{CudaError, status};
use super::memory::{View, ViewMut};
use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};
use std::sync::Arc;
use std::time::Duration;

/// Page-locked host memory. Copies queued from or to it are on their way until their stream is waited for, so its owner
/// waits before it touches the memory again.
pub struct PinnedBuffer<T> {
    context: Arc<CudaContext>,
    start: *mut T,
    len: usize,
}

// SAFETY: the memory is owned, and the driver may be called from any thread.
unsafe impl<T: Send> Send for PinnedBuffer<T> {}

impl<T> std::fmt::Debug for PinnedBuffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // The GPU must be done with it. A failure means that the device is lost.
            let _ = self.context.synchronize();
            // SAFETY: this buffer owns the memory.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}

impl<T: Pod> std::ops::Deref for PinnedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: allocated with this length, and zeroed.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Pod> std::ops::DerefMut for PinnedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl CudaDevice {
    /// `len` zeros in page-locked memory, at least one.
    ///
    /// # Errors
    /// [`CudaError::NoPinnedMemory`], or what the driver says.
    pub fn pinned<T: Pod>(&self, len: usize) -> Result<PinnedBuffer<T>, CudaError> {
        self.bind()?;
        let len = len.max(1);
        let bytes = len.saturating_mul(size_of::<T>());
        // SAFETY: the context is bound, and there are bytes to allocate. Not write-combined: the host reads it too.
        let start = unsafe { result::malloc_host(bytes, 0) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::NoPinnedMemory { bytes: bytes as u64 },
            _ => self.refused(&format!("pin {bytes} bytes of host memory"), error),
        })?;
        // SAFETY: the memory has that many bytes.
        unsafe { start.cast::<u8>().write_bytes(0, bytes) };
        Ok(PinnedBuffer { context: Arc::clone(self.stream().context()), start: start.cast(), len })
    }

    /// Queues a copy of the first elements of `from` on `stream`.
    ///
    /// # Errors
    /// `from` is shorter than `to`, or what the driver says.
    ///
    /// # Safety
    /// `from` must stay as it is until the stream has done the copy.
    pub(crate) unsafe fn queue_upload<T: Pod>(
        &self,
        stream: &CudaStream,
        from: &PinnedBuffer<T>,
        to: ViewMut<'_, T>,
    ) -> Result<(), CudaError> {
        if to.is_empty() {
            return Ok(());
        }
        check_room("copy", "the source", from.len(), to.len())?;
        self.bind()?;
        // SAFETY: both sides have that many elements; the caller keeps the source.
        unsafe { result::memcpy_htod_async(to.address(), &from[..to.len()], stream.cu_stream()) }
            .map_err(|error| self.refused("copy to the GPU", error))
    }

    /// Queues a copy of `from` to the first elements of `to` on the compute stream.
    ///
    /// # Errors
    /// `to` is shorter than `from`, or what the driver says.
    ///
    /// # Safety
    /// `to` must not be touched until the stream has done the copy.
    pub(crate) unsafe fn queue_download<T: Pod>(
        &self,
        from: View<'_, T>,
        to: &mut PinnedBuffer<T>,
    ) -> Result<(), CudaError> {
        if from.is_empty() {
            return Ok(());
        }
        check_room("copy", "the target", to.len(), from.len())?;
        self.bind()?;
        let len = from.len();
        // SAFETY: both sides have that many elements; the caller leaves the target alone.
        unsafe { result::memcpy_dtoh_async(&mut to[..len], from.address(), self.stream().cu_stream()) }
            .map_err(|error| self.refused("copy from the GPU", error))
    }

    /// A second stream, for copies.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn new_stream(&self) -> Result<Arc<CudaStream>, CudaError> {
        let made = self.stream().context().new_stream();
        made.map_err(|error| self.refused("make a stream", error))
    }

    /// A point in `stream` that another one can wait for.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn record(&self, stream: &CudaStream) -> Result<CudaEvent, CudaError> {
        stream.record_event(None).map_err(|error| self.refused("record an event", error))
    }

    /// Lets `stream` go on only after `event`.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn wait(&self, stream: &CudaStream, event: &CudaEvent) -> Result<(), CudaError> {
        stream.wait(event).map_err(|error| self.refused("wait for an event", error))
    }

    /// Now, on the compute stream's clock.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn mark_time(&self) -> Result<TimeMark, CudaError> {
        let event = self.stream().record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        Ok(TimeMark(event.map_err(|error| self.refused("record an event", error))?))
    }
}

/// A point in time of the compute stream.
pub(crate) struct TimeMark(CudaEvent);

impl TimeMark {
    /// Time until `end`, which the GPU has passed.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn elapsed(&self, end: &Self) -> Result<Duration, CudaError> {
        match self.0.elapsed_ms(&end.0) {
            Ok(ms) => Ok(Duration::from_secs_f64(f64::from(ms.max(0.0)) / 1e3)),
            Err(error) => Err(CudaError::Driver {
                ordinal: self.0.context().ordinal(),
                action: "measure time".into(),
                status: status(error),
            }),
        }
    }
}
