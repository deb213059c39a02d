//! Arrival processes: exact where they are deterministic, statistically right where they are random.

use super::support::model;
use scadles::stream::rates::{RateError, RateModel};
use scadles::train::config::{ArrivalConfig, RatesConfig};
use std::io::Write;
use std::time::Duration;
use tempfile::NamedTempFile;

fn ns(time: Duration) -> u128 {
    time.as_nanos()
}

/// Samples that arrive in `(from, to]`, s.
fn count(model: &RateModel, device: usize, from: f64, to: f64) -> usize {
    model
        .arrivals(device)
        .map(|time| time.as_secs_f64())
        .take_while(|time| *time <= to)
        .filter(|time| *time > from)
        .count()
}

#[test]
fn constant_arrivals_are_exact_and_never_drift() {
    let times: Vec<_> = model(4.0, ArrivalConfig::Constant, 1).arrivals(0).take(5).map(ns).collect();
    assert_eq!(times, [250_000_000, 500_000_000, 750_000_000, 1_000_000_000, 1_250_000_000]);
    for rate in [1u128, 3, 12, 38, 410, 999_983] {
        let mut arrivals = model(rate as f64, ArrivalConfig::Constant, 1).arrivals(0);
        for i in [0, 1, 6, 10_000_000] {
            let found = ns(arrivals.clone().nth(i).unwrap());
            let expected = ((i as u128 + 1) * 2_000_000_000 + rate) / (2 * rate);
            assert_eq!(found, expected, "rate {rate}, sample {i}");
        }
        assert_eq!(ns(arrivals.next().unwrap()), (2_000_000_000 + rate) / (2 * rate));
    }
    // Fractional and extreme rates.
    assert_eq!(ns(model(0.5, ArrivalConfig::Constant, 1).arrivals(0).nth(2).unwrap()), 6_000_000_000);
    assert_eq!(ns(model(1e9, ArrivalConfig::Constant, 1).arrivals(0).nth(9).unwrap()), 10);
    let mut slow = model(1e-6, ArrivalConfig::Constant, 1).arrivals(0);
    assert!((slow.next().unwrap().as_secs_f64() - 1e6).abs() < 1e-6);
    // 1e-6/s reaches the end of u64 nanoseconds after 18,446 samples, and then ends.
    assert_eq!(slow.count(), 18_445);
}

#[test]
fn every_process_keeps_its_mean_rate_and_order() {
    let processes = [
        ArrivalConfig::Constant,
        ArrivalConfig::Poisson,
        ArrivalConfig::Bursty { on_s: 0.5, off_s: 1.5 },
        ArrivalConfig::Bursty { on_s: 2.0, off_s: 0.0 },
        ArrivalConfig::Diurnal { period_s: 40.0, amplitude: 1.0 },
    ];
    for process in processes {
        let name = format!("{process:?}");
        let model = model(38.0, process, 20);
        let mut total = 0;
        for device in 0..20 {
            let times: Vec<_> = model.arrivals(device).take_while(|time| time.as_secs() < 400).collect();
            assert!(times.is_sorted(), "{name}");
            assert_eq!(times[..50], model.arrivals(device).take(50).collect::<Vec<_>>(), "{name}");
            total += times.len();
        }
        // 20 * 400 s * 38/s = 304,000. The burstiest has a standard deviation of about 1.5 % of that.
        assert!((total as f64 / 304_000.0 - 1.0).abs() < 0.05, "{name}: {total}");
        assert_eq!(model.mean(3).0, 38.0);
    }
}

