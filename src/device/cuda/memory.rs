//! Memory on a GPU: owned buffers and views of them, with the borrow rules of slices.

use super::device::{CudaDevice, check_len};
use super::error::{CudaError, status};

use bytemuck::Pod;
use cudarc::driver::{CudaContext, result, sys};
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

/// Elements on a GPU, freed with their owner.
pub struct DeviceBuffer<T> {
    context: Arc<CudaContext>,
    address: sys::CUdeviceptr,
    len: usize,
    element: PhantomData<T>,
}

// SAFETY: device memory belongs to no thread; the driver may be called from any.
unsafe impl<T: Send> Send for DeviceBuffer<T> {}
// SAFETY: as above; a shared buffer is only read.
unsafe impl<T: Sync> Sync for DeviceBuffer<T> {}

impl<T> std::fmt::Debug for DeviceBuffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if self.address != 0 && self.context.bind_to_thread().is_ok() {
            // SAFETY: this buffer owns the address. The driver waits for launches that use it. A failure means that the
            // device is lost, and its memory with it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl<T: Pod> DeviceBuffer<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, to read.
    pub fn view(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, lifetime: PhantomData }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len, lifetime: PhantomData }
    }
}

/// Elements on a GPU that nobody writes meanwhile.
#[derive(Debug)]
pub struct View<'a, T> {
    address: sys::CUdeviceptr,
    len: usize,
    lifetime: PhantomData<&'a [T]>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> View<'a, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it.
    ///
    /// # Panics
    /// If `range` goes beyond the end, as with a slice.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> View<'a, T> {
        let (address, len) = part::<T>(self.address, self.len, range);
        View { address, len, lifetime: PhantomData }
    }

    /// The same bytes as elements of another type.
    ///
    /// # Panics
    /// If the bytes are no whole number of them, or not aligned for them.
    pub(crate) fn cast<U: Pod>(self) -> View<'a, U> {
        let bytes = self.len * size_of::<T>();
        let aligned = self.address.is_multiple_of(align_of::<U>() as u64);
        assert!(bytes.is_multiple_of(size_of::<U>()) && aligned, "a view of {bytes} bytes as other elements");
        View { address: self.address, len: bytes / size_of::<U>(), lifetime: PhantomData }
    }

    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }
}

/// Elements on a GPU that only the holder reads and writes.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    address: sys::CUdeviceptr,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<'a, T> ViewMut<'a, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same elements, to read.
    pub fn view(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, lifetime: PhantomData }
    }

    /// The same elements once more, while `self` waits.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len, lifetime: PhantomData }
    }

    /// A part of it, while `self` waits.
    ///
    /// # Panics
    /// If `range` goes beyond the end, as with a slice.
    pub fn slice_mut(&mut self, range: impl RangeBounds<usize>) -> ViewMut<'_, T> {
        let (address, len) = part::<T>(self.address, self.len, range);
        ViewMut { address, len, lifetime: PhantomData }
    }

    /// A part of it, for as long as the whole.
    ///
    /// # Panics
    /// If `range` goes beyond the end, as with a slice.
    pub fn part(self, range: impl RangeBounds<usize>) -> ViewMut<'a, T> {
        let (address, len) = part::<T>(self.address, self.len, range);
        ViewMut { address, len, lifetime: PhantomData }
    }

    /// The elements before `mid` and those from it on.
    ///
    /// # Panics
    /// If `mid` is beyond the end.
    pub fn split_at_mut(self, mid: usize) -> (ViewMut<'a, T>, ViewMut<'a, T>) {
        let (first, second) =
            (part::<T>(self.address, self.len, ..mid), part::<T>(self.address, self.len, mid..));
        let view = |(address, len)| ViewMut { address, len, lifetime: PhantomData };
        (view(first), view(second))
    }

    /// Parts that do not meet.
    ///
    /// # Panics
    /// If two ranges meet or one goes beyond the end.
    pub fn disjoint<const N: usize>(self, ranges: [Range<usize>; N]) -> [ViewMut<'a, T>; N] {
        for (i, a) in ranges.iter().enumerate() {
            let meets =
                |b: &Range<usize>| a.start < b.end && b.start < a.end && !a.is_empty() && !b.is_empty();
            assert!(!ranges[i + 1..].iter().any(meets), "views of one buffer meet: {ranges:?}");
        }
        ranges.map(|range| {
            let (address, len) = part::<T>(self.address, self.len, range);
            ViewMut { address, len, lifetime: PhantomData }
        })
    }

    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }
}

fn part<T>(
    address: sys::CUdeviceptr,
    len: usize,
    range: impl RangeBounds<usize>,
) -> (sys::CUdeviceptr, usize) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    assert!(start <= end && end <= len, "a view of elements {start}..{end} of {len}");
    (address + (start * size_of::<T>()) as sys::CUdeviceptr, end - start)
}

