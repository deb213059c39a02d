//! The trainer: all stages of a step, in order.

#[cfg(test)]
mod drift_tests;
mod together;

use super::drift::DriftWatch;
use super::engine::{self, ClusterStep, DeviceStep, Engine};
use super::evaluate::Evaluator;
use super::gather::{BatchRule, Gathered, InputRule, gather_batches};
use super::local_device::LocalDevice;
use super::merge_stats::merge_stats;
use super::setup;
use crate::aggregate::agg_weights;
use crate::cluster::{Clock, Link};
use crate::comm::{CommError, Communicator, LocalCommunicator, Traffic};
use crate::device::cuda::CudaError;
use crate::error::Result;
use crate::metrics::record::{DriftRecord, EvalRecord, StepRecord};
use crate::models::weights;
use crate::nn::{DropoutSeed, Plan};
use crate::optim::schedule::{lr_at, scaled_lr};
use crate::stream::rates::RateModel;
use crate::train::config::{BatchNormStatistics, RunConfig, SyncConfig};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Trains one network on the devices of a configuration.
///
/// Call it from inside the rayon pool that is to do the work; [`super::run()`] does that, and reports to sinks.
///
/// # Example
/// ```
/// use scadles::train::{Trainer, config::RunConfig};
/// let mut config = RunConfig::default();
/// config.model.width = 0.25;
/// config.cluster.devices = 2;
/// (config.data.embedded_train, config.data.embedded_test) = (200, 50);
/// let mut trainer = Trainer::new(&config)?;
/// let step = trainer.step()?;
/// assert_eq!(step.local_batch, [50, 38]); // the first two rates of S1
/// # Ok::<(), scadles::Error>(())
/// ```
pub struct Trainer {
    config: RunConfig,
    data_set: String,
    classes: usize,
    train_samples: usize,
    rates: Vec<f64>,
    plan: Arc<Plan>,
    engine: Box<dyn Engine>,
    passed_over: Option<CudaError>,
    merged_stats: Vec<f32>,
    devices: Vec<LocalDevice>,
    comm: Box<dyn Communicator>,
    clock: Clock,
    batches: BatchRule,
    inputs: InputRule,
    evaluator: Evaluator,
    step: u64,
    epoch: u64,
    start: Instant,
    diverged: bool,
    /// Of all devices so far.
    trained_samples: u64,
    /// What drift makes of the learning rate in this step.
    lr_factor: f64,
    drift: Option<DriftWatch>,
    /// Merging statistics since the last step, not yet in a record.
    merge_traffic: Traffic,
}

/// How long the simulated devices compute in a step.
struct Busy {
    /// When the last one is done.
    end: Duration,
    /// The longest time of one.
    compute: Duration,
}

impl Trainer {
    /// Loads the data, builds the network, the devices and their streams.
    ///
    /// # Errors
    /// A configuration that does not validate, data or parameters that cannot be read, a device that is not there.
    pub fn new(config: &RunConfig) -> Result<Self> {
        let link = Link::new(&config.cluster.link);
        Self::with_communicator(config, Box::new(LocalCommunicator::new(config.cluster.devices, link)))
    }

    /// The same for the devices that this process hosts of a cluster over several processes. All of them pass the same
    /// configuration, except for `run.threads`, `run.out` and where they compute, and call the same methods in the same order.
    ///
    /// # Errors
    /// As [`Self::new`], and where another process is lost or has other data or parameters.
    pub fn with_communicator(config: &RunConfig, mut comm: Box<dyn Communicator>) -> Result<Self> {
        config.validate()?;
        let data = setup::load_data(config)?;
        let cluster = &config.cluster;
        let hosted = comm.local_ranks();
        comm.check_equal("the training data", setup::fingerprint(&data.train))?;
        comm.check_equal("the test data", setup::fingerprint(&data.test))?;
        let rates = RateModel::new(&cluster.rates, &cluster.arrivals, cluster.devices, config.seed)
            .map_err(crate::stream::StreamError::from)?;
        let mean_rates: Vec<f64> = (0..cluster.devices).map(|device| rates.mean(device).0).collect();
        let plan = Arc::new(setup::plan_network(config, &data, &mean_rates)?);
        let (params, stats) = match &config.model.weights {
            Some(path) => {
                let loaded = weights::load(path, &plan)?;
                (loaded.params, loaded.stats)
            }
            None => (plan.init_params(config.seed), plan.init_stats()),
        };
        comm.check_equal("the initial parameters", crc32fast::hash(bytemuck::cast_slice(&params)))?;
        let inputs = setup::input_rule(config, &data.train);
        let (mut engine, passed_over) =
            engine::open(config, &plan, &inputs.normalizer, (params, stats.clone()), hosted.len())?;
        let profiles = setup::profiles(config, &plan, engine.as_mut())?;
        let clock = Clock::new(cluster.clock);
        let devices = setup::devices(
            config,
            &data.train,
            &rates,
            (hosted, plan.max_batch()),
            engine.as_mut(),
            &profiles,
            &clock,
        )?;
        Ok(Self {
            data_set: data.name.to_string(),
            classes: data.train.classes(),
            train_samples: data.train.len(),
            rates: mean_rates,
            merged_stats: stats,
            devices,
            comm,
            clock,
            batches: setup::batch_rule(config, plan.max_batch()),
            inputs,
            evaluator: Evaluator::new(data.test, plan.max_batch(), engine.as_ref())?,
            engine,
            passed_over,
            step: 0,
            epoch: 0,
            start: Instant::now(),
            diverged: false,
            trained_samples: 0,
            lr_factor: 1.0,
            drift: DriftWatch::new(&config.drift, cluster.devices),
            merge_traffic: Traffic::default(),
            config: config.clone(),
            plan,
        })
    }

