//! From the gradients of all devices to one: dense, or top-k with error feedback behind the gate, or DGC.

use crate::aggregate::{Collective, add_scaled, choose_collective};
use crate::cluster::link::all_reduce_sent_bytes;
use crate::comm::{Communicator, Traffic};
use crate::compress::coding::decode_add;
use crate::compress::dgc::DgcCompressor;
use crate::compress::{
    CompressError, Decision, DeviceCompressor, Gate, Norms, PayloadInfo, Plan, Vote, decide,
};
use crate::error::Result;
use crate::train::config::{CompressionConfig, GateConfig, RunConfig, TopKScope};
use std::ops::Range;
use std::sync::Arc;

/// What a step's exchange did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ExchangeReport {
    pub compressed: bool,
    pub votes: u64,
    pub gate_value: f64,
    pub sent_elements: u64,
    pub dense_bytes: u64,
    pub traffic: Traffic,
}

impl ExchangeReport {
    /// Of an exchange of `numel` elements that has not begun.
    pub fn of(numel: usize, comm: &dyn Communicator) -> Self {
        let bytes = (numel * size_of::<f32>()) as u64;
        Self { dense_bytes: all_reduce_sent_bytes(bytes, comm.world_size()), ..Self::default() }
    }
}

/// The part of a device that holds back what is not sent.
trait Sender: Send {
    fn payload_bytes_bound(&self) -> u64;
    fn encode_sparse(&mut self, payload: &mut Vec<u8>) -> PayloadInfo;
    fn dense(&self) -> Option<&[f32]>;
    fn finish_dense(&mut self);
}

macro_rules! forward_sender {
    ($type:ty) => {
        impl Sender for $type {
            fn payload_bytes_bound(&self) -> u64 {
                self.payload_bytes_bound()
            }
            fn encode_sparse(&mut self, payload: &mut Vec<u8>) -> PayloadInfo {
                self.encode_sparse(payload)
            }
            fn dense(&self) -> Option<&[f32]> {
                self.dense()
            }
            fn finish_dense(&mut self) {
                self.finish_dense();
            }
        }
    };
}
forward_sender!(DeviceCompressor);
forward_sender!(DgcCompressor);

/// One state per hosted device.
pub(crate) enum GradientExchange {
    Dense,
    TopK { devices: Vec<DeviceCompressor>, gates: Gates, payloads: Payloads },
    Dgc { devices: Vec<DgcCompressor>, payloads: Payloads },
}

/// The gates of the hosted devices.
pub(crate) struct Gates {
    gates: Vec<Gate>,
    config: GateConfig,
    values: Vec<f64>,
}

impl Gates {
    /// Gates of `hosted` devices that have seen nothing.
    pub fn new(config: GateConfig, hosted: usize) -> Self {
        Self { gates: vec![Gate::new(config); hosted], config, values: vec![0.0; hosted] }
    }

    /// Takes the norms of the hosted device number `device`; none if it has no samples.
    pub fn observe(&mut self, device: usize, norms: Option<&Norms>) {
        self.values[device] = norms.map_or(0.0, |norms| self.gates[device].observe(norms));
    }

    /// One decision for all devices of the cluster; `weights` has one entry per rank.
    pub fn decide(
        &self,
        weights: &[f64],
        comm: &mut dyn Communicator,
        report: &mut ExchangeReport,
    ) -> Result<Decision> {
        let mut all_values = vec![0.0; comm.world_size()];
        report.traffic += comm.all_gather_scalars(&self.values, &mut all_values)?;
        let votes: Vec<Vote> = (all_values.iter().zip(weights))
            .map(|(&value, &agg_weight)| Vote { value, agg_weight })
            .collect();
        report.votes = votes.iter().filter(|vote| votes_to_compress(&self.config, vote)).count() as u64;
        let total: f64 = weights.iter().sum();
        let weighted: f64 = votes.iter().map(|vote| vote.agg_weight * vote.value).sum();
        report.gate_value = if total > 0.0 { weighted / total } else { 0.0 };
        Ok(decide(&self.config, &votes))
    }

    /// A pass over the data set is done.
    pub fn start_epoch(&mut self) {
        self.gates.iter_mut().for_each(Gate::start_epoch);
    }
}

/// Reused from step to step.
#[derive(Default)]
pub(crate) struct Payloads {
    blocks: Vec<Vec<u8>>,
}

