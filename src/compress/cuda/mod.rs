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

use super::coding::Coding;
use super::error::{CompressError, check_contribution, check_density, check_len};
use super::pack::{PayloadInfo, block_bounds};
use super::plan::Plan;
use super::topk::{Norms, norms_of_tiles, not_finite};
use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, View, ViewMut};
use crate::error::Result;
use crate::train::config::TopKConfig;
use accumulate::{Accumulation, Cuts, EXTRA_WORDS, Scratch, part};
use decode::Decoder;
use payload::{Context, HEAD_WORDS, Rooms, Sent};
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
    /// A selection, its norms, and the most bytes of its payload.
    Selected { norms: Norms, bytes_bound: u64 },
    /// The residual is lost.
    Poisoned(CompressError),
}

#[derive(Debug)]
struct Hosted {
    /// The residual; with a selection, the compensated gradient.
    vector: DeviceBuffer<f32>,
    cuts: Cuts,
    phase: Phase,
    sent: Sent,
    /// Whether `sent` is what the last [`CudaCompressors::pack_sparse`] took.
    has_sent: bool,
    fallbacks: u64,
}

/// Residuals and compression state of the devices that one GPU hosts, numbered from 0.
///
/// Memory on the GPU: 4 bytes an element and device; once a device sends compressed, 6 bytes for each kept element; shared by
/// all, half a byte an element for the selection and one payload.
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

    /// Queues what adds `agg_weight * grad` to the residual of device `index` and selects the top-k of the sum p. With
    /// weight 0 nothing happens, and the device has no selection. Does not wait.
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
        hosted.phase = Phase::Queued;
        Ok(())
    }

    /// Waits for the selections that are queued, and fetches their norms and sizes.
    ///
    /// # Errors
    /// What the GPU found wrong in any launch since the last wait.
    pub fn read(&mut self) -> Result<()> {
        if !self.hosted.iter().any(|hosted| matches!(hosted.phase, Phase::Queued)) {
            return Ok(());
        }
        let (sums, counts) = (2 * self.tables.tiles, self.tables.tiles + EXTRA_WORDS);
        // SAFETY: nothing reads them before the wait below.
        unsafe {
            self.sums.queue_download(&self.device, sums * self.hosted.len())?;
            self.counts.queue_download(&self.device, counts * self.hosted.len())?;
        }
        self.device.synchronize()?;
        for (index, hosted) in self.hosted.iter_mut().enumerate() {
            if matches!(hosted.phase, Phase::Queued) {
                let sums = &self.sums.host()[sums * index..][..sums];
                let counts = &self.counts.host()[counts * index..][..counts];
                hosted.fallbacks = counts[self.tables.tiles + 2];
                hosted.phase = phase(&self.plan, self.coding, sums, counts);
            }
        }
        Ok(())
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

    /// Takes the top-k out of every p and returns the sizes of the payloads, which stay on the GPU: for a process that has
    /// all devices. Residuals become p minus the values that a receiver decodes, or 0 without error feedback; a device
    /// without a selection keeps its residual. Waits once.
    ///
    /// # Errors
    /// What the driver says.
    pub fn pack_sparse(&mut self) -> Result<Vec<PayloadInfo>> {
        self.read()?;
        let context = context(&self.device, &self.plan, &self.tables, self.coding);
        let head_words = HEAD_WORDS * context.blocks();
        for (index, hosted) in self.hosted.iter_mut().enumerate() {
            hosted.has_sent = matches!(hosted.phase, Phase::Selected { .. });
            if hosted.has_sent {
                let heads = self.rooms.heads.view_mut(head_words * index..head_words * (index + 1));
                let Hosted { vector, cuts, sent, .. } = hosted;
                context.pack(vector, cuts, sent, !self.error_feedback, heads)?;
                hosted.phase = Phase::Idle;
            }
        }
        // SAFETY: nothing reads them before the wait below.
        unsafe { self.rooms.heads.queue_download(&self.device, head_words * self.hosted.len()) }?;
        self.device.synchronize()?;
        let info = |(index, hosted): (usize, &Hosted)| match hosted.has_sent {
            true => payload::info(
                self.plan.numel(),
                self.coding,
                &self.rooms.heads_of(index, self.plan.block_tiles.len()),
            ),
            false => payload::empty_info(),
        };
        Ok(self.hosted.iter().enumerate().map(info).collect())
    }

    /// [`Self::pack_sparse`], and the payload of each device into `blocks`, replacing their content. Waits twice.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If there is not one block for each device.
    pub fn encode_sparse(&mut self, blocks: &mut [Vec<u8>]) -> Result<Vec<PayloadInfo>> {
        assert_eq!(blocks.len(), self.hosted.len(), "one block a device");
        let infos = self.pack_sparse()?;
        let sent: Vec<_> = (self.hosted.iter())
            .map(|hosted| hosted.has_sent.then_some((&hosted.sent, &hosted.cuts)))
            .collect();
        let context = context(&self.device, &self.plan, &self.tables, self.coding);
        context.write(&mut self.rooms, &sent, blocks)?;
        Ok(infos)
    }

    /// Queues what adds to `sum` the elements that the last [`Self::pack_sparse`] or [`Self::encode_sparse`] took from device
    /// `index`, as a receiver decodes them: nothing once the device has accumulated again.
    ///
    /// # Errors
    /// `sum` of another length, or what the driver says.
    pub fn add_sent(&self, index: usize, sum: ViewMut<'_, f32>) -> Result<()> {
        crate::device::cuda::check_len("coding_add_f32", "sum", sum.len(), self.plan.numel())?;
        let Hosted { sent, cuts, has_sent, .. } = &self.hosted[index];
        match (&sent.positions, &sent.values) {
            (Some(positions), Some(values)) if *has_sent => {
                let chunks = Some(self.tables.block_chunk.view());
                let elements = (positions.view(), values.view());
                Ok(payload::add(&self.device, sum, elements, cuts.first.view(), chunks, None)?)
            }
            _ => Ok(()),
        }
    }

    /// Adds a payload from elsewhere to `sum`; nothing is added unless all of it is valid. Waits once.
    ///
    /// # Errors
    /// As [`decode_add`](super::coding::decode_add), or what the driver says.
    pub fn decode_add(&mut self, block: &[u8], sum: ViewMut<'_, f32>) -> Result<()> {
        self.decoder.add(&self.device, block, sum)
    }

    /// Queues a dense step: adds to `sum` all of p of each device that has a selection, in order, and sets its residual to 0.
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
            some.iter_mut().for_each(|hosted| hosted.phase = Phase::Idle);
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
        self.device.copy_from_host(&residual, part(&mut hosted.vector, 0..residual.len()))?;
        hosted.phase = Phase::Idle;
        Ok(())
    }

    /// Sets a residual to 0.
    ///
    /// # Errors
    /// What the driver says.
    pub fn reset(&mut self, index: usize) -> Result<()> {
        let hosted = &mut self.hosted[index];
        self.device.fill_zero(hosted.vector.view_mut())?;
        hosted.phase = Phase::Idle;
        Ok(())
    }
}

fn context<'a>(device: &'a CudaDevice, plan: &'a Plan, tables: &'a Tables, coding: Coding) -> Context<'a> {
    Context { device, plan, tables, coding }
}

/// What the GPU reports of a selection: squares of all and of kept elements of each tile; numbers kept, then extra words.
fn phase(plan: &Plan, coding: Coding, sums: &[f64], counts: &[u64]) -> Phase {
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
    Phase::Selected { norms: norms_of_tiles(plan, of_tile), bytes_bound }
}
