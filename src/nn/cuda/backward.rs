//! The backward pass of [`CudaExecutor`].

use super::CudaExecutor;
use super::buffers::{Buffers, extent, pixels};
use crate::device::cuda::{Batch, CudaError, Element};
use crate::nn::forward::{avg_pool_shape, max_pool_shape, pad_shape};
use crate::nn::{GradTarget, Layer, Op};
use crate::ops::batchnorm2d::cuda::{Mask, Saved};
use crate::ops::{batchnorm2d, conv2d, dropout, elementwise, linear, pad_shortcut, pool2d, relu};

impl<E: Element> CudaExecutor<E> {
    /// Queues the gradient of every parameter, from the gradient of the logits in the arena.
    pub(super) fn backward(&mut self, bucket: usize) -> Result<(), CudaError> {
        let plan = self.plan.clone();
        for (i, layer) in plan.layers().iter().enumerate().rev() {
            match &layer.op {
                Op::Conv2d { .. } => self.conv_backward(i, layer, bucket)?,
                Op::BatchNorm2d { .. } => self.batch_norm_backward(i, layer, bucket)?,
                _ => self.plain_backward(i, layer, bucket)?,
            }
            match plan.memory().layers[i].dx {
                // A convolution adds its contribution itself.
                GradTarget::Add { scratch, sum } if !matches!(layer.op, Op::Conv2d { .. }) => {
                    let batch = Batch { bucket, count: self.slots.header().count() };
                    let [sum, term] =
                        self.buffers.arena.view_mut().disjoint([sum.range(bucket), scratch.range(bucket)]);
                    let per_image = plan.tensor(layer.x).numel();
                    elementwise::cuda::add(&self.device, per_image, batch, sum, term.view())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn conv_backward(&mut self, i: usize, layer: &Layer, bucket: usize) -> Result<(), CudaError> {
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let Op::Conv2d { shape, filter, bias, relu } = &layer.op else {
            unreachable!("{} is no convolution", layer.name)
        };
        let batch = Batch { bucket, count: header.count() };
        let slots = plan.memory().layers[i];
        let filter_range = buffers.filter_ranges[i].clone();
        let Buffers { arena, grad, filters, scratch, .. } = buffers;
        let y = plan.slot(layer.y).range(bucket);
        let dy = slots.dy.range(bucket);
        match (bias, relu) {
            (None, false) => {}
            (None, true) => {
                let [y, dy] = arena.view_mut().disjoint([y, dy.clone()]);
                relu::cuda::backward_inplace(device, plan.tensor(layer.y).numel(), batch, y.view(), dy)?;
            }
            (Some(bias), _) => {
                let dbias = grad.view_mut().part(plan.params()[*bias].range.clone());
                let scratch = scratch.view_mut();
                let pixels = pixels(plan, layer);
                if *relu {
                    let [y, dy] = arena.view_mut().disjoint([y, dy.clone()]);
                    let y = Some(y.view());
                    linear::cuda::bias_backward(device, pixels, shape.k, batch, y, dy, dbias, scratch)?;
                } else {
                    let dy = arena.view_mut().part(dy.clone());
                    linear::cuda::bias_backward(device, pixels, shape.k, batch, None, dy, dbias, scratch)?;
                }
            }
        }
        let dfilter = grad.view_mut().part(plan.params()[*filter].range.clone());
        let [x, dy_view] =
            [plan.slot(layer.x).range(bucket), dy.clone()].map(|range| arena.view().slice(range));
        conv2d::cuda::wgrad(device, shape, batch, x, dy_view, dfilter, scratch.view_mut())?;
        let (dx, accumulate) = match slots.dx {
            GradTarget::Skip => return Ok(()),
            GradTarget::Write(dx) => (dx, false),
            GradTarget::Add { sum, .. } => (sum, true),
        };
        let [dy, dx] = arena.view_mut().disjoint([dy, dx.range(bucket)]);
        let filter = filters.view().slice(filter_range);
        conv2d::cuda::dgrad(device, shape, batch, dy.view(), filter, dx, accumulate, scratch.view_mut())
    }

    fn batch_norm_backward(&mut self, i: usize, layer: &Layer, bucket: usize) -> Result<(), CudaError> {
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let Op::BatchNorm2d { gamma, beta, running_mean, running_var, shortcut, relu } = layer.op else {
            unreachable!("{} is no batch norm", layer.name)
        };
        let batch = Batch { bucket, count: header.count() };
        let slots = plan.memory().layers[i];
        let Some(dx) = slots.dx.slot() else { unreachable!("{} normalises the image", layer.name) };
        let Buffers { arena, grad, params, saved, scratch, .. } = buffers;
        let param = |index: usize| plan.params()[index].range.clone();
        let [mean, inv_std] =
            [running_mean, running_var].map(|index| saved.view().slice(plan.stats()[index].range.clone()));
        let saved = Saved { gamma: params.view().slice(param(gamma)), mean, inv_std };
        let [dgamma, dbeta] = grad.view_mut().disjoint([param(gamma), param(beta)]);
        let [x, y] = [layer.x, layer.y].map(|id| plan.slot(id).range(bucket));
        // The output is read only where its sign does not follow from the input.
        let y = if relu && shortcut.is_some() { y } else { 0..0 };
        let [x, y, dy, dx] = arena.view_mut().disjoint([x, y, slots.dy.range(bucket), dx.range(bucket)]);
        let mask = match (relu, shortcut) {
            (false, _) => Mask::None,
            (true, None) => Mask::FromInput { beta: params.view().slice(param(beta)) },
            (true, Some(_)) => Mask::FromOutput(y.view()),
        };
        let write_masked_dy = relu && shortcut.is_some();
        batchnorm2d::cuda::backward(
            device,
            extent(plan, layer),
            batch,
            x.view(),
            mask,
            saved,
            dy,
            write_masked_dy,
            dx,
            dgamma,
            dbeta,
            scratch.view_mut(),
        )
    }

    /// Layers without parameters, whose input gradient depends on the output's only.
    fn plain_backward(&mut self, i: usize, layer: &Layer, bucket: usize) -> Result<(), CudaError> {
        let Self { device, plan, buffers, slots, .. } = self;
        let header = slots.header();
        let slots = plan.memory().layers[i];
        let Some(dx) = slots.dx.slot() else { return Ok(()) };
        let batch = Batch { bucket, count: header.count() };
        let Buffers { arena, argmax, .. } = buffers;
        let [dy, dx] = arena.view_mut().disjoint([slots.dy.range(bucket), dx.range(bucket)]);
        let dy = dy.view();
        match &layer.op {
            Op::MaxPool2d { .. } => {
                let argmax = argmax.view().slice(slots.argmax.range(bucket));
                pool2d::cuda::max_backward(device, &max_pool_shape(plan, layer), batch, dy, argmax, dx)
            }
            Op::AdaptiveAvgPool2d => {
                pool2d::cuda::adaptive_avg_backward(device, &avg_pool_shape(plan, layer), batch, dy, dx)
            }
            Op::PadShortcut => pad_shortcut::cuda::backward(device, &pad_shape(plan, layer), batch, dy, dx),
            Op::Dropout { p, ordinal } => {
                let draw = header.dropout(plan, *ordinal);
                dropout::cuda::backward(device, *p, draw, plan.tensor(layer.x).numel(), batch, dy, dx)
            }
            Op::Conv2d { .. } | Op::BatchNorm2d { .. } => unreachable!("{} has parameters", layer.name),
        }
    }
}
