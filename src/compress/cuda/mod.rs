//! [`DeviceCompressor`](super::DeviceCompressor) on a GPU that hosts several devices: the same residuals, selections and
//! payload bytes, bit for bit, without the gradients leaving the GPU.
//!
//! Selection keeps the CPU's plan of work (`topk.rs`): a sample brackets the key, one pass updates the vector and
//! collects the keys in doubt, and where the guess was wrong the GPU finds out by itself and searches the vector. Norms are
//! sums of `f64` in another fixed order than the CPU's, so their last bits may differ.

mod accumulate;
mod decode;
mod payload;
mod staged;
mod tables;

use super::coding::{BlockHead, Coding};
use super::error::{CompressError, check_contribution, check_density, check_len};
use super::pack::{PayloadInfo, block_bounds};
use super::plan::Plan;
use super::topk::{Norms, norms_of_tiles, not_finite};
use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, View, ViewMut};
use crate::error::Result;
use crate::train::config::TopKConfig;
use accumulate::{Accumulation, Cuts, EXTRA_WORDS, Scratch};
use decode::Decoder;
use payload::{Context, HEAD_WORDS, Rooms, Sent, Sign};
use staged::Staged;
use std::sync::Arc;
use tables::Tables;

/// What vectors are padded to, so that they can be read four elements at a time.
const PACK_LEN: usize = 4;
const WHAT: &str = "the residuals of the devices";

/// Where a device stands in its step.
#[derive(Clone, Debug)]
enum Phase {
    /// No selection.
    Idle,
    /// A selection that [`CudaCompressors::read`] has not seen.
    Queued,
    /// A selection, its norms, and the size of its payload, exact and at most.
    Selected { norms: Norms, info: PayloadInfo, bytes_bound: u64 },
    /// The residual is lost.
    Poisoned(CompressError),
}

#[derive(Debug)]
struct Hosted {
    /// The residual; with a selection, the compensated gradient.
    vector: DeviceBuffer<f32>,
    cuts: Cuts,
    phase: Phase,
    /// The elements of the last selection.
    sent: Sent,
    /// Whether there is one that was not sent dense.
    has_sent: bool,
    fallbacks: u64,
}

/// Residuals and compression state of the devices that one GPU hosts, numbered from 0.
///
/// Memory on the GPU: 4 bytes an element and device, and 6 bytes for each kept element; shared by all, half a byte an element
/// for the selection and one payload.
#[derive(Debug)]
pub struct CudaCompressors {
    device: Arc<CudaDevice>,
    plan: Arc<Plan>,
    error_feedback: bool,
    coding: Coding,
    tables: Tables,
    scratch: Scratch,
    hosted: Vec<Hosted>,
    sums: Staged<f64>,
    counts: Staged<u64>,
    rooms: Rooms,
    decoder: Decoder,
}

impl CudaCompressors {
    /// `devices` devices with residuals of 0.
    ///
    /// # Errors
    /// As [`DeviceCompressor::new`](super::DeviceCompressor::new), or there is no room on the GPU.
    pub fn new(
        device: Arc<CudaDevice>,
        plan: Arc<Plan>,
        config: &TopKConfig,
        devices: usize,
    ) -> Result<Self> {
        check_density(config.density)?;
        if plan.scope() != config.scope {
            return Err(CompressError::Scope { plan: plan.scope(), config: config.scope }.into());
        }
        let tables = Tables::new(&device, &plan, config.density)?;
        let hosted = |_| {
            Ok(Hosted {
                vector: device.zeros(plan.numel().next_multiple_of(PACK_LEN), WHAT)?,
                cuts: Cuts::new(&device, &tables)?,
                phase: Phase::Idle,
                sent: Sent::default(),
                has_sent: false,
                fallbacks: 0,
            })
        };
        let tiles = tables.tiles;
        Ok(Self {
            hosted: (0..devices).map(hosted).collect::<std::result::Result<_, CudaError>>()?,
            scratch: Scratch::new(&device, &tables)?,
            sums: Staged::new(&device, 2 * tiles * devices, "the norms of gradients")?,
            counts: Staged::new(&device, (tiles + EXTRA_WORDS) * devices, "the norms of gradients")?,
            rooms: Rooms::new(&device, plan.block_tiles.len(), devices)?,
            decoder: Decoder::default(),
            error_feedback: config.error_feedback,
            coding: Coding { values: config.values, indices: config.indices },
            tables,
            device,
            plan,
        })
    }

