//! One launch of a kernel: its arguments in order, then the grid.

use super::device::{CudaDevice, Function};
use super::error::{CudaError, status};
use super::memory::{View, ViewMut};
use cudarc::driver::{result, sys};
use std::ffi::c_void;
use std::sync::PoisonError;

/// Dynamic shared memory that every kernel may ask for; more must be allowed first.
const SHARED_BYTES_WITHOUT_ASKING: u32 = 48 << 10;
const MAX_ARGUMENTS: usize = 40;
const MAX_MAPS: usize = 3;

/// Blocks, threads of a block, and dynamic shared memory of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y, z.
    pub blocks: [u32; 3],
    /// Threads of a block, in x.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// A plain number that a kernel takes.
pub trait Scalar: Copy {
    /// Its bytes, little endian, zeros above.
    fn bits(self) -> u64;
}

macro_rules! scalar {
    ($($type:ty => $bits:expr),*) => {
        $(impl Scalar for $type {
            fn bits(self) -> u64 {
                #[allow(clippy::redundant_closure_call)]
                ($bits)(self)
            }
        })*
    };
}
scalar!(
    i32 => |x: i32| u64::from(x as u32),
    u32 => u64::from,
    i64 => |x: i64| x as u64,
    u64 => |x: u64| x,
    f32 => |x: f32| u64::from(x.to_bits()),
    f64 => f64::to_bits
);

/// Arguments of a kernel, collected in the order in which it takes them.
pub struct Launch<'a> {
    device: &'a CudaDevice,
    kernel: &'static str,
    function: &'a Function,
    values: [u64; MAX_ARGUMENTS],
    /// Number of the tensor map that stands in this place, if one does.
    map_at: [Option<u8>; MAX_ARGUMENTS],
    len: usize,
    maps: [sys::CUtensorMap; MAX_MAPS],
    num_maps: usize,
}

impl CudaDevice {
    /// A launch of the entry point `kernel` on the compute stream.
    ///
    /// # Errors
    /// [`CudaError::NoKernel`] if no image for this device holds it.
    pub fn launch(&self, kernel: &'static str) -> Result<Launch<'_>, CudaError> {
        Ok(Launch {
            device: self,
            kernel,
            function: self.function(kernel)?,
            values: [0; MAX_ARGUMENTS],
            map_at: [None; MAX_ARGUMENTS],
            len: 0,
            maps: [sys::CUtensorMap { opaque: [0; 16] }; MAX_MAPS],
            num_maps: 0,
        })
    }
}

impl Launch<'_> {
    /// The address of what the kernel writes.
    pub fn output<T>(&mut self, view: &mut ViewMut<'_, T>) -> &mut Self {
        self.push(view.address())
    }

    /// As [`Self::output`], or null.
    pub fn optional_output<T>(&mut self, view: Option<&mut ViewMut<'_, T>>) -> &mut Self {
        self.push(view.map_or(0, |view| view.address()))
    }

    /// The address of what the kernel reads.
    pub fn input<T>(&mut self, view: &View<'_, T>) -> &mut Self {
        self.push(view.address())
    }

    /// As [`Self::input`], or null.
    pub fn optional_input<T>(&mut self, view: Option<&View<'_, T>>) -> &mut Self {
        self.push(view.map_or(0, View::address))
    }

    /// A number.
    pub fn scalar(&mut self, value: impl Scalar) -> &mut Self {
        self.push(value.bits())
    }

    /// A tensor map, by value.
    pub fn map(&mut self, map: &sys::CUtensorMap) -> &mut Self {
        assert!(self.num_maps < MAX_MAPS, "{}: more than {MAX_MAPS} tensor maps", self.kernel);
        self.maps[self.num_maps] = *map;
        self.push(0);
        self.map_at[self.len - 1] = Some(self.num_maps as u8);
        self.num_maps += 1;
        self
    }

    fn push(&mut self, value: u64) -> &mut Self {
        assert!(self.len < MAX_ARGUMENTS, "{}: more than {MAX_ARGUMENTS} arguments", self.kernel);
        self.values[self.len] = value;
        self.len += 1;
        self
    }

    /// Queues the kernel; `shapes` tells what it works on, for the error.
    ///
    /// # Errors
    /// What the driver refuses, or found wrong in an earlier launch.
    ///
    /// # Safety
    /// The arguments must be the kernel's, in order and type, and the kernel must stay within the views.
    pub unsafe fn run(&mut self, grid: Grid, shapes: impl FnOnce() -> String) -> Result<(), CudaError> {
        let Grid { blocks: [x, y, z], threads, shared_bytes } = grid;
        let device = self.device;
        device.bind()?;
        let maps = self.maps.as_mut_ptr();
        let mut arguments: [*mut c_void; MAX_ARGUMENTS] = [std::ptr::null_mut(); MAX_ARGUMENTS];
        for ((argument, value), map) in
            arguments.iter_mut().zip(&mut self.values).zip(&self.map_at).take(self.len)
        {
            *argument = match map {
                // SAFETY: `map` counts maps that are there.
                Some(map) => unsafe { maps.add(usize::from(*map)) }.cast(),
                None => std::ptr::from_mut(value).cast(),
            };
        }
        let launched = self.function.allow_shared_bytes(shared_bytes).and_then(|()| {
            let stream = device.stream().cu_stream();
            let arguments = &mut arguments[..self.len];
            // SAFETY: the caller vouches for the arguments; the function belongs to the bound context.
            unsafe {
                let block = (threads, 1, 1);
                result::launch_kernel(self.function.handle, (x, y, z), block, shared_bytes, stream, arguments)
            }
        });
        launched.map_err(|error| CudaError::Launch {
            kernel: self.kernel,
            shapes: shapes(),
            status: status(error),
        })
    }
}

impl Function {
    /// Allows launches with `bytes` of dynamic shared memory. What is allowed only grows: the lock is held across the
    /// driver's call, so no thread takes back what another was promised.
    fn allow_shared_bytes(&self, bytes: u32) -> Result<(), cudarc::driver::DriverError> {
        if bytes <= SHARED_BYTES_WITHOUT_ASKING {
            return Ok(());
        }
        let mut allowed = self.shared_bytes_allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > *allowed {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a loaded module of the bound context.
            unsafe { result::function::set_function_attribute(self.handle, attribute, bytes as i32) }?;
            *allowed = bytes;
        }
        Ok(())
    }
}
