//! How many samples a device trains on in a step.

use crate::train::config::{ArrivalConfig, BatchConfig, BatchPolicy};
use crate::units::SamplesPerSec;

/// Samples that a device waits for before it computes: the rule's `b_i`.
///
/// [`BatchPolicy::Rate`] is the paper's `b_i = S_i`, what one second brings, clamped to `[min, max]`.
/// [`BatchPolicy::Available`] waits for nothing and takes at most `max`.
pub fn wanted_batch(config: &BatchConfig, rate: SamplesPerSec) -> usize {
    match config.policy {
        BatchPolicy::Fixed => config.size,
        BatchPolicy::Rate => (rate.0.round() as usize).clamp(config.min, config.max),
        BatchPolicy::Available => config.max,
    }
}

/// The largest batch that a cluster with these mean `rates` can ask of one device.
pub fn largest_batch(config: &BatchConfig, arrivals: &ArrivalConfig, rates: &[f64]) -> usize {
    // Highest rate that a stream announces, over its mean.
    let peak = match arrivals {
        ArrivalConfig::Constant | ArrivalConfig::Poisson | ArrivalConfig::Bursty { .. } => Some(1.0),
        ArrivalConfig::Diurnal { amplitude, .. } => Some(1.0 + amplitude),
        ArrivalConfig::Trace { .. } => None,
    };
    match (config.policy, peak) {
        (BatchPolicy::Fixed, _) => config.size,
        (BatchPolicy::Rate, Some(peak)) => {
            let batch = |&rate: &f64| wanted_batch(config, SamplesPerSec(peak * rate));
            rates.iter().map(batch).max().unwrap_or(config.min)
        }
        (BatchPolicy::Rate, None) | (BatchPolicy::Available, _) => config.max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_is_the_rate_within_its_limits() {
        let config = BatchConfig::default();
        let batch = |rate| wanted_batch(&config, SamplesPerSec(rate));
        assert_eq!([batch(3.0), batch(38.4), batch(2000.0)], [8, 38, 1024]);
        let fixed = BatchConfig { policy: BatchPolicy::Fixed, ..config };
        assert_eq!(wanted_batch(&fixed, SamplesPerSec(3.0)), 64);
    }

    #[test]
    fn plans_cover_the_largest_batch() {
        let config = BatchConfig::default();
        assert_eq!(largest_batch(&config, &ArrivalConfig::Constant, &[12.0, 82.0]), 82);
        let bursty = ArrivalConfig::Bursty { on_s: 1.0, off_s: 9.0 };
        assert_eq!(largest_batch(&config, &bursty, &[12.0, 82.0]), 82);
        let diurnal = ArrivalConfig::Diurnal { period_s: 10.0, amplitude: 0.5 };
        assert_eq!(largest_batch(&config, &diurnal, &[12.0, 82.0]), 123);
        let trace = ArrivalConfig::Trace { path: "t".into() };
        assert_eq!(largest_batch(&config, &trace, &[12.0, 82.0]), 1024);
        let available = BatchConfig { policy: BatchPolicy::Available, ..config };
        assert_eq!(largest_batch(&available, &ArrivalConfig::Constant, &[12.0, 82.0]), 1024);
    }
}
