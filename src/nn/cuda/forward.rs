//! The forward pass of [`CudaExecutor`].

use super::buffers::{Buffers, extent};
use super::{CudaExecutor, Mode};
use crate::device::cuda::{Batch, CudaDevice, CudaError, DeviceBuffer, Element, View};
use crate::nn::forward::{avg_pool_shape, max_pool_shape, pad_shape};
use crate::nn::{Layer, Op, Plan};
use crate::ops::batchnorm2d::cuda::TrainStatistics;
use crate::ops::conv2d::cuda::Epilogue;
use crate::ops::{batchnorm2d, conv2d, dropout, pad_shortcut, pool2d};

impl<E: Element> CudaExecutor<E> {
    /// Queues all activations of a bucket's images, from the image in the arena.
    pub(super) fn forward(&mut self, bucket: usize, mode: Mode) -> Result<(), CudaError> {
        let plan = self.plan.clone();
        for (i, layer) in plan.layers().iter().enumerate() {
            match &layer.op {
                Op::Conv2d { .. } => self.conv_forward(i, layer, bucket, mode)?,
                Op::BatchNorm2d { .. } => self.batch_norm_forward(layer, bucket, mode)?,
                _ => self.plain_forward(i, layer, bucket, mode)?,
            }
        }
        Ok(())
    }

    fn conv_forward(&mut self, i: usize, layer: &Layer, bucket: usize, mode: Mode) -> Result<(), CudaError> {
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let Op::Conv2d { shape, bias, relu, .. } = &layer.op else {
            unreachable!("{} is no convolution", layer.name)
        };
        let batch = Batch { bucket, count: header.count() };
        let norm = (mode == Mode::Train).then(|| normalized_by(plan, layer)).flatten();
        let tile_rows = conv2d::cuda::statistics_tile_rows::<E>(device, shape, bucket);
        let statistics_len = extent(plan, layer).totals_len(bucket, tile_rows);
        let filter_range = buffers.filter_ranges[i].clone();
        let Buffers { arena, params, filters, partials, scratch, saved, stats, .. } = buffers;
        let [x, y] = arena.view_mut().disjoint([layer.x, layer.y].map(|id| plan.slot(id).range(bucket)));
        let epilogue = Epilogue {
            bias: bias.map(|index| params.view().slice(plan.params()[index].range.clone())),
            relu: *relu,
            statistics: norm.map(|_| partials.view_mut().part(..statistics_len)),
        };
        let filter = filters.view().slice(filter_range);
        let scratch = scratch.view_mut();
        conv2d::cuda::fprop(device, shape, batch, x.view(), filter, epilogue, y, scratch)?;
        match norm {
            Some(norm) => {
                let partials = partials.view().slice(..statistics_len);
                finish((device, plan, norm, batch), tile_rows, partials, saved, stats)
            }
            None => Ok(()),
        }
    }

    fn batch_norm_forward(&mut self, layer: &Layer, bucket: usize, mode: Mode) -> Result<(), CudaError> {
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let Op::BatchNorm2d { gamma, beta, running_mean, running_var, shortcut, relu } = layer.op else {
            unreachable!("{} is no batch norm", layer.name)
        };
        let batch = Batch { bucket, count: header.count() };
        let extent = extent(plan, layer);
        let Buffers { arena, params, partials, saved, stats, .. } = buffers;
        let range = |id| plan.slot(id).range(bucket);
        let follows_conv = plan
            .layers()
            .iter()
            .any(|other| other.y == layer.x && matches!(other.op, Op::Conv2d { relu: false, .. }));
        if mode == Mode::Train && !follows_conv {
            let tile_rows = batchnorm2d::cuda::statistics_tile_rows(extent, bucket);
            let len = extent.totals_len(bucket, tile_rows);
            let x = arena.view().slice(range(layer.x));
            batchnorm2d::cuda::statistics(device, extent, batch, x, partials.view_mut().part(..len))?;
            let partials = partials.view().slice(..len);
            finish((device, plan, layer, batch), tile_rows, partials, saved, stats)?;
        }
        let param = |index: usize| params.view().slice(plan.params()[index].range.clone());
        let stat = |index: usize| plan.stats()[index].range.clone();
        let (gamma, beta) = (param(gamma), param(beta));
        let source = if mode == Mode::Train { saved } else { stats };
        let [mean, var] = [running_mean, running_var].map(|index| source.view().slice(stat(index)));
        let (x, shortcut, y) = match shortcut {
            None => {
                let [x, y] = arena.view_mut().disjoint([range(layer.x), range(layer.y)]);
                (x, None, y)
            }
            Some(id) => {
                let ranges = [range(layer.x), range(id), range(layer.y)];
                let [x, shortcut, y] = arena.view_mut().disjoint(ranges);
                (x, Some(shortcut), y)
            }
        };
        let shortcut = shortcut.as_ref().map(|shortcut| shortcut.view());
        let normalize = match mode {
            Mode::Train => batchnorm2d::cuda::normalize,
            Mode::Evaluate => batchnorm2d::cuda::normalize_running,
        };
        normalize(device, extent, batch, x.view(), gamma, beta, mean, var, shortcut, relu, y)
    }

