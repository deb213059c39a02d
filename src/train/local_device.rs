//! One device hosted by this process: its stream, its batch, its speed.

use super::device_batch::DeviceBatch;
use crate::cluster::DeviceProfile;
use crate::stream::DeviceStream;

/// State of one device that the trainer keeps; the engine has the rest.
pub(crate) struct LocalDevice {
    /// Number of the device in the cluster.
    pub rank: usize,
    /// Samples waiting for it.
    pub stream: Box<dyn DeviceStream>,
    /// How long it computes, in a simulated cluster.
    pub profile: DeviceProfile,
    /// The batch of the current step.
    pub batch: DeviceBatch,
    /// Samples trained on since the run began.
    pub trained_samples: u64,
}
