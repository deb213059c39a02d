//! Run records -> charts. The same functions serve one run and several on the same axes.

use crate::metrics::plot::{Chart, Mark, Rule, Series, Unit};
use crate::metrics::record::{EvalRecord, RunRecord, StepRecord};
use crate::metrics::summary::{Metric, total};
use crate::train::config::{CompressionConfig, GateConfig};

/// Devices drawn one by one; more are drawn as lowest, mean and highest.
const SINGLE_DEVICES: usize = 10;

/// What runs along the horizontal axis.
#[derive(Clone, Copy)]
pub(super) enum Over {
    ClusterTime,
    WallTime,
    Steps,
    SentBytes,
}

impl Over {
    fn axis(self) -> (&'static str, Unit) {
        match self {
            Self::ClusterTime => ("cluster time", Unit::Seconds),
            Self::WallTime => ("wall time", Unit::Seconds),
            Self::Steps => ("step", Unit::Count),
            Self::SentBytes => ("gradient bytes sent", Unit::Bytes),
        }
    }

    fn words(self) -> &'static str {
        self.axis().0
    }

    fn of_step(self, step: &StepRecord, sent_bytes: f64) -> f64 {
        match self {
            Self::ClusterTime => step.time_s,
            Self::WallTime => step.wall_s,
            Self::Steps => step.step as f64,
            Self::SentBytes => sent_bytes,
        }
    }

    fn of_eval(self, run: &RunRecord, eval: &EvalRecord) -> f64 {
        match self {
            Self::ClusterTime => eval.time_s,
            Self::WallTime => eval.wall_s,
            Self::Steps => eval.step as f64,
            Self::SentBytes => {
                let sent = run.steps.iter().take_while(|step| step.step <= eval.step);
                sent.map(|step| step.sent_bytes as f64).sum()
            }
        }
    }
}

/// Test accuracy of each run; of a single run both top-1 and top-5.
pub(super) fn accuracy(runs: &[RunRecord], metric: Option<Metric>, over: Over) -> Chart {
    let evals = |run: &RunRecord, metric: Metric| -> Vec<(f64, f64)> {
        run.evals.iter().map(|eval| (over.of_eval(run, eval), metric.of(eval))).collect()
    };
    let (title, series) = match metric {
        Some(metric) => {
            let lines = runs
                .iter()
                .enumerate()
                .map(|(i, run)| Series::line(name(run), i, evals(run, metric)).marked(Mark::DotLine));
            let by = if matches!(over, Over::SentBytes) { " by bytes sent" } else { "" };
            (format!("Test accuracy, {}{by}", metric.name()), lines.collect())
        }
        None => {
            let lines = runs.iter().flat_map(|run| {
                [Metric::Top1, Metric::Top5].into_iter().enumerate().map(move |(i, metric)| {
                    Series::line(metric.name(), i, evals(run, metric)).marked(Mark::DotLine)
                })
            });
            ("Test accuracy".to_string(), lines.collect())
        }
    };
    let description = format!("Share of test images classified right, over {}.", over.words());
    Chart { include_y: vec![0.0], ..chart(title, description, over.axis(), Unit::Percent, series) }
}

/// Training loss (raw and smoothed) and test loss.
pub(super) fn loss(runs: &[RunRecord], over: Over) -> Chart {
    let mut series = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let points = per_step(run, over, |step| step.loss);
        let test = run.evals.iter().map(|eval| (over.of_eval(run, eval), eval.loss)).collect();
        if let [_] = runs {
            series.push(Series::line("", i, points.clone()).marked(Mark::Faint));
            series.push(Series::line("training", i, smoothed(&points)));
            series.push(Series::line("test", i + 1, test).marked(Mark::DotLine));
        } else {
            series.push(Series::line(name(run), i, smoothed(&points)));
        }
    }
    let title = if runs.len() == 1 { "Loss" } else { "Training loss, smoothed" };
    let description = format!("Mean cross-entropy in nats, over {}.", over.words());
    chart(title, description, over.axis(), Unit::Plain, series)
}

/// Samples that each device trained on.
pub(super) fn batches(run: &RunRecord) -> Chart {
    let series = per_device(run, |step| &step.local_batch);
    let description = "Samples that each device trained on, per step.";
    chart("Batch per device, samples", description, Over::Steps.axis(), Unit::Count, series)
}

