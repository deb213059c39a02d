//! Numbers as people read them: times, shares, counts.

use crate::units::Bytes;

/// A share as a percentage with one decimal: `93.4 %`; `–` if it is not finite.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { "–".into() }
}

/// Seconds with a unit that fits: `0.52 s`, `38 s`, `4 min 07 s`, `2 h 05 min`, `3 d 4 h`.
pub fn seconds(time_s: f64) -> String {
    if !time_s.is_finite() {
        return "–".into();
    }
    let whole = time_s.abs().round() as u64;
    match time_s.abs() {
        t if t < 0.0995 => format!("{:.1} ms", 1e3 * time_s),
        t if t < 9.995 => format!("{time_s:.2} s"),
        t if t < 59.5 => format!("{time_s:.1} s"),
        t if t < 3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        t if t < 86_400.0 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A count in three digits: `950`, `1.50 k`, `60.2 M`, `4.43 G`; `–` if it is not finite.
pub fn count(number: f64) -> String {
    if !number.is_finite() {
        return "–".into();
    }
    let mut value = number;
    let mut suffix = "";
    for next in [" k", " M", " G", " T"] {
        if value.abs() < 999.5 {
            break;
        }
        value /= 1e3;
        suffix = next;
    }
    if suffix.is_empty() && value == value.trunc() {
        return format!("{value}");
    }
    let decimals = [9.995, 99.95].iter().filter(|&&limit| value.abs() < limit).count();
    format!("{value:.decimals$}{suffix}")
}

/// A size that may have been averaged, in decimal units: `3.07 kB`.
pub fn bytes(size: f64) -> String {
    if size.is_finite() { Bytes(size.max(0.0).round() as u64).to_string() } else { "–".into() }
}

/// A number with `decimals` digits after the point; `–` if it is not finite.
pub fn decimal(number: f64, decimals: usize) -> String {
    if number.is_finite() { format!("{number:.decimals$}") } else { "–".into() }
}

/// A ratio: `3.3x`, `120x`; `–` if it is not finite.
pub fn factor(ratio: f64) -> String {
    match ratio {
        r if !r.is_finite() => "–".into(),
        r if r.abs() >= 99.5 => format!("{r:.0}x"),
        r if r.abs() >= 9.95 => format!("{r:.1}x"),
        r => format!("{r:.2}x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_starts_where_it_should() {
        let times = [0.052, 0.5, 9.999, 59.4, 59.6, 247.0, 3599.6, 7500.0, 270_000.0].map(seconds);
        let shown = [
            "52.0 ms",
            "0.50 s",
            "10.0 s",
            "59.4 s",
            "1 min 00 s",
            "4 min 07 s",
            "1 h 00 min",
            "2 h 05 min",
            "3 d 3 h",
        ];
        assert_eq!(times, shown);
        assert_eq!(
            [0.0, 7.0, 0.25, 950.0, 1500.0, 6.02e7, 4.43e11].map(count),
            ["0", "7", "0.25", "950", "1.50 k", "60.2 M", "443 G"]
        );
        assert_eq!([3.29, 12.34, 640.6, f64::NAN].map(factor), ["3.29x", "12.3x", "641x", "–"]);
        assert_eq!([percent(0.9344), percent(f64::NAN), bytes(f64::INFINITY)], ["93.4 %", "–", "–"]);
    }
}