    /// Queues what adds `agg_weight * grad` to the residual of device `index`, selects the top-k of the sum p and copies it
    /// out of p, which stays whole. With weight 0 nothing happens, and the device has no selection. Does not wait.
    ///
    /// # Shapes
    /// `grad`: `[numel]` of the plan
    ///
    /// # Errors
    /// As [`DeviceCompressor::accumulate`](super::DeviceCompressor::accumulate), but for what is not finite: that comes from
    /// [`Self::norms`]. Or what the driver says.
    pub fn accumulate(&mut self, index: usize, grad: View<'_, f32>, agg_weight: f32) -> Result<()> {
        let hosted = &mut self.hosted[index];
        let poisoned = matches!(hosted.phase, Phase::Poisoned(_));
        check_contribution(grad.len(), self.plan.numel(), agg_weight, poisoned)?;
        (hosted.phase, hosted.has_sent) = (Phase::Idle, false);
        if agg_weight == 0.0 {
            return Ok(());
        }
        let (sums, counts) = (2 * self.tables.tiles, self.tables.tiles + EXTRA_WORDS);
        let accumulation = Accumulation {
            device: &self.device,
            tables: &self.tables,
            scratch: &mut self.scratch,
            vector: &mut hosted.vector,
            cuts: &mut hosted.cuts,
            grad,
            weight: agg_weight,
            sums: self.sums.view_mut(sums * index..sums * (index + 1)),
            counts: self.counts.view_mut(counts * index..counts * (index + 1)),
        };
        accumulation.run()?;
        let context = Context::new(&self.device, &self.plan, &self.tables, self.coding);
        let heads = HEAD_WORDS * context.blocks();
        let heads = self.rooms.heads.view_mut(heads * index..heads * (index + 1));
        let Hosted { vector, cuts, sent, .. } = hosted;
        context.pack(vector.view(), cuts, sent, heads)?;
        (hosted.phase, hosted.has_sent) = (Phase::Queued, true);
        Ok(())
    }

    /// Waits for the selections that are queued, and fetches their norms and sizes.
    ///
    /// # Errors
    /// What the GPU found wrong in any launch since the last wait.
    pub fn read(&mut self) -> Result<()> {
        if self.hosted.iter().any(|hosted| matches!(hosted.phase, Phase::Queued)) {
            // SAFETY: the wait ends before they are read.
            unsafe { self.queue_read() }?;
            self.device.synchronize()?;
            self.finish_read();
        }
        Ok(())
    }

    /// The first half of [`Self::read`]: queues the downloads.
    ///
    /// # Safety
    /// Nothing but [`Self::accumulate`] and [`Self::add_sent`] is called before the device has been waited for and
    /// [`Self::finish_read`] was called.
    pub(crate) unsafe fn queue_read(&mut self) -> Result<()> {
        let devices = self.hosted.len();
        // SAFETY: the caller's promise.
        unsafe {
            self.sums.queue_download(&self.device, 2 * self.tables.tiles * devices)?;
            self.counts.queue_download(&self.device, (self.tables.tiles + EXTRA_WORDS) * devices)?;
            let heads = HEAD_WORDS * self.plan.block_tiles.len();
            self.rooms.heads.queue_download(&self.device, heads * devices)?;
        }
        Ok(())
    }

    /// The second half of [`Self::read`], after the wait.
    pub(crate) fn finish_read(&mut self) {
        let (sums, counts) = (2 * self.tables.tiles, self.tables.tiles + EXTRA_WORDS);
        for (index, hosted) in self.hosted.iter_mut().enumerate() {
            if matches!(hosted.phase, Phase::Queued) {
                let sums = &self.sums.host()[sums * index..][..sums];
                let counts = &self.counts.host()[counts * index..][..counts];
                let heads = self.rooms.heads_of(index, self.plan.block_tiles.len());
                hosted.fallbacks = counts[self.tables.tiles + 2];
                hosted.phase = phase(&self.plan, self.coding, sums, counts, &heads);
                hosted.has_sent = matches!(hosted.phase, Phase::Selected { .. });
            }
        }
    }

    /// Norms of p and its top-k, after [`Self::read`]; `None` without a selection.
    ///
    /// # Errors
    /// [`CompressError::NotFinite`] with the smallest such index, if the gradient or p holds one. The device refuses to go
    /// on until [`Self::reset`] or [`Self::load_residual`].
    ///
    /// # Panics
    /// If a selection was queued since the last [`Self::read`].
    pub fn norms(&self, index: usize) -> std::result::Result<Option<Norms>, CompressError> {
        match &self.hosted[index].phase {
            Phase::Idle => Ok(None),
            Phase::Selected { norms, .. } => Ok(Some(*norms)),
            Phase::Poisoned(error) => Err(error.clone()),
            Phase::Queued => panic!("device {index}: its norms are asked for before they were read"),
        }
    }

