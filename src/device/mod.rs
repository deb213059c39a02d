//! Where a process computes: the CPU, or an NVIDIA GPU.

use crate::train::config::DeviceKind;

/// A place to compute that was found and can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU backend, over the threads of the current rayon pool.
    Cpu,
}

/// The device asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The program was built without the CUDA backend.
    #[error(
        "device cuda: this version trains on the CPU only; use `--device cpu` (cluster.device = \"cpu\")"
    )]
    CudaNotBuilt,
}

impl Device {
    /// The device of that kind, or why it cannot be used and what to do.
    pub fn open(kind: DeviceKind) -> Result<Self, DeviceError> {
        match kind {
            DeviceKind::Cpu => Ok(Self::Cpu),
            DeviceKind::Cuda => Err(DeviceError::CudaNotBuilt),
        }
    }
}
