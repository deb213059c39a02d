//! The device at hand through the driver's plain functions.

use crate::emulator::EMULATED;
use cudarc::driver::{CudaContext, CudaStream, result, sys};
use std::env;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Arg {
    /// A pointer or a number, zeros above.
    Word(u64),
    Map(sys::CUtensorMap),
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Word(u64::from(value as u32))
    }
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Word(value as u64)
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Word(value)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::Word(u64::from(value.to_bits()))
    }
}

impl From<sys::CUtensorMap> for Arg {
    fn from(map: sys::CUtensorMap) -> Self {
        Self::Map(map)
    }
}

/// Arguments of a launch.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &mut [$($crate::device::Arg::from($value)),*] };
}
pub(crate) use args;

pub struct Device {
    pub stream: Arc<CudaStream>,
}

/// Only in the process that `host` starts.
pub fn device_or_skip(test: &str) -> Option<Device> {
    if env::var_os(EMULATED).is_none() {
        println!("skipped: {test} (host runs it)");
        return None;
    }
    let context = CudaContext::new(0).unwrap();
    // SAFETY: every stream of these tests is waited for before what it uses is freed.
    unsafe { context.disable_event_tracking() };
    assert_eq!(context.name().unwrap(), "emulator");
    Some(Device { stream: context.new_stream().unwrap() })
}

impl Device {
    pub fn function(&self, name: &str) -> sys::CUfunction {
        let file = name.split('_').next().unwrap();
        let image = CString::new(format!("emulated kernel file: {file}\n")).unwrap();
        // SAFETY: an image as the emulator's driver takes it; modules live as long as the process.
        unsafe {
            let module = result::module::load_data(image.as_ptr().cast()).unwrap();
            result::module::get_function(module, CString::new(name).unwrap()).unwrap()
        }
    }

    /// New memory.
    pub fn allocate(&self, bytes: usize) -> u64 {
        // SAFETY: the context is current; tests leave their memory to the process.
        unsafe { result::malloc_sync(bytes) }.unwrap()
    }

    pub fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> u64 {
        let address = self.allocate(size_of_val(values));
        self.write(address, values);
        address
    }

    pub fn write<T: bytemuck::Pod>(&self, address: u64, values: &[T]) {
        // SAFETY: memory of at least this size; pageable memory is read before the call returns.
        unsafe { result::memcpy_htod_async(address, values, self.stream.cu_stream()) }.unwrap();
    }

    pub fn read<T: bytemuck::Pod>(&self, address: u64, len: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); len];
        // SAFETY: memory of at least this size, and the wait below.
        unsafe { result::memcpy_dtoh_async(&mut values, address, self.stream.cu_stream()) }.unwrap();
        self.stream.synchronize().unwrap();
        values
    }

    /// The driver's answer to a launch.
    pub fn try_launch(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        args: &mut [Arg],
    ) -> Result<(), sys::CUresult> {
        let function = self.function(name);
        if shared_bytes > 48 << 10 {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of a loaded module.
            unsafe { result::function::set_function_attribute(function, attribute, shared_bytes as i32) }
                .map_err(|error| error.0)?;
        }
        let mut pointers: Vec<*mut c_void> = args
            .iter_mut()
            .map(|arg| match arg {
                Arg::Word(word) => std::ptr::from_mut(word).cast(),
                Arg::Map(map) => std::ptr::from_mut(map).cast(),
            })
            .collect();
        let [(gx, gy, gz), (bx, by, bz)] = [grid, block].map(|[x, y, z]| (x, y, z));
        let stream = self.stream.cu_stream();
        // SAFETY: the tests pass what their kernels take.
        unsafe {
            result::launch_kernel(function, (gx, gy, gz), (bx, by, bz), shared_bytes, stream, &mut pointers)
        }
        .map_err(|error| error.0)
    }

    /// Blocks of one extent.
    pub fn launch(&self, name: &str, blocks: u32, threads: u32, shared_bytes: u32, args: &mut [Arg]) {
        self.try_launch(name, [blocks, 1, 1], [threads, 1, 1], shared_bytes, args).unwrap();
    }
}
