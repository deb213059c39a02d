//! Learning rate of a step: base rate, schedule, warm-up, and scaling by the samples that a step really used.

use crate::train::config::{OptimizerConfig, ScheduleConfig};
use std::f64::consts::PI;

/// Share of the learning rate with which a warm-up begins.
const WARMUP_START: f64 = 0.1;

/// Learning rate at `progress`, a share of the run in [0, 1], before scaling by samples: base rate times schedule times
/// warm-up, which rises linearly from a tenth to 1 over the share `config.warmup`.
///
/// # Example
/// ```
/// use scadles::{optim::schedule::lr_at, train::config::{OptimizerConfig, ScheduleConfig}};
/// let schedule = ScheduleConfig::Step { factor: 0.2, at: vec![0.25, 0.5] };
/// let config = OptimizerConfig { lr: 1.0, schedule, ..OptimizerConfig::default() };
/// assert_eq!([0.0, 0.25, 0.5].map(|progress| lr_at(&config, progress)), [1.0, 0.2, 0.2 * 0.2]);
/// ```
pub fn lr_at(config: &OptimizerConfig, progress: f64) -> f64 {
    let scheduled = match &config.schedule {
        ScheduleConfig::Constant => 1.0,
        ScheduleConfig::Step { factor, at } => {
            factor.powi(at.iter().filter(|&&position| progress >= position).count() as i32)
        }
        ScheduleConfig::Cosine => 0.5 * (1.0 + (PI * progress.clamp(0.0, 1.0)).cos()),
    };
    let warmup = if progress < config.warmup {
        WARMUP_START + (1.0 - WARMUP_START) * progress / config.warmup
    } else {
        1.0
    };
    config.lr * scheduled * warmup
}

/// Linear scaling by the samples of a step: `lr * samples / base_global_batch`, where the base is the fixed batch times the
/// number of devices (Goyal et al., arXiv 1706.02677; ScaDLES). The rate itself if the base is 0.
pub fn scaled_lr(lr: f64, samples: usize, base_global_batch: usize) -> f64 {
    if base_global_batch == 0 { lr } else { lr * samples as f64 / base_global_batch as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(schedule: ScheduleConfig, warmup: f64) -> OptimizerConfig {
        OptimizerConfig { lr: 0.1, schedule, warmup, ..OptimizerConfig::default() }
    }

    #[test]
    fn cosine_falls_from_the_base_rate_to_zero() {
        let config = config(ScheduleConfig::Cosine, 0.0);
        let rates = [0.0, 0.5, 1.0].map(|progress| lr_at(&config, progress));
        for (found, expected) in rates.iter().zip([0.1, 0.05, 0.0]) {
            assert!((found - expected).abs() < 1e-15, "{rates:?}");
        }
    }

    #[test]
    fn warm_up_rises_from_a_tenth_and_meets_the_schedule() {
        let config = config(ScheduleConfig::Constant, 0.2);
        let rates = [0.0, 0.1, 0.2, 1.0].map(|progress| lr_at(&config, progress));
        for (found, expected) in rates.iter().zip([0.01, 0.055, 0.1, 0.1]) {
            assert!((found - expected).abs() < 1e-15, "{rates:?}");
        }
    }

    #[test]
    fn the_rate_scales_with_the_samples_of_the_step() {
        assert_eq!(scaled_lr(0.1, 305, 512), 0.1 * 305.0 / 512.0);
        assert_eq!(scaled_lr(0.1, 0, 512), 0.0);
        assert_eq!(scaled_lr(0.1, 305, 0), 0.1);
    }
}
