//! Run records -> the numbers people ask for: of one run, and of several side by side.

use crate::metrics::record::{EndReason, EvalRecord, RunRecord, StepRecord};
use serde::Serialize;

/// One run in numbers. Accuracies are shares, 0 to 1; NaN (JSON `null`) where there was no evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Name from the configuration.
    pub name: String,
    /// Why it ended.
    pub end: EndReason,
    /// Steps done.
    pub steps: u64,
    /// Cluster time, s.
    pub time_s: f64,
    /// Wall time, s.
    pub wall_s: f64,
    /// Top-1 accuracy of the last evaluation.
    pub final_top1: f64,
    /// Best top-1 accuracy.
    pub best_top1: f64,
    /// Top-5 accuracy of the last evaluation.
    pub final_top5: f64,
    /// Best top-5 accuracy.
    pub best_top5: f64,
    /// Training samples of all devices and steps.
    pub trained_samples: u64,
    /// Gradient bytes sent by all devices.
    pub sent_bytes: u64,
    /// Gradient bytes that dense aggregation would have sent.
    pub dense_bytes: u64,
    /// Bytes of samples shared by data injection.
    pub injected_bytes: u64,
    /// Changes found in the streams.
    pub drifts: u64,
    /// Most samples that waited on all devices together after a step.
    pub max_buffer_samples: u64,
    /// Bytes of those samples.
    pub max_buffer_bytes: u64,
    /// Samples that waited on all devices together after the last step.
    pub final_buffer_samples: u64,
    /// Bytes of those samples.
    pub final_buffer_bytes: u64,
    /// Samples dropped by all devices.
    pub dropped_samples: u64,
    /// Share of the steps that sent compressed payloads.
    pub cnc_ratio: f64,
    /// CRC-32 of the final parameters.
    pub parameters_crc32: u32,
}

/// An accuracy that several runs were asked to reach, and when each did.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// Which accuracy.
    pub metric: Metric,
    /// Why this value: `lower final accuracy`, or empty for a round number.
    pub reason: &'static str,
    /// The accuracy, 0 to 1.
    pub accuracy: f64,
    /// Cluster time at which each run reached it, s.
    pub time_s: Vec<Option<f64>>,
    /// Time of the first run / time of each run: above 1 is sooner than the first.
    pub speedup: Vec<Option<f64>>,
    /// Gradient bytes that each run had sent by then.
    pub sent_bytes: Vec<Option<u64>>,
}

/// Accuracy among the best one or the best five guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// The best guess is right.
    #[serde(rename = "top-1")]
    Top1,
    /// One of the best five guesses is right.
    #[serde(rename = "top-5")]
    Top5,
}

/// Several runs side by side; the first is the one that others are measured against.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The runs, in the order given.
    pub runs: Vec<RunSummary>,
    /// Accuracies reached by all or some of them.
    pub targets: Vec<Target>,
}

impl Metric {
    /// The accuracy in an evaluation.
    pub fn of(self, eval: &EvalRecord) -> f64 {
        match self {
            Self::Top1 => eval.top1,
            Self::Top5 => eval.top5,
        }
    }

    /// `top-1` or `top-5`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top1 => "top-1",
            Self::Top5 => "top-5",
        }
    }
}

