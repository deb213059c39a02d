//! An opened GPU with the kernels loaded.

use super::embedded;
use super::error::{CudaError, Missing, status};
use super::launch::Grid;
use super::probe::probe;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use std::collections::HashMap;
use std::ffi::CString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Threads of a block: a multiple of a warp that leaves the scheduler eight blocks a multiprocessor to choose from.
const BLOCK_SIZE: u32 = 256;
/// Blocks a multiprocessor: 2048 threads, the most that one holds.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;
/// Names a folder of `<kernel>.fatbin` (or cubin or PTX under that name) to load instead of the embedded kernels.
const KERNELS_VARIABLE: &str = "SCADLES_KERNELS";

/// A kernel's entry point.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) handle: sys::CUfunction,
    /// Most dynamic shared memory that the driver was asked to allow; 0: never asked.
    pub(super) shared_bytes_allowed: Mutex<u32>,
}

// SAFETY: the handle is a number to the driver, which may be called from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// One GPU, its kernels and the stream they run on.
///
/// A launch returns once it is queued; what the GPU finds wrong later is reported by the next call that waits, such as
/// [`CudaDevice::synchronize`] or [`CudaDevice::download`]. All launches go to one stream, so they run in order.
///
/// # Example
/// ```
/// use scadles::device::cuda::{CudaDevice, CudaError};
/// fn three_halves() -> Result<Vec<f32>, CudaError> {
///     let device = CudaDevice::open(0)?;
///     let mut out = device.upload(&[1.0; 4])?;
///     let x = device.upload(&[2.0; 4])?;
///     device.add_scaled(out.view_mut(), x.view(), 0.25)?;
///     device.download(out.view())
/// }
/// match three_halves() {
///     Ok(out) => assert_eq!(out, [1.5; 4]),
///     Err(missing) => println!("{missing}"), // what to install
/// }
/// ```
#[derive(Debug)]
pub struct CudaDevice {
    ordinal: usize,
    name: String,
    capability: (u32, u32),
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    multiprocessors: u32,
    shared_bytes_per_multiprocessor: u32,
    functions: HashMap<&'static str, Function>,
}