#[test]
fn poisson_gaps_are_exponential() {
    let times: Vec<f64> =
        model(50.0, ArrivalConfig::Poisson, 2).arrivals(1).take(100_001).map(|t| t.as_secs_f64()).collect();
    let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) * 50.0).collect();
    for threshold in [0.1, 0.5, 1.0, 2.0, 4.0f64] {
        let share = gaps.iter().filter(|gap| **gap > threshold).count() as f64 / 1e5;
        assert!((share - (-threshold).exp()).abs() < 0.006, "P(gap > {threshold}) = {share}");
    }
    let devices = model(50.0, ArrivalConfig::Poisson, 2);
    assert_ne!(devices.arrivals(0).next(), devices.arrivals(1).next());
}

#[test]
fn bursts_have_silences_of_the_given_length() {
    let on_off = ArrivalConfig::Bursty { on_s: 1.0, off_s: 3.0 };
    let times: Vec<f64> =
        model(100.0, on_off, 1).arrivals(0).take(200_000).map(|t| t.as_secs_f64()).collect();
    // While on, 400/s: a gap over 0.05 s is a silence, but for one in 5e8.
    let silences: Vec<f64> =
        times.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0.05).collect();
    let mean = silences.iter().sum::<f64>() / silences.len() as f64;
    // About 500 silences of mean 3.05 (those below 0.05 are missing) and a standard deviation of 0.13 of their mean.
    assert!((mean - 3.05).abs() < 0.6, "{mean} over {}", silences.len());
    let per_second = times.len() as f64 / times[times.len() - 1];
    assert!((per_second - 100.0).abs() < 15.0, "{per_second}");
}

#[test]
fn diurnal_arrivals_follow_the_sinusoid() {
    let config = ArrivalConfig::Diurnal { period_s: 1000.0, amplitude: 0.8 };
    let model = model(200.0, config, 1);
    // Quarter periods around the peak and the trough: mean rates 200 (1 +- 0.8 * 2 sqrt(2) / pi).
    let swing = 0.8 * 2.0 * 2f64.sqrt() / std::f64::consts::PI;
    let high = count(&model, 0, 125.0, 375.0) as f64 / 250.0;
    let low = count(&model, 0, 625.0, 875.0) as f64 / 250.0;
    assert!((high / (200.0 * (1.0 + swing)) - 1.0).abs() < 0.02, "{high}");
    assert!((low / (200.0 * (1.0 - swing)) - 1.0).abs() < 0.05, "{low}");
    let arrivals = model.arrivals(0);
    assert!((arrivals.rate_at(Duration::from_secs(250)).0 - 360.0).abs() < 1e-9);
    assert!((arrivals.rate_at(Duration::from_secs(1750)).0 - 40.0).abs() < 1e-9);
}

