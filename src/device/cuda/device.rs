//! An opened GPU with the kernels loaded.

use super::embedded;
use super::error::{CudaError, Missing, status};
use super::probe::probe;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, LaunchConfig};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// Threads of a block: a multiple of a warp that leaves the scheduler eight blocks a multiprocessor to choose from.
const BLOCK_SIZE: u32 = 256;
/// Blocks a multiprocessor: 2048 threads, the most that one holds.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;

/// The kernels, by entry point.
#[derive(Debug)]
pub(super) struct Functions {
    pub(super) add_scaled_f32: CudaFunction,
    pub(super) sgd_f32: CudaFunction,
    pub(super) sgd_momentum_f32: CudaFunction,
    pub(super) sgd_nesterov_f32: CudaFunction,
    pub(super) weighted_sum_f32: CudaFunction,
}

/// One GPU, its kernels and the stream they run on.
///
/// A launch returns once it is queued; what the GPU finds wrong later is reported by the next call that waits, such as
/// [`CudaDevice::synchronize`]. Vectors are made and copied through [`CudaDevice::stream`].
///
/// # Example
/// ```
/// use scadles::device::cuda::{CudaDevice, CudaError};
/// fn three_halves() -> Result<Vec<f32>, CudaError> {
///     let device = CudaDevice::open(0)?;
///     let stream = device.stream();
///     let mut out = stream.clone_htod(&[1.0; 4]).expect("memory for four numbers");
///     let x = stream.clone_htod(&[2.0; 4]).expect("memory for four numbers");
///     device.add_scaled(&mut out.as_view_mut(), &x.as_view(), 0.25)?;
///     Ok(stream.clone_dtoh(&out).expect("a device that answers"))
/// }
/// match three_halves() {
///     Ok(out) => assert_eq!(out, [1.5; 4]),
///     Err(missing) => println!("{missing}"), // what to install
/// }
/// ```
#[derive(Debug)]
pub struct CudaDevice {
    ordinal: usize,
    stream: Arc<CudaStream>,
    multiprocessors: u32,
    pub(super) functions: Functions,
}

impl CudaDevice {
    /// Opens device `ordinal` and loads the embedded kernels.
    ///
    /// # Errors
    /// What is missing, with the cure; or what the driver refused.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        Self::check(ordinal, true)?;
        Self::load(ordinal, embedded::image)
    }

    /// Opens device `ordinal` with kernels from elsewhere: `image` gives the fatbin, cubin or PTX of a kernel file by its
    /// name, as in `sgd`.
    ///
    /// # Errors
    /// As [`CudaDevice::open`].
    ///
    /// # Safety
    /// The images must be whole ones, whose entry points take what this version's `kernels/` take.
    pub unsafe fn open_with_images<'a>(
        ordinal: usize,
        image: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self, CudaError> {
        Self::check(ordinal, false)?;
        Self::load(ordinal, image)
    }

    fn check(ordinal: usize, embedded: bool) -> Result<(), CudaError> {
        match probe().missing(ordinal) {
            Some(Missing::Kernels | Missing::Architecture { .. }) if !embedded => Ok(()),
            Some(missing) => Err(missing.into()),
            None => Ok(()),
        }
    }

    fn load<'a>(ordinal: usize, image: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, CudaError> {
        let refused = |action: &str, error: DriverError| CudaError::Driver {
            ordinal,
            action: action.into(),
            status: status(error),
        };
        let context = CudaContext::new(ordinal).map_err(|error| refused("open it", error))?;
        let attribute = Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(attribute).map_err(|error| refused("ask about it", error))?;
        let module = |kernel: &str| -> Result<Arc<CudaModule>, CudaError> {
            let image = image(kernel).ok_or(Missing::Kernels)?;
            let loaded = context.load_module(Ptx::from_binary(image.to_vec()));
            loaded.map_err(|error| refused(&format!("load kernel {kernel}"), error))
        };
        let entry = |module: &Arc<CudaModule>, name: &str| {
            module.load_function(name).map_err(|error| refused(&format!("find kernel {name}"), error))
        };
        let sgd = module("sgd")?;
        let functions = Functions {
            add_scaled_f32: entry(&module("add_scaled")?, "add_scaled_f32")?,
            sgd_f32: entry(&sgd, "sgd_f32")?,
            sgd_momentum_f32: entry(&sgd, "sgd_momentum_f32")?,
            sgd_nesterov_f32: entry(&sgd, "sgd_nesterov_f32")?,
            weighted_sum_f32: entry(&module("weighted_sum")?, "weighted_sum_f32")?,
        };
        let stream = context.new_stream().map_err(|error| refused("make a stream", error))?;
        Ok(Self { ordinal, stream, multiprocessors: multiprocessors.unsigned_abs().max(1), functions })
    }

    /// The stream that all launches go to; vectors must be made on it.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Waits until everything launched is done.
    ///
    /// # Errors
    /// What the GPU found wrong in any launch since the last wait.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.stream.synchronize().map_err(|error| CudaError::Driver {
            ordinal: self.ordinal,
            action: "finish what was launched".into(),
            status: status(error),
        })
    }

    /// A grid-stride loop over `numel` elements, `numel` above 0.
    pub(super) fn grid_stride(&self, numel: usize) -> LaunchConfig {
        let resident = self.multiprocessors.saturating_mul(BLOCKS_PER_MULTIPROCESSOR);
        let blocks = numel.div_ceil(BLOCK_SIZE as usize).min(resident as usize);
        LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (BLOCK_SIZE, 1, 1), shared_mem_bytes: 0 }
    }
}

/// Fails unless `found` is `expected` elements.
pub(super) fn check_len(
    kernel: &'static str,
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), CudaError> {
    if found == expected { Ok(()) } else { Err(CudaError::Length { kernel, what, expected, found }) }
}

/// The error of a refused launch.
pub(super) fn launch_error(kernel: &'static str, shapes: String, error: DriverError) -> CudaError {
    CudaError::Launch { kernel, shapes, status: status(error) }
}