impl GradientExchange {
    /// The exchange that `config` describes, for `hosted` of `world_size` devices and a gradient cut into `layers`.
    pub fn new(
        config: &RunConfig,
        numel: usize,
        layers: &[Range<usize>],
        hosted: usize,
        world_size: usize,
    ) -> std::result::Result<Self, CompressError> {
        let plan = |scope| Plan::new(numel, layers, scope).map(Arc::new);
        let payloads = Payloads { blocks: vec![Vec::new(); hosted] };
        Ok(match &config.compression {
            CompressionConfig::None => Self::Dense,
            CompressionConfig::TopK(top_k) => {
                let plan = plan(top_k.scope)?;
                Self::TopK {
                    devices: (0..hosted)
                        .map(|_| DeviceCompressor::new(Arc::clone(&plan), top_k))
                        .collect::<std::result::Result<_, CompressError>>()?,
                    gates: Gates::new(top_k.gate, hosted),
                    payloads,
                }
            }
            CompressionConfig::Dgc(dgc) => {
                let plan = plan(TopKScope::Layer)?;
                let momentum = config.optimizer.momentum;
                Self::Dgc {
                    devices: (0..hosted)
                        .map(|_| DgcCompressor::new(Arc::clone(&plan), dgc, momentum, world_size))
                        .collect::<std::result::Result<_, CompressError>>()?,
                    payloads,
                }
            }
        })
    }

    /// Takes the gradient of the hosted device number `device`. `sum` starts a step as zeros; `progress` is the share
    /// of the run that is done. False if a compressor finds the gradient not finite: what the device held back is lost,
    /// and it starts again from nothing.
    pub fn contribute(
        &mut self,
        device: usize,
        grad: &[f32],
        agg_weight: f64,
        progress: f64,
        sum: &mut [f32],
    ) -> Result<bool> {
        let weight = agg_weight as f32;
        match self {
            Self::Dense => {
                add_scaled(device, grad, weight, sum)?;
                Ok(true)
            }
            Self::TopK { devices, gates, .. } => match devices[device].accumulate(grad, weight) {
                Err(CompressError::NotFinite { .. }) => {
                    devices[device].reset();
                    Ok(false)
                }
                norms => {
                    gates.observe(device, norms?.as_ref());
                    Ok(true)
                }
            },
            Self::Dgc { devices, .. } => match devices[device].accumulate(grad, weight, progress) {
                Err(CompressError::NotFinite { .. }) => {
                    devices[device].reset();
                    Ok(false)
                }
                norms => Ok(norms.map(|_| true)?),
            },
        }
    }

    /// Ends the step: `sum` becomes the aggregated gradient on every process. `weights` has one entry per rank.
    pub fn finish(
        &mut self,
        weights: &[f64],
        comm: &mut dyn Communicator,
        sum: &mut [f32],
    ) -> Result<ExchangeReport> {
        let mut report = ExchangeReport::of(sum.len(), comm);
        match self {
            Self::Dense => {
                report.traffic = comm.all_reduce_sum(sum)?;
                report.sent_elements = (sum.len() * comm.world_size()) as u64;
            }
            Self::TopK { devices, gates, payloads } => match gates.decide(weights, comm, &mut report)? {
                Decision::Compressed => send_smallest(devices, payloads, comm, sum, &mut report)?,
                Decision::Dense => send_dense(devices, comm, sum, &mut report)?,
            },
            Self::Dgc { devices, payloads } => send_smallest(devices, payloads, comm, sum, &mut report)?,
        }
        Ok(report)
    }

    /// A pass over the data set is done: the gate of the reference code forgets what it has seen.
    pub fn start_epoch(&mut self) {
        if let Self::TopK { gates, .. } = self {
            gates.start_epoch();
        }
    }
}

fn votes_to_compress(config: &GateConfig, vote: &Vote) -> bool {
    vote.agg_weight > 0.0
        && match *config {
            GateConfig::Always => true,
            GateConfig::Paper { delta, .. } | GateConfig::Reference { delta } => vote.value <= delta,
        }
}

/// The collective that moves the fewest bytes, from the largest payload that each hosted device might send.
pub(crate) fn smallest_collective(
    bounds: &[u64],
    numel: usize,
    comm: &mut dyn Communicator,
    report: &mut ExchangeReport,
) -> Result<Collective> {
    let bounds: Vec<f64> = bounds.iter().map(|&bytes| bytes as f64).collect();
    let mut all_bounds = vec![0.0; comm.world_size()];
    report.traffic += comm.all_gather_scalars(&bounds, &mut all_bounds)?;
    let all_bounds: Vec<u64> = all_bounds.into_iter().map(|bytes| bytes as u64).collect();
    Ok(choose_collective(&all_bounds, numel))
}

/// Compressed payloads, unless gathering them moves more bytes than the dense sum.
fn send_smallest<S: Sender>(
    devices: &mut [S],
    payloads: &mut Payloads,
    comm: &mut dyn Communicator,
    sum: &mut [f32],
    report: &mut ExchangeReport,
) -> Result<()> {
    let bounds: Vec<u64> = devices.iter().map(|device| device.payload_bytes_bound()).collect();
    match smallest_collective(&bounds, sum.len(), comm, report)? {
        Collective::DenseAllReduce => send_dense(devices, comm, sum, report),
        Collective::SparseAllGather => send_sparse(devices, payloads, comm, sum, report),
    }
}

