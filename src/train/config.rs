//! Everything a run can be told, as one value: read from TOML, overridden by flags, checked before anything starts.
//!
//! Each field states its unit, range and default. [`RunConfig::default`] is the paper's method (ScaDLES) on the
//! embedded data set with 8 devices at the S1 rates.

mod check;
mod compression;
mod defaults;
mod drift;
mod error;
mod load;
mod locate;
mod overrides;
mod schema;
mod source;
mod validate;

pub use crate::models::Stem;
pub use crate::nearest::nearest;
pub use compression::{
    CompressionConfig, DgcConfig, GateConfig, IndexCoding, TopKConfig, TopKScope, ValueCoding,
};
pub use drift::{DriftConfig, DriftReaction, PageHinkleyConfig};
pub use error::{ConfigError, Location, Problem};
pub use overrides::Override;
pub use source::SourceConfig;
pub(crate) use source::split_address;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One run: what is trained, on which data, by which cluster, with which method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunConfig {
    /// Name of the run in reports and folders. Default `scadles`.
    pub name: String,
    /// Seed of every random choice. Default 1234.
    pub seed: u64,
    /// Network to train.
    pub model: ModelConfig,
    /// Data set and how it is split over devices.
    pub data: DataConfig,
    /// Devices, their streams, links and speeds.
    pub cluster: ClusterConfig,
    /// Where the samples come from. Default: the data set, replayed.
    pub source: SourceConfig,
    /// How many samples each device trains on in a step.
    pub batch: BatchConfig,
    /// What happens to samples that a step leaves in the buffer.
    pub buffer: BufferConfig,
    /// How the gradients of devices are weighted.
    pub aggregation: Aggregation,
    /// Optimizer and learning rate.
    pub optimizer: OptimizerConfig,
    /// When devices synchronise.
    pub sync: SyncConfig,
    /// What devices send.
    pub compression: CompressionConfig,
    /// Sharing of samples between devices with skewed data.
    pub injection: InjectionConfig,
    /// Batch-norm statistics across devices.
    pub batch_norm: BatchNormStatistics,
    /// Detection of change in the streams.
    pub drift: DriftConfig,
    /// Length of the run, evaluation, output.
    pub run: LengthConfig,
}

/// Network to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelConfig {
    /// One of `scadles models`. Default `resnet20`.
    pub name: String,
    /// `cifar` (3x3 stride 1, no pooling) or `imagenet` (7x7 stride 2, max-pool). Default `cifar`.
    pub stem: Stem,
    /// Classes of the head; 0 takes the data set's. At least the data set's classes. Default 0.
    pub classes: usize,
    /// Multiplies every channel count, in (0, 4]. Default 1.
    pub width: f64,
    /// Initial parameters from a safetensors file. Default: random.
    pub weights: Option<PathBuf>,
}

/// Data set and its split over devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// Folder with CIFAR-10 or CIFAR-100 in the original binary layout; none: the embedded data set.
    pub dir: Option<PathBuf>,
    /// Training images of the embedded data set. Default 10000.
    pub embedded_train: usize,
    /// Test images of the embedded data set. Default 1000.
    pub embedded_test: usize,
    /// Random crop with padding 4 and horizontal flip. Default true.
    pub augment: bool,
    /// Split over devices.
    pub partition: Partition,
}

/// How training samples are split over devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Partition {
    /// Every device draws from all classes.
    #[default]
    Iid,
    /// Every device holds samples of this many classes only.
    Labels {
        /// Classes on one device, at least 1.
        labels_per_device: usize,
    },
    /// Class shares of a device drawn from a Dirichlet distribution.
    Dirichlet {
        /// Concentration, above 0: small is skewed, large is IID.
        alpha: f64,
    },
}

/// Devices, streams, links, speeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClusterConfig {
    /// Number of devices, 1 to 4096. Default 8.
    pub devices: usize,
    /// Stream rates.
    pub rates: RatesConfig,
    /// How samples arrive at those rates.
    pub arrivals: ArrivalConfig,
    /// `virtual` (exact, reproducible) or `real`. Default `virtual`.
    pub clock: ClockKind,
    /// Link of every device.
    pub link: LinkConfig,
    /// Compute speed of every device.
    pub compute: ComputeConfig,
    /// Where this process computes. Default `auto`.
    pub device: DeviceKind,
    /// Number format of activations and filters. Default `f32`.
    pub precision: Precision,
    /// A device that has not got its batch after this many seconds goes on with what it has; above 0, at most 1e9.
    /// Default 600.
    pub wait_limit_s: f64,
}

