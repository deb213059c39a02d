//! Measured rows -> a table or JSON.

use crate::cli::say;
use crate::cli::table::table;
use crate::metrics::format::{count, seconds};
use crate::units::Bytes;
use serde::Serialize;

/// Spread (interquartile range / median) above which a row is called noisy.
const NOISY: f64 = 0.1;

/// Where and how was measured.
#[derive(Debug, Serialize)]
pub(super) struct Setting {
    pub version: &'static str,
    pub commit: Option<&'static str>,
    pub cpu: String,
    pub gpu: Option<String>,
    pub threads: usize,
    pub seed: u64,
    pub tiny: bool,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, commit, cpu, gpu, threads, seed, .. } = self;
        let commit = commit.unwrap_or("unknown");
        write!(f, "scadles {version}, commit {commit}; {cpu}, {threads} threads")?;
        gpu.as_ref().map_or(Ok(()), |gpu| write!(f, "; {gpu}"))?;
        write!(f, "; seed {seed}")
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub group: &'static str,
    pub name: String,
    pub samples: usize,
    pub median_s: f64,
    pub fastest_s: f64,
    /// Interquartile range / median.
    pub spread: f64,
    pub rate: Option<f64>,
    pub rate_unit: Option<&'static str>,
    /// The ceiling that the row comes closest to, and how close, by the median.
    pub ceiling: Option<&'static str>,
    pub percent: Option<f64>,
    /// All of them, the closest first.
    pub bounds: Vec<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// A row's rate in a ceiling's unit, and its share of that ceiling.
#[derive(Debug, Serialize)]
pub(super) struct Bound {
    pub ceiling: &'static str,
    pub rate: f64,
    pub percent: f64,
}

/// A row without a measurement.
#[derive(Debug, Serialize)]
pub(super) struct Failed {
    pub group: &'static str,
    pub name: String,
    pub reason: String,
    /// For lack of time, and not because something went wrong.
    pub skipped: bool,
}

pub(super) fn print(setting: &Setting, measured: &[Measured], failed: &[Failed], json: bool) {
    if json {
        let document = serde_json::json!({ "setting": setting, "rows": measured, "failed": failed });
        return say(&serde_json::to_string_pretty(&document).unwrap_or_default());
    }
    say(&format!("{setting}\n"));
    let rows: Vec<Vec<String>> = measured.iter().map(cells).collect();
    say(&table(&["what", "median", "fastest", "spread", "rate", "of ceiling"], &rows));
    let noisy: Vec<&str> =
        measured.iter().filter(|row| row.spread > NOISY).map(|row| row.name.as_str()).collect();
    if !noisy.is_empty() {
        say(&format!(
            "\nwarning: times of {} spread by more than {:.0} %: quiet the machine or raise --time",
            noisy.join(", "),
            100.0 * NOISY
        ));
    }
    for Failed { group, name, reason, skipped } in failed {
        say(&format!("\n{}: {group}/{name}: {reason}", if *skipped { "skipped" } else { "error" }));
    }
}

fn cells(row: &Measured) -> Vec<String> {
    let rate = row
        .rate
        .map_or(String::new(), |rate| format!("{} {}", count(rate), row.rate_unit.unwrap_or_default()));
    let memory = row.memory_bytes.map_or(String::new(), |bytes| format!(", {} on the GPU", Bytes(bytes)));
    let share = match (row.percent, row.ceiling) {
        (Some(percent), Some(ceiling)) => format!("{percent:.1} % of {ceiling}{memory}"),
        _ => memory,
    };
    vec![
        format!("{}/{}", row.group, row.name),
        time(row.median_s),
        time(row.fastest_s),
        format!("{:.1} %", 100.0 * row.spread),
        rate,
        share,
    ]
}

pub(super) fn time(time_s: f64) -> String {
    match time_s {
        t if t < 1e-6 => format!("{:.0} ns", t * 1e9),
        t if t < 1e-3 => format!("{:.1} us", t * 1e6),
        t => seconds(t),
    }
}
