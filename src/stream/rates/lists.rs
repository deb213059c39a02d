//! The paper's stream-rate lists, and rates beyond their lengths.

use super::RateError;
use crate::rng::{Philox, Stream};
use crate::train::config::RatesConfig;

/// Rates that a stream can have, samples/s: from one sample in twelve days to one a nanosecond, the resolution of
/// arrival times.
pub(super) const RATE_RANGE: std::ops::RangeInclusive<f64> = 1e-6..=1e9;

/// A published list and the distribution it was drawn from.
struct PublishedList {
    names: [&'static str; 2],
    rates: &'static [f64],
    mean: f64,
    std_dev: f64,
    normal: bool,
}

/// Samples/s per device, recovered from the paper's figures and scripts; the lists of 10 go on from those of 8.
const LISTS: [PublishedList; 4] = [
    PublishedList {
        names: ["S1", "S1"],
        rates: &[50., 38., 12., 36., 34., 13., 82., 40.],
        mean: 38.0,
        std_dev: 24.0,
        normal: false,
    },
    PublishedList {
        names: ["S2", "S2"],
        rates: &[136., 172., 174., 327., 351., 395., 406., 410.],
        mean: 300.0,
        std_dev: 112.0,
        normal: false,
    },
    PublishedList {
        names: ["S1'", "S1p"],
        rates: &[92., 38., 62., 42., 48., 88., 90., 22., 44., 28.],
        mean: 64.0,
        std_dev: 24.0,
        normal: true,
    },
    PublishedList {
        names: ["S2'", "S2p"],
        rates: &[270., 218., 300., 246., 232., 284., 284., 236., 274., 228.],
        mean: 256.0,
        std_dev: 28.0,
        normal: true,
    },
];

/// The list of the paper's 25 devices (non-IID CIFAR-100), given for a cluster of exactly 25 under S1'.
#[rustfmt::skip]
const S1_PRIME_25: [f64; 25] = [
    92., 22., 62., 42., 48., 36., 18., 38., 84., 60., 108., 40., 58.,
    16., 44., 78., 92., 28., 30., 52., 84., 20., 16., 38., 66.,
];

/// Mean stream rate of each device, samples/s.
///
/// A named list gives its published rates in order; devices beyond its length get rates drawn from its distribution,
/// in whole samples/s and at least 1, each depending on `(seed, device)` only. `S1'` with exactly 25 devices is the
/// paper's list of 25.
///
/// # Errors
/// [`RateError::UnknownList`], [`RateError::Count`], [`RateError::Rate`].
pub fn device_rates(config: &RatesConfig, devices: usize, seed: u64) -> Result<Vec<f64>, RateError> {
    let rates = match config {
        RatesConfig::Named(name) => {
            let list = LISTS
                .iter()
                .find(|list| list.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
                .ok_or_else(|| RateError::UnknownList { name: name.clone() })?;
            if list.names[1] == "S1p" && devices == S1_PRIME_25.len() {
                return Ok(S1_PRIME_25.to_vec());
            }
            (0..devices)
                .map(|device| list.rates.get(device).copied().unwrap_or_else(|| list.sample(seed, device)))
                .collect()
        }
        RatesConfig::List(rates) if rates.len() == 1 => vec![rates[0]; devices],
        RatesConfig::List(rates) if rates.len() == devices => rates.clone(),
        RatesConfig::List(rates) => return Err(RateError::Count { found: rates.len(), devices }),
    };
    match rates.iter().position(|rate| !RATE_RANGE.contains(rate)) {
        Some(device) => Err(RateError::Rate { device, rate: rates[device] }),
        None => Ok(rates),
    }
}

impl PublishedList {
    fn sample(&self, seed: u64, device: usize) -> f64 {
        let mut rng = Philox::new(seed, Stream::Rates, device as u64);
        // A uniform distribution of standard deviation s reaches sqrt(3) * s to either side of its mean.
        let unit = if self.normal { rng.normal() } else { (2.0 * rng.uniform_f64() - 1.0) * 3f64.sqrt() };
        (self.mean + self.std_dev * unit).round().max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, devices: usize) -> Vec<f64> {
        device_rates(&RatesConfig::Named(name.into()), devices, 1234).unwrap()
    }

    #[test]
    fn published_lists_come_by_name_in_any_case() {
        assert_eq!(named("S1", 8), [50., 38., 12., 36., 34., 13., 82., 40.]);
        assert_eq!(named("s2", 3), [136., 172., 174.]);
        assert_eq!(named("S1'", 10)[8..], [44., 28.]);
        assert_eq!(named("s2P", 10), named("S2'", 10));
        let paper_25 = named("S1p", 25);
        assert_eq!((paper_25.len(), paper_25[1], paper_25[24]), (25, 22., 66.));
        assert_eq!(named("S1", 0), [0f64; 0]);
    }

    #[test]
    fn sampled_rates_follow_the_distribution_and_do_not_depend_on_the_cluster_size() {
        for (name, mean, std_dev) in
            [("S1", 38.2, 23.8), ("S2", 300.0, 112.0), ("S1p", 64.2, 23.6), ("S2p", 256.0, 28.0)]
        {
            let rates = named(name, 4096);
            assert_eq!(rates[..500], named(name, 500), "{name}");
            let sampled = &rates[10..];
            let n = sampled.len() as f64;
            let found_mean = sampled.iter().sum::<f64>() / n;
            let variance = sampled.iter().map(|r| (r - found_mean).powi(2)).sum::<f64>() / n;
            // The clamp at 1 moves the low end of S1 (-3.6) and a thousandth of S1'.
            assert!((found_mean - mean).abs() < 0.04 * mean, "{name} mean {found_mean}");
            assert!((variance.sqrt() - std_dev).abs() < 0.05 * std_dev, "{name} sd {}", variance.sqrt());
            assert!(sampled.iter().all(|rate| *rate >= 1.0 && rate.fract() == 0.0), "{name}");
        }
        let other_seed = device_rates(&RatesConfig::Named("S1".into()), 64, 5).unwrap();
        assert_ne!(other_seed[8..], named("S1", 64)[8..]);
    }

    #[test]
    fn bad_lists_are_errors() {
        let list = |rates: &[f64], devices| device_rates(&RatesConfig::List(rates.to_vec()), devices, 1);
        assert_eq!(list(&[5.5], 3).unwrap(), [5.5; 3]);
        assert_eq!(list(&[1., 2., 3.], 3).unwrap(), [1., 2., 3.]);
        assert!(matches!(list(&[1., 2.], 3), Err(RateError::Count { found: 2, devices: 3 })));
        assert!(matches!(list(&[], 3), Err(RateError::Count { found: 0, .. })));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-7, 2e9] {
            assert!(matches!(list(&[1., bad], 2), Err(RateError::Rate { device: 1, .. })), "{bad}");
        }
        let unknown = device_rates(&RatesConfig::Named("S3".into()), 2, 1).unwrap_err().to_string();
        assert!(unknown.contains("\"S3\"") && unknown.contains("S1'"), "{unknown}");
    }
}
