//! One device hosted by this process: its stream, its batch, its batch-norm statistics, its speed.

use crate::cluster::DeviceProfile;
use crate::stream::DeviceStream;

/// State that belongs to one device. Parameters are shared by all devices of a process.
pub(crate) struct LocalDevice {
    /// Number of the device in the cluster.
    pub rank: usize,
    /// Samples waiting for it.
    pub stream: Box<dyn DeviceStream>,
    /// How long it computes, in a simulated cluster.
    pub profile: DeviceProfile,
    /// The batch of the current step.
    pub batch: DeviceBatch,
    /// Running means and variances of its batch norms.
    pub stats: Vec<f32>,
    /// Samples trained on since the run began.
    pub trained_samples: u64,
}

/// Normalised, augmented images of one step: `x` [planned batch, H, W, C], of which `labels.len()` are filled.
pub(crate) struct DeviceBatch {
    pub x: Vec<f32>,
    pub labels: Vec<u32>,
    /// Samples given away in this step, coded by [`super::shared_sample`].
    pub shared: Vec<u8>,
}

impl DeviceBatch {
    /// Room for `max_batch` images of `image_len` values.
    pub fn new(max_batch: usize, image_len: usize) -> Self {
        Self {
            x: vec![0.0; max_batch * image_len],
            labels: Vec::with_capacity(max_batch),
            shared: Vec::new(),
        }
    }
}