/// Samples that waited on each device.
pub(super) fn buffers(run: &RunRecord) -> Chart {
    let series = per_device(run, |step| &step.occupancy_samples);
    let description = "Samples waiting in the buffer of each device after a step.";
    let chart =
        chart("Waiting samples per device", description, Over::ClusterTime.axis(), Unit::Count, series);
    retime(chart, run)
}

/// Samples that waited on all devices together.
pub(super) fn total_buffers(runs: &[RunRecord]) -> Chart {
    let held = |step: &StepRecord| total(&step.occupancy_samples) as f64;
    let description = "Samples waiting in the buffers of all devices after a step; powers of ten.";
    let series = lines(runs, Over::ClusterTime, held);
    let title = "Waiting samples, all devices";
    Chart { log_y: true, ..chart(title, description, Over::ClusterTime.axis(), Unit::Count, series) }
}

/// Bytes sent in each step, beside what dense aggregation would have sent.
pub(super) fn bytes(runs: &[RunRecord]) -> Chart {
    let description = "Gradient bytes that all devices sent per step; powers of ten.";
    let mut series = lines(runs, Over::Steps, |step| step.sent_bytes as f64);
    if let [run] = runs {
        series[0].name = "sent".into();
        let dense = per_step(run, Over::Steps, |step| step.dense_bytes as f64);
        series.push(Series::line("dense would be", 8, dense).marked(Mark::Dashed));
        if run.steps.iter().any(|step| step.injected_bytes > 0) {
            let shared = per_step(run, Over::Steps, |step| step.injected_bytes as f64);
            series.push(Series::line("shared samples", 1, shared));
        }
    }
    Chart { log_y: true, ..chart("Bytes per step", description, Over::Steps.axis(), Unit::Bytes, series) }
}

/// Bytes sent until each moment.
pub(super) fn total_bytes(runs: &[RunRecord]) -> Chart {
    let series = runs.iter().enumerate().map(|(i, run)| {
        let mut sum = 0.0;
        let points = run.steps.iter().map(|step| {
            sum += step.sent_bytes as f64;
            (step.time_s, sum)
        });
        Series::line(name(run), i, points.collect())
    });
    let description = "Gradient bytes that all devices sent since the run began.";
    let chart =
        chart("Bytes sent so far", description, Over::ClusterTime.axis(), Unit::Bytes, series.collect());
    Chart { include_y: vec![0.0], ..chart }
}

/// The gate's value against its threshold, and what was decided. None if the run has no gate.
pub(super) fn gate(run: &RunRecord) -> Option<Chart> {
    let CompressionConfig::TopK(top_k) = run.config.compression else { return None };
    let (GateConfig::Paper { delta, .. } | GateConfig::Reference { delta }) = top_k.gate else { return None };
    let points = |compressed: bool| {
        let steps = run.steps.iter().filter(|step| step.compressed == compressed);
        steps.map(|step| (step.step as f64, step.gate_value)).collect()
    };
    let series = vec![
        Series::line("", 8, per_step(run, Over::Steps, |step| step.gate_value)).marked(Mark::Faint),
        Series::line("sent compressed", 0, points(true)).marked(Mark::Dots),
        Series::line("sent dense", 1, points(false)).marked(Mark::Dots),
    ];
    let description = "Averaged loss of gradient norm by compression, per step, against the threshold delta; each dot \
                       is a decision.";
    let mut chart = chart("Gate, mean over devices", description, Over::Steps.axis(), Unit::Plain, series);
    chart.rules.push(Rule { name: format!("delta {delta}"), y: delta });
    chart.include_y.push(0.0);
    Some(chart)
}

/// Learning rate of each step.
pub(super) fn lr(run: &RunRecord) -> Chart {
    let series = vec![Series::line("learning rate", 0, per_step(run, Over::Steps, |step| step.lr))];
    let description = "Learning rate applied, after schedule, warm-up and scaling by the global batch.";
    let chart = chart("Learning rate", description, Over::Steps.axis(), Unit::Plain, series);
    Chart { include_y: vec![0.0], ..chart }
}