impl CudaDevice {
    /// Opens device `ordinal` and loads the kernels: the embedded ones, or those of the folder that `SCADLES_KERNELS`
    /// names, which must have been compiled from this version's `kernels/`; the files for Hopper only may be missing.
    ///
    /// # Errors
    /// What is missing, with the cure; or what the driver refused.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let folder = std::env::var_os(KERNELS_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let found = probe();
        match found.missing(ordinal) {
            Some(Missing::Kernels | Missing::Architecture { .. }) if folder.is_some() => {}
            Some(missing) => return Err(missing.into()),
            None => {}
        }
        let refused = |action: &str, error: DriverError| CudaError::Driver {
            ordinal,
            action: action.into(),
            status: status(error),
        };
        let context = CudaContext::new(ordinal).map_err(|error| refused("open it", error))?;
        // SAFETY: views carry lifetimes, and streams meet through events of ours.
        unsafe { context.disable_event_tracking() };
        let ask = |error| refused("ask about it", error);
        let multiprocessors =
            context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(ask)?;
        let shared_bytes = context
            .attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)
            .map_err(ask)?;
        let (major, minor) = context.compute_capability().map_err(ask)?;
        let stream = context.new_stream().map_err(|error| refused("make a stream", error))?;
        let mut device = Self {
            ordinal,
            name: context.name().map_err(ask)?,
            capability: (major.unsigned_abs(), minor.unsigned_abs()),
            context,
            stream,
            multiprocessors: multiprocessors.unsigned_abs().max(1),
            shared_bytes_per_multiprocessor: shared_bytes.unsigned_abs(),
            functions: HashMap::new(),
        };
        device.load(folder.as_deref())?;
        Ok(device)
    }

    fn load(&mut self, folder: Option<&Path>) -> Result<(), CudaError> {
        self.bind()?;
        for (kernel, entries) in embedded::entries() {
            let read = folder.map(|folder| read_image(folder, kernel)).transpose()?;
            let image = match &read {
                None => embedded::image(kernel),
                Some(words) => words.as_deref().map(bytemuck::cast_slice),
            };
            // Hopper's kernels are missing where SCADLES_CUDA_ARCHS left them out.
            let Some(image) = image else { continue };
            // SAFETY: the image is a whole one, aligned for the words of its header, and the driver copies it.
            let module = match unsafe { result::module::load_data(image.as_ptr().cast()) } {
                Ok(module) => module,
                Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => continue,
                Err(error) => return Err(self.refused(&format!("load kernel {kernel}"), error)),
            };
            for entry in *entries {
                let name = CString::new(*entry).expect("an identifier holds no zero");
                // SAFETY: the module was just loaded and is never unloaded before its context ends.
                let handle = match unsafe { result::module::get_function(module, name) } {
                    Ok(handle) => handle,
                    // A driver that loads lazily may notice only here.
                    Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => break,
                    Err(error) => return Err(self.refused(&format!("find kernel {entry}"), error)),
                };
                self.functions.insert(entry, Function { handle, shared_bytes_allowed: Mutex::new(0) });
            }
        }
        Ok(())
    }

    /// Its number, from 0.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compute capability, major and minor.
    pub fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Shared memory of a multiprocessor: 228 KiB on sm_90, 164 on sm_80 and sm_87, 100 on sm_86 and sm_89.
    pub fn shared_bytes_per_multiprocessor(&self) -> u32 {
        self.shared_bytes_per_multiprocessor
    }

    /// Whether this entry point is loaded: Hopper's are on Hopper only.
    pub fn has_kernel(&self, entry: &str) -> bool {
        self.functions.contains_key(entry)
    }

    /// The stream that all launches go to.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Free and total memory, bytes.
    ///
    /// # Errors
    /// What the driver says.
    pub fn memory_bytes(&self) -> Result<(u64, u64), CudaError> {
        let (free, total) =
            self.context.mem_get_info().map_err(|error| self.refused("ask for its memory", error))?;
        Ok((free as u64, total as u64))
    }

    /// Waits until everything launched and copied is done, on every stream.
    ///
    /// # Errors
    /// What the GPU found wrong in any launch since the last wait.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.synchronize().map_err(|error| self.refused("finish what was launched", error))
    }

    /// Makes the context current for this thread.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        self.context.bind_to_thread().map_err(|error| self.refused("use its context", error))
    }

    pub(super) fn function(&self, kernel: &'static str) -> Result<&Function, CudaError> {
        self.functions.get(kernel).ok_or_else(|| CudaError::NoKernel { kernel, device: self.name.clone() })
    }

    /// A grid-stride loop over `numel` elements, `numel` above 0.
    pub(crate) fn grid_stride(&self, numel: usize) -> Grid {
        let resident = self.multiprocessors.saturating_mul(BLOCKS_PER_MULTIPROCESSOR);
        let blocks = numel.div_ceil(BLOCK_SIZE as usize).min(resident as usize);
        Grid { blocks: [blocks as u32, 1, 1], threads: BLOCK_SIZE, shared_bytes: 0 }
    }
}

/// The image of a kernel file in `folder`, aligned, with zeros behind it, as PTX is text that ends with one; None if it is
/// Hopper's and not there.
fn read_image(folder: &Path, kernel: &str) -> Result<Option<Vec<u128>>, CudaError> {
    let path = folder.join(format!("{kernel}.fatbin"));
    match std::fs::read(&path) {
        Ok(bytes) => {
            let mut words = vec![0; bytes.len() / size_of::<u128>() + 1];
            bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(&bytes);
            Ok(Some(words))
        }
        Err(error) if error.kind() == ErrorKind::NotFound && embedded::is_for_hopper_only(kernel) => Ok(None),
        Err(error) => Err(CudaError::Images { path, error: error.to_string() }),
    }
}

/// Fails unless `found` is `expected` elements.
pub(crate) fn check_len(
    kernel: &'static str,
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), CudaError> {
    if found == expected { Ok(()) } else { Err(CudaError::Length { kernel, what, expected, found }) }
}

/// Fails if `found` is less than `need` elements.
pub(crate) fn check_room(
    kernel: &'static str,
    what: &'static str,
    found: usize,
    need: usize,
) -> Result<(), CudaError> {
    check_len(kernel, what, found.min(need), need)
}