impl CudaDevice {
    /// `len` zeros; `what` names them if there is no room.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], or what the driver says.
    pub fn zeros<T: Pod>(&self, len: usize, what: &'static str) -> Result<DeviceBuffer<T>, CudaError> {
        let mut buffer = self.allocate(len, what)?;
        self.fill_zero(buffer.view_mut())?;
        Ok(buffer)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// As [`Self::zeros`].
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<DeviceBuffer<T>, CudaError> {
        let mut buffer = self.allocate(values.len(), "a copy of host memory")?;
        self.copy_from_host(values, buffer.view_mut())?;
        Ok(buffer)
    }

    /// A copy of `view`, after everything launched before.
    ///
    /// # Errors
    /// What the GPU found wrong in any launch since the last wait.
    pub fn download<T: Pod>(&self, view: View<'_, T>) -> Result<Vec<T>, CudaError> {
        let mut values = vec![T::zeroed(); view.len()];
        self.copy_to_host(view, &mut values)?;
        Ok(values)
    }

    /// Copies `view` to `values`, after everything launched before.
    ///
    /// # Errors
    /// As [`Self::download`], or the lengths differ.
    pub fn copy_to_host<T: Pod>(&self, view: View<'_, T>, values: &mut [T]) -> Result<(), CudaError> {
        self.check_copy(view.len(), values.len())?;
        if view.is_empty() {
            return self.synchronize();
        }
        self.bind()?;
        // SAFETY: both sides have as many elements, and the wait below ends before `values` is borrowed again. Where that
        // fails the context is lost, and copies with it.
        let copied = unsafe { result::memcpy_dtoh_async(values, view.address, self.stream().cu_stream()) };
        copied.map_err(|error| self.refused("copy from the GPU", error))?;
        self.synchronize()
    }

    /// Copies `values` to `view`; returns when `values` may change again.
    ///
    /// # Errors
    /// The lengths differ, or what the driver says.
    pub fn copy_from_host<T: Pod>(&self, values: &[T], view: ViewMut<'_, T>) -> Result<(), CudaError> {
        self.check_copy(view.len(), values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: both sides have as many elements. Of pinned memory the GPU may still read when the call returns; the wait
        // below ends before the borrow does. Where that fails the context is lost, and copies with it.
        let copied = unsafe { result::memcpy_htod_async(view.address, values, self.stream().cu_stream()) };
        copied.map_err(|error| self.refused("copy to the GPU", error))?;
        self.synchronize()
    }

    /// Copies `from` to `to` on the compute stream.
    ///
    /// # Errors
    /// The lengths differ, or what the driver says.
    pub fn copy<T: Pod>(&self, from: View<'_, T>, to: ViewMut<'_, T>) -> Result<(), CudaError> {
        self.check_copy(to.len(), from.len())?;
        if from.is_empty() {
            return Ok(());
        }
        self.bind()?;
        let bytes = from.len() * size_of::<T>();
        // SAFETY: both views have that many bytes, and one is exclusive.
        let copied =
            unsafe { result::memcpy_dtod_async(to.address, from.address, bytes, self.stream().cu_stream()) };
        copied.map_err(|error| self.refused("copy on the GPU", error))
    }

    /// Sets every byte to 0, on the compute stream.
    ///
    /// # Errors
    /// What the driver says.
    pub fn fill_zero<T: Pod>(&self, view: ViewMut<'_, T>) -> Result<(), CudaError> {
        if view.is_empty() {
            return Ok(());
        }
        self.bind()?;
        let bytes = view.len() * size_of::<T>();
        // SAFETY: the view has that many bytes and is exclusive.
        let filled = unsafe { result::memset_d8_async(view.address, 0, bytes, self.stream().cu_stream()) };
        filled.map_err(|error| self.refused("fill memory", error))
    }

    fn allocate<T: Pod>(&self, len: usize, what: &'static str) -> Result<DeviceBuffer<T>, CudaError> {
        let context = Arc::clone(self.stream().context());
        if len == 0 {
            return Ok(DeviceBuffer { context, address: 0, len, element: PhantomData });
        }
        self.bind()?;
        let out_of_memory = |bytes: usize| {
            let (free, total) = result::mem_get_info().unwrap_or((0, 0));
            CudaError::OutOfMemory {
                what,
                bytes: bytes as u64,
                free_bytes: free as u64,
                total_bytes: total as u64,
                bf16_halves: false,
            }
        };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| out_of_memory(usize::MAX))?;
        // SAFETY: the context is bound, and there are bytes to allocate.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(DeviceBuffer { context, address, len, element: PhantomData }),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(out_of_memory(bytes)),
            Err(error) => Err(self.refused(&format!("allocate {bytes} bytes for {what}"), error)),
        }
    }

    fn check_copy(&self, expected: usize, found: usize) -> Result<(), CudaError> {
        check_len("copy", "the source", found, expected)
    }

    pub(super) fn refused(&self, action: &str, error: cudarc::driver::DriverError) -> CudaError {
        CudaError::Driver { ordinal: self.ordinal(), action: action.into(), status: status(error) }
    }
}
