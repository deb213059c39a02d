//! How long a simulated device computes: a fixed part per step and a part per sample.

use crate::train::config::ComputeConfig;
use std::time::Duration;

/// `overhead_s + samples * per_sample_s`; a step without samples takes no time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceProfile {
    /// Seconds of any step with samples.
    pub overhead_s: f64,
    /// Seconds per sample, forward and backward.
    pub per_sample_s: f64,
}

/// Work of a network, from which the K80 profile follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkCost {
    /// Multiply-accumulates of one image's forward pass.
    pub macs_per_image: u64,
    /// Convolution and linear layers.
    pub weighted_layers: usize,
}

/// Training throughput of one K80 die on ResNet-152 at 32x32: 346 samples more (S2 against the baseline's 64) take
/// 0.62 s more in Fig. 6, at 6 FLOPs per multiply-accumulate.
const K80_FLOPS_PER_S: f64 = 7.9e11;
/// What is left of Fig. 6's 1.23 s after communication and 64 samples, per layer of ResNet-152.
const K80_OVERHEAD_PER_LAYER_S: f64 = 4.2e-4;

impl DeviceProfile {
    /// The paper's device, calibrated on Fig. 6, for a network of this cost.
    pub fn k80(cost: NetworkCost) -> Self {
        Self {
            overhead_s: K80_OVERHEAD_PER_LAYER_S * cost.weighted_layers as f64,
            per_sample_s: 6.0 * cost.macs_per_image as f64 / K80_FLOPS_PER_S,
        }
    }

    /// The line through two measured steps `(samples, seconds)`, never negative.
    pub fn from_measurements(few: (usize, f64), many: (usize, f64)) -> Self {
        let per_sample_s = ((many.1 - few.1) / (many.0 as f64 - few.0 as f64)).max(0.0);
        Self { overhead_s: (few.1 - per_sample_s * few.0 as f64).max(0.0), per_sample_s }
    }

    /// Both parts times `slowdown`.
    pub fn slowed(self, slowdown: f64) -> Self {
        Self { overhead_s: self.overhead_s * slowdown, per_sample_s: self.per_sample_s * slowdown }
    }

    /// The profile of each device; `measure` is called only for [`ComputeConfig::Measured`].
    pub fn for_cluster<E>(
        config: &ComputeConfig,
        devices: usize,
        cost: NetworkCost,
        measure: impl FnOnce() -> Result<Self, E>,
    ) -> Result<Vec<Self>, E> {
        let each = |values: &[f64], device: usize| values[if values.len() == 1 { 0 } else { device }];
        Ok(match config {
            ComputeConfig::K80 => vec![Self::k80(cost); devices],
            ComputeConfig::Measured { slowdown } => vec![measure()?.slowed(*slowdown); devices],
            ComputeConfig::Given { overhead_s, per_sample_s } => (0..devices)
                .map(|device| Self {
                    overhead_s: each(overhead_s, device),
                    per_sample_s: each(per_sample_s, device),
                })
                .collect(),
        })
    }

    /// Time of forward and backward over `samples`.
    pub fn compute_time(&self, samples: usize) -> Duration {
        if samples == 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.overhead_s + self.per_sample_s * samples as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_give_the_line_through_them() {
        let profile = DeviceProfile::from_measurements((8, 0.3), (64, 1.42));
        assert!((profile.per_sample_s - 0.02).abs() < 1e-12 && (profile.overhead_s - 0.14).abs() < 1e-12);
        assert_eq!(DeviceProfile::from_measurements((8, 0.3), (64, 0.2)).per_sample_s, 0.0);
    }

    #[test]
    fn a_device_without_samples_takes_no_time() {
        let profile = DeviceProfile { overhead_s: 1.0, per_sample_s: 0.5 };
        assert_eq!(profile.compute_time(0), Duration::ZERO);
        assert_eq!(profile.compute_time(2), Duration::from_secs(2));
    }
}
