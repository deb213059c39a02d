//! From the gradients of all devices to one, on the GPU: dense, or top-k with error feedback behind the gate.

use crate::aggregate::Collective;
use crate::comm::{Communicator, Traffic};
use crate::compress::cuda::CudaCompressors;
use crate::compress::{CompressError, Decision};
use crate::device::cuda::{CudaDevice, DeviceBuffer, View, ViewMut};
use crate::error::Result;
use crate::nn::Plan;
use crate::train::config::{CompressionConfig, RunConfig};
use crate::train::exchange::{ExchangeReport, Gates, smallest_collective};
use std::sync::Arc;

/// One state per hosted device.
pub(super) enum CudaExchange {
    Dense,
    TopK { compressors: Box<CudaCompressors>, gates: Gates, blocks: Vec<Vec<u8>> },
}

/// Whether the sum is the one that [`CudaExchange::queue`] left on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Summed {
    AsQueued,
    Anew,
}

impl CudaExchange {
    /// The exchange that `config` describes; DGC is not among them.
    pub fn new(config: &RunConfig, device: &Arc<CudaDevice>, plan: &Plan, hosted: usize) -> Result<Self> {
        let CompressionConfig::TopK(top_k) = &config.compression else { return Ok(Self::Dense) };
        let layers: Vec<_> = plan.params().iter().map(|entry| entry.range.clone()).collect();
        let plan = Arc::new(crate::compress::Plan::new(plan.num_params(), &layers, top_k.scope)?);
        Ok(Self::TopK {
            compressors: Box::new(CudaCompressors::new(Arc::clone(device), plan, top_k, hosted)?),
            gates: Gates::new(top_k.gate, hosted),
            blocks: vec![Vec::new(); hosted],
        })
    }

    /// Queues what takes up the gradient of the hosted device number `index`; with weight 0 it is not read. `sum` starts a
    /// step as zeros.
    pub fn contribute(
        &mut self,
        device: &CudaDevice,
        index: usize,
        grad: View<'_, f32>,
        agg_weight: f32,
        sum: ViewMut<'_, f32>,
    ) -> Result<()> {
        match self {
            Self::Dense => Ok(device.add_scaled(sum, grad, agg_weight)?),
            Self::TopK { compressors, .. } => Ok(compressors.accumulate(index, grad, agg_weight)?),
        }
    }

    /// Queues the download of the norms and sizes that [`Self::finish`] decides by. Where this process hosts every device,
    /// it leaves the aggregated gradient in `sum`, as if the gate were open: a step whose gate is closed adds up again.
    ///
    /// # Safety
    /// The device is waited for before anything else is called.
    pub unsafe fn queue(&mut self, hosts_all: bool, mut sum: ViewMut<'_, f32>) -> Result<()> {
        let Self::TopK { compressors, blocks, .. } = self else { return Ok(()) };
        // SAFETY: the caller's promise.
        unsafe { compressors.queue_read() }?;
        if hosts_all {
            for index in 0..blocks.len() {
                compressors.add_sent(index, sum.reborrow())?;
            }
        }
        Ok(())
    }

    /// Whether every contributed gradient was finite, after the wait. Residuals that met another are set to 0.
    pub fn is_finite(&mut self) -> Result<bool> {
        let Self::TopK { compressors, blocks, .. } = self else { return Ok(true) };
        compressors.finish_read();
        let mut all = true;
        for index in 0..blocks.len() {
            if let Err(CompressError::NotFinite { .. }) = compressors.norms(index) {
                compressors.reset(index)?;
                all = false;
            }
        }
        Ok(all)
    }

    /// Ends the step: `sum` becomes the aggregated gradient on every process. `weights` has one entry per rank.
    pub fn finish(
        &mut self,
        device: &CudaDevice,
        weights: &[f64],
        comm: &mut dyn Communicator,
        sum: &mut DeviceBuffer<f32>,
    ) -> Result<(ExchangeReport, Summed)> {
        let mut report = ExchangeReport::of(sum.len(), comm);
        let hosts_all = comm.hosts_all();
        let Self::TopK { compressors, gates, blocks } = self else {
            report.traffic += all_reduce(device, comm, sum)?;
            report.sent_elements = (sum.len() * comm.world_size()) as u64;
            return Ok((report, if hosts_all { Summed::AsQueued } else { Summed::Anew }));
        };
        for index in 0..blocks.len() {
            gates.observe(index, compressors.norms(index)?.as_ref());
        }
        let collective = match gates.decide(weights, comm, &mut report)? {
            Decision::Dense => Collective::DenseAllReduce,
            Decision::Compressed => {
                let bounds: Vec<u64> =
                    (0..blocks.len()).map(|index| compressors.payload_bytes_bound(index)).collect();
                smallest_collective(&bounds, sum.len(), comm, &mut report)?
            }
        };
        report.compressed = collective == Collective::SparseAllGather;
        match collective {
            Collective::SparseAllGather if hosts_all => {
                let taken = compressors.take_sparse()?;
                report.sent_elements = taken.iter().map(|info| info.elements as u64).sum();
                let bytes: Vec<u64> = taken.iter().map(|info| info.bytes).collect();
                report.traffic += comm.all_gather_hosted(&bytes)?;
                Ok((report, Summed::AsQueued))
            }
            Collective::SparseAllGather => {
                gather(compressors, blocks, comm, sum, &mut report)?;
                Ok((report, Summed::Anew))
            }
            Collective::DenseAllReduce => {
                device.fill_zero(sum.view_mut())?;
                compressors.add_dense(sum.view_mut())?;
                report.traffic += all_reduce(device, comm, sum)?;
                report.sent_elements = (sum.len() * comm.world_size()) as u64;
                Ok((report, Summed::Anew))
            }
        }
    }

    /// A pass over the data set is done: the gate of the reference code forgets what it has seen.
    pub fn start_epoch(&mut self) {
        if let Self::TopK { gates, .. } = self {
            gates.start_epoch();
        }
    }
}

/// Payloads of all devices, added to `sum` in rank order; those of hosted devices are added as they stand on the GPU.
fn gather(
    compressors: &mut CudaCompressors,
    blocks: &mut [Vec<u8>],
    comm: &mut dyn Communicator,
    sum: &mut DeviceBuffer<f32>,
    report: &mut ExchangeReport,
) -> Result<()> {
    let sent = compressors.encode_sparse(blocks)?;
    report.sent_elements = sent.iter().map(|info| info.elements as u64).sum();
    let hosted = comm.local_ranks();
    let mut added = Ok(());
    report.traffic += comm.all_gather_bytes(blocks, &mut |rank, block| {
        if added.is_ok() {
            added = match hosted.contains(&rank) {
                true => compressors.add_sent(rank - hosted.start, sum.view_mut()),
                false => compressors.decode_add(block, sum.view_mut()),
            };
        }
    })?;
    added
}

/// All-reduces a vector that holds the hosted devices' part; through the host, where others take part.
pub(super) fn all_reduce(
    device: &CudaDevice,
    comm: &mut dyn Communicator,
    sum: &mut DeviceBuffer<f32>,
) -> Result<Traffic> {
    if comm.hosts_all() {
        return Ok(comm.all_reduce_hosted(sum.len())?);
    }
    let mut host = device.download(sum.view())?;
    let traffic = comm.all_reduce_sum(&mut host)?;
    device.copy_from_host(&host, sum.view_mut())?;
    Ok(traffic)
}
