//! A range of values -> ticks with labels, and positions between 0 and 1.

use crate::metrics::format;

/// What the numbers of an axis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Numbers without a unit.
    Plain,
    /// Counts: `1.5 k`.
    Count,
    /// Shares, shown as percentages.
    Percent,
    /// Bytes: `3 MB`.
    Bytes,
    /// Seconds, shown in the unit that fits the range.
    Seconds,
}

/// The values that one direction of a chart shows.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    unit: Unit,
}

impl Axis {
    /// An axis over the finite ones of `values`, widened to whole ticks where `whole` asks for it; `log` needs values
    /// above 0 and ignores others. None if no value is left.
    pub fn over(values: impl Iterator<Item = f64>, unit: Unit, log: bool, whole: bool) -> Option<Self> {
        let usable = values.filter(|value| value.is_finite() && (!log || *value > 0.0));
        let (low, high) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        // Differences of huge values must stay finite, tenths of tiny ones above 0.
        let tame = |value: f64| if value.abs() < 1e-290 && !log { 0.0 } else { value.clamp(-1e300, 1e300) };
        let (low, high) = (tame(low), tame(high));
        let mut axis = Self { low, high, log, unit };
        if log {
            axis.low = 10f64.powf(low.log10().floor());
            axis.high = 10f64.powf(high.log10().ceil());
            if axis.low == axis.high {
                axis.high *= 10.0;
            }
            return Some(axis);
        }
        if high - low <= f64::EPSILON * high.abs().max(low.abs()) {
            let half = if low == 0.0 { 0.5 } else { low.abs() * 0.1 };
            (axis.low, axis.high) = (if low == 0.0 { 0.0 } else { low - half }, high + half);
        }
        if whole {
            let step = axis.step();
            axis.low = (axis.low / step).floor() * step;
            axis.high = (axis.high / step).ceil() * step;
        }
        Some(axis)
    }

    /// Where `value` stands between the ends, 0 to 1; NaN if it cannot be shown.
    pub fn position(&self, value: f64) -> f64 {
        if self.log {
            if value <= 0.0 {
                return f64::NAN;
            }
            return (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln());
        }
        (value - self.low) / (self.high - self.low)
    }

    /// Its ends.
    pub fn range(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Whether equal distances are equal factors.
    pub fn is_log(&self) -> bool {
        self.log
    }

    /// What its numbers are.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Tick values with their labels.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        if self.log {
            return self.log_ticks().into_iter().map(|value| (value, self.label(value))).collect();
        }
        let step = self.step();
        let first = (self.low / step - 1e-9).ceil();
        let count = ((self.high / step + 1e-9).floor() - first).clamp(0.0, 20.0) as usize;
        (0..=count).map(|i| (first + i as f64) * step).map(|value| (value, self.label(value))).collect()
    }

    /// The name of the unit that tick labels leave out, for the axis name: `min`; empty if there is none.
    pub fn unit_name(&self) -> &'static str {
        if self.unit == Unit::Seconds { self.time_unit().1 } else { "" }
    }

    fn log_ticks(&self) -> Vec<f64> {
        let (first, last) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
        let every = ((last - first) / 6).max(1) as usize;
        let mut ticks: Vec<f64> = (first..=last).step_by(every).map(|decade| 10f64.powi(decade)).collect();
        if last - first <= 2 {
            ticks.extend((first..last).flat_map(|decade| [2.0, 5.0].map(|digit| digit * 10f64.powi(decade))));
            ticks.sort_by(f64::total_cmp);
        }
        ticks
    }

    /// Distance of ticks: 1, 2 or 5 times a power of ten in the shown unit, for 4 to 7 of them.
    fn step(&self) -> f64 {
        let scale = self.scale();
        let raw = (self.high - self.low) / scale / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let digit =
            [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| raw <= digit * power * 1.0001).unwrap_or(10.0);
        (digit * power * scale).max(f64::MIN_POSITIVE)
    }

    fn scale(&self) -> f64 {
        match self.unit {
            Unit::Seconds => self.time_unit().0,
            Unit::Percent => 0.01,
            Unit::Plain | Unit::Count | Unit::Bytes => 1.0,
        }
    }

    fn time_unit(&self) -> (f64, &'static str) {
        match self.high.abs().max(self.low.abs()) {
            t if t < 0.2 => (1e-3, "ms"),
            t if t < 180.0 => (1.0, "s"),
            t if t < 10_800.0 => (60.0, "min"),
            t if t < 259_200.0 => (3600.0, "h"),
            _ => (86_400.0, "d"),
        }
    }

    fn label(&self, value: f64) -> String {
        match self.unit {
            Unit::Count => trim(&format::count(value)),
            Unit::Bytes => trim(&format::bytes(value)),
            Unit::Percent => format!("{} %", number(value * 100.0)),
            Unit::Seconds => number(value / self.scale()),
            Unit::Plain => number(value),
        }
    }
}

/// `2.00 MB` -> `2 MB`, `1.50 MB` -> `1.5 MB`.
fn trim(text: &str) -> String {
    let Some((digits, suffix)) = text.split_once(' ') else { return text.into() };
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits} {suffix}")
}

/// A tick value without noise in its last digits.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if !(1e-4..1e6).contains(&v) => format!("{value:.0e}"),
        _ => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], unit: Unit, log: bool) -> Vec<String> {
        let axis = Axis::over(values.iter().copied(), unit, log, true).unwrap();
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_in_the_unit_shown() {
        assert_eq!(
            labels(&[0.0, 0.93], Unit::Percent, false),
            ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
        );
        assert_eq!(labels(&[0.0, 590.0], Unit::Seconds, false), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(&[3e3, 2e6], Unit::Bytes, true), ["1 kB", "10 kB", "100 kB", "1 MB", "10 MB"]);
        assert_eq!(labels(&[1.0, 9.0], Unit::Plain, true), ["1", "2", "5", "10"]);
    }

    #[test]
    fn odd_values_make_an_axis_or_none() {
        assert!(Axis::over([f64::NAN, f64::INFINITY].into_iter(), Unit::Plain, false, true).is_none());
        assert!(Axis::over([0.0, -1.0].into_iter(), Unit::Plain, true, true).is_none());
        for values in [
            [0.0, 0.0],
            [5.0, 5.0],
            [-3.0, -3.0],
            [1e-300, 2e-300],
            [-1e308, 1e308],
            [1e308, 1e308],
            [5e-324, 5e-324],
        ] {
            for whole in [false, true] {
                let axis = Axis::over(values.into_iter(), Unit::Seconds, false, whole).unwrap();
                assert!((1..=21).contains(&axis.ticks().len()), "{values:?} {:?}", axis.ticks());
                assert!(axis.position(values[0]).is_finite(), "{values:?}");
            }
        }
        let tiny = Axis::over([1e-300, 1e300].into_iter(), Unit::Plain, true, true).unwrap();
        assert!(tiny.ticks().len() <= 8);
    }
}
