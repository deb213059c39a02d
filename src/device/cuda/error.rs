//! Why something could not be done on CUDA.

use crate::units::Bytes;
use cudarc::driver::DriverError;
use std::ffi::CStr;
use std::path::PathBuf;

/// What this machine or program lacks for CUDA, and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// No driver.
    #[error("there is no NVIDIA driver; on a machine with an NVIDIA GPU, install driver 580 or newer")]
    Driver,
    /// A driver without the library that programs load.
    #[error(
        "there is an NVIDIA driver but no libcuda; install the driver's user-space library (libcuda.so.1) or add its \
         folder to LD_LIBRARY_PATH"
    )]
    DriverLibrary,
    /// The driver answers with an error.
    #[error(
        "the NVIDIA driver does not answer ({status}); make `nvidia-smi` work: reload or reinstall the driver"
    )]
    Answer {
        /// The driver's text.
        status: String,
    },
    /// A device that the driver does not see.
    #[error(
        "the NVIDIA driver sees {count} GPUs, none with the number {ordinal}; check `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    )]
    Device {
        /// The number asked for, from 0.
        ordinal: usize,
        /// Devices there are.
        count: usize,
    },
    /// A program without kernels.
    #[error(
        "this program was built without nvcc and holds no kernels; run scripts/install-nvcc and build it again"
    )]
    Kernels,
    /// No kernels for this device.
    #[error(
        "{device} (compute capability {}.{}) runs none of the embedded kernels ({architectures}); build again with \
         SCADLES_CUDA_ARCHS=sm_{}{}",
        capability.0, capability.1, capability.0, capability.1
    )]
    Architecture {
        /// Name of the device.
        device: String,
        /// Its compute capability, major and minor.
        capability: (u32, u32),
        /// What the kernels were compiled for.
        architectures: String,
    },
}

/// A failure on a CUDA device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// CUDA cannot be used here.
    #[error("CUDA: {0}")]
    Missing(#[from] Missing),
    /// The driver refused what is not a launch.
    #[error("CUDA device {ordinal}: cannot {action}: {status}")]
    Driver {
        /// Which device.
        ordinal: usize,
        /// What was tried.
        action: String,
        /// The driver's text.
        status: String,
    },
    /// No room on the GPU.
    #[error(
        "there is no room on the GPU for {what}: {} asked, {} of {} free; {}lower batch.max or batch.size, the rates, \
         cluster.devices or model.width, choose another GPU by CUDA_VISIBLE_DEVICES, or use `--device cpu`",
        Bytes(*bytes), Bytes(*free_bytes), Bytes(*total_bytes),
        if *bf16_halves { "train in bf16 (`--precision bf16`), " } else { "" }
    )]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Bytes asked.
        bytes: u64,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes of the GPU.
        total_bytes: u64,
        /// Whether it is a network of f32, whose activations take half the room in bf16.
        bf16_halves: bool,
    },
    /// No room in the host's memory for what the GPU copies from and to.
    #[error(
        "the host has no room to pin {} of memory for the GPU's copies: free some of the host's memory or raise the \
         container's limit, lower batch.max, the rates or cluster.devices, or use `--device cpu`",
        Bytes(*bytes)
    )]
    NoPinnedMemory {
        /// Bytes asked.
        bytes: u64,
    },
    /// No image of this kernel runs on the device.
    #[error(
        "kernel {kernel} is not in this program for {device}; build again with the default SCADLES_CUDA_ARCHS"
    )]
    NoKernel {
        /// The entry point.
        kernel: &'static str,
        /// The device's name.
        device: String,
    },
    /// The folder of `SCADLES_KERNELS` lacks a kernel.
    #[error("SCADLES_KERNELS: cannot read {}: {error}; unset it to use the kernels in the program", path.display())]
    Images {
        /// The file.
        path: PathBuf,
        /// The system's text.
        error: String,
    },
    /// Nothing was launched while a graph was recorded.
    #[error("CUDA: a graph without launches cannot be recorded")]
    EmptyGraph,
    /// A vector of the wrong length.
    #[error("kernel {kernel}: {what} has {found} elements, expected {expected}")]
    Length {
        /// Which kernel.
        kernel: &'static str,
        /// Which vector.
        what: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// A number outside its range.
    #[error("kernel {kernel}: {what} is {value}; it must be {range}")]
    OutOfRange {
        /// Which kernel.
        kernel: &'static str,
        /// Which number.
        what: &'static str,
        /// The number given.
        value: f32,
        /// Its range, in words.
        range: &'static str,
    },
    /// The driver refused to describe a tensor to the copy engine.
    #[error("kernel {kernel}: no tensor map of {tensor} [{extents}] in boxes of [{copied}]: {status}")]
    TensorMap {
        /// Which kernel.
        kernel: &'static str,
        /// Which tensor.
        tensor: &'static str,
        /// Its extents, outermost first.
        extents: String,
        /// What one copy takes.
        copied: String,
        /// The driver's text.
        status: String,
    },
    /// The driver refused a launch, or reports an earlier one that failed.
    #[error("kernel {kernel} over {shapes}: {status}")]
    Launch {
        /// Which kernel.
        kernel: &'static str,
        /// Its shapes.
        shapes: String,
        /// The driver's text.
        status: String,
    },
}

impl CudaError {
    /// Whether there is no GPU, as opposed to one that cannot be used.
    pub fn is_no_gpu(&self) -> bool {
        matches!(self, Self::Missing(Missing::Driver | Missing::Device { .. }))
    }
}

/// The driver's name and text of an error: `CUDA_ERROR_OUT_OF_MEMORY: out of memory`.
pub(super) fn status(error: DriverError) -> String {
    let text = |said: Result<&CStr, DriverError>| said.ok().map(|text| text.to_string_lossy().into_owned());
    match (text(error.error_name()), text(error.error_string())) {
        (Some(name), Some(text)) => format!("{name}: {text}"),
        _ => format!("CUDA error {}", error.0 as u32),
    }
}
