//! Where a process computes: the CPU, or an NVIDIA GPU.

pub mod cuda;

use crate::train::config::DeviceKind;

/// A place to compute that was found and can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU backend, over the threads of the current rayon pool.
    Cpu,
}

/// The device asked for cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// CUDA cannot be used here, not even for the kernels that exist.
    #[error(
        "device cuda: {0}. Training needs the CPU in this version all the same: use `--device cpu` \
         (cluster.device = \"cpu\")"
    )]
    CudaMissing(cuda::Missing),
    /// CUDA works, but does not train yet.
    #[error(
        "device cuda: this version runs only these kernels on CUDA: {kernels}; training needs the CPU: use \
         `--device cpu` (cluster.device = \"cpu\")"
    )]
    CudaTraining {
        /// Names of the embedded kernels.
        kernels: String,
    },
}

impl Device {
    /// The device of that kind, or why it cannot be used and what to do.
    ///
    /// # Errors
    /// What is missing; for CUDA in this version always at least the training step.
    pub fn open(kind: DeviceKind) -> Result<Self, DeviceError> {
        match kind {
            DeviceKind::Cpu => Ok(Self::Cpu),
            DeviceKind::Cuda => Err(match cuda::probe().missing(0) {
                Some(missing) => DeviceError::CudaMissing(missing),
                None => DeviceError::CudaTraining { kernels: cuda::kernels().collect::<Vec<_>>().join(", ") },
            }),
        }
    }
}
