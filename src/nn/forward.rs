//! The forward pass of [`Executor`].

use super::clock::Pass;
use super::executor::{DropoutSeed, Executor, Packing, disjoint, rows};
use super::plan::{Layer, Op, Plan};
use crate::ops::batchnorm2d::{self, Epilogue, Extent, Parameters, RunningStatistics, TrainStatistics};
use crate::ops::conv2d::CpuElement;
use crate::ops::pad_shortcut::PadShortcutShape;
use crate::ops::pool2d::{self, AdaptiveAvgShape, Pool2dShape};
use crate::ops::{conv2d, dropout, pad_shortcut};

/// What a forward pass is for.
pub(super) enum Mode<'a> {
    /// Batch statistics, running ones updated; dropout.
    Train { stats: &'a mut [f32], dropout: DropoutSeed },
    /// Running statistics; no dropout.
    Eval { stats: &'a [f32] },
}

impl<E: CpuElement> Executor<E> {
    /// Computes all activations of `n` images from the image in the arena.
    pub(super) fn forward(&mut self, n: usize, params: &[f32], mut mode: Mode) {
        let Self { plan, arena, argmax, saved, packed, packing, filters, scratch, clock, .. } = self;
        for (i, layer) in plan.layers().iter().enumerate() {
            let [x, y] = [layer.x, layer.y].map(|id| plan.slot(id).range(n));
            match &layer.op {
                Op::Conv2d { shape, filter, bias, relu } => {
                    let [x, y] = disjoint(arena, [x, y]);
                    let bias = bias.map(|index| &params[plan.params()[index].range.clone()]);
                    let epilogue = conv2d::Epilogue { bias, relu: *relu };
                    let conv = conv2d::passes::<E>(shape, filters[i].algorithms);
                    let packed = &mut packed[filters[i].fprop.clone()];
                    if *packing == Packing::OnUse {
                        conv.pack_fprop(&params[plan.params()[*filter].range.clone()], packed);
                    }
                    conv.fprop(n, x, packed, epilogue, y, scratch);
                }
                Op::BatchNorm2d { shortcut, relu, .. } => {
                    let relu = *relu;
                    match shortcut {
                        None => {
                            let [x, y] = disjoint(arena, [x, y]);
                            let epilogue = Epilogue { shortcut: None, relu };
                            batch_norm((plan, layer, n), params, x, epilogue, y, &mut mode, (saved, scratch));
                        }
                        Some(id) => {
                            let [x, shortcut, y] = disjoint(arena, [x, plan.slot(*id).range(n), y]);
                            let epilogue = Epilogue { shortcut: Some(shortcut), relu };
                            batch_norm((plan, layer, n), params, x, epilogue, y, &mut mode, (saved, scratch));
                        }
                    }
                }
                Op::MaxPool2d { .. } => {
                    let [x, y] = disjoint(arena, [x, y]);
                    let argmax = &mut argmax[plan.memory().layers[i].argmax.range(n)];
                    pool2d::max_forward(&max_pool_shape(plan, layer), n, x, y, argmax);
                }
                Op::AdaptiveAvgPool2d => {
                    let [x, y] = disjoint(arena, [x, y]);
                    pool2d::adaptive_avg_forward(&avg_pool_shape(plan, layer), n, x, y);
                }
                Op::PadShortcut => {
                    let [x, y] = disjoint(arena, [x, y]);
                    pad_shortcut::forward(&pad_shape(plan, layer), n, x, y);
                }
                Op::Dropout { p, ordinal } => match &mode {
                    Mode::Train { dropout: seed, .. } => {
                        let [x, y] = disjoint(arena, [x, y]);
                        dropout::forward(*p, seed.seed, seed.draw(plan, *ordinal), x, y);
                    }
                    Mode::Eval { .. } => arena.copy_within(x, y.start),
                },
            }
            clock.end(i, Pass::Forward);
        }
    }
}

impl DropoutSeed {
    /// Index of the masks of one of the plan's dropout layers.
    pub(super) fn draw(&self, plan: &Plan, ordinal: u64) -> u64 {
        self.index.wrapping_mul(plan.dropout_layers()).wrapping_add(ordinal)
    }
}

fn batch_norm<E: CpuElement>(
    (plan, layer, n): (&Plan, &Layer, usize),
    params: &[f32],
    x: &[E],
    epilogue: Epilogue<E>,
    y: &mut [E],
    mode: &mut Mode,
    (saved, scratch): (&mut [f32], &mut [f32]),
) {
    let Op::BatchNorm2d { gamma, beta, running_mean, running_var, .. } = layer.op else {
        unreachable!("{} is no batch norm", layer.name)
    };
    let extent = Extent { rows: rows(plan, layer, n), c: plan.tensor(layer.y).c };
    let [gamma, beta] = [gamma, beta].map(|index| &params[plan.params()[index].range.clone()]);
    let parameters = Parameters { gamma, beta };
    let ranges = [running_mean, running_var].map(|index| plan.stats()[index].range.clone());
    match mode {
        Mode::Train { stats, .. } => {
            let [saved_mean, saved_inv_std] = disjoint(saved, ranges.clone());
            let [running_mean, running_var] = disjoint(stats, ranges);
            let statistics = TrainStatistics { saved_mean, saved_inv_std, running_mean, running_var };
            batchnorm2d::forward_train(extent, x, parameters, epilogue, y, statistics, scratch);
        }
        Mode::Eval { stats } => {
            let [mean, var] = ranges.map(|range| &stats[range]);
            batchnorm2d::forward_eval(extent, x, parameters, RunningStatistics { mean, var }, epilogue, y);
        }
    }
}

pub(super) fn max_pool_shape(plan: &Plan, layer: &Layer) -> Pool2dShape {
    let Op::MaxPool2d { window, stride, pad } = layer.op else {
        unreachable!("{} is no max pool", layer.name)
    };
    let x = plan.tensor(layer.x);
    Pool2dShape { c: x.c, h: x.h, w: x.w, window, stride, pad }
}

pub(super) fn avg_pool_shape(plan: &Plan, layer: &Layer) -> AdaptiveAvgShape {
    let (x, y) = (plan.tensor(layer.x), plan.tensor(layer.y));
    AdaptiveAvgShape { c: x.c, h: x.h, w: x.w, out_h: y.h, out_w: y.w }
}

pub(super) fn pad_shape(plan: &Plan, layer: &Layer) -> PadShortcutShape {
    let (x, y) = (plan.tensor(layer.x), plan.tensor(layer.y));
    PadShortcutShape { c: x.c, h: x.h, w: x.w, k: y.c, stride: 2 }
}
