//! Has a device's stream changed? One detector on its loss, one on its labels.
//!
//! [`LossDrift`] is Page's test with Hinkley's forgetful mean: it sums by how much each loss exceeds the recent mean, in
//! recent standard deviations, and fires when the sum is large. [`LabelDrift`] compares the labels of two neighbouring
//! windows of a stream by total variation. `DriftWatch` runs both for every device and says what the trainer is to do.

use crate::metrics::record::{DriftKind, DriftRecord};
use crate::train::config::{DriftConfig, DriftReaction, PageHinkleyConfig};
use std::collections::VecDeque;

/// Weight of a new loss in the running mean: about the last 40 steps count.
const FORGET: f64 = 0.05;
/// The same for the variance: about the last 100.
const FORGET_SPREAD: f64 = 0.02;
/// Losses seen before the test begins.
const WARM_UP: u32 = 30;
/// A single loss counts as at most this many standard deviations: one outlier is no change.
const MOST_DEVIATIONS: f64 = 4.0;

/// Page-Hinkley test for a rise of a noisy sequence that may fall slowly.
///
/// # Example
/// ```
/// use scadles::train::drift::LossDrift;
/// let mut test = LossDrift::new(0.5, 12.0);
/// let noise = |i: usize| 0.1 * ((i * 7919 % 13) as f64 / 6.0 - 1.0);
/// assert!((0..200).all(|i| test.push(1.0 + noise(i)).is_none()));
/// let fired = (0..20).position(|i| test.push(2.0 + noise(i)).is_some());
/// assert!(fired.is_some_and(|steps| steps < 5));
/// ```
#[derive(Clone, Debug)]
pub struct LossDrift {
    tolerance: f64,
    threshold: f64,
    mean: f64,
    /// From differences of neighbours: neither a trend nor a single jump moves it much.
    variance: f64,
    last: f64,
    seen: u32,
    sum: f64,
}

impl LossDrift {
    /// A test that lets each loss exceed the mean by `tolerance` standard deviations and fires when the sum of what is
    /// beyond reaches `threshold`.
    pub fn new(tolerance: f64, threshold: f64) -> Self {
        Self { tolerance, threshold, mean: 0.0, variance: 0.0, last: 0.0, seen: 0, sum: 0.0 }
    }

    /// Takes a loss; the sum if it fires, after which the test begins anew. A loss that is not finite is left out.
    pub fn push(&mut self, loss: f64) -> Option<f64> {
        if !loss.is_finite() {
            return None;
        }
        if self.seen >= WARM_UP {
            let deviation = self.variance.sqrt().max(1e-9 * self.mean.abs()).max(f64::MIN_POSITIVE);
            let excess = ((loss - self.mean) / deviation).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS);
            self.sum = (self.sum + excess - self.tolerance).max(0.0);
            if self.sum >= self.threshold {
                let sum = self.sum;
                *self = Self::new(self.tolerance, self.threshold);
                return Some(sum);
            }
        }
        // Plain means first: the first loss must not weigh more than those after it.
        let weight = |forget: f64, seen: u32| forget.max(1.0 / f64::from(seen));
        if self.seen > 0 {
            let step = loss - self.last;
            self.variance += weight(FORGET_SPREAD, self.seen) * (step * step / 2.0 - self.variance);
        }
        self.seen = self.seen.saturating_add(1);
        self.mean += weight(FORGET, self.seen) * (loss - self.mean);
        self.last = loss;
        None
    }
}

/// Total variation between the labels of two neighbouring windows of a stream.
///
/// Two windows of `W` samples with the same shares `p` differ by chance, by `sum sqrt(p (1 - p) / (pi W))` on average. The
/// test fires when they differ by `distance` more than that; by McDiarmid's inequality chance does so with a
/// probability of at most `exp(-W distance^2)`. With more classes the part of chance is larger: 0.13 for 10 classes and
/// windows of 200, 0.4 for 100.
///
/// # Example
/// ```
/// use scadles::train::drift::LabelDrift;
/// let mut test = LabelDrift::new(100, 0.25);
/// test.push((0..400).map(|i| i % 4));
/// assert!(test.check().is_none());
/// test.push((0..100).map(|i| 4 + i % 4));
/// assert!(test.check().is_some_and(|distance| distance > 0.9));
/// ```
#[derive(Clone, Debug)]
pub struct LabelDrift {
    window: usize,
    distance: f64,
    /// At most two windows of labels, oldest first.
    labels: VecDeque<u32>,
    /// Per class, in the older and in the newer window.
    counts: Vec<[u32; 2]>,
}

