//! What a step, an evaluation and a run report: one flat record each, units in the field names.

use crate::train::config::RunConfig;
use serde::{Deserialize, Deserializer, Serialize};

/// One training step over all devices. Vectors have one entry per device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: u64,
    /// Cluster time at the end of the step, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub time_s: f64,
    /// Wall time since the run began, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub wall_s: f64,
    /// Length of the step in cluster time, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub step_s: f64,
    /// Longest wait for samples, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub wait_s: f64,
    /// Longest forward and backward of a device; on the wall clock that of all devices of this process together, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub compute_s: f64,
    /// Communication, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub comm_s: f64,
    /// Mean cross-entropy over all samples of the step, nats.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// Share of the step's training samples classified right.
    #[serde(deserialize_with = "null_as_nan")]
    pub train_top1: f64,
    /// Samples of all devices.
    pub global_batch: u64,
    /// Learning rate applied.
    #[serde(deserialize_with = "null_as_nan")]
    pub lr: f64,
    /// Euclidean norm of the aggregated gradient.
    #[serde(deserialize_with = "null_as_nan")]
    pub grad_norm: f64,
    /// Whether the step sent compressed payloads.
    pub compressed: bool,
    /// Devices that voted to compress.
    pub votes: u64,
    /// Mean of the devices' averaged gate values, weighted as their gradients: what is compared with delta.
    #[serde(deserialize_with = "null_as_nan")]
    pub gate_value: f64,
    /// Gradient elements sent by all devices.
    pub sent_elements: u64,
    /// Bytes sent by all devices, headers and indices included.
    pub sent_bytes: u64,
    /// Bytes received by all devices.
    pub received_bytes: u64,
    /// Bytes that dense aggregation would have sent.
    pub dense_bytes: u64,
    /// Samples shared by data injection.
    pub injected_samples: u64,
    /// Bytes of samples shared by data injection, each sample counted once.
    pub injected_bytes: u64,
    /// Samples trained on.
    pub local_batch: Vec<u64>,
    /// Samples waiting after the step.
    pub occupancy_samples: Vec<u64>,
    /// Bytes of those samples.
    pub occupancy_bytes: Vec<u64>,
    /// Samples dropped so far.
    pub dropped_samples: Vec<u64>,
    /// Samples that have arrived so far.
    pub arrived_samples: Vec<u64>,
    /// Mean cross-entropy over the samples of each device of this process, nats; not a number without samples.
    #[serde(default, deserialize_with = "nulls_as_nan")]
    pub device_loss: Vec<f64>,
    /// Samples that each device has been trained on so far, those of its own stream.
    #[serde(default)]
    pub taken_samples: Vec<u64>,
    /// Messages so far that were no samples.
    #[serde(default)]
    pub dead_lettered_samples: Vec<u64>,
    /// Samples that wait outside, in a broker.
    #[serde(default)]
    pub lag_samples: Vec<u64>,
    /// Age of the oldest waiting sample, s: 0 if none waits, not a number if all wait on disk or are being moved.
    #[serde(default, deserialize_with = "nulls_as_nan")]
    pub oldest_age_s: Vec<f64>,
    /// Changes of streams found in this step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<DriftRecord>,
}

/// A device's stream has changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriftRecord {
    /// The device.
    pub device: u64,
    /// In what.
    pub kind: DriftKind,
    /// What was compared with the threshold: the sum of the Page-Hinkley test, or the total variation of the labels.
    pub value: f64,
    /// The threshold; for labels that above chance.
    pub threshold: f64,
}

/// What of a stream has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftKind {
    /// The loss on its samples.
    Loss,
    /// The shares of its classes.
    Labels,
}

impl DriftKind {
    /// `loss` or `labels`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Labels => "labels",
        }
    }
}

/// One evaluation on the test set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Step after which it was made.
    pub step: u64,
    /// Cluster time, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub time_s: f64,
    /// Wall time, s.
    #[serde(deserialize_with = "null_as_nan")]
    pub wall_s: f64,
    /// Mean cross-entropy, nats.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// Top-1 accuracy, 0 to 1.
    #[serde(deserialize_with = "null_as_nan")]
    pub top1: f64,
    /// Top-5 accuracy, 0 to 1.
    #[serde(deserialize_with = "null_as_nan")]
    pub top5: f64,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// All steps are done.
    Steps,
    /// The time limit was reached.
    Time,
    /// The target accuracy was reached.
    Target,
    /// The user asked for it.
    Interrupted,
    /// The loss is no longer finite.
    Diverged,
}

/// A finished run: what `report` and `compare` read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of the program.
    pub version: String,
    /// The configuration as run.
    pub config: RunConfig,
    /// `cifar10`, `cifar100` or `embedded`.
    pub data_set: String,
    /// Classes of the data set.
    pub classes: usize,
    /// Trainable parameters.
    pub parameters: u64,
    /// What computed the steps, as in `NVIDIA H200, bf16`; empty in files of earlier versions.
    #[serde(default)]
    pub computed_on: String,
    /// Mean stream rate per device, samples/s.
    pub rates: Vec<f64>,
    /// Why it ended.
    pub end: EndReason,
    /// All steps.
    pub steps: Vec<StepRecord>,
    /// All evaluations.
    pub evals: Vec<EvalRecord>,
    /// CRC-32 of the final parameters' bytes: equal for equal runs.
    pub parameters_crc32: u32,
}

impl RunRecord {
    /// Share of the steps that sent compressed payloads (the paper's CNC ratio); 0 without steps.
    pub fn cnc_ratio(&self) -> f64 {
        let compressed = self.steps.iter().filter(|step| step.compressed).count();
        compressed as f64 / self.steps.len().max(1) as f64
    }

    /// First cluster time at which the test top-1 accuracy reached `top1`, s.
    pub fn time_to_accuracy_s(&self, top1: f64) -> Option<f64> {
        self.evals.iter().find(|eval| eval.top1 >= top1).map(|eval| eval.time_s)
    }

    /// Best top-1 accuracy of all evaluations; 0 without any.
    pub fn best_top1(&self) -> f64 {
        self.evals.iter().map(|eval| eval.top1).fold(0.0, f64::max)
    }

    /// Gradient and sample bytes sent by all devices in the whole run.
    pub fn total_sent_bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.sent_bytes).sum()
    }
}

/// Something that happened in a run, as sinks see it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// The run begins.
    Start {
        /// Its configuration.
        config: &'a RunConfig,
        /// Trainable parameters.
        parameters: u64,
        /// Data set.
        data_set: &'a str,
        /// What computes the steps.
        computed_on: &'a str,
    },
    /// Something that the user may not have meant.
    Warning {
        /// What, and what to do.
        text: &'a str,
    },
    /// A step is done.
    Step(&'a StepRecord),
    /// An evaluation is done.
    Eval(&'a EvalRecord),
    /// The run ended.
    End {
        /// Why.
        end: EndReason,
        /// Best top-1 accuracy.
        best_top1: f64,
    },
}

fn nulls_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

/// JSON has no NaN and no infinity: they are written as `null` and read back as NaN.
fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
