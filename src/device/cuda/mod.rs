//! Kernels on an NVIDIA GPU: what this machine offers, and launches of what `kernels/` holds.
//!
//! `build.rs` compiles `kernels/*.cu` and embeds them; the driver is loaded at run time, so a program starts on any
//! machine. [`probe()`] tells what is there, [`CudaDevice::open`] loads the kernels. [`DeviceBuffer`] owns memory on the
//! GPU; kernels take [`View`]s and [`ViewMut`]s of it.

mod add_scaled;
mod batch;
mod device;
mod embedded;
mod error;
mod graph;
mod launch;
mod memory;
pub mod peak;
mod pinned;
mod probe;
mod sgd;
mod tensor_map;
mod weighted_sum;

pub use crate::element::Element;
pub use batch::Batch;
pub use device::CudaDevice;
pub(crate) use device::{check_len, check_room};
pub use embedded::{architectures, kernels, toolkit};
pub use error::{CudaError, Missing};
pub(crate) use graph::Graph;
pub use launch::{Grid, Launch, Scalar};
pub use memory::{DeviceBuffer, View, ViewMut};
pub use pinned::PinnedBuffer;
pub(crate) use pinned::TimeMark;
pub use probe::{DeviceInfo, Driver, probe};
pub use sgd::{DeviceMomentum, SgdStep};
pub(crate) use tensor_map::{ImageMap, tiled_map};