fn send_sparse<S: Sender>(
    devices: &mut [S],
    payloads: &mut Payloads,
    comm: &mut dyn Communicator,
    sum: &mut [f32],
    report: &mut ExchangeReport,
) -> Result<()> {
    for (device, block) in devices.iter_mut().zip(&mut payloads.blocks) {
        report.sent_elements += device.encode_sparse(block).elements as u64;
    }
    let mut decoded = Ok(());
    report.traffic += comm.all_gather_bytes(&payloads.blocks, &mut |_, block| {
        if decoded.is_ok() {
            decoded = decode_add(block, sum);
        }
    })?;
    report.compressed = true;
    Ok(decoded?)
}

fn send_dense<S: Sender>(
    devices: &mut [S],
    comm: &mut dyn Communicator,
    sum: &mut [f32],
    report: &mut ExchangeReport,
) -> Result<()> {
    for (rank, device) in devices.iter_mut().enumerate() {
        if let Some(gradient) = device.dense() {
            add_scaled(rank, gradient, 1.0, sum)?;
        }
        device.finish_dense();
    }
    report.traffic += comm.all_reduce_sum(sum)?;
    report.sent_elements = (sum.len() * comm.world_size()) as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Link;
    use crate::comm::LocalCommunicator;
    use crate::rng::{Philox, Stream};
    use crate::train::config::{LinkConfig, TopKConfig};

    const NUMEL: usize = 4096;
    const DEVICES: usize = 4;

    /// Small integers; with `spiky`, one in 64 is so large that top-k loses little.
    fn gradient(step: usize, device: usize, spiky: bool) -> Vec<f32> {
        let mut rng = Philox::new(step as u64, Stream::Init, device as u64);
        let size = |i: usize| if spiky && i.is_multiple_of(64) { 512.0 } else { 1.0 };
        let value = |i: usize| (rng.below(17) as f32 - 8.0) * size(i);
        (0..NUMEL).map(value).collect()
    }

    fn residuals(exchange: &GradientExchange) -> Vec<Vec<f32>> {
        let GradientExchange::TopK { devices, .. } = exchange else { panic!("top-k is configured") };
        devices.iter().map(|device| device.residual().to_vec()).collect()
    }

    fn add(sum: &mut [f32], x: &[f32], weight: f32) {
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x);
    }

    /// Runs steps in which one device after another has no samples; returns how many were sent compressed.
    fn assert_conserved(top_k: TopKConfig) -> usize {
        let config = RunConfig { compression: CompressionConfig::TopK(top_k), ..RunConfig::default() };
        let mut exchange = GradientExchange::new(&config, NUMEL, &[], DEVICES, DEVICES).unwrap();
        let mut comm = LocalCommunicator::new(DEVICES, Link::new(&LinkConfig::default()));
        let mut compressed = 0;
        for step in 0..12 {
            // Powers of two and small integers: every sum of f32 is exact, so the law holds to the last bit.
            let idle = step % DEVICES;
            let mut weights = vec![0.25, 0.5, 0.25];
            weights.insert(idle, 0.0);
            let before = residuals(&exchange);
            let (mut sum, mut expected) = (vec![0.0; NUMEL], vec![0.0; NUMEL]);
            before.iter().for_each(|residual| add(&mut expected, residual, 1.0));
            for (device, &weight) in weights.iter().enumerate() {
                let grad = match device == idle {
                    true => vec![f32::NAN; NUMEL], // whatever an idle device has in its buffer
                    false => gradient(step, device, step % 3 != 2),
                };
                exchange.contribute(device, &grad, weight, 0.0, &mut sum).unwrap();
                if device != idle {
                    add(&mut expected, &grad, weight as f32);
                }
            }
            let report = exchange.finish(&weights, &mut comm, &mut sum).unwrap();
            compressed += usize::from(report.compressed);
            let after = residuals(&exchange);
            assert!(
                after[idle] == before[idle],
                "step {step}: device {idle} has no samples, its residual changed"
            );
            after.iter().for_each(|residual| add(&mut sum, residual, 1.0));
            assert!(
                sum == expected,
                "step {step}: sent + residuals differ from gradients + residuals before"
            );
        }
        compressed
    }

    #[test]
    fn what_the_cluster_sends_and_keeps_is_what_it_computed_and_kept_whatever_the_gate_says() {
        let gate = GateConfig::Paper { delta: 0.3, ewma: 1.0 };
        let compressed = assert_conserved(TopKConfig { density: 0.05, gate, ..TopKConfig::default() });
        assert!(compressed > 0 && compressed < 12, "the gate never changed its mind: {compressed} of 12");
    }

    #[test]
    fn it_holds_too_where_bytes_choose_the_dense_sum_against_the_gate() {
        let always = TopKConfig { gate: GateConfig::Always, ..TopKConfig::default() };
        assert_eq!(assert_conserved(TopKConfig { density: 0.9, ..always }), 0);
        assert_eq!(assert_conserved(TopKConfig { density: 0.05, ..always }), 12);
    }
}