impl LabelDrift {
    /// A test over windows of `window` labels, at least 1.
    pub fn new(window: usize, distance: f64) -> Self {
        Self { window: window.max(1), distance, labels: VecDeque::new(), counts: Vec::new() }
    }

    /// Takes labels in the order of their samples.
    pub fn push(&mut self, labels: impl IntoIterator<Item = u32>) {
        for label in labels {
            let class = label as usize;
            if class >= self.counts.len() {
                self.counts.resize(class + 1, [0; 2]);
            }
            self.labels.push_back(label);
            self.counts[class][1] += 1;
            let len = self.labels.len();
            if len > self.window {
                let moved = self.labels[len - 1 - self.window] as usize;
                self.counts[moved][1] -= 1;
                self.counts[moved][0] += 1;
            }
            if len > 2 * self.window
                && let Some(oldest) = self.labels.pop_front()
            {
                self.counts[oldest as usize][0] -= 1;
            }
        }
    }

    /// The distance if it fires, after which the test begins anew.
    pub fn check(&mut self) -> Option<f64> {
        if self.labels.len() < 2 * self.window {
            return None;
        }
        let window = self.window as f64;
        let (mut distance, mut by_chance) = (0.0, 0.0);
        for &[old, new] in &self.counts {
            distance += f64::from(old.abs_diff(new)) / window / 2.0;
            let share = f64::from(old + new) / (2.0 * window);
            by_chance += (share * (1.0 - share) / (std::f64::consts::PI * window)).sqrt();
        }
        if distance - by_chance < self.distance {
            return None;
        }
        *self = Self::new(self.window, self.distance);
        Some(distance)
    }
}

/// Watches every device of a run.
#[derive(Clone, Debug)]
pub(crate) struct DriftWatch {
    config: PageHinkleyConfig,
    devices: Vec<(LossDrift, LabelDrift)>,
    /// Step of the last drift.
    last: Option<u64>,
}

impl DriftWatch {
    /// A watch over `devices`; none where `config` asks for none.
    pub fn new(config: &DriftConfig, devices: usize) -> Option<Self> {
        let DriftConfig::PageHinkley(config) = *config else { return None };
        let device = (
            LossDrift::new(config.tolerance, config.threshold),
            LabelDrift::new(config.label_window, config.label_distance),
        );
        Some(Self { config, devices: vec![device; devices], last: None })
    }

    /// Takes the mean loss of hosted device `index`, which is number `device` of the cluster, and its own labels in `step`;
    /// appends what it finds.
    pub fn observe(
        &mut self,
        (index, device): (usize, usize),
        step: u64,
        loss: f64,
        labels: &[u32],
        found: &mut Vec<DriftRecord>,
    ) {
        let (losses, histogram) = &mut self.devices[index];
        histogram.push(labels.iter().copied());
        let fired = [
            (DriftKind::Loss, losses.push(loss), self.config.threshold),
            (DriftKind::Labels, histogram.check(), self.config.label_distance),
        ];
        for (kind, value, threshold) in fired {
            if let Some(value) = value {
                found.push(DriftRecord { device: device as u64, kind, value, threshold });
                self.last = Some(step);
            }
        }
    }

    /// What the learning rate of `step` is multiplied by.
    pub fn lr_factor(&self, step: u64) -> f64 {
        let (DriftReaction::LrBoost, Some(last)) = (self.config.react, self.last) else { return 1.0 };
        let length = self.config.boost_steps as f64;
        // From the whole factor in the step after the drift down to 1 in a straight line.
        let left = (1.0 - step.saturating_sub(last + 1) as f64 / length).max(0.0);
        1.0 + (self.config.boost - 1.0) * left
    }

    /// Whether a device that drifted is to keep its newest samples only.
    pub fn keeps_newest(&self) -> bool {
        self.config.react == DriftReaction::KeepNewest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};

