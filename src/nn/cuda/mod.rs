//! Runs a [`Plan`] on a GPU: everything is queued, nothing waits.
//!
//! One arena holds activations and gradients in the plan's slots, as f32 or bf16; parameters, statistics, gradients and
//! sums stay f32. The filters are copied into aligned places, rounded to the arena's type, after each change of the
//! parameters. A training pass, from pixels to gradients, is recorded once per bucket of batch sizes and slot, and replayed
//! as a graph; the number of images, the labels and the dropout draw stand on the GPU, where the recorded kernels read them.
//!
//! ```text
//! pinned pixels, labels --copy stream--> slot 0 or 1 --compute stream: one graph--> loss sums, gradient
//!                                 event: uploaded            event: slot is free
//! ```

mod backward;
mod buckets;
mod buffers;
mod forward;
mod input;

use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Graph, View, ViewMut};
use crate::nn::Plan;
use crate::ops::input::Normalizer;
use crate::ops::softmax_xent;
use buffers::Buffers;
use input::Slots;
pub use input::{HostBatch, HostHeader};
use std::collections::HashMap;
use std::sync::Arc;

pub use buckets::bucket;

/// A network's parameters, activations and gradient on a GPU.
#[derive(Debug)]
pub struct CudaExecutor<E: Element> {
    device: Arc<CudaDevice>,
    plan: Arc<Plan>,
    normalizer: Normalizer,
    buffers: Buffers<E>,
    slots: Slots,
    /// By bucket and slot. A first pass is launched as it is, so that the driver loads the kernels outside of a recording;
    /// the second is recorded.
    graphs: HashMap<(usize, usize), Option<Graph>>,
}

/// Which statistics batch norms use, and whether dropout acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Train,
    Evaluate,
}

impl<E: Element> CudaExecutor<E> {
    /// Memory for batches of up to [`Plan::max_batch`] images; `seed` is that of the dropout masks.
    ///
    /// # Errors
    /// There is no room, or the driver refuses.
    pub fn new(
        device: Arc<CudaDevice>,
        plan: Arc<Plan>,
        normalizer: Normalizer,
        seed: u64,
    ) -> Result<Self, CudaError> {
        Ok(Self {
            buffers: Buffers::new(&device, &plan)?,
            slots: Slots::new(&device, &plan, seed)?,
            graphs: HashMap::new(),
            device,
            plan,
            normalizer,
        })
    }

    /// The GPU.
    pub fn device(&self) -> &Arc<CudaDevice> {
        &self.device
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The parameters; call [`Self::pack`] after a change.
    pub fn params(&self) -> View<'_, f32> {
        self.buffers.params.view()
    }

    /// As [`Self::params`], to write, with the gradient to read.
    pub fn params_and_grad(&mut self) -> (ViewMut<'_, f32>, View<'_, f32>) {
        (self.buffers.params.view_mut(), self.buffers.grad.view())
    }

