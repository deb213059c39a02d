//! How many samples per second each device gets, and when each one arrives.
//!
//! [`RateModel`] turns the configuration into one [`Arrivals`] per device: an iterator over arrival times, fully
//! determined by `(seed, device)`.

mod arrivals;
mod lists;
mod trace;

pub use arrivals::Arrivals;
pub use lists::device_rates;
pub use trace::{RateTrace, TraceSegment};

use crate::train::config::{ArrivalConfig, RatesConfig};
use crate::units::SamplesPerSec;
use arrivals::{Process, burst_rate};
use std::path::PathBuf;
use std::sync::Arc;

/// Why stream rates cannot be made from a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// No published list has this name.
    #[error(
        "no stream-rate list is called {name:?}; known: S1, S2, S1' (S1p), S2' (S2p), or a list of numbers"
    )]
    UnknownList {
        /// As given.
        name: String,
    },
    /// A list of another length than the cluster.
    #[error("{found} stream rates for {devices} devices; give one per device, or one for all")]
    Count {
        /// Rates given.
        found: usize,
        /// Devices of the cluster.
        devices: usize,
    },
    /// A rate that no stream can have.
    #[error("stream rate {rate:?} of device {device}: it must be from 1e-6 to 1e9 samples/s")]
    Rate {
        /// Device, from 0.
        device: usize,
        /// As given.
        rate: f64,
    },
    /// A field of an arrival process out of its range.
    #[error("arrival process {process}: {field} is {value:?}, it must be {must_be}")]
    Arrival {
        /// Name of the process.
        process: &'static str,
        /// Name of the field.
        field: &'static str,
        /// As given.
        value: f64,
        /// Its range.
        must_be: &'static str,
    },
    /// The trace file cannot be read.
    #[error("rate trace {}: {source}", path.display())]
    TraceRead {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of the trace file is not what it should be.
    #[error("rate trace {}, line {line}: {problem}", path.display())]
    TraceLine {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong and what it must be.
        problem: String,
    },
    /// The trace says nothing about a device.
    #[error(
        "rate trace {} has no line for device {device} of {devices}; devices are numbered from 0",
        path.display()
    )]
    TraceDevice {
        /// The file.
        path: PathBuf,
        /// Missing device, from 0.
        device: usize,
        /// Devices of the cluster.
        devices: usize,
    },
}

/// Stream rates and arrival processes of a cluster.
#[derive(Clone, Debug)]
pub struct RateModel {
    processes: Vec<Process>,
    seed: u64,
}

impl RateModel {
    /// The streams of `devices` devices. Under [`ArrivalConfig::Trace`] the rates come from the trace, and `rates` is
    /// only checked.
    ///
    /// # Errors
    /// Every [`RateError`].
    pub fn new(
        rates: &RatesConfig,
        arrivals: &ArrivalConfig,
        devices: usize,
        seed: u64,
    ) -> Result<Self, RateError> {
        let rates = device_rates(rates, devices, seed)?;
        let processes = match arrivals {
            ArrivalConfig::Constant => rates.into_iter().map(|rate| Process::Constant { rate }).collect(),
            ArrivalConfig::Poisson => rates.into_iter().map(|rate| Process::Poisson { rate }).collect(),
            ArrivalConfig::Bursty { on_s, off_s } => {
                check("bursty", "on-s", *on_s, SPAN_S.contains(on_s), "from 0.001 to 1e9 s")?;
                check("bursty", "off-s", *off_s, (0.0..=1e9).contains(off_s), "from 0 to 1e9 s")?;
                let burst = |rate: &f64| burst_rate(*rate, *on_s, *off_s);
                let highest = rates.iter().map(burst).fold(0.0, f64::max);
                let resolved = highest <= *lists::RATE_RANGE.end();
                check("bursty", "rate while on", highest, resolved, "at most 1e9 samples/s: lengthen on-s")?;
                rates.into_iter().map(|rate| Process::Bursty { rate, on_s: *on_s, off_s: *off_s }).collect()
            }
            ArrivalConfig::Diurnal { period_s, amplitude } => {
                check("diurnal", "period-s", *period_s, SPAN_S.contains(period_s), "from 0.001 to 1e9 s")?;
                check("diurnal", "amplitude", *amplitude, (0.0..=1.0).contains(amplitude), "from 0 to 1")?;
                rates
                    .into_iter()
                    .map(|rate| Process::Diurnal { rate, period_s: *period_s, amplitude: *amplitude })
                    .collect()
            }
            ArrivalConfig::Trace { path } => RateTrace::read(path, devices)?
                .into_iter()
                .map(|trace| Process::Trace { trace: Arc::new(trace) })
                .collect(),
        };
        Ok(Self { processes, seed })
    }

    /// Devices of the cluster.
    pub fn devices(&self) -> usize {
        self.processes.len()
    }

    /// Long-run mean rate of a device, from 0.
    pub fn mean(&self, device: usize) -> SamplesPerSec {
        SamplesPerSec(self.processes[device].mean())
    }

    /// Arrival times of a device's samples, from the start of the run.
    pub fn arrivals(&self, device: usize) -> Arrivals {
        Arrivals::new(self.processes[device].clone(), self.seed, device as u64)
    }
}

/// Lengths that a phase or a period can have, s: shorter ones would take no time beside the f64 of a late arrival, and
/// no arrival would ever be found.
const SPAN_S: std::ops::RangeInclusive<f64> = 1e-3..=1e9;

fn check(
    process: &'static str,
    field: &'static str,
    value: f64,
    good: bool,
    must_be: &'static str,
) -> Result<(), RateError> {
    if good && value.is_finite() {
        return Ok(());
    }
    Err(RateError::Arrival { process, field, value, must_be })
}
