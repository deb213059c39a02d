//! Kernels on an NVIDIA GPU: what this machine offers, and launches of what `kernels/` holds.
//!
//! `build.rs` compiles `kernels/*.cu` and embeds them; the driver is loaded at run time, so a program starts on any
//! machine. [`probe()`] tells what is there, [`CudaDevice::open`] loads the kernels. Training on CUDA does not exist yet:
//! these kernels work on vectors that the caller holds on the device.

mod add_scaled;
mod device;
mod embedded;
mod error;
mod probe;
mod sgd;
mod weighted_sum;

pub use device::CudaDevice;
pub use embedded::{architectures, kernels, toolkit};
pub use error::{CudaError, Missing};
pub use probe::{DeviceInfo, Driver, probe};
pub use sgd::{DeviceMomentum, SgdStep};
