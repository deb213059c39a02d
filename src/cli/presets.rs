//! Named methods: what each changes in a base configuration.

use crate::train::config::{
    Aggregation, BatchPolicy, BufferPolicy, CompressionConfig, DgcConfig, RunConfig, SyncConfig, TopKConfig,
};

/// Names of the presets.
pub(super) const PRESETS: [&str; 4] = ["ddl", "scadles", "fedavg", "dgc"];

/// `base` with the method called `name`; None if there is no such preset.
pub(super) fn preset(base: &RunConfig, name: &str) -> Option<RunConfig> {
    let mut config = RunConfig { name: name.into(), sync: SyncConfig::EveryStep, ..base.clone() };
    match name {
        "ddl" => {
            config.batch.policy = BatchPolicy::Fixed;
            config.batch.max = config.batch.max.max(config.batch.size);
            config.aggregation = Aggregation::Uniform;
            config.buffer.policy = BufferPolicy::Persistence;
            config.compression = CompressionConfig::None;
            config.injection.alpha = 0.0;
            config.injection.beta = 0.0;
            config.optimizer.scale_lr = false;
        }
        "scadles" | "dgc" | "fedavg" => {
            config.batch.policy = BatchPolicy::Rate;
            config.aggregation = Aggregation::BySamples;
            config.buffer.policy = BufferPolicy::Truncation;
            config.optimizer.scale_lr = true;
            config.compression = match (name, config.compression) {
                ("scadles", own @ CompressionConfig::TopK(_)) => own,
                ("scadles", _) => CompressionConfig::TopK(TopKConfig::default()),
                ("dgc", own @ CompressionConfig::Dgc(_)) => own,
                ("dgc", _) => CompressionConfig::Dgc(DgcConfig::default()),
                _ => CompressionConfig::None,
            };
            if name == "fedavg" {
                config.sync = if let SyncConfig::Local { .. } = base.sync {
                    base.sync
                } else {
                    SyncConfig::Local { steps: 8 }
                };
            }
        }
        _ => return None,
    }
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_preset_of_each_preset_can_run() {
        for first in PRESETS {
            let base = preset(&RunConfig::default(), first).unwrap();
            for second in PRESETS {
                let config = preset(&base, second).unwrap();
                config.validate().unwrap_or_else(|error| panic!("{second} of {first}: {error}"));
                assert_eq!(
                    (config.name.as_str(), config.seed, &config.data),
                    (second, base.seed, &base.data)
                );
            }
        }
        assert!(preset(&RunConfig::default(), "other").is_none());
    }
}
