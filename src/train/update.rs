//! From gradients to parameters: aggregated in each step, or by averaging parameters every few steps.

use super::exchange::{ExchangeReport, GradientExchange};
use super::local_sgd::LocalSgd;
use crate::cluster::link::all_reduce_sent_bytes;
use crate::comm::Communicator;
use crate::compress::dgc::optimizer_momentum;
use crate::error::Result;
use crate::nn::{ParamKind, Plan};
use crate::optim::{LarsLayer, Optimizer};
use crate::train::config::{OptimizerConfig, RunConfig, SyncConfig};

/// How devices keep their parameters together.
pub(crate) enum Update {
    /// Gradients are aggregated in each step; all devices share one set of parameters.
    EveryStep { exchange: GradientExchange, optimizer: Optimizer, sum: Vec<f32> },
    /// Every device has parameters of its own between averages.
    Local(LocalSgd),
}

impl Update {
    /// The update that `config` describes for `hosted` of `world_size` devices that start from `params`.
    pub fn new(
        config: &RunConfig,
        plan: &Plan,
        hosted: usize,
        world_size: usize,
        params: &[f32],
    ) -> Result<Self> {
        if let SyncConfig::Local { steps } = config.sync {
            let optimizers =
                (0..hosted).map(|_| optimizer(&config.optimizer, plan)).collect::<Result<_>>()?;
            let local = LocalSgd::new(steps as u64, config.run.steps as u64, optimizers, params);
            return Ok(Self::Local(local));
        }
        let layers: Vec<_> = plan.params().iter().map(|entry| entry.range.clone()).collect();
        let momentum = optimizer_momentum(&config.compression, config.optimizer.momentum);
        let nesterov = config.optimizer.nesterov && momentum > 0.0;
        Ok(Self::EveryStep {
            exchange: GradientExchange::new(config, plan.num_params(), &layers, hosted, world_size)?,
            optimizer: optimizer(&OptimizerConfig { momentum, nesterov, ..config.optimizer.clone() }, plan)?,
            sum: vec![0.0; plan.num_params()],
        })
    }
}

fn optimizer(config: &OptimizerConfig, plan: &Plan) -> Result<Optimizer> {
    let layers = plan.params().iter().map(|entry| LarsLayer {
        range: entry.range.clone(),
        adapt: matches!(entry.kind, ParamKind::ConvFilter | ParamKind::LinearFilter),
    });
    Ok(Optimizer::new(config, plan.num_params(), layers.collect())?)
}

/// Outcome of an update.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Updated {
    pub exchange: ExchangeReport,
    /// Euclidean norm of the aggregated gradient; under local SGD of the device with the longest one.
    pub grad_norm: f64,
    /// The gradient is not finite: parameters were left alone.
    pub diverged: bool,
}

/// Aggregates what was contributed and moves `params`.
pub(crate) fn finish_every_step(
    exchange: &mut GradientExchange,
    optimizer: &mut Optimizer,
    sum: &mut [f32],
    weights: &[f64],
    comm: &mut dyn Communicator,
    params: &mut [f32],
    lr: f64,
) -> Result<Updated> {
    let report = exchange.finish(weights, comm, sum)?;
    let grad_norm = super::norm::l2_norm(sum);
    if !grad_norm.is_finite() {
        return Ok(Updated { exchange: report, grad_norm, diverged: true });
    }
    optimizer.step(params, sum, lr)?;
    Ok(Updated { exchange: report, grad_norm, diverged: false })
}

/// Ends a step of local SGD: averages the devices' parameters into `params` where `step` is due for it.
pub(crate) fn average_when_due(
    local: &mut LocalSgd,
    step: u64,
    comm: &mut dyn Communicator,
    params: &mut [f32],
) -> Result<Updated> {
    let mut updated = Updated { grad_norm: local.take_longest_grad(), ..Updated::default() };
    if local.averages_after(step) {
        updated.exchange.traffic = local.average(comm, params)?;
        updated.exchange.sent_elements = (params.len() * comm.world_size()) as u64;
    }
    updated.exchange.dense_bytes = all_reduce_sent_bytes(size_of_val(params) as u64, comm.world_size());
    Ok(updated)
}