/// Where the time of a step goes.
pub(super) fn step_time(run: &RunRecord) -> Chart {
    let part = |name: &str, color, field: fn(&StepRecord) -> f64| {
        Series::line(name, color, per_step(run, Over::Steps, field))
    };
    let series = vec![
        part("whole step", 8, |step| step.step_s).marked(Mark::Dashed),
        part("longest wait", 1, |step| step.wait_s),
        part("longest compute", 0, |step| step.compute_s),
        part("communication", 2, |step| step.comm_s),
    ];
    let description =
        "Cluster time of each step and of its parts; waiting overlaps the compute of faster devices.";
    chart("Time per step, s", description, Over::Steps.axis(), Unit::Plain, series)
}

/// Length of each step, smoothed.
pub(super) fn step_times(runs: &[RunRecord]) -> Chart {
    let series = runs.iter().enumerate().map(|(i, run)| {
        Series::line(name(run), i, smoothed(&per_step(run, Over::Steps, |step| step.step_s)))
    });
    let description = "Cluster time of each step, smoothed.";
    let chart = chart("Time per step, s", description, Over::Steps.axis(), Unit::Plain, series.collect());
    Chart { include_y: vec![0.0], ..chart }
}

fn chart(
    title: impl Into<String>,
    description: impl Into<String>,
    x: (&'static str, Unit),
    y: Unit,
    series: Vec<Series>,
) -> Chart {
    let (title, description) = (title.into(), description.into());
    Chart { title, description, x, y, log_y: false, include_y: Vec::new(), series, rules: Vec::new() }
}

fn name(run: &RunRecord) -> String {
    super::short_name(&run.config.name)
}

fn per_step(run: &RunRecord, over: Over, value: impl Fn(&StepRecord) -> f64) -> Vec<(f64, f64)> {
    let mut sent = 0.0;
    let point = |step: &StepRecord| {
        sent += step.sent_bytes as f64;
        (over.of_step(step, sent), value(step))
    };
    run.steps.iter().map(point).collect()
}

fn lines(runs: &[RunRecord], over: Over, value: impl Fn(&StepRecord) -> f64 + Copy) -> Vec<Series> {
    let line = |(i, run): (usize, &RunRecord)| Series::line(name(run), i, per_step(run, over, value));
    runs.iter().enumerate().map(line).collect()
}

/// Exponential average over about a twentieth of the points, restarted after a gap.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let share = (20.0 / points.len().max(1) as f64).clamp(0.02, 1.0);
    let mut mean = f64::NAN;
    let smooth = |&(x, y): &(f64, f64)| {
        mean = if mean.is_finite() && y.is_finite() { mean + share * (y - mean) } else { y };
        (x, mean)
    };
    points.iter().map(smooth).collect()
}

/// One line per device, or lowest, mean and highest of many, over steps.
fn per_device(run: &RunRecord, values: impl Fn(&StepRecord) -> &Vec<u64>) -> Vec<Series> {
    let devices = run.steps.iter().map(|step| values(step).len()).max().unwrap_or(0);
    let points = |of: &dyn Fn(&[u64]) -> f64| -> Vec<(f64, f64)> {
        run.steps.iter().map(|step| (step.step as f64, of(values(step)))).collect()
    };
    if devices <= SINGLE_DEVICES {
        let device = |d: usize| {
            let value = move |list: &[u64]| list.get(d).map_or(f64::NAN, |&value| value as f64);
            Series::line(format!("d{d}"), d, points(&value))
        };
        return (0..devices).map(device).collect();
    }
    let extreme = |value: Option<&u64>| value.map_or(f64::NAN, |&value| value as f64);
    vec![
        Series::line("highest", 1, points(&|list| extreme(list.iter().max()))),
        Series::line("mean", 0, points(&|list| total(list) as f64 / list.len() as f64)),
        Series::line("lowest", 2, points(&|list| extreme(list.iter().min()))),
    ]
}

/// Moves a chart over steps to cluster time.
fn retime(mut chart: Chart, run: &RunRecord) -> Chart {
    for series in &mut chart.series {
        series.points.iter_mut().zip(&run.steps).for_each(|(point, step)| point.0 = step.time_s);
    }
    chart
}
