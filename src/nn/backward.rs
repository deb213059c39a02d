//! The backward pass of [`Executor`].

use super::clock::Pass;
use super::executor::{DropoutSeed, Executor, Packing, disjoint, rows};
use super::forward::{avg_pool_shape, max_pool_shape, pad_shape};
use super::memory::GradTarget;
use super::plan::{Layer, Op};
use crate::ops::batchnorm2d::{self, Extent, Gradients, Saved};
use crate::ops::conv2d::CpuElement;
use crate::ops::elementwise::add_inplace;
use crate::ops::{conv2d, dropout, linear, pad_shortcut, pool2d, relu};

impl<E: CpuElement> Executor<E> {
    /// Writes the gradient of every parameter, from the gradient of the logits in the arena.
    pub(super) fn backward(&mut self, n: usize, params: &[f32], grad: &mut [f32], seed: DropoutSeed) {
        let plan = self.plan.clone();
        for (i, layer) in plan.layers().iter().enumerate().rev() {
            match &layer.op {
                Op::Conv2d { .. } => self.conv_backward(i, layer, n, params, grad),
                Op::BatchNorm2d { .. } => self.batch_norm_backward(i, layer, n, params, grad),
                _ => self.plain_backward(i, layer, n, seed),
            }
            if let GradTarget::Add { scratch, sum } = plan.memory().layers[i].dx {
                let [sum, term] = disjoint(&mut self.arena, [sum.range(n), scratch.range(n)]);
                add_inplace(sum, term);
            }
            let pass = if matches!(layer.op, Op::Conv2d { .. }) { Pass::Dgrad } else { Pass::Backward };
            self.clock.end(i, pass);
        }
    }

    fn conv_backward(&mut self, i: usize, layer: &Layer, n: usize, params: &[f32], grad: &mut [f32]) {
        let Self { plan, arena, packed, packing, filters, scratch, clock, .. } = self;
        let Op::Conv2d { shape, filter, bias, relu } = &layer.op else {
            unreachable!("{} is no convolution", layer.name)
        };
        let slots = plan.memory().layers[i];
        if *relu {
            let [y, dy] = disjoint(arena, [plan.slot(layer.y).range(n), slots.dy.range(n)]);
            relu::backward_inplace(y, dy);
        }
        if let Some(bias) = bias {
            let dbias = &mut grad[plan.params()[*bias].range.clone()];
            let dy = &arena[slots.dy.range(n)];
            linear::bias_backward(rows(plan, layer, n), shape.k, dy, dbias, scratch);
        }
        let [x, dy] = [plan.slot(layer.x), slots.dy].map(|slot| &arena[slot.range(n)]);
        let conv = conv2d::passes::<E>(shape, filters[i].algorithms);
        let filter = plan.params()[*filter].range.clone();
        conv.wgrad(n, x, dy, &mut grad[filter.clone()], scratch);
        clock.end(i, Pass::Wgrad);
        if let Some(dx) = slots.dx.slot() {
            let [dy, dx] = disjoint(arena, [slots.dy.range(n), dx.range(n)]);
            let packed = &mut packed[filters[i].dgrad.clone()];
            if *packing == Packing::OnUse {
                conv.pack_dgrad(&params[filter], packed);
            }
            conv.dgrad(n, dy, packed, dx, scratch);
        }
    }

    fn batch_norm_backward(&mut self, i: usize, layer: &Layer, n: usize, params: &[f32], grad: &mut [f32]) {
        let Self { plan, arena, saved, scratch, .. } = self;
        let Op::BatchNorm2d { gamma, beta, running_mean, running_var, relu, .. } = layer.op else {
            unreachable!("{} is no batch norm", layer.name)
        };
        let slots = plan.memory().layers[i];
        let Some(dx) = slots.dx.slot() else { unreachable!("{} normalises the image", layer.name) };
        let [x, y] = [layer.x, layer.y].map(|id| plan.slot(id).range(n));
        let (dy, dx) = (slots.dy.range(n), dx.range(n));
        let extent = Extent { rows: rows(plan, layer, n), c: plan.tensor(layer.y).c };
        let param = |index: usize| plan.params()[index].range.clone();
        let [mean, inv_std] =
            [running_mean, running_var].map(|index| &saved[plan.stats()[index].range.clone()]);
        let [dgamma, dbeta] = disjoint(grad, [param(gamma), param(beta)]);
        let gamma = &params[param(gamma)];
        if relu {
            let [x, y, dy, dx] = disjoint(arena, [x, y, dy, dx]);
            let saved = Saved { x, relu_y: Some(y), gamma, mean, inv_std };
            batchnorm2d::backward(extent, saved, dy, Gradients { dx, dgamma, dbeta }, scratch);
        } else {
            let [x, dy, dx] = disjoint(arena, [x, dy, dx]);
            let saved = Saved { x, relu_y: None, gamma, mean, inv_std };
            batchnorm2d::backward(extent, saved, dy, Gradients { dx, dgamma, dbeta }, scratch);
        }
    }

    /// Layers without parameters, whose input gradient depends on the output's only.
    fn plain_backward(&mut self, i: usize, layer: &Layer, n: usize, seed: DropoutSeed) {
        let Self { plan, arena, argmax, .. } = self;
        let slots = plan.memory().layers[i];
        let Some(dx) = slots.dx.slot() else { return };
        let [dy, dx] = disjoint(arena, [slots.dy.range(n), dx.range(n)]);
        match &layer.op {
            Op::MaxPool2d { .. } => {
                let argmax = &argmax[slots.argmax.range(n)];
                pool2d::max_backward(&max_pool_shape(plan, layer), n, dy, argmax, dx);
            }
            Op::AdaptiveAvgPool2d => pool2d::adaptive_avg_backward(&avg_pool_shape(plan, layer), n, dy, dx),
            Op::PadShortcut => pad_shortcut::backward(&pad_shape(plan, layer), n, dy, dx),
            Op::Dropout { p, ordinal } => {
                dropout::backward(*p, seed.seed, seed.draw(plan, *ordinal), dy, dx);
            }
            Op::Conv2d { .. } | Op::BatchNorm2d { .. } => unreachable!("{} has parameters", layer.name),
        }
    }
}

impl GradTarget {
    /// Where the layer's own contribution goes.
    pub(super) fn slot(&self) -> Option<super::memory::Slot> {
        match *self {
            Self::Skip => None,
            Self::Write(slot) | Self::Add { scratch: slot, .. } => Some(slot),
        }
    }
}