    /// Groups of the last selection that was read whose bracket was of no use: they were searched in the vector, which
    /// takes longer.
    pub fn fallbacks(&self, index: usize) -> u64 {
        self.hosted[index].fallbacks
    }

    /// Most bytes of the payload of device `index`, after [`Self::read`], as
    /// [`DeviceCompressor::payload_bytes_bound`](super::DeviceCompressor::payload_bytes_bound).
    ///
    /// # Panics
    /// As [`Self::norms`].
    pub fn payload_bytes_bound(&self, index: usize) -> u64 {
        match &self.hosted[index].phase {
            Phase::Selected { bytes_bound, .. } => *bytes_bound,
            Phase::Idle | Phase::Poisoned(_) => payload::empty_info().bytes,
            Phase::Queued => panic!("device {index}: its size is asked for before it was read"),
        }
    }

    /// Size of the payload of device `index`, after [`Self::read`]: what [`Self::take_sparse`] is going to take, or nothing
    /// without a selection.
    ///
    /// # Panics
    /// As [`Self::norms`].
    pub fn payload_info(&self, index: usize) -> PayloadInfo {
        match &self.hosted[index].phase {
            Phase::Selected { info, .. } => *info,
            Phase::Idle | Phase::Poisoned(_) => payload::empty_info(),
            Phase::Queued => panic!("device {index}: its size is asked for before it was read"),
        }
    }

    /// Takes the top-k out of every p, and returns their sizes; the elements stay on the GPU, for a process that has all
    /// devices. Residuals become p minus the values that a receiver decodes, or 0 without error feedback; a device without
    /// a selection keeps its residual. After [`Self::read`], or it reads; does not wait beyond that.
    ///
    /// # Errors
    /// What the driver says.
    pub fn take_sparse(&mut self) -> Result<Vec<PayloadInfo>> {
        self.read()?;
        let infos = (0..self.hosted.len()).map(|index| self.payload_info(index)).collect();
        let numel = self.plan.numel();
        for hosted in &mut self.hosted {
            if matches!(hosted.phase, Phase::Selected { .. }) {
                hosted.phase = Phase::Idle;
                match self.error_feedback {
                    false => self.device.fill_zero(hosted.vector.view_mut())?,
                    true => {
                        let Hosted { vector, cuts, sent, .. } = hosted;
                        let vector = vector.view_mut().part(..numel);
                        add_elements(&self.device, &self.tables, vector, Sign::Minus, sent, cuts)?;
                    }
                }
            }
        }
        Ok(infos)
    }

    /// [`Self::take_sparse`], and the payload of each device into `blocks`, replacing their content. Waits once more.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If there is not one block for each device.
    pub fn encode_sparse(&mut self, blocks: &mut [Vec<u8>]) -> Result<Vec<PayloadInfo>> {
        assert_eq!(blocks.len(), self.hosted.len(), "one block a device");
        self.read()?;
        let selected = |hosted: &Hosted| matches!(hosted.phase, Phase::Selected { .. });
        let selected: Vec<bool> = self.hosted.iter().map(selected).collect();
        let infos = self.take_sparse()?;
        let sent: Vec<_> = (self.hosted.iter().zip(selected))
            .map(|(hosted, selected)| selected.then_some((&hosted.sent, &hosted.cuts)))
            .collect();
        let context = Context::new(&self.device, &self.plan, &self.tables, self.coding);
        context.write(&mut self.rooms, &sent, blocks)?;
        Ok(infos)
    }

    /// Queues what adds to `sum` the elements that device `index` has selected, as a receiver decodes them: before or after
    /// they are taken, until it accumulates again or sends them dense.
    ///
    /// # Shapes
    /// `sum`: `[numel]` of the plan
    ///
    /// # Errors
    /// `sum` of another length, or what the driver says.
    pub fn add_sent(&self, index: usize, sum: ViewMut<'_, f32>) -> Result<()> {
        crate::device::cuda::check_len("coding_add_f32", "sum", sum.len(), self.plan.numel())?;
        let Hosted { sent, cuts, has_sent, .. } = &self.hosted[index];
        match has_sent {
            true => add_elements(&self.device, &self.tables, sum, Sign::Plus, sent, cuts),
            false => Ok(()),
        }
    }

    /// Adds a payload from elsewhere to `sum`; nothing is added unless all of it is valid. Waits once.
    ///
    /// # Shapes
    /// `sum`: `[numel]`, as many elements as the payload is of
    ///
    /// # Errors
    /// As [`decode_add`](super::coding::decode_add), or what the driver says.
    pub fn decode_add(&mut self, block: &[u8], sum: ViewMut<'_, f32>) -> Result<()> {
        self.decoder.add(&self.device, block, sum)
    }

