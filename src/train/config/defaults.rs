//! The default of every section: the paper's method on the embedded data set.

use super::{
    Aggregation, ArrivalConfig, BatchConfig, BatchNormStatistics, BatchPolicy, BufferConfig, BufferPolicy,
    ClockKind, ClusterConfig, CompressionConfig, ComputeConfig, DataConfig, DeviceKind, DgcConfig,
    DriftConfig, GateConfig, IndexCoding, InjectionConfig, LengthConfig, LinkConfig, ModelConfig,
    OptimizerConfig, OptimizerKind, Partition, Precision, RatesConfig, RunConfig, ScheduleConfig,
    SourceConfig, Stem, SyncConfig, TopKConfig, TopKScope, ValueCoding,
};

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            name: "scadles".into(),
            seed: 1234,
            model: ModelConfig::default(),
            data: DataConfig::default(),
            cluster: ClusterConfig::default(),
            source: SourceConfig::Replay,
            batch: BatchConfig::default(),
            buffer: BufferConfig::default(),
            aggregation: Aggregation::BySamples,
            optimizer: OptimizerConfig::default(),
            sync: SyncConfig::EveryStep,
            compression: CompressionConfig::TopK(TopKConfig::default()),
            injection: InjectionConfig::default(),
            batch_norm: BatchNormStatistics::Merged,
            drift: DriftConfig::Off,
            run: LengthConfig::default(),
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { name: "resnet20".into(), stem: Stem::Cifar, classes: 0, width: 1.0, weights: None }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dir: None,
            embedded_train: 10_000,
            embedded_test: 1_000,
            augment: true,
            partition: Partition::Iid,
        }
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            devices: 8,
            rates: RatesConfig::Named("S1".into()),
            arrivals: ArrivalConfig::Constant,
            clock: ClockKind::Virtual,
            link: LinkConfig::default(),
            compute: ComputeConfig::K80,
            device: DeviceKind::Auto,
            precision: Precision::F32,
            wait_limit_s: 600.0,
        }
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { bandwidth_mbit_s: 5000.0, latency_ms: 0.5, efficiency: 0.65 }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { policy: BatchPolicy::Rate, size: 64, min: 8, max: 1024 }
    }
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self { policy: BufferPolicy::Truncation, memory_cap_mib: 256, keep: 0, spill_dir: None }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            lr: 0.2,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-4,
            trust: 0.001,
            scale_lr: true,
            schedule: ScheduleConfig::Cosine,
            warmup: 0.0,
        }
    }
}

impl Default for TopKConfig {
    fn default() -> Self {
        Self {
            density: 0.1,
            scope: TopKScope::Vector,
            error_feedback: true,
            gate: GateConfig::Paper { delta: 0.3, ewma: 0.1 },
            values: ValueCoding::F32,
            indices: IndexCoding::Smallest,
        }
    }
}

impl Default for DgcConfig {
    fn default() -> Self {
        Self { density: 0.001, warmup: 0.1, clip_norm: 1.0, values: ValueCoding::F32 }
    }
}

impl Default for LengthConfig {
    fn default() -> Self {
        Self {
            steps: 120,
            max_time_s: 0.0,
            target_accuracy: 0.0,
            eval_every: 20,
            threads: 0,
            out: None,
            serve: None,
            serve_token_file: None,
            stall_limit_s: 300.0,
        }
    }
}