    /// Twelve uniform numbers make a normal one, near enough in the tails that matter here.
    fn normal(rng: &mut Philox) -> f64 {
        (0..12).map(|_| f64::from(rng.below(1 << 24)) / f64::from(1 << 24)).sum::<f64>() - 6.0
    }

    fn rng(seed: u64) -> Philox {
        Philox::new(seed, Stream::Arrivals, 0)
    }

    #[test]
    fn a_rise_of_the_loss_is_found_soon_and_chance_is_not() {
        let config = PageHinkleyConfig::default();
        let (mut false_alarms, mut delays) = (0, Vec::new());
        for seed in 0..40 {
            let (mut rng, mut test) = (rng(seed), LossDrift::new(config.tolerance, config.threshold));
            // A loss that falls as training goes on.
            for i in 0..1000 {
                let loss = 0.5 + 2.0 * (-(i as f64) / 300.0).exp() + 0.1 * normal(&mut rng);
                false_alarms += usize::from(test.push(loss).is_some());
            }
            let delay = (1..=200).find(|_| test.push(0.8 + 0.1 * normal(&mut rng)).is_some());
            delays.push(delay.unwrap_or(200));
        }
        // Of 40,000 losses without a change; one by three deviations is found within 20 steps.
        delays.sort_unstable();
        assert!(false_alarms <= 4, "{false_alarms} false alarms");
        assert!(delays[20] <= 10 && delays[39] <= 20, "{delays:?}");
    }

    #[test]
    fn a_change_of_labels_is_found_within_a_window_and_chance_is_not() {
        let config = PageHinkleyConfig::default();
        for (seed, classes) in [(0, 10), (1, 10), (2, 100), (3, 2)] {
            let mut rng = rng(seed);
            let mut test = LabelDrift::new(config.label_window, config.label_distance);
            for _ in 0..2000 {
                test.push((0..10).map(|_| rng.below(classes)));
                assert_eq!(test.check(), None, "{classes} classes");
            }
            // Half of the stream moves to classes it did not have; with many classes chance hides that, so all of it.
            let moved = if classes < 100 { 2 } else { 1 };
            let delay = (10..=2000).step_by(10).find(|_| {
                test.push(
                    (0..10).map(|_| rng.below(classes) + if rng.below(moved) == 0 { classes } else { 0 }),
                );
                test.check().is_some()
            });
            assert!(delay.is_some_and(|samples| samples <= config.label_window), "{classes}: {delay:?}");
        }
    }

    #[test]
    fn counts_of_both_windows_are_those_of_their_labels() {
        let (mut rng, mut test) = (rng(9), LabelDrift::new(7, 2.0));
        for _ in 0..100 {
            test.push([rng.below(5)]);
            let split = test.labels.len().saturating_sub(7);
            for (class, counts) in test.counts.iter().enumerate() {
                let of =
                    |labels: &[u32]| labels.iter().filter(|&&label| label as usize == class).count() as u32;
                let all: Vec<u32> = test.labels.iter().copied().collect();
                assert_eq!(*counts, [of(&all[..split]), of(&all[split..])]);
            }
        }
    }

    #[test]
    fn the_boost_fades_in_a_straight_line() {
        let config = PageHinkleyConfig {
            react: DriftReaction::LrBoost,
            boost: 3.0,
            boost_steps: 4,
            ..PageHinkleyConfig::default()
        };
        let mut watch = DriftWatch::new(&DriftConfig::PageHinkley(config), 1).unwrap();
        assert_eq!(watch.lr_factor(10), 1.0);
        watch.last = Some(10);
        assert_eq!(
            [11, 12, 13, 14, 15, 99].map(|step| watch.lr_factor(step)),
            [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]
        );
        assert!(DriftWatch::new(&DriftConfig::Off, 1).is_none());
    }

    #[test]
    fn losses_that_are_not_finite_or_all_the_same_do_no_harm() {
        let mut test = LossDrift::new(0.5, 12.0);
        assert!((0..100).all(|_| test.push(f64::NAN).is_none() && test.push(0.0).is_none()));
        assert!((0..100).all(|_| test.push(2.0).is_some() || test.mean.is_finite()));
    }
}
