//! From the gradients of all devices to one, on the GPU: dense, or top-k with error feedback behind the gate.

use crate::aggregate::Collective;
use crate::comm::Communicator;
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

    /// Queues what takes up the gradient of the hosted device number `index`. `sum` starts a step as zeros.
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

    /// Fetches the norms and sizes that [`Self::finish`] decides by.
    pub fn read(&mut self) -> Result<()> {
        match self {
            Self::Dense => Ok(()),
            Self::TopK { compressors, .. } => Ok(compressors.read()?),
        }
    }

    /// Ends the step: `sum` becomes the aggregated gradient on every process. `weights` has one entry per rank. `None` if a
    /// gradient is not finite.
    pub fn finish(
        &mut self,
        device: &CudaDevice,
        weights: &[f64],
        comm: &mut dyn Communicator,
        sum: &mut DeviceBuffer<f32>,
    ) -> Result<Option<ExchangeReport>> {
        let mut report = ExchangeReport::of(sum.len(), comm);
        let Self::TopK { compressors, gates, blocks } = self else {
            reduce(device, comm, sum, &mut report)?;
            return Ok(Some(report));
        };
        for index in 0..blocks.len() {
            match compressors.norms(index) {
                Err(CompressError::NotFinite { .. }) => return Ok(None),
                norms => gates.observe(index, norms?.as_ref()),
            }
        }
        let collective = match gates.decide(weights, comm, &mut report)? {
            Decision::Dense => Collective::DenseAllReduce,
            Decision::Compressed => {
                let bounds: Vec<u64> =
                    (0..blocks.len()).map(|index| compressors.payload_bytes_bound(index)).collect();
                smallest_collective(&bounds, sum.len(), comm, &mut report)?
            }
        };
        match collective {
            Collective::DenseAllReduce => {
                compressors.add_dense(sum.view_mut())?;
                reduce(device, comm, sum, &mut report)?;
            }
            Collective::SparseAllGather => gather(compressors, blocks, comm, sum, &mut report)?,
        }
        Ok(Some(report))
    }

    /// A pass over the data set is done: the gate of the reference code forgets what it has seen.
    pub fn start_epoch(&mut self) {
        if let Self::TopK { gates, .. } = self {
            gates.start_epoch();
        }
    }
}

/// Payloads of all devices, added to `sum` in rank order; those of hosted devices never leave the GPU for that.
fn gather(
    compressors: &mut CudaCompressors,
    blocks: &mut [Vec<u8>],
    comm: &mut dyn Communicator,
    sum: &mut DeviceBuffer<f32>,
    report: &mut ExchangeReport,
) -> Result<()> {
    let sent = compressors.encode_sparse(blocks)?;
    report.sent_elements += sent.iter().map(|info| info.elements as u64).sum::<u64>();
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
    report.compressed = true;
    added
}

/// All-reduces `sum`, which holds the hosted devices' part.
fn reduce(
    device: &CudaDevice,
    comm: &mut dyn Communicator,
    sum: &mut DeviceBuffer<f32>,
    report: &mut ExchangeReport,
) -> Result<()> {
    report.sent_elements = (sum.len() * comm.world_size()) as u64;
    report.traffic += match comm.all_reduce_hosted(sum.len())? {
        Some(traffic) => traffic,
        None => {
            let mut host = device.download(sum.view())?;
            let traffic = comm.all_reduce_sum(&mut host)?;
            device.copy_from_host(&host, sum.view_mut())?;
            traffic
        }
    };
    Ok(())
}
