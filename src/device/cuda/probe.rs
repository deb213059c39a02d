//! What this machine and this program offer for CUDA, found without using it.

use super::error::{Missing, status};
use super::{architectures, embedded, kernels};
use crate::units::Bytes;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{DriverError, result, sys};

/// A GPU that the driver sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Its memory.
    pub memory: Bytes,
}

/// The NVIDIA driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// It is not there, or does not answer.
    Absent(Missing),
    /// It answers.
    Present {
        /// The newest CUDA version it runs, major and minor.
        version: (u32, u32),
        /// Its devices, by ordinal; the driver's text for one that does not answer.
        devices: Vec<Result<DeviceInfo, String>>,
    },
}

/// Looks for the driver and its devices; opens none, and never panics for want of a driver.
pub fn probe() -> Driver {
    // SAFETY: opens and closes the driver library; its initialisers are as trusted as the driver.
    let found = unsafe { sys::is_culib_present() };
    if found {
        ask().unwrap_or_else(|error| Driver::Absent(Missing::Answer { status: status(error) }))
    } else if std::fs::exists("/proc/driver/nvidia").unwrap_or(false) {
        Driver::Absent(Missing::DriverLibrary)
    } else {
        Driver::Absent(Missing::Driver)
    }
}

impl Driver {
    /// What is to be mended first before kernels run on device `ordinal`; None if they run.
    pub fn missing(&self, ordinal: usize) -> Option<Missing> {
        let devices = match self {
            Self::Absent(missing) => return Some(missing.clone()),
            Self::Present { devices, .. } => devices,
        };
        let device = match devices.get(ordinal) {
            None => return Some(Missing::Device { ordinal, count: devices.len() }),
            Some(Err(status)) => return Some(Missing::Answer { status: status.clone() }),
            Some(Ok(device)) => device,
        };
        if kernels().next().is_none() {
            return Some(Missing::Kernels);
        }
        if embedded::runs_on(architectures(), device.capability) {
            return None;
        }
        Some(Missing::Architecture {
            device: device.name.clone(),
            capability: device.capability,
            architectures: architectures().join(", "),
        })
    }
}

fn ask() -> Result<Driver, DriverError> {
    let count = match result::init() {
        Ok(()) => result::device::get_count()?,
        // Also where CUDA_VISIBLE_DEVICES hides them all.
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => 0,
        Err(error) => return Err(error),
    };
    let mut version = 0;
    // SAFETY: the library is present, and the pointer is to an integer that lives through the call.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    let version = version.unsigned_abs();
    let devices = (0..count).map(|ordinal| describe(ordinal).map_err(status));
    Ok(Driver::Present { version: (version / 1000, version % 1000 / 10), devices: devices.collect() })
}

fn describe(ordinal: i32) -> Result<DeviceInfo, DriverError> {
    let device = result::device::get(ordinal)?;
    let attribute = |which: Attribute| {
        // SAFETY: the driver gave this device.
        unsafe { result::device::get_attribute(device, which) }.map(i32::unsigned_abs)
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    // SAFETY: the driver gave this device.
    let memory = unsafe { result::device::total_mem(device) }?;
    Ok(DeviceInfo {
        name: result::device::get_name(device)?,
        capability: (major, minor),
        memory: Bytes(memory as u64),
    })
}
