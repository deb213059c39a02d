//! Ranges of single values, and values that exclude each other.

use super::error::{ConfigError, Problem};
use super::{
    ArrivalConfig, BatchPolicy, BufferPolicy, CompressionConfig, ComputeConfig, DriftConfig, DriftReaction,
    GateConfig, OptimizerKind, Partition, RatesConfig, RunConfig, ScheduleConfig, SyncConfig,
};
use crate::metrics::serve::parse_address;
use crate::models;

/// Names of the published rate lists.
const RATE_LISTS: [&str; 6] = ["S1", "S2", "S1'", "S2'", "S1p", "S2p"];
/// Bytes of one 32x32x3 image in a buffer.
const SAMPLE_BYTES: u64 = 3072;
/// Largest batch of one device.
const MAX_BATCH: usize = 65_536;
/// Longest wait for a batch: 30 years. Here and below: far beyond use, and sums of such times stay in a `Duration`.
const MAX_WAIT_S: f64 = 1e9;
/// Longest computation of a step, or of one sample.
const MAX_COMPUTE_S: f64 = 1e6;
/// Largest slowdown of a device against this machine.
const MAX_SLOWDOWN: f64 = 1e6;
/// Classes of the embedded data set.
const EMBEDDED_CLASSES: usize = 10;