    /// Layers without parameters.
    fn plain_forward(&mut self, i: usize, layer: &Layer, bucket: usize, mode: Mode) -> Result<(), CudaError> {
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let batch = Batch { bucket, count: header.count() };
        let Buffers { arena, argmax, .. } = buffers;
        let [x, y] = arena.view_mut().disjoint([layer.x, layer.y].map(|id| plan.slot(id).range(bucket)));
        let x = x.view();
        match &layer.op {
            Op::MaxPool2d { .. } => {
                let argmax = argmax.view_mut().part(plan.memory().layers[i].argmax.range(bucket));
                pool2d::cuda::max_forward(device, &max_pool_shape(plan, layer), batch, x, y, argmax)
            }
            Op::AdaptiveAvgPool2d => {
                pool2d::cuda::adaptive_avg_forward(device, &avg_pool_shape(plan, layer), batch, x, y)
            }
            Op::PadShortcut => pad_shortcut::cuda::forward(device, &pad_shape(plan, layer), batch, x, y),
            Op::Dropout { p, ordinal } if mode == Mode::Train => {
                let draw = header.dropout(plan, *ordinal);
                dropout::cuda::forward(device, *p, draw, plan.tensor(layer.x).numel(), batch, x, y)
            }
            Op::Dropout { .. } => device.copy(x, y),
            Op::Conv2d { .. } | Op::BatchNorm2d { .. } => unreachable!("{} has parameters", layer.name),
        }
    }
}

/// The batch norm that reads this convolution's output; its statistics come with the convolution.
fn normalized_by<'a>(plan: &'a Plan, conv: &Layer) -> Option<&'a Layer> {
    let reads = |layer: &&Layer| layer.x == conv.y && matches!(layer.op, Op::BatchNorm2d { .. });
    match conv.op {
        Op::Conv2d { relu: false, .. } => plan.layers().iter().find(reads),
        _ => None,
    }
}

/// Queues what turns partial statistics into those of a batch norm's batch.
fn finish(
    (device, plan, layer, batch): (&CudaDevice, &Plan, &Layer, Batch<'_>),
    tile_rows: usize,
    partials: View<'_, f32>,
    saved: &mut DeviceBuffer<f32>,
    stats: &mut DeviceBuffer<f32>,
) -> Result<(), CudaError> {
    let Op::BatchNorm2d { running_mean, running_var, .. } = layer.op else {
        unreachable!("{} is no batch norm", layer.name)
    };
    let ranges = [running_mean, running_var].map(|index| plan.stats()[index].range.clone());
    let [saved_mean, saved_inv_std] = saved.view_mut().disjoint(ranges.clone());
    let [running_mean, running_var] = stats.view_mut().disjoint(ranges);
    let statistics = TrainStatistics { saved_mean, saved_inv_std, running_mean, running_var };
    batchnorm2d::cuda::finish_statistics(device, extent(plan, layer), batch, tile_rows, partials, statistics)
}