    /// Queues a dense step: adds to `sum` all of p of each device that has a selection, in order, and sets its residual to 0.
    ///
    /// # Shapes
    /// `sum`: `[numel]` of the plan
    ///
    /// # Errors
    /// `sum` of another length, or what the driver says.
    pub fn add_dense(&mut self, mut sum: ViewMut<'_, f32>) -> Result<()> {
        self.read()?;
        let numel = self.plan.numel();
        crate::device::cuda::check_len("topk_dense_f32", "sum", sum.len(), numel)?;
        let selected = |hosted: &&mut Hosted| matches!(hosted.phase, Phase::Selected { .. });
        let mut selected: Vec<&mut Hosted> = self.hosted.iter_mut().filter(selected).collect();
        for some in selected.chunks_mut(payload::DENSE_DEVICES) {
            let mut vectors: Vec<_> = some.iter_mut().map(|hosted| &mut hosted.vector).collect();
            payload::add_dense(&self.device, sum.reborrow(), &mut vectors, numel)?;
            for hosted in some {
                (hosted.phase, hosted.has_sent) = (Phase::Idle, false);
            }
        }
        Ok(())
    }

    /// What device `index` has not sent so far. With a selection it includes the new gradient.
    pub fn residual(&self, index: usize) -> View<'_, f32> {
        self.hosted[index].vector.view().slice(..self.plan.numel())
    }

    /// Replaces a residual, as when a checkpoint is loaded. Waits.
    ///
    /// # Errors
    /// As [`DeviceCompressor::load_residual`](super::DeviceCompressor::load_residual), or what the driver says.
    pub fn load_residual(&mut self, index: usize, residual: &[f32]) -> Result<()> {
        check_len("residual", residual.len(), self.plan.numel())?;
        if let Some(at) = residual.iter().position(|x| !x.is_finite()) {
            return Err(not_finite("residual", at, residual).into());
        }
        // Plus 0: a residual is never -0, or sent + residual could differ from p in the sign of a zero.
        let residual: Vec<f32> = residual.iter().map(|x| x + 0.0).collect();
        let hosted = &mut self.hosted[index];
        self.device.copy_from_host(&residual, hosted.vector.view_mut().part(..residual.len()))?;
        (hosted.phase, hosted.has_sent) = (Phase::Idle, false);
        Ok(())
    }

    /// Sets a residual to 0.
    ///
    /// # Errors
    /// What the driver says.
    pub fn reset(&mut self, index: usize) -> Result<()> {
        let hosted = &mut self.hosted[index];
        self.device.fill_zero(hosted.vector.view_mut())?;
        (hosted.phase, hosted.has_sent) = (Phase::Idle, false);
        Ok(())
    }
}

/// Adds the elements of a selection to a vector, or subtracts them.
fn add_elements(
    device: &CudaDevice,
    tables: &Tables,
    to: ViewMut<'_, f32>,
    sign: Sign,
    sent: &Sent,
    cuts: &Cuts,
) -> Result<()> {
    let (Some(positions), Some(values)) = (&sent.positions, &sent.values) else { return Ok(()) };
    let elements = (positions.view(), values.view());
    Ok(payload::add(device, to, sign, elements, cuts.first.view(), Some(tables.block_chunk.view()), None)?)
}

/// What the GPU reports of a selection: squares of all and of kept elements of each tile; numbers kept, then extra words.
fn phase(plan: &Plan, coding: Coding, sums: &[f64], counts: &[u64], heads: &[BlockHead]) -> Phase {
    let tiles = plan.tiles.len();
    let (kept, extra) = counts.split_at(tiles);
    if extra[0] != 0 {
        let bits = [extra[1] as u32, (extra[1] >> 32) as u32];
        let [grad, p] = bits.map(f32::from_bits);
        let (what, value) = match grad.is_finite() {
            false => ("gradient", grad),
            true => ("compensated gradient", p),
        };
        return Phase::Poisoned(CompressError::NotFinite { what, index: !extra[0] as usize, value });
    }
    let (sq, topk_sq) = sums.split_at(tiles);
    let of_tile =
        sq.iter().zip(topk_sq).zip(kept).map(|((sq, topk_sq), kept)| (*sq, *topk_sq, *kept as usize));
    let bounds = block_bounds(plan, |tile| kept[tile] as usize, coding);
    let bytes_bound = super::coding::payload_len_bound(&bounds) as u64;
    let info = payload::info(plan.numel(), coding, heads);
    Phase::Selected { norms: norms_of_tiles(plan, of_tile), info, bytes_bound }
}