    /// One training step of all devices.
    ///
    /// # Errors
    /// A stream, a collective or the network failed. A loss that is not finite is no error: see [`Self::diverged`].
    pub fn step(&mut self) -> Result<StepRecord> {
        self.step += 1;
        let begin = self.clock.now();
        let progress = self.agree_on_progress(begin)?;
        // Before batches are written: a step that failed may have left copies from them queued.
        self.engine.begin_step()?;
        let gathered = gather_batches(
            &mut self.devices,
            &self.batches,
            &self.inputs,
            self.comm.as_mut(),
            self.step,
            begin,
        )?;
        let (local_batch, weights, count_traffic) = self.share_counts()?;
        let global_batch: usize = local_batch.iter().sum();
        let lr = self.learning_rate(progress, global_batch);
        let begin_training = self.clock.now();
        let busy_until = self.train_devices(&gathered, &weights, progress)?;
        let cluster = ClusterStep { step: self.step, global_batch, weights: &weights, lr };
        let outcome = self.engine.end_step(cluster, self.comm.as_mut())?;
        self.diverged = outcome.diverged;
        self.trained_samples += global_batch as u64;

        let mut traffic = gathered.traffic;
        traffic += count_traffic;
        traffic += outcome.exchange.traffic;
        traffic += std::mem::take(&mut self.merge_traffic);
        let (compute, comm) = match self.clock.is_virtual() {
            true => (busy_until.compute, traffic.elapsed),
            // Devices of one process compute one after another.
            false => {
                let spent = self.clock.now().saturating_sub(begin_training);
                (outcome.compute, spent.saturating_sub(outcome.compute))
            }
        };
        let ready = gathered.ready.iter().max().copied().unwrap_or(begin);
        // Since the step began: wall clocks of processes do not begin together.
        let times = [busy_until.end.saturating_sub(begin), compute, ready.saturating_sub(begin)];
        let told = self.share_outcome(&outcome, &traffic, times)?;
        let [busy, compute, wait] = told.times;
        // Injection is on the wire before the devices compute; the rest after it.
        self.clock.advance_to(begin + busy + comm.saturating_sub(gathered.traffic.elapsed));
        let end = self.clock.now();
        let (device_loss, drift) = self.watch_devices(end);
        for device in &mut self.devices {
            device.stream.after_step(end)?;
        }
        self.count_epochs()?;

        let samples = (global_batch as f64).max(1.0);
        let mut record = StepRecord {
            step: self.step,
            time_s: end.as_secs_f64(),
            wall_s: self.start.elapsed().as_secs_f64(),
            step_s: (end - begin).as_secs_f64(),
            wait_s: wait.as_secs_f64(),
            compute_s: compute.as_secs_f64(),
            comm_s: comm.as_secs_f64(),
            loss: told.loss_sum / samples,
            train_top1: told.top1 / samples,
            global_batch: global_batch as u64,
            lr,
            grad_norm: told.grad_norm,
            compressed: outcome.exchange.compressed,
            votes: outcome.exchange.votes,
            gate_value: outcome.exchange.gate_value,
            sent_elements: told.sent_elements,
            sent_bytes: told.sent_bytes,
            received_bytes: told.received_bytes,
            dense_bytes: outcome.exchange.dense_bytes,
            injected_samples: gathered.injected_samples,
            injected_bytes: gathered.injected_bytes,
            local_batch: local_batch.iter().map(|&batch| batch as u64).collect(),
            drift,
            ..StepRecord::default()
        };
        self.record_devices(&mut record, end, &device_loss)?;
        Ok(record)
    }