impl RunConfig {
    /// Checks every documented range and every combination that cannot run. What only the data can tell (classes of a
    /// data set in a folder) is checked by [`RunConfig::validate_classes`].
    ///
    /// # Errors
    /// The first value that cannot be run, with its key, its range or the cure.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check().map_err(Problem::nowhere)
    }

    /// Checks the values that depend on the number of `classes` of the data set called `data_set`.
    ///
    /// # Errors
    /// A head with fewer classes, or more labels per device than there are.
    pub fn validate_classes(&self, data_set: &str, classes: usize) -> Result<(), ConfigError> {
        self.check_classes(data_set, classes).map_err(Problem::nowhere)
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        self.check_name()?;
        at_most("seed", self.seed, i64::MAX as u64)?;
        self.check_model_and_data()?;
        self.check_cluster()?;
        self.source.check(self)?;
        self.check_batch_and_buffer()?;
        self.check_optimizer()?;
        self.check_sync_and_compression()?;
        share("injection.alpha", self.injection.alpha)?;
        share("injection.beta", self.injection.beta)?;
        if (self.injection.alpha > 0.0) != (self.injection.beta > 0.0) {
            return Err(conflict(
                &["injection.alpha", "injection.beta"],
                "data injection needs a share of devices (alpha) and a share of their batch (beta)",
                "set both above 0, or both to 0 to switch it off",
            ));
        }
        if self.injection.alpha > 0.0 && self.cluster.devices == 1 {
            let why = "data injection needs another device to share samples with, and there is only one";
            return Err(conflict(
                &["injection.alpha", "cluster.devices"],
                why,
                "set injection.alpha and beta to 0",
            ));
        }
        self.check_drift()?;
        self.check_run()
    }

    fn check_drift(&self) -> Result<(), Problem> {
        let DriftConfig::PageHinkley(drift) = self.drift else { return Ok(()) };
        not_negative("drift.tolerance", drift.tolerance)?;
        above_zero("drift.threshold", drift.threshold)?;
        within("drift.label-window", drift.label_window, 10, 1_000_000)?;
        positive_share("drift.label-distance", drift.label_distance)?;
        above_zero("drift.boost", drift.boost)?;
        between("drift.boost", drift.boost, 0.0, 100.0)?;
        within("drift.boost-steps", drift.boost_steps, 1, 1_000_000_000)?;
        let drops = self.buffer.policy == BufferPolicy::Truncation && self.buffer.keep > 0;
        if drift.react == DriftReaction::KeepNewest && !drops {
            let why = "keep-newest drops older samples, which only truncation with buffer.keep above 0 holds and may drop";
            let cure = "set buffer.policy to \"truncation\" and buffer.keep, or drift.react to \"lr-boost\" or \"none\"";
            return Err(conflict(&["drift.react", "buffer.policy", "buffer.keep"], why, cure));
        }
        Ok(())
    }

    fn check_name(&self) -> Result<(), Problem> {
        let bad = |c: char| c == '/' || c == '\\' || c.is_control();
        let name = self.name.trim();
        if name.is_empty() || name == "." || name == ".." || name.contains(bad) || name.len() > 100 {
            let expected = "1 to 100 characters that can name a folder, without / or \\";
            return Err(out_of_range("name", format!("\"{}\"", super::check::short(&self.name)), expected));
        }
        Ok(())
    }

    fn check_model_and_data(&self) -> Result<(), Problem> {
        let (model, data) = (&self.model, &self.data);
        if !models::names().contains(&model.name.as_str()) {
            return Err(super::check::unknown_choice("model.name", &model.name, models::names().to_vec()));
        }
        if !models::has_stem(&model.name, model.stem) {
            let why = format!("{} has only the stem \"cifar\"", model.name);
            let cure = "set model.stem to \"cifar\", or take resnet18 or a larger network";
            return Err(conflict(&["model.stem", "model.name"], &why, cure));
        }
        if !(model.width > 0.0 && model.width <= 4.0) {
            return Err(out_of_range("model.width", model.width, "above 0 and at most 4"));
        }
        if model.classes > 100_000 {
            return Err(out_of_range("model.classes", model.classes, "0 (the data set's) to 100000"));
        }
        within("data.embedded-train", data.embedded_train, 10, 1_000_000)?;
        within("data.embedded-test", data.embedded_test, 1, 1_000_000)?;
        match data.partition {
            Partition::Iid => {}
            Partition::Labels { labels_per_device } => {
                within("data.partition.labels-per-device", labels_per_device, 1, 100)?;
            }
            Partition::Dirichlet { alpha } => above_zero("data.partition.alpha", alpha)?,
        }
        if data.dir.is_none() {
            self.check_classes("the embedded data set", EMBEDDED_CLASSES)
        } else {
            Ok(())
        }
    }

    fn check_classes(&self, data_set: &str, classes: usize) -> Result<(), Problem> {
        if self.model.classes != 0 && self.model.classes < classes {
            let expected = format!("0, or at least {classes}, the classes of {data_set}");
            return Err(out_of_range("model.classes", self.model.classes, &expected));
        }
        match self.data.partition {
            Partition::Labels { labels_per_device } if labels_per_device > classes => Err(out_of_range(
                "data.partition.labels-per-device",
                labels_per_device,
                &format!("at most {classes}, the classes of {data_set}"),
            )),
            _ => Ok(()),
        }
    }

    fn check_cluster(&self) -> Result<(), Problem> {
        let cluster = &self.cluster;
        within("cluster.devices", cluster.devices, 1, 4096)?;
        match &cluster.rates {
            RatesConfig::Named(name) if !RATE_LISTS.contains(&name.as_str()) => {
                return Err(super::check::unknown_choice("cluster.rates", name, RATE_LISTS.to_vec()));
            }
            RatesConfig::Named(_) => {}
            RatesConfig::List(rates) => {
                per_device("cluster.rates", rates.len(), cluster.devices, true)?;
                for (i, &rate) in rates.iter().enumerate() {
                    if !(rate > 0.0 && rate <= 1e6) {
                        let expected = "above 0 and at most 1000000 samples/s";
                        return Err(out_of_range(&format!("cluster.rates[{i}]"), rate, expected));
                    }
                }
            }
        }
        match &cluster.arrivals {
            ArrivalConfig::Constant | ArrivalConfig::Poisson => {}
            ArrivalConfig::Bursty { on_s, off_s } => {
                above_zero("cluster.arrivals.on-s", *on_s)?;
                above_zero("cluster.arrivals.off-s", *off_s)?;
            }
            ArrivalConfig::Diurnal { period_s, amplitude } => {
                above_zero("cluster.arrivals.period-s", *period_s)?;
                share("cluster.arrivals.amplitude", *amplitude)?;
            }
            ArrivalConfig::Trace { path } => {
                if path.as_os_str().is_empty() {
                    return Err(out_of_range("cluster.arrivals.path", "empty", "the path of a CSV file"));
                }
            }
        }
        let link = &cluster.link;
        between("cluster.link.bandwidth-mbit-s", link.bandwidth_mbit_s, 1e-3, 1e12)?;
        between("cluster.link.latency-ms", link.latency_ms, 0.0, 1e6)?;
        between("cluster.link.efficiency", link.efficiency, 1e-3, 1.0)?;
        above_zero("cluster.wait-limit-s", cluster.wait_limit_s)?;
        between("cluster.wait-limit-s", cluster.wait_limit_s, 0.0, MAX_WAIT_S)?;
        match &cluster.compute {
            ComputeConfig::K80 => Ok(()),
            ComputeConfig::Measured { slowdown } => {
                above_zero("cluster.compute.slowdown", *slowdown)?;
                between("cluster.compute.slowdown", *slowdown, 0.0, MAX_SLOWDOWN)
            }
            ComputeConfig::Given { overhead_s, per_sample_s } => {
                let lists = [("overhead-s", overhead_s), ("per-sample-s", per_sample_s)];
                lists.into_iter().try_for_each(|(key, list)| {
                    let key = format!("cluster.compute.{key}");
                    per_device(&key, list.len(), cluster.devices, true)?;
                    let fits =
                        |(i, &s): (usize, &f64)| between(&format!("{key}[{i}]"), s, 0.0, MAX_COMPUTE_S);
                    list.iter().enumerate().try_for_each(fits)
                })
            }
        }
    }

    fn check_batch_and_buffer(&self) -> Result<(), Problem> {
        let (batch, buffer) = (&self.batch, &self.buffer);
        within("batch.size", batch.size, 1, MAX_BATCH)?;
        within("batch.min", batch.min, 1, MAX_BATCH)?;
        within("batch.max", batch.max, 1, MAX_BATCH)?;
        if batch.min > batch.max {
            let why = format!("batch.min ({}) is above batch.max ({})", batch.min, batch.max);
            return Err(conflict(&["batch.min", "batch.max"], &why, "lower min or raise max"));
        }
        if batch.policy == BatchPolicy::Fixed && batch.size > batch.max {
            let why = format!("the fixed batch.size ({}) is above batch.max ({})", batch.size, batch.max);
            return Err(conflict(&["batch.size", "batch.max"], &why, "lower size or raise max"));
        }
        if buffer.memory_cap_mib == 0 || buffer.memory_cap_mib > 1 << 24 {
            let expected = "1 to 16777216 MiB";
            return Err(out_of_range("buffer.memory-cap-mib", buffer.memory_cap_mib, expected));
        }
        let kept_bytes = (buffer.keep as u64).saturating_mul(SAMPLE_BYTES);
        if kept_bytes > buffer.memory_cap_mib << 20 {
            let why = format!(
                "buffer.keep ({} samples of {SAMPLE_BYTES} bytes) does not fit buffer.memory-cap-mib ({})",
                buffer.keep, buffer.memory_cap_mib
            );
            return Err(conflict(
                &["buffer.keep", "buffer.memory-cap-mib"],
                &why,
                "lower keep or raise the cap",
            ));
        }
        let held = if buffer.keep == 0 { 1024 } else { buffer.keep };
        let wanted = match batch.policy {
            BatchPolicy::Fixed => batch.size,
            BatchPolicy::Rate => batch.max,
            BatchPolicy::Available => 1,
        };
        if buffer.policy == BufferPolicy::Reservoir && held < wanted {
            let why = format!("a reservoir of {held} samples never holds a batch of {wanted}");
            return Err(conflict(
                &["buffer.keep", "batch.max"],
                &why,
                "raise buffer.keep or lower the batch",
            ));
        }
        Ok(())
    }

    fn check_optimizer(&self) -> Result<(), Problem> {
        let optimizer = &self.optimizer;
        above_zero("optimizer.lr", optimizer.lr)?;
        below_one("optimizer.momentum", optimizer.momentum)?;
        not_negative("optimizer.weight-decay", optimizer.weight_decay)?;
        above_zero("optimizer.trust", optimizer.trust)?;
        below_one("optimizer.warmup", optimizer.warmup)?;
        if optimizer.nesterov && optimizer.momentum == 0.0 {
            let why = "Nesterov momentum needs momentum above 0";
            return Err(conflict(&["optimizer.nesterov", "optimizer.momentum"], why, "set momentum, as 0.9"));
        }
        if optimizer.nesterov && optimizer.kind == OptimizerKind::Lars {
            let why = "LARS has no Nesterov momentum";
            let cure = "set nesterov to false, or optimizer.kind to \"sgd\"";
            return Err(conflict(&["optimizer.nesterov", "optimizer.kind"], why, cure));
        }
        let ScheduleConfig::Step { factor, at } = &optimizer.schedule else { return Ok(()) };
        positive_share("optimizer.schedule.factor", *factor)?;
        let key = |i: usize| format!("optimizer.schedule.at[{i}]");
        at.iter().enumerate().try_for_each(|(i, &position)| share(&key(i), position))?;
        match at.windows(2).position(|pair| pair[0] >= pair[1]) {
            Some(i) => {
                Err(out_of_range(&key(i + 1), at[i + 1], &format!("above the position before it, {}", at[i])))
            }
            None if at.is_empty() => Err(out_of_range(
                "optimizer.schedule.at",
                "empty",
                "a list of shares of the run, as [0.5, 0.75]",
            )),
            None => Ok(()),
        }
    }

    fn check_sync_and_compression(&self) -> Result<(), Problem> {
        if let SyncConfig::Local { steps } = self.sync {
            within("sync.steps", steps, 1, 1_000_000_000)?;
            if self.compression != CompressionConfig::None {
                let why = "local SGD averages parameters, so there is no gradient to compress";
                let cure = "set compression.kind to \"none\", or sync.kind to \"every-step\"";
                return Err(conflict(&["sync.kind", "compression.kind"], why, cure));
            }
        }
        match &self.compression {
            CompressionConfig::None => Ok(()),
            CompressionConfig::TopK(top_k) => {
                positive_share("compression.density", top_k.density)?;
                match top_k.gate {
                    GateConfig::Always => Ok(()),
                    GateConfig::Reference { delta } => not_negative("compression.gate.delta", delta),
                    GateConfig::Paper { delta, ewma } => {
                        not_negative("compression.gate.delta", delta)?;
                        positive_share("compression.gate.ewma", ewma)
                    }
                }
            }
            CompressionConfig::Dgc(dgc) => {
                positive_share("compression.density", dgc.density)?;
                below_one("compression.warmup", dgc.warmup)?;
                not_negative("compression.clip-norm", dgc.clip_norm)?;
                if self.optimizer.momentum == 0.0 || self.optimizer.nesterov {
                    let why = "deep gradient compression applies plain momentum before it selects";
                    let cure = "set optimizer.momentum above 0 and nesterov to false, or compression.kind to \"top-k\"";
                    let keys = ["optimizer.momentum", "optimizer.nesterov", "compression.kind"];
                    return Err(conflict(&keys[usize::from(self.optimizer.nesterov)..], why, cure));
                }
                Ok(())
            }
        }
    }

    fn check_run(&self) -> Result<(), Problem> {
        let run = &self.run;
        within("run.steps", run.steps, 1, 1_000_000_000)?;
        not_negative("run.max-time-s", run.max_time_s)?;
        share("run.target-accuracy", run.target_accuracy)?;
        within("run.eval-every", run.eval_every, 1, 1_000_000_000)?;
        within("run.threads", run.threads, 0, 1024)?;
        above_zero("run.stall-limit-s", run.stall_limit_s)?;
        between("run.stall-limit-s", run.stall_limit_s, 0.0, MAX_WAIT_S)?;
        match &run.serve {
            Some(address) if parse_address(address).is_none() => {
                let expected = "an address and port, as \"127.0.0.1:9464\"";
                Err(out_of_range("run.serve", format!("\"{}\"", super::check::short(address)), expected))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn out_of_range(key: &str, found: impl ToString, expected: &str) -> Problem {
    Problem::OutOfRange { key: key.into(), found: found.to_string(), expected: expected.into() }
}

pub(super) fn conflict(keys: &[&'static str], why: &str, cure: &str) -> Problem {
    Problem::Conflict { keys: keys.to_vec(), why: why.into(), cure: cure.into() }
}

fn require(fits: bool, key: &str, value: f64, expected: &str) -> Result<(), Problem> {
    if fits && value.is_finite() { Ok(()) } else { Err(out_of_range(key, value, expected)) }
}

fn between(key: &str, value: f64, low: f64, high: f64) -> Result<(), Problem> {
    require((low..=high).contains(&value), key, value, &format!("from {low} to {high}"))
}

fn share(key: &str, value: f64) -> Result<(), Problem> {
    require((0.0..=1.0).contains(&value), key, value, "from 0 to 1")
}

fn positive_share(key: &str, value: f64) -> Result<(), Problem> {
    require(value > 0.0 && value <= 1.0, key, value, "above 0 and at most 1")
}

fn below_one(key: &str, value: f64) -> Result<(), Problem> {
    require((0.0..1.0).contains(&value), key, value, "at least 0 and below 1")
}

fn above_zero(key: &str, value: f64) -> Result<(), Problem> {
    require(value > 0.0, key, value, "above 0")
}

fn not_negative(key: &str, value: f64) -> Result<(), Problem> {
    require(value >= 0.0, key, value, "0 or more")
}

fn within(key: &str, value: usize, low: usize, high: usize) -> Result<(), Problem> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(out_of_range(key, value, &format!("from {low} to {high}")))
    }
}

fn at_most(key: &str, value: u64, high: u64) -> Result<(), Problem> {
    if value <= high { Ok(()) } else { Err(out_of_range(key, value, &format!("at most {high}"))) }
}

pub(super) fn per_device(key: &str, found: usize, devices: usize, one_for_all: bool) -> Result<(), Problem> {
    if found == devices || (one_for_all && found == 1) {
        return Ok(());
    }
    let or_one = if one_for_all { " or a single one for all" } else { "" };
    let expected =
        format!("one value per device{or_one}: cluster.devices is {devices}, so change one of the two");
    let values = if found == 1 { "value" } else { "values" };
    Err(out_of_range(key, format!("a list of {found} {values}"), &expected))
}
