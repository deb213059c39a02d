//! Arrival times of one device's samples.

use super::RateTrace;
use crate::rng::{Philox, Stream};
use crate::units::SamplesPerSec;
use std::sync::Arc;
use std::time::Duration;

/// How samples arrive; rates in samples/s.
#[derive(Clone, Debug)]
pub(super) enum Process {
    Constant { rate: f64 },
    Poisson { rate: f64 },
    Bursty { rate: f64, on_s: f64, off_s: f64 },
    Diurnal { rate: f64, period_s: f64, amplitude: f64 },
    Trace { trace: Arc<RateTrace> },
}

impl Process {
    pub(super) fn mean(&self) -> f64 {
        match self {
            Self::Constant { rate }
            | Self::Poisson { rate }
            | Self::Bursty { rate, .. }
            | Self::Diurnal { rate, .. } => *rate,
            Self::Trace { trace } => trace.mean(),
        }
    }

    fn rate_at(&self, time: Duration) -> f64 {
        match self {
            Self::Diurnal { rate, period_s, amplitude } => {
                rate * (1.0 + amplitude * diurnal_phase(time.as_secs_f64(), *period_s))
            }
            Self::Trace { trace } => trace.rate_at(time),
            _ => self.mean(),
        }
    }
}

/// Arrival times of a device's samples since the start of the run, never decreasing, determined by `(seed, device)`.
/// Ends where times pass 584 years, or at once if the rate is 0 for ever.
///
/// - constant: the i-th sample, from 0, at exactly `(i + 1) / rate`, rounded to the nanosecond, without drift;
/// - Poisson: independent exponential gaps;
/// - bursty: on and off phases of exponential length, Poisson arrivals while on, none while off. The run begins in the
///   stationary state (on with probability `on / (on + off)`), so the mean rate holds from the start;
/// - diurnal: a Poisson process of rate `rate * (1 + amplitude * sin(2 pi t / period))`, by thinning;
/// - trace: the n-th sample where the recorded rate integrates to n.
#[derive(Clone, Debug)]
pub struct Arrivals {
    process: Process,
    rng: Philox,
    /// Samples so far.
    count: u64,
    /// Time of the last one, s, not for the constant process.
    time_s: f64,
    /// End of the present on phase, s, for the bursty process.
    on_until_s: f64,
}

impl Arrivals {
    pub(super) fn new(process: Process, seed: u64, device: u64) -> Self {
        let mut rng = Philox::new(seed, Stream::Arrivals, device);
        let (mut time_s, mut on_until_s) = (0.0, 0.0);
        if let Process::Bursty { on_s, off_s, .. } = process {
            // What is left of an exponential phase is exponential again: the stationary start needs no history.
            if rng.uniform_f64() * (on_s + off_s) >= on_s {
                time_s = off_s * exponential(&mut rng);
            }
            on_until_s = time_s + on_s * exponential(&mut rng);
        }
        Self { process, rng, count: 0, time_s, on_until_s }
    }

    /// Evenly spaced arrivals at `rate`, which must be from 1e-6 to 1e9 samples/s.
    ///
    /// # Errors
    /// [`super::RateError::Rate`] otherwise.
    pub fn constant(rate: SamplesPerSec) -> Result<Self, super::RateError> {
        if !super::lists::RATE_RANGE.contains(&rate.0) {
            return Err(super::RateError::Rate { device: 0, rate: rate.0 });
        }
        Ok(Self::new(Process::Constant { rate: rate.0 }, 0, 0))
    }

    /// Long-run mean rate.
    pub fn mean(&self) -> SamplesPerSec {
        SamplesPerSec(self.process.mean())
    }

    /// Expected rate at a time: the recorded one of a trace, the sinusoid of a diurnal stream, else the mean (nobody
    /// knows a bursty stream's phases ahead).
    pub fn rate_at(&self, time: Duration) -> SamplesPerSec {
        SamplesPerSec(self.process.rate_at(time))
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let count = self.count + 1;
        let time_ns = match &self.process {
            Process::Constant { rate } => constant_ns(count, *rate)?,
            Process::Trace { trace } => {
                // Rounding must not step back where two periods meet.
                self.time_s = trace.time_of(count)?.max(self.time_s);
                seconds_to_ns(self.time_s)?
            }
            Process::Poisson { rate } => {
                self.time_s += exponential(&mut self.rng) / rate;
                seconds_to_ns(self.time_s)?
            }
            Process::Bursty { rate, on_s, off_s } => {
                let mut time_s = self.time_s + exponential(&mut self.rng) / burst_rate(*rate, *on_s, *off_s);
                while time_s > self.on_until_s {
                    // A Poisson process has no memory either: the part of the gap beyond the phase is on time of the next.
                    let beyond = time_s - self.on_until_s;
                    let on_again = self.on_until_s + off_s * exponential(&mut self.rng);
                    self.on_until_s = on_again + on_s * exponential(&mut self.rng);
                    time_s = on_again + beyond;
                }
                self.time_s = time_s;
                seconds_to_ns(time_s)?
            }
            Process::Diurnal { rate, period_s, amplitude } => loop {
                self.time_s += exponential(&mut self.rng) / (rate * (1.0 + amplitude));
                let accept = 1.0 + amplitude * diurnal_phase(self.time_s, *period_s);
                if self.rng.uniform_f64() * (1.0 + amplitude) < accept {
                    break seconds_to_ns(self.time_s)?;
                }
            },
        };
        self.count = count;
        Some(Duration::from_nanos(time_ns))
    }
}

/// The rate while on that makes `rate` the mean over both phases.
pub(super) fn burst_rate(rate: f64, on_s: f64, off_s: f64) -> f64 {
    rate * (on_s + off_s) / on_s
}

fn diurnal_phase(time_s: f64, period_s: f64) -> f64 {
    (std::f64::consts::TAU * (time_s / period_s).fract()).sin()
}

/// An exponential number of mean 1.
fn exponential(rng: &mut Philox) -> f64 {
    -(1.0 - rng.uniform_f64()).ln()
}

/// Nearest nanosecond; none beyond u64.
fn seconds_to_ns(time_s: f64) -> Option<u64> {
    let ns = (time_s * 1e9).round();
    (ns < u64::MAX as f64).then_some(ns as u64)
}

/// `count / rate` in nanoseconds, rounded from the exact quotient: a finite f64 is `mantissa * 2^exponent` in whole
/// numbers. None beyond u64.
fn constant_ns(count: u64, rate: f64) -> Option<u64> {
    let bits = rate.to_bits();
    // Rates are at least 1e-6, so never subnormal: the leading bit is there.
    let mantissa = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1075;
    let scaled = u128::from(count) * 1_000_000_000;
    let (numerator, denominator) = if exponent >= 0 {
        (scaled, mantissa << exponent)
    } else {
        // An odd mantissa keeps the shift small. Where the product still overflows, so does the quotient u64.
        let zeros = mantissa.trailing_zeros().min(exponent.unsigned_abs());
        let shift = exponent.unsigned_abs() - zeros;
        let shifted = (scaled.leading_zeros() > shift).then(|| scaled << shift)?;
        (shifted, mantissa >> zeros)
    };
    u64::try_from((numerator + denominator / 2) / denominator).ok()
}
