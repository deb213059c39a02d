//! Rows beside PyTorch -> a table or JSON.

use super::super::report::{Setting, time};
use crate::cli::say;
use crate::cli::table::table;
use crate::metrics::format::count;
use crate::units::Bytes;
use serde::Serialize;

/// One row and every way of PyTorch to do the same.
#[derive(Debug, Serialize)]
pub(super) struct PeerRow {
    group: &'static str,
    name: String,
    torch: String,
    median_s: f64,
    times_s: Vec<f64>,
    rate: Option<f64>,
    rate_unit: Option<&'static str>,
    peak_bytes: u64,
    /// The fastest first.
    peers: Vec<Beside>,
}

/// One way of PyTorch.
#[derive(Debug, Serialize)]
pub(super) struct Beside {
    name: String,
    median_s: f64,
    times_s: Vec<f64>,
    peak_bytes: u64,
    /// PyTorch's time / ours, of windows that followed each other: the median, the smallest, the largest.
    ratio: [f64; 3],
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

impl Beside {
    pub fn new(name: String, ours: &[f64], times_s: Vec<f64>, peak_bytes: u64) -> Self {
        let ratios: Vec<f64> = times_s.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
        let extreme = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(f64::NAN);
        let ratio = [median(&ratios), extreme(f64::min), extreme(f64::max)];
        Self { name, median_s: median(&times_s), times_s, peak_bytes, ratio }
    }
}

impl PeerRow {
    pub fn new(
        group: &'static str,
        name: String,
        work: Option<(f64, &'static str)>,
        torch: String,
        times_s: Vec<f64>,
        peak_bytes: u64,
        mut peers: Vec<Beside>,
    ) -> Self {
        peers.sort_by(|a, b| a.median_s.total_cmp(&b.median_s));
        let median_s = median(&times_s);
        let (rate, rate_unit) = (work.map(|(amount, _)| amount / median_s), work.map(|(_, unit)| unit));
        Self { group, name, torch, median_s, times_s, rate, rate_unit, peak_bytes, peers }
    }
}

pub(super) fn print(setting: &Setting, rows: &[PeerRow], failed: &[(String, String)], json: bool) {
    if json {
        let failed: Vec<_> =
            failed.iter().map(|(row, reason)| serde_json::json!({ "row": row, "reason": reason })).collect();
        let document = serde_json::json!({ "setting": setting, "rows": rows, "failed": failed });
        return say(&serde_json::to_string_pretty(&document).unwrap_or_default());
    }
    let torch = rows.first().map_or(String::new(), |row| format!("; torch {}", row.torch));
    say(&format!("{setting}{torch}\n"));
    let cells: Vec<Vec<String>> = rows.iter().flat_map(cells).collect();
    say(&table(&["what", "who", "median", "rate", "memory", "scadles is faster by"], &cells));
    for (row, reason) in failed {
        say(&format!("\nerror: {row}: {reason}"));
    }
}

fn cells(row: &PeerRow) -> Vec<Vec<String>> {
    let amount = row.rate.map(|rate| rate * row.median_s);
    let line = |what: String, who: &str, median_s: f64, peak_bytes: u64, ratio: String| {
        let rate = amount.map_or(String::new(), |amount| {
            format!("{} {}", count(amount / median_s), row.rate_unit.unwrap_or_default())
        });
        vec![what, who.into(), time(median_s), rate, Bytes(peak_bytes).to_string(), ratio]
    };
    let ours =
        line(format!("{}/{}", row.group, row.name), "scadles", row.median_s, row.peak_bytes, String::new());
    let theirs = row.peers.iter().map(|peer| {
        let [ratio, least, most] = peer.ratio;
        let ratio = format!("{ratio:.2} x ({least:.2} to {most:.2})");
        line(String::new(), &format!("torch, {}", peer.name), peer.median_s, peer.peak_bytes, ratio)
    });
    std::iter::once(ours).chain(theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbouring_windows() {
        let beside = Beside::new("a".into(), &[1.0, 2.0, 4.0], vec![3.0, 2.0, 8.0], 0);
        assert_eq!(beside.ratio, [2.0, 1.0, 3.0]);
        assert_eq!(beside.median_s, 3.0);
        let row = PeerRow::new(
            "step",
            "b".into(),
            Some((8.0, "images/s")),
            "2".into(),
            vec![4.0, 1.0, 2.0],
            0,
            vec![Beside::new("slow".into(), &[1.0], vec![9.0], 0), beside],
        );
        assert_eq!((row.rate, row.peers[0].name.as_str()), (Some(4.0), "a"));
    }
}
