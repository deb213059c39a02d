//! A measured rate: an exponentially weighted mean over windows.

use std::time::Duration;

/// Shortest time over which samples are counted.
const WINDOW_S: f64 = 0.5;
/// After this time a change of the rate shows by 63%.
const MEMORY_S: f64 = 3.0;

pub(super) struct RateMeter {
    rate: f64,
    /// Begin of the window; none before the first sample, so that waiting for a publisher is no rate of 0.
    since: Option<Duration>,
    counted: u64,
    now: Duration,
}

impl RateMeter {
    pub(super) fn new(expected: f64) -> Self {
        Self { rate: expected, since: None, counted: 0, now: Duration::ZERO }
    }

    /// Ends the window if it has been long enough.
    pub(super) fn advance(&mut self, now: Duration) {
        self.now = now;
        let Some(since) = self.since else { return };
        let window_s = now.saturating_sub(since).as_secs_f64();
        if window_s >= WINDOW_S {
            let weight = 1.0 - (-window_s / MEMORY_S).exp();
            self.rate += weight * (self.counted as f64 / window_s - self.rate);
            (self.since, self.counted) = (Some(now), 0);
        }
    }

    /// Counts a sample that came at the time of the last [`advance`](Self::advance).
    pub(super) fn count(&mut self) {
        match self.since {
            Some(_) => self.counted += 1,
            None => self.since = Some(self.now),
        }
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_samples() {
        let mut meter = RateMeter::new(10.0);
        meter.advance(Duration::from_secs(100));
        assert_eq!(meter.rate(), 10.0);
        let mut at = |samples: std::ops::Range<u64>, step_ms: u64, start: Duration| {
            for sample in samples.clone() {
                meter.advance(start + Duration::from_millis(step_ms * (sample - samples.start)));
                meter.count();
            }
            meter.rate()
        };
        let busy = at(0..4000, 5, Duration::from_secs(100));
        assert!((busy - 200.0).abs() < 1.0, "{busy}");
        let slow = at(0..40, 500, Duration::from_secs(120));
        assert!((slow - 2.0).abs() < 1.0, "{slow}");
    }
}