    /// Gradient of the mean loss of the last training pass.
    pub fn grad(&self) -> View<'_, f32> {
        self.buffers.grad.view()
    }

    /// The running statistics that a training pass updates and an evaluation reads.
    pub fn stats_mut(&mut self) -> ViewMut<'_, f32> {
        self.buffers.stats.view_mut()
    }

    /// As [`Self::stats_mut`], to read.
    pub fn stats(&self) -> View<'_, f32> {
        self.buffers.stats.view()
    }

    /// Loss sum, top-1 and top-5 hits, added up since [`Self::clear_loss`].
    pub fn loss(&self) -> View<'_, f64> {
        self.buffers.loss.view()
    }

    /// Starts the sums of [`Self::loss`] again.
    ///
    /// # Errors
    /// What the driver says.
    pub fn clear_loss(&mut self) -> Result<(), CudaError> {
        self.device.fill_zero(self.buffers.loss.view_mut())
    }

    /// Takes up the parameters.
    ///
    /// # Errors
    /// The driver refuses a launch.
    pub fn pack(&mut self) -> Result<(), CudaError> {
        self.buffers.pack_filters(&self.device)
    }

    /// One training pass over a batch: batch statistics, dropout, gradient of the mean loss. The batch must stay as it is
    /// until the device has been waited for.
    ///
    /// # Errors
    /// More images than planned or than the pinned memory has room for, or the driver refuses.
    ///
    /// # Safety
    /// Nobody writes to the batch's or the header's pinned memory before the device has been waited for.
    pub unsafe fn forward_backward(
        &mut self,
        batch: HostBatch<'_>,
        header: &mut HostHeader,
    ) -> Result<(), CudaError> {
        let bucket = bucket(batch.labels.len(), self.plan.max_batch());
        // SAFETY: the caller keeps the memory.
        unsafe { self.upload(batch, header) }?;
        let queued = self.replay_training_pass(bucket);
        // Whatever was refused: what was queued before it reads the slot.
        let released = self.slots.release(&self.device);
        queued.and(released)
    }

    fn replay_training_pass(&mut self, bucket: usize) -> Result<(), CudaError> {
        let key = (bucket, self.slots.current());
        match self.graphs.get(&key) {
            None => {
                self.training_pass(bucket)?;
                self.graphs.insert(key, None);
                return Ok(());
            }
            Some(None) => {
                let device = Arc::clone(&self.device);
                let graph = device.capture(|| self.training_pass(bucket))?;
                self.graphs.insert(key, Some(graph));
            }
            Some(Some(_)) => {}
        }
        let graph = self.graphs.get_mut(&key).and_then(Option::as_mut).expect("recorded above");
        self.device.replay(graph)
    }

    /// Loss and accuracy of a batch with running statistics and without dropout, added to [`Self::loss`].
    ///
    /// # Errors
    /// As [`Self::forward_backward`].
    ///
    /// # Safety
    /// As [`Self::forward_backward`].
    pub unsafe fn evaluate(
        &mut self,
        batch: HostBatch<'_>,
        header: &mut HostHeader,
    ) -> Result<(), CudaError> {
        let bucket = bucket(batch.labels.len(), self.plan.max_batch());
        // SAFETY: the caller keeps the memory.
        unsafe { self.upload(batch, header) }?;
        let queued = self.evaluation_pass(bucket);
        let released = self.slots.release(&self.device);
        queued.and(released)
    }

    /// The logits `[bucket, classes]` of the last pass.
    pub fn logits(&self, bucket: usize) -> View<'_, E> {
        self.buffers.arena.view().slice(self.plan.slot(self.plan.logits()).range(bucket))
    }

    fn training_pass(&mut self, bucket: usize) -> Result<(), CudaError> {
        self.read_images(bucket)?;
        self.forward(bucket, Mode::Train)?;
        self.loss_gradient(bucket)?;
        self.backward(bucket)
    }

    fn evaluation_pass(&mut self, bucket: usize) -> Result<(), CudaError> {
        self.read_images(bucket)?;
        self.forward(bucket, Mode::Evaluate)?;
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let Buffers { arena, loss, loss_scratch, .. } = buffers;
        let batch = Batch { bucket, count: header.count() };
        let logits = arena.view().slice(plan.slot(plan.logits()).range(bucket));
        let (labels, classes) = (header.labels(bucket), plan.classes());
        let scratch = loss_scratch.view_mut();
        softmax_xent::cuda::forward(device, classes, batch, logits, labels, loss.view_mut(), scratch)
    }

    fn loss_gradient(&mut self, bucket: usize) -> Result<(), CudaError> {
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let Some(last) = plan.memory().layers.last() else { return Ok(()) };
        let Buffers { arena, loss, loss_scratch, .. } = buffers;
        let ranges = [plan.slot(plan.logits()).range(bucket), last.dy.range(bucket)];
        let [logits, dlogits] = arena.view_mut().disjoint(ranges);
        let batch = Batch { bucket, count: header.count() };
        softmax_xent::cuda::forward_backward(
            device,
            plan.classes(),
            batch,
            logits.view(),
            header.labels(bucket),
            dlogits,
            loss.view_mut(),
            loss_scratch.view_mut(),
        )
    }
}