/// Stream rates: a published list by name or one number per device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RatesConfig {
    /// `S1`, `S2`, `S1'` or `S2'` (also `S1p`, `S2p`): the paper's list, sampled from its distribution beyond its length.
    Named(String),
    /// Samples per second of each device, or one number for all.
    List(Vec<f64>),
}

/// Arrival process of a stream with a given mean rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ArrivalConfig {
    /// Evenly spaced.
    #[default]
    Constant,
    /// Poisson process.
    Poisson,
    /// On and off phases of exponential length; the rate while on keeps the mean.
    Bursty {
        /// Mean length of an on phase, s.
        on_s: f64,
        /// Mean length of an off phase, s.
        off_s: f64,
    },
    /// Poisson process with a sinusoidal rate.
    Diurnal {
        /// Period, s.
        period_s: f64,
        /// Relative amplitude, 0 to 1.
        amplitude: f64,
    },
    /// Rates over time from a CSV file with columns `time_s,device,samples_per_s`; repeats after its end.
    Trace {
        /// The file.
        path: PathBuf,
    },
}

/// Time of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockKind {
    /// Computed: hours of a cluster in minutes, reproducible from the seed.
    #[default]
    Virtual,
    /// The wall clock; source threads feed lock-free rings.
    Real,
}

/// Link between devices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkConfig {
    /// Mbit/s of each device's link, 0.001 to 1e12. Default 5000.
    pub bandwidth_mbit_s: f64,
    /// One-way latency, ms, 0 to 1e6. Default 0.5.
    pub latency_ms: f64,
    /// Share of the bandwidth that a collective reaches, in [0.001, 1]. Default 0.65: calibrated on Fig. 4b.
    pub efficiency: f64,
}

/// Compute speed of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ComputeConfig {
    /// Calibrated on the paper's Fig. 6: one K80 a device.
    K80,
    /// Measured on this machine when the run starts (times differ between runs).
    Measured {
        /// How many times slower a device is than this machine, above 0, at most 1e6.
        slowdown: f64,
    },
    /// `overhead_s + batch * per_sample_s`, one value for all devices or one per device.
    Given {
        /// Fixed seconds per step, 0 to 1e6.
        overhead_s: Vec<f64>,
        /// Seconds per sample, 0 to 1e6.
        per_sample_s: Vec<f64>,
    },
}

/// Where this process computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A GPU if there is one that the program has kernels for, else the CPU.
    #[default]
    Auto,
    /// The CPU backend.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Number format of activations, their gradients and the filters that are multiplied with them. Sums, parameters,
/// statistics and gradients of parameters are f32 in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of f32, for tensor cores; needs a GPU.
    Bf16,
}

/// Samples per device and step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BatchConfig {
    /// Rule. Default `rate`.
    pub policy: BatchPolicy,
    /// Samples under `fixed`, and the base batch of learning-rate scaling. Default 64.
    pub size: usize,
    /// Smallest batch under `rate`. Default 8.
    pub min: usize,
    /// Largest batch. Default 1024.
    pub max: usize,
}

/// Rule for a device's batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchPolicy {
    /// The same batch everywhere; each device waits for it (DDL).
    Fixed,
    /// `b_i = S_i`, clamped; each device waits for it (ScaDLES).
    #[default]
    Rate,
    /// Whatever has arrived, at most `max`; nobody waits unless every buffer is empty.
    Available,
}

/// What happens to samples that a step leaves over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BufferConfig {
    /// Rule. Default `truncation`.
    pub policy: BufferPolicy,
    /// Memory for waiting samples of one device, MiB, at least 1. Default 256.
    pub memory_cap_mib: u64,
    /// Samples of one device kept by `truncation` (0: what one second brings) and `reservoir` (0: 1024). Default 0.
    pub keep: usize,
    /// Folder for samples beyond the cap under `persistence`. Default: a temporary folder.
    pub spill_dir: Option<PathBuf>,
}

