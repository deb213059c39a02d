//! Where a process computes: the CPU, or an NVIDIA GPU.

pub mod cuda;

use crate::train::config::DeviceKind;
use cuda::{CudaDevice, CudaError, Missing};

/// A place to compute that was found and can be used.
#[derive(Debug)]
pub enum Device {
    /// The CPU backend, over the threads of the current rayon pool.
    Cpu {
        /// Why the GPU that is there is not used, where one would have been taken.
        passed_over: Option<CudaError>,
    },
    /// A GPU.
    Cuda(CudaDevice),
}

/// The device asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// CUDA cannot be used here.
    #[error("device cuda: {0}. `--device cpu` (cluster.device = \"cpu\") trains without")]
    CudaMissing(Missing),
    /// The GPU is there but does not open.
    #[error("{0}; `--device cpu` (cluster.device = \"cpu\") trains without a GPU")]
    Cuda(CudaError),
}

impl Device {
    /// The device of that kind, or why it cannot be used and what to do. `auto` takes the CPU where there is no GPU, and
    /// where the one that is there cannot be used; then it keeps the reason.
    ///
    /// # Errors
    /// What is missing, or what the driver says.
    pub fn open(kind: DeviceKind) -> Result<Self, DeviceError> {
        if kind == DeviceKind::Cpu {
            return Ok(Self::Cpu { passed_over: None });
        }
        match CudaDevice::open(0) {
            Ok(gpu) => Ok(Self::Cuda(gpu)),
            Err(error) if kind == DeviceKind::Auto => {
                Ok(Self::Cpu { passed_over: Some(error).filter(|error| !error.is_no_gpu()) })
            }
            Err(CudaError::Missing(missing)) => Err(DeviceError::CudaMissing(missing)),
            Err(error) => Err(DeviceError::Cuda(error)),
        }
    }
}
