//! The update of the CPU's engine, for what has no kernels (DGC, LARS): each gradient goes to the host.

use super::update::CudaUpdate;
use crate::comm::Communicator;
use crate::device::cuda::Element;
use crate::error::Result;
use crate::nn::Plan;
use crate::nn::cuda::CudaExecutor;
use crate::train::config::RunConfig;
use crate::train::engine::{ClusterStep, DeviceStep};
use crate::train::update::{Update, Updated};
use std::borrow::Cow;

/// Parameters and state on the host.
pub(super) struct HostUpdate {
    update: Update,
    params: Vec<f32>,
    grad: Vec<f32>,
    is_finite: bool,
}

impl HostUpdate {
    pub fn new(
        config: &RunConfig,
        plan: &Plan,
        hosted: usize,
        world_size: usize,
        params: Vec<f32>,
    ) -> Result<Self> {
        let update = Update::new(config, plan, hosted, world_size, &params)?;
        Ok(Self { update, grad: vec![0.0; params.len()], params, is_finite: true })
    }
}

fn load<E: Element>(params: &[f32], executor: &mut CudaExecutor<E>) -> Result<()> {
    let device = executor.device().clone();
    device.copy_from_host(params, executor.params_and_grad().0)?;
    Ok(executor.pack()?)
}

impl<E: Element> CudaUpdate<E> for HostUpdate {
    fn begin_step(&mut self, executor: &mut CudaExecutor<E>) -> Result<()> {
        self.is_finite = true;
        self.update.begin_step();
        if self.update.is_shared() { load(&self.params, executor) } else { Ok(()) }
    }

    fn load_params(&mut self, index: usize, executor: &mut CudaExecutor<E>) -> Result<()> {
        self.update.own_params(index).map_or(Ok(()), |params| load(params, executor))
    }

    fn contribute(&mut self, step: DeviceStep, samples: usize, executor: &mut CudaExecutor<E>) -> Result<()> {
        if samples > 0 {
            executor.device().copy_to_host(executor.grad(), &mut self.grad)?;
        }
        self.is_finite &= self.update.contribute(step, samples, &self.grad)?;
        Ok(())
    }

    unsafe fn queue(&mut self, _: bool, _: &mut CudaExecutor<E>) -> Result<()> {
        Ok(())
    }

    fn is_finite(&mut self) -> Result<bool> {
        Ok(self.is_finite)
    }

    fn finish(
        &mut self,
        step: ClusterStep<'_>,
        _: &mut CudaExecutor<E>,
        comm: &mut dyn Communicator,
    ) -> Result<Updated> {
        self.update.finish(step, comm, &mut self.params)
    }

    fn start_epoch(&mut self) {
        self.update.start_epoch();
    }

    fn load_shared(&self, executor: &mut CudaExecutor<E>) -> Result<()> {
        load(&self.params, executor)
    }

    fn params(&self, _: &CudaExecutor<E>) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.params))
    }
}