/// Buffer rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BufferPolicy {
    /// Keep every sample until trained on; beyond the memory cap on disk, in order.
    Persistence,
    /// After a step keep only the newest.
    #[default]
    Truncation,
    /// A uniform random subset of what has arrived.
    Reservoir,
}

/// Weight of a device's gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// Share of the step's samples (paper eq. 4).
    #[default]
    BySamples,
    /// `1/N` for each device that has samples (DDL).
    Uniform,
}

/// Optimizer and learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OptimizerConfig {
    /// `sgd` or `lars`. Default `sgd`.
    pub kind: OptimizerKind,
    /// Learning rate of the base global batch (`batch.size` on each device), above 0. Default 0.2.
    pub lr: f64,
    /// In [0, 1). Default 0.9.
    pub momentum: f64,
    /// Nesterov momentum, `sgd` only. Default false.
    pub nesterov: bool,
    /// L2 penalty, at least 0. Default 1e-4.
    pub weight_decay: f64,
    /// LARS trust coefficient, above 0. Default 0.001.
    pub trust: f64,
    /// Multiply the learning rate by (samples of the step) / (base global batch). Default true.
    pub scale_lr: bool,
    /// Learning rate over the run. Default half a cosine.
    pub schedule: ScheduleConfig,
    /// Share of the run with a linear warm-up from a tenth, in [0, 1). Default 0.
    pub warmup: f64,
}

/// Optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// SGD with momentum.
    #[default]
    Sgd,
    /// Layer-wise adaptive rate scaling (1708.03888).
    Lars,
}

/// Learning rate over the run; positions are shares of it in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ScheduleConfig {
    /// No change.
    Constant,
    /// Multiplied by `factor` at each position.
    Step {
        /// In (0, 1].
        factor: f64,
        /// Ascending shares of the run, as epochs 75, 150, 225 of 300 are 0.25, 0.5, 0.75.
        at: Vec<f64>,
    },
    /// Half a cosine down to 0.
    Cosine,
}

/// When devices synchronise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum SyncConfig {
    /// Gradients are aggregated in each step.
    #[default]
    EveryStep,
    /// Local SGD / FedAvg: parameters are averaged every `steps` steps and after the last one, weighted by samples.
    Local {
        /// Steps between averages, at least 1.
        steps: usize,
    },
}

/// Data injection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct InjectionConfig {
    /// Share of the devices that give samples in a step, in [0, 1]. Default 0: off.
    pub alpha: f64,
    /// Share of its batch that a giving device shares, in [0, 1]. Default 0.
    pub beta: f64,
    /// What an injected batch does to the batch size. Default `selsync`.
    pub batch: InjectedBatch,
}

/// Batch size under injection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InjectedBatch {
    /// Shared samples come on top (the paper's rule).
    Paper,
    /// Each device takes `b / (1 + alpha beta N)` of its own, so that the sum stays about `b` (SelSync).
    #[default]
    Selsync,
}

/// Batch-norm running statistics across devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormStatistics {
    /// Every device keeps its own; the model is evaluated with device 0's, as PyTorch DDP does.
    Local,
    /// Means and variances of all devices are merged, weighted by samples, whenever the model is evaluated or saved.
    #[default]
    Merged,
}

/// Length of the run, evaluation, output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LengthConfig {
    /// Steps, at least 1. Default 120.
    pub steps: usize,
    /// Ends the run early after this many virtual (or real) seconds; 0: no limit. Default 0.
    pub max_time_s: f64,
    /// Ends the run early at this top-1 test accuracy, in (0, 1]; 0: never. Default 0.
    pub target_accuracy: f64,
    /// Steps between evaluations, at least 1. Default 20.
    pub eval_every: usize,
    /// Threads; 0: one per core. Default 0.
    pub threads: usize,
    /// Folder for metrics, report and final parameters. Default `runs/<name>`.
    pub out: Option<PathBuf>,
    /// Address of the live page, as `127.0.0.1:9464`; others than loopback need a token. Default: no page.
    pub serve: Option<String>,
    /// File with the live page's token. Default: the environment variable `SCADLES_TOKEN`, if set.
    pub serve_token_file: Option<PathBuf>,
    /// A run without a step or evaluation for this many seconds has stalled, says `/healthz`; above 0, at most 1e9.
    /// Default 300.
    pub stall_limit_s: f64,
}