impl RunSummary {
    /// The numbers of `run`.
    pub fn new(run: &RunRecord) -> Self {
        let last = run.steps.last();
        let best = |metric: Metric| run.evals.iter().map(|eval| metric.of(eval)).fold(f64::NAN, f64::max);
        let end = |metric: Metric| run.evals.last().map_or(f64::NAN, |eval| metric.of(eval));
        let fullest = run.steps.iter().max_by_key(|step| total(&step.occupancy_samples));
        let held = |step: Option<&StepRecord>| {
            step.map_or((0, 0), |step| (total(&step.occupancy_samples), total(&step.occupancy_bytes)))
        };
        let (max_buffer_samples, max_buffer_bytes) = held(fullest);
        let (final_buffer_samples, final_buffer_bytes) = held(last);
        let sum = |field: fn(&StepRecord) -> u64| run.steps.iter().map(field).fold(0, u64::saturating_add);
        Self {
            name: run.config.name.clone(),
            end: run.end,
            steps: run.steps.len() as u64,
            time_s: last.map_or(0.0, |step| step.time_s),
            wall_s: last.map_or(0.0, |step| step.wall_s),
            final_top1: end(Metric::Top1),
            best_top1: best(Metric::Top1),
            final_top5: end(Metric::Top5),
            best_top5: best(Metric::Top5),
            trained_samples: sum(|step| step.global_batch),
            sent_bytes: sum(|step| step.sent_bytes),
            dense_bytes: sum(|step| step.dense_bytes),
            injected_bytes: sum(|step| step.injected_bytes),
            drifts: sum(|step| step.drift.len() as u64),
            max_buffer_samples,
            max_buffer_bytes,
            final_buffer_samples,
            final_buffer_bytes,
            dropped_samples: last.map_or(0, |step| total(&step.dropped_samples)),
            cnc_ratio: run.cnc_ratio(),
            parameters_crc32: run.parameters_crc32,
        }
    }
}

impl Comparison {
    /// Compares `runs` with the first of them.
    pub fn new(runs: &[RunRecord]) -> Self {
        let summaries: Vec<RunSummary> = runs.iter().map(RunSummary::new).collect();
        let mut targets = Vec::new();
        for metric in [Metric::Top1, Metric::Top5] {
            let lowest = |of: fn(&RunSummary, Metric) -> f64| {
                summaries.iter().map(|run| of(run, metric)).filter(|share| share.is_finite()).reduce(f64::min)
            };
            let best =
                |run: &RunSummary, metric| if metric == Metric::Top1 { run.best_top1 } else { run.best_top5 };
            let end = |run: &RunSummary, metric| {
                if metric == Metric::Top1 { run.final_top1 } else { run.final_top5 }
            };
            let (Some(lower_final), Some(lower_best)) = (lowest(end), lowest(best)) else { continue };
            let round = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95].into_iter().filter(|&share| share <= lower_best);
            let mut wanted: Vec<(f64, &'static str)> = round.map(|share| (share, "")).collect();
            // Tables stay short: the three highest round numbers.
            wanted.drain(..wanted.len().saturating_sub(3));
            wanted.push((lower_final, "lower final accuracy"));
            wanted.sort_by(|a, b| a.0.total_cmp(&b.0));
            targets.extend(
                wanted.into_iter().map(|(accuracy, reason)| Target::new(runs, metric, accuracy, reason)),
            );
        }
        Self { runs: summaries, targets }
    }

    /// The top-1 target at the lower of the final accuracies, the fair one between runs that end differently.
    pub fn headline(&self) -> Option<&Target> {
        self.targets.iter().find(|target| target.metric == Metric::Top1 && !target.reason.is_empty())
    }
}

impl Target {
    fn new(runs: &[RunRecord], metric: Metric, accuracy: f64, reason: &'static str) -> Self {
        let reached: Vec<Option<&EvalRecord>> =
            runs.iter().map(|run| run.evals.iter().find(|eval| metric.of(eval) >= accuracy)).collect();
        let first = reached.first().copied().flatten();
        let time_s: Vec<Option<f64>> = reached.iter().map(|eval| eval.map(|eval| eval.time_s)).collect();
        let speedup = reached.iter().map(|eval| Some(first?.time_s / (*eval)?.time_s)).collect();
        let sent_until = |run: &RunRecord, last: u64| {
            let sent = run.steps.iter().take_while(|step| step.step <= last).map(|step| step.sent_bytes);
            sent.fold(0, u64::saturating_add)
        };
        let sent_bytes = runs
            .iter()
            .zip(&reached)
            .map(|(run, eval)| eval.map(|eval| sent_until(run, eval.step)))
            .collect();
        Self { metric, reason, accuracy, time_s, speedup, sent_bytes }
    }
}

/// Sum over devices; saturates, as a record read from a file may hold anything.
pub(crate) fn total(per_device: &[u64]) -> u64 {
    per_device.iter().fold(0, |sum, &value| sum.saturating_add(value))
}