    /// Loss and accuracy of the current parameters on the test set, with the cluster's batch-norm statistics.
    ///
    /// # Errors
    /// A collective or the network failed.
    pub fn evaluate(&mut self) -> Result<EvalRecord> {
        self.merge_statistics()?;
        let row = match self.hosts_first() {
            true => {
                let total =
                    self.evaluator.evaluate(self.engine.as_mut(), &self.inputs, &self.merged_stats)?;
                vec![total.loss_sum, total.top1 as f64, total.top5 as f64]
            }
            false => Vec::new(),
        };
        let rows = self.comm.share(&row)?;
        let [loss_sum, top1, top5] = rows[0][..] else { return Err(not_the_same_call().into()) };
        let count = (self.evaluator.len() as f64).max(1.0);
        Ok(EvalRecord {
            step: self.step,
            time_s: self.clock.now().as_secs_f64(),
            wall_s: self.start.elapsed().as_secs_f64(),
            loss: loss_sum / count,
            top1: top1 / count,
            top5: top5 / count,
        })
    }

    /// Writes parameters and batch-norm statistics with torchvision's names as safetensors. Of several processes all call it,
    /// and the one that hosts rank 0 writes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        self.merge_statistics()?;
        if self.hosts_first() {
            weights::save(path, &self.plan, &self.engine.params()?, &self.merged_stats)?;
        }
        Ok(())
    }

    /// As [`Self::save`], with the statistics of this process's first device, and without asking another process.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_alone(&self, path: &Path) -> Result<()> {
        Ok(weights::save(path, &self.plan, &self.engine.params()?, &self.engine.stats(0)?)?)
    }

    /// Whether any process of the job says so.
    ///
    /// # Errors
    /// Another process is lost.
    pub(crate) fn any(&mut self, flag: bool) -> Result<bool> {
        Ok(self.comm.any(flag)?)
    }

    /// Whether this process hosts rank 0, and so keeps the records of the job.
    pub fn hosts_first(&self) -> bool {
        self.comm.local_ranks().start == 0
    }

    /// Makes sure that all processes have the same parameters.
    ///
    /// # Errors
    /// [`CommError::Differs`], or another process is lost.
    pub fn check_params(&mut self) -> Result<()> {
        if !self.comm.hosts_all() {
            let checksum = crc32fast::hash(bytemuck::cast_slice(&self.engine.params()?));
            self.comm.check_equal("the parameters", checksum)?;
        }
        Ok(())
    }

    /// Whether the run has taken the time it may take, on any process.
    ///
    /// # Errors
    /// Another process is lost.
    pub(crate) fn is_over(&mut self) -> Result<bool> {
        let over = self.clock.now().as_secs_f64() >= self.config.run.max_time_s;
        self.any(over)
    }

    /// Number of the step under way or done last.
    pub(crate) fn current_step(&self) -> u64 {
        self.step
    }

    /// The flat parameter vector; under local SGD, the last average.
    ///
    /// # Errors
    /// The device that holds it does not answer.
    pub fn params(&self) -> Result<Cow<'_, [f32]>> {
        self.engine.params()
    }

    /// The network.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What computes the steps, as in `NVIDIA H200, bf16`.
    pub fn computed_on(&self) -> &str {
        self.engine.name()
    }

    /// Why that is the CPU, on a machine whose GPU `cluster.device = "auto"` would have taken.
    pub fn passed_over(&self) -> Option<&CudaError> {
        self.passed_over.as_ref()
    }

    /// Name of the data set.
    pub fn data_set(&self) -> &str {
        &self.data_set
    }

    /// Classes of the data set.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Mean stream rate of each device, samples/s.
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    /// Cluster time.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Whether a loss or gradient of the last step was not finite; its update was not applied.
    pub fn diverged(&self) -> bool {
        self.diverged
    }

    /// Share of the run that is done, in [0, 1]: by steps or by time, whichever is further.
    fn progress(&self, now: Duration) -> f64 {
        let length = &self.config.run;
        let by_steps = (self.step - 1) as f64 / length.steps as f64;
        let by_time = if length.max_time_s > 0.0 { now.as_secs_f64() / length.max_time_s } else { 0.0 };
        by_steps.max(by_time).min(1.0)
    }

    /// Batch and weight of every rank. Under local SGD nothing but the record needs them, so they cost no traffic.
    fn share_counts(&mut self) -> Result<(Vec<usize>, Vec<f64>, Traffic)> {
        let hosted: Vec<f64> = self.devices.iter().map(|device| device.batch.labels.len() as f64).collect();
        let mut all = vec![0.0; self.comm.world_size()];
        let mut traffic = self.comm.all_gather_scalars(&hosted, &mut all)?;
        if self.config.sync != SyncConfig::EveryStep {
            traffic = Traffic::default();
        }
        let local_batch: Vec<usize> = all.into_iter().map(|batch| batch as usize).collect();
        let weights = agg_weights(&local_batch, self.config.aggregation);
        Ok((local_batch, weights, traffic))
    }

    fn learning_rate(&self, progress: f64, global_batch: usize) -> f64 {
        let lr = lr_at(&self.config.optimizer, progress) * self.lr_factor;
        let base = self.config.batch.size * self.config.cluster.devices;
        if self.config.optimizer.scale_lr { scaled_lr(lr, global_batch, base) } else { lr }
    }

    /// Forward and backward of each hosted device in rank order, its gradient handed on at once. Tells when the simulated
    /// devices are done.
    fn train_devices(&mut self, gathered: &Gathered, weights: &[f64], progress: f64) -> Result<Busy> {
        let injected = self.batches.injection.is_active();
        let mut all_ready = gathered.ready.iter().max().copied().unwrap_or_default();
        if injected {
            let rows = self.comm.share(&[all_ready.as_nanos() as f64])?;
            all_ready = together::latest(&rows, 0);
        }
        all_ready += gathered.traffic.elapsed;
        let mut busy = Busy { end: self.clock.now(), compute: Duration::ZERO };
        let (optimizer, base) = (&self.config.optimizer, self.config.batch.size);
        let lr = lr_at(optimizer, progress) * self.lr_factor;
        for (index, device) in self.devices.iter_mut().enumerate() {
            let samples = device.batch.labels.len();
            let begin = if injected { all_ready } else { gathered.ready[index] };
            let step = DeviceStep {
                index,
                agg_weight: weights[device.rank],
                progress,
                local_lr: if optimizer.scale_lr { scaled_lr(lr, samples, base) } else { lr },
                dropout: DropoutSeed { seed: self.config.seed, index: self.step << 16 | device.rank as u64 },
            };
            self.engine.train(&device.batch, step)?;
            let compute = device.profile.compute_time(samples);
            busy.end = busy.end.max(begin + compute);
            busy.compute = busy.compute.max(compute);
            device.trained_samples += samples as u64;
        }
        if !self.clock.is_virtual() {
            busy.end = self.clock.now();
        }
        Ok(busy)
    }

    /// Mean loss of each device in this step, and which of their streams have changed; lets those drop older samples, if
    /// that is how to react.
    fn watch_devices(&mut self, now: Duration) -> (Vec<f64>, Vec<DriftRecord>) {
        let samples = self.devices.iter().map(|device| device.batch.labels.len());
        let losses = self.engine.device_losses().iter().zip(samples);
        // 0/0 is not a number: a device without samples has no loss.
        let losses: Vec<f64> = losses.map(|(loss, samples)| loss.loss_sum / samples as f64).collect();
        let mut found = Vec::new();
        if let Some(watch) = &mut self.drift {
            for ((index, device), &loss) in self.devices.iter_mut().enumerate().zip(&losses) {
                let (before, batch) = (found.len(), &device.batch);
                let labels = &batch.labels[..batch.own];
                watch.observe((index, device.rank), self.step, loss, labels, &mut found);
                if found.len() > before && watch.keeps_newest() {
                    let second = device.stream.rate(now).0.ceil() as usize;
                    device.stream.keep_newest(second);
                }
            }
        }
        (losses, found)
    }

    /// Batch-norm statistics for evaluating and saving.
    fn merge_statistics(&mut self) -> Result<()> {
        let total = self.trained_samples;
        if self.config.batch_norm == BatchNormStatistics::Local || total == 0 || self.merged_stats.is_empty()
        {
            self.merged_stats.copy_from_slice(&self.engine.stats(0)?);
            return Ok(self.comm.broadcast(&mut self.merged_stats)?);
        }
        let stats =
            (0..self.devices.len()).map(|index| self.engine.stats(index)).collect::<Result<Vec<_>>>()?;
        let hosted = self
            .devices
            .iter()
            .zip(&stats)
            .map(|(device, stats)| (&stats[..], device.trained_samples as f64 / total as f64));
        self.merge_traffic +=
            merge_stats(self.plan.stats(), hosted, self.comm.as_mut(), &mut self.merged_stats)?;
        Ok(())
    }

    fn count_epochs(&mut self) -> Result<()> {
        let epoch = self.trained_samples / (self.train_samples as u64).max(1);
        if epoch > self.epoch {
            self.epoch = epoch;
            self.engine.start_epoch()?;
        }
        Ok(())
    }
}

/// Another process is in another call.
fn not_the_same_call() -> CommError {
    let reason =
        "it sent a row of another length: all processes must call the same methods in the same order".into();
    CommError::Peer { process: 0, op: "share", reason }
}
