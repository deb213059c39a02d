//! Flags that change a configuration, shared by `run` and `compare`.

use crate::train::config::{ConfigError, Location, Override, Problem};
use clap::Args;
use std::path::PathBuf;

/// Changes of the configuration; each is checked like a value in the file.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Configuration (wins over the file)")]
pub struct ConfigFlags {
    /// Name of the run
    #[arg(long)]
    name: Option<String>,
    /// Steps to train
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    steps: Option<String>,
    /// End after this many seconds of cluster time
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    max_time: Option<String>,
    /// End at this top-1 test accuracy, 0 to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    target_accuracy: Option<String>,
    /// Steps between evaluations
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    eval_every: Option<String>,
    /// Number of devices
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    devices: Option<String>,
    /// Stream rates: S1, S2, S1', S2' (or S1p, S2p), or numbers as 50,38,12
    #[arg(long, value_name = "LIST", allow_negative_numbers = true)]
    rates: Option<String>,
    /// Network, see `scadles models`
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// First layers: cifar or imagenet
    #[arg(long, value_name = "STEM")]
    stem: Option<String>,
    /// Folder with CIFAR-10 or CIFAR-100, binary version [default: embedded data set]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Split of the data: iid, labels:1, dirichlet:0.3
    #[arg(long, value_name = "SPLIT")]
    partition: Option<String>,
    /// Seed of every random choice
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<String>,
    /// Base learning rate
    #[arg(long, value_name = "LR", allow_negative_numbers = true)]
    lr: Option<String>,
    /// Rule for a device's batch: fixed, rate, available
    #[arg(long, value_name = "RULE")]
    batch_policy: Option<String>,
    /// What devices send: none, top-k, dgc
    #[arg(long, value_name = "KIND")]
    compression: Option<String>,
    /// Share of the gradient that compression keeps
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    density: Option<String>,
    /// Threshold of the compression gate
    #[arg(long, value_name = "DELTA", allow_negative_numbers = true)]
    delta: Option<String>,
    /// Data injection: share of devices, share of their batch
    #[arg(long, value_name = "ALPHA,BETA", allow_negative_numbers = true)]
    injection: Option<String>,
    /// virtual or real
    #[arg(long, value_name = "CLOCK")]
    clock: Option<String>,
    /// Where to compute: auto, cpu, cuda
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Number format to compute in: f32, bf16
    #[arg(long, value_name = "FORMAT")]
    precision: Option<String>,
    /// Serve the live page at this address, as 127.0.0.1:9464
    #[arg(long, value_name = "ADDR")]
    serve: Option<String>,
    /// File with the token that the live page asks for [default: the variable SCADLES_TOKEN]
    #[arg(long, value_name = "FILE")]
    serve_token_file: Option<PathBuf>,
    /// Threads; 0: one per core
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    threads: Option<String>,
    /// Any other key, as batch.min=16; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigFlags {
    /// The flags as changes of keys, `--set` last.
    ///
    /// # Errors
    /// `--partition`, `--injection` or `--set` in a form that no change can be read from.
    pub fn overrides(&self) -> Result<Vec<Override>, ConfigError> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let (data, token_file) = (self.data.as_ref().map(text), self.serve_token_file.as_ref().map(text));
        let plain = [
            ("--name", "name", &self.name),
            ("--steps", "run.steps", &self.steps),
            ("--max-time", "run.max-time-s", &self.max_time),
            ("--target-accuracy", "run.target-accuracy", &self.target_accuracy),
            ("--eval-every", "run.eval-every", &self.eval_every),
            ("--devices", "cluster.devices", &self.devices),
            ("--rates", "cluster.rates", &self.rates),
            ("--model", "model.name", &self.model),
            ("--stem", "model.stem", &self.stem),
            ("--data", "data.dir", &data),
            ("--seed", "seed", &self.seed),
            ("--lr", "optimizer.lr", &self.lr),
            ("--batch-policy", "batch.policy", &self.batch_policy),
            ("--compression", "compression.kind", &self.compression),
            ("--density", "compression.density", &self.density),
            ("--delta", "compression.gate.delta", &self.delta),
            ("--clock", "cluster.clock", &self.clock),
            ("--device", "cluster.device", &self.device),
            ("--precision", "cluster.precision", &self.precision),
            ("--serve", "run.serve", &self.serve),
            ("--serve-token-file", "run.serve-token-file", &token_file),
            ("--threads", "run.threads", &self.threads),
        ];
        let given = plain.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value.as_ref()?)));
        let mut changes: Vec<Override> =
            given.map(|(flag, key, value)| change(&format!("{flag} {value}"), key, value)).collect();
        if let Some(split) = &self.partition {
            changes.extend(partition(split)?);
        }
        if let Some(shares) = &self.injection {
            let flag = format!("--injection {shares}");
            let Some((alpha, beta)) = shares.split_once(',') else {
                return Err(unreadable("--injection", &flag, shares, "two shares, as 0.5,0.25"));
            };
            changes.push(change(&flag, "injection.alpha", alpha.trim()));
            changes.push(change(&flag, "injection.beta", beta.trim()));
        }
        for assignment in &self.set {
            changes.push(Override::set(assignment)?);
        }
        Ok(changes)
    }
}

fn partition(split: &str) -> Result<Vec<Override>, ConfigError> {
    let flag = format!("--partition {split}");
    let kind = |kind: &str| change(&flag, "data.partition.kind", kind);
    match split.split_once(':') {
        None if split == "iid" => Ok(vec![kind("iid")]),
        Some(("labels", count)) => {
            Ok(vec![kind("labels"), change(&flag, "data.partition.labels-per-device", count)])
        }
        Some(("dirichlet", alpha)) => {
            Ok(vec![kind("dirichlet"), change(&flag, "data.partition.alpha", alpha)])
        }
        _ => Err(unreadable("--partition", &flag, split, "iid, labels:COUNT or dirichlet:ALPHA")),
    }
}

fn change(flag: &str, key: &str, value: &str) -> Override {
    Override { flag: flag.into(), key: key.into(), value: value.into() }
}

fn unreadable(key: &str, flag: &str, found: &str, expected: &str) -> ConfigError {
    let problem =
        Problem::WrongType { key: key.into(), expected: expected.into(), found: format!("`{found}`") };
    ConfigError { problem: Box::new(problem), at: Location::Flag(flag.into()) }
}
