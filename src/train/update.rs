//! From gradients to parameters: aggregated in each step, or by averaging parameters every few steps.

use super::engine::{ClusterStep, DeviceStep};
use super::exchange::{ExchangeReport, GradientExchange};
use super::local_sgd::{Averages, LocalSgd};
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
            let averages = Averages::new(steps as u64, config.run.steps as u64, hosted);
            return Ok(Self::Local(LocalSgd::new(averages, optimizers, params)));
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

    /// Starts a step: nothing is contributed yet.
    pub fn begin_step(&mut self) {
        match self {
            Self::EveryStep { sum, .. } => sum.fill(0.0),
            Self::Local(local) => local.begin_step(),
        }
    }

    /// Whether all devices share one set of parameters.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::EveryStep { .. })
    }

    /// The parameters of the hosted device number `index`, where it has its own.
    pub fn own_params(&self, index: usize) -> Option<&[f32]> {
        match self {
            Self::EveryStep { .. } => None,
            Self::Local(local) => Some(local.params(index)),
        }
    }

    /// Takes the gradient of a device's `samples` samples; false if it is not finite, see [`Engine::train`].
    ///
    /// [`Engine::train`]: super::engine::Engine::train
    pub fn contribute(&mut self, step: DeviceStep, samples: usize, grad: &[f32]) -> Result<bool> {
        let DeviceStep { index, agg_weight, progress, local_lr, .. } = step;
        match self {
            Self::EveryStep { exchange, sum, .. } => {
                exchange.contribute(index, grad, agg_weight, progress, sum)
            }
            Self::Local(local) => local.step(index, grad, samples, local_lr),
        }
    }

    /// Ends a step: aggregates what was contributed and moves `params`, or averages them where that is due.
    pub fn finish(
        &mut self,
        step: ClusterStep<'_>,
        comm: &mut dyn Communicator,
        params: &mut [f32],
    ) -> Result<Updated> {
        match self {
            Self::EveryStep { .. } if step.global_batch == 0 => Ok(Updated::default()),
            Self::EveryStep { exchange, optimizer, sum } => {
                let report = exchange.finish(step.weights, comm, sum)?;
                let grad_norm = super::norm::l2_norm(sum);
                let diverged = !grad_norm.is_finite();
                if !diverged {
                    optimizer.step(params, sum, step.lr)?;
                }
                Ok(Updated { exchange: report, grad_norm, diverged })
            }
            Self::Local(local) => average_when_due(local, step.step, comm, params),
        }
    }

    /// A pass over the data set is done.
    pub fn start_epoch(&mut self) {
        if let Self::EveryStep { exchange, .. } = self {
            exchange.start_epoch();
        }
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

/// Ends a step of local SGD: averages the devices' parameters into `params` where `step` is due for it.
fn average_when_due(
    local: &mut LocalSgd,
    step: u64,
    comm: &mut dyn Communicator,
    params: &mut [f32],
) -> Result<Updated> {
    let mut updated = Updated { grad_norm: local.longest_grad(), ..Updated::default() };
    if local.averages_after(step) {
        updated.exchange.traffic = local.average(comm, params)?;
        updated.exchange.sent_elements = (params.len() * comm.world_size()) as u64;
    }
    updated.exchange.dense_bytes = all_reduce_sent_bytes(size_of_val(params) as u64, comm.world_size());
    Ok(updated)
}
