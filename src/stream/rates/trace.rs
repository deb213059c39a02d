//! Recorded rates: a CSV file `time_s,device,samples_per_s` into one piecewise constant rate per device.

use super::RateError;
use std::path::Path;
use std::time::Duration;

/// Rate of one device over time: constant in each segment, repeating after the last.
#[derive(Clone, Debug, PartialEq)]
pub struct RateTrace {
    segments: Vec<TraceSegment>,
    period_s: f64,
    /// Samples of one period: the rate integrated over it.
    period_samples: f64,
}

/// A stretch of constant rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSegment {
    /// Begin within the period, s.
    pub start_s: f64,
    /// Rate until the next segment, samples/s, at least 0.
    pub samples_per_s: f64,
    /// Samples of the period before this segment.
    samples_before: f64,
}

impl RateTrace {
    /// The traces of devices `0..devices`. Each row holds until the next row of its device, and before its first row a
    /// device has rate 0. All devices repeat together, when the last row of the file has held for as long as the row
    /// before it in time; if all rows share one time, 1 s is a period. Lines that are empty or start with `#` and a
    /// first line of column names are skipped.
    ///
    /// # Errors
    /// [`RateError::TraceRead`], [`RateError::TraceLine`], [`RateError::TraceDevice`].
    pub fn read(path: &Path, devices: usize) -> Result<Vec<Self>, RateError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RateError::TraceRead { path: path.into(), source })?;
        let mut rows: Vec<Vec<(f64, f64)>> = vec![Vec::new(); devices];
        let mut times = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let header = index == 0 && line.replace(' ', "") == "time_s,device,samples_per_s";
            if line.is_empty() || line.starts_with('#') || header {
                continue;
            }
            let problem = |problem| RateError::TraceLine { path: path.into(), line: index + 1, problem };
            let (time_s, device, rate) = parse_row(line).map_err(problem)?;
            times.push(time_s);
            // A trace of a larger cluster serves a smaller one.
            let Some(device_rows) = rows.get_mut(device) else { continue };
            if let Some(&(last, _)) = device_rows.last().filter(|&&(last, _)| time_s <= last) {
                let text =
                    format!("time {time_s} s of device {device} must be after its row before, {last} s");
                return Err(problem(text));
            }
            device_rows.push((time_s, rate));
        }
        if let Some(device) = rows.iter().position(Vec::is_empty) {
            return Err(RateError::TraceDevice { path: path.into(), device, devices });
        }
        times.sort_by(f64::total_cmp);
        times.dedup();
        let period_s = match times[..] {
            [.., before, last] => last + (last - before),
            [only] => only + 1.0,
            [] => 1.0,
        };
        Ok(rows.into_iter().map(|rows| Self::from_rows(&rows, period_s)).collect())
    }

    fn from_rows(rows: &[(f64, f64)], period_s: f64) -> Self {
        let silence = (rows[0].0 > 0.0).then_some((0.0, 0.0));
        let mut segments: Vec<TraceSegment> = Vec::with_capacity(rows.len() + 1);
        for (start_s, samples_per_s) in silence.into_iter().chain(rows.iter().copied()) {
            let samples_before = segments.last().map_or(0.0, |last| last.samples_until(start_s));
            segments.push(TraceSegment { start_s, samples_per_s, samples_before });
        }
        let period_samples = segments[segments.len() - 1].samples_until(period_s);
        Self { segments, period_s, period_samples }
    }

    /// Mean rate over a period, samples/s.
    pub fn mean(&self) -> f64 {
        self.period_samples / self.period_s
    }

    /// Rate at a time, samples/s.
    pub fn rate_at(&self, time: Duration) -> f64 {
        let within = time.as_secs_f64() % self.period_s;
        let next = self.segments.partition_point(|segment| segment.start_s <= within);
        self.segments[next.max(1) - 1].samples_per_s
    }

    /// The time at which the rate integrates to `count` samples, s; none if it never does. Computed from `count` alone,
    /// so errors do not add up over a run.
    pub fn time_of(&self, count: u64) -> Option<f64> {
        if self.period_samples <= 0.0 {
            return None;
        }
        // `count` samples end in a period that begins with fewer than `count`: whole = ceil(count / period) - 1.
        let whole = ((count as f64 / self.period_samples).ceil() - 1.0).max(0.0);
        let rest = (count as f64 - whole * self.period_samples).clamp(0.0, self.period_samples);
        // The segment that brings the last of them begins with fewer than `rest`; those of rate 0 bring none.
        let next = self.segments.partition_point(|segment| segment.samples_before < rest);
        let segment = self.segments[next.max(1) - 1];
        let within =
            segment.start_s + (rest - segment.samples_before) / segment.samples_per_s.max(f64::MIN_POSITIVE);
        Some(whole * self.period_s + within)
    }
}

impl TraceSegment {
    fn samples_until(&self, time_s: f64) -> f64 {
        self.samples_before + self.samples_per_s * (time_s - self.start_s)
    }
}

fn parse_row(line: &str) -> Result<(f64, usize, f64), String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [time, device, rate] = fields[..] else {
        return Err(format!("{} columns; it must be time_s,device,samples_per_s", fields.len()));
    };
    let number = |name: &str, text: &str, max: f64| match text.parse::<f64>() {
        Ok(value) if (0.0..=max).contains(&value) => Ok(value),
        _ => Err(format!("{name} is {text:?}; it must be a number from 0 to {max:e}")),
    };
    let device_index = device
        .parse()
        .map_err(|_| format!("device is {device:?}; it must be a whole number, counted from 0"))?;
    Ok((number("time_s", time, 1e9)?, device_index, number("samples_per_s", rate, 1e9)?))
}