fn trace(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn trace_model(file: &NamedTempFile, devices: usize) -> Result<RateModel, RateError> {
    let config = ArrivalConfig::Trace { path: file.path().into() };
    RateModel::new(&RatesConfig::Named("S1".into()), &config, devices, 1)
}

#[test]
fn traces_are_followed_and_repeat() {
    let file = trace(
        "time_s, device, samples_per_s\n# two devices\n0,0,2\n0,1,1\n\n10,0,0\n10,1,1\n15,0,4\n15,1,1\n5,7,3\n",
    );
    let model = trace_model(&file, 2).unwrap();
    // Period: 15 + (15 - 10) = 20 s. Device 0: 20 samples, a silence of 5 s, 20 samples.
    assert_eq!((model.mean(0).0, model.mean(1).0), (2.0, 1.0));
    let times: Vec<f64> = model.arrivals(0).take(85).map(|time| time.as_secs_f64()).collect();
    assert_eq!(times[..3], [0.5, 1.0, 1.5]);
    assert_eq!(times[18..22], [9.5, 10.0, 15.25, 15.5]);
    assert_eq!(times[39..42], [20.0, 20.5, 21.0]);
    assert_eq!(times[79..82], [40.0, 40.5, 41.0]);
    let arrivals = model.arrivals(0);
    let rates: Vec<f64> =
        [0, 9, 10, 14, 15, 19, 20, 52].map(|s| arrivals.rate_at(Duration::from_secs(s)).0).into();
    assert_eq!(rates, [2.0, 2.0, 0.0, 0.0, 4.0, 4.0, 2.0, 0.0]);
    // No drift: sample 4,000,000 ends period 100,000.
    assert_eq!(ns(arrivals.clone().nth(3_999_999).unwrap()), 2_000_000 * 1_000_000_000);
}

#[test]
fn traces_may_begin_late_be_silent_or_have_one_row() {
    let file = trace("5,0,2\n0,1,0\n0,2,3\n");
    let model = trace_model(&file, 3).unwrap();
    assert_eq!(model.arrivals(0).next(), Some(Duration::from_millis(5500)));
    assert_eq!(model.arrivals(1).next(), None);
    assert_eq!(count(&model, 2, 0.0, 100.0), 300);
    let one = trace_model(&trace("0,0,8"), 1).unwrap();
    assert_eq!(one.arrivals(0).nth(31), Some(Duration::from_secs(4)));
}

#[test]
fn bad_traces_name_the_line() {
    let cases = [
        ("0,0,1\n1,0\n", 2, "2 columns"),
        ("0,0,1\n\n1,x,1\n", 3, "device is \"x\""),
        ("0,0,-1\n", 1, "samples_per_s is \"-1\""),
        ("0,0,NaN\n", 1, "samples_per_s"),
        ("inf,0,1\n", 1, "time_s is \"inf\""),
        ("0,0,1\n0,0,2\n", 2, "after its row before"),
        ("0,0,1\ntime_s,device,samples_per_s\n", 2, "device is"),
    ];
    for (text, line, found) in cases {
        let error = trace_model(&trace(text), 1).unwrap_err();
        assert!(matches!(error, RateError::TraceLine { line: named, .. } if named == line), "{error}");
        assert!(error.to_string().contains(found) && error.to_string().contains("line"), "{error}");
    }
    let missing = trace_model(&trace("0,0,1\n0,2,1\n"), 3).unwrap_err();
    assert!(matches!(missing, RateError::TraceDevice { device: 1, devices: 3, .. }), "{missing}");
    let config = ArrivalConfig::Trace { path: "/nonexistent/trace.csv".into() };
    let unread = RateModel::new(&RatesConfig::List(vec![1.0]), &config, 1, 1).unwrap_err();
    assert!(matches!(unread, RateError::TraceRead { .. }), "{unread}");
}

#[test]
fn bad_processes_name_the_field() {
    let cases = [
        (ArrivalConfig::Bursty { on_s: 0.0, off_s: 1.0 }, "on-s"),
        (ArrivalConfig::Bursty { on_s: 1.0, off_s: -1.0 }, "off-s"),
        (ArrivalConfig::Bursty { on_s: f64::INFINITY, off_s: 1.0 }, "on-s"),
        (ArrivalConfig::Bursty { on_s: 1.0, off_s: 1e300 }, "off-s"),
        (ArrivalConfig::Bursty { on_s: 1e-3, off_s: 1e8 }, "rate while on"),
        (ArrivalConfig::Diurnal { period_s: 0.0, amplitude: 0.5 }, "period-s"),
        // The phase of so short a period is NaN, which no arrival passes.
        (ArrivalConfig::Diurnal { period_s: 1e-310, amplitude: 0.5 }, "period-s"),
        (ArrivalConfig::Diurnal { period_s: 1e10, amplitude: 0.5 }, "period-s"),
        (ArrivalConfig::Diurnal { period_s: 9.0, amplitude: 1.5 }, "amplitude"),
        (ArrivalConfig::Diurnal { period_s: 9.0, amplitude: f64::NAN }, "amplitude"),
    ];
    for (config, field) in cases {
        let error = RateModel::new(&RatesConfig::List(vec![100.0]), &config, 1, 1).unwrap_err();
        assert!(matches!(error, RateError::Arrival { field: named, .. } if named == field), "{error}");
    }
}
