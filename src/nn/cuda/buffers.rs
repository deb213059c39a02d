//! All memory of an executor, allocated once.

use super::buckets::buckets;
use crate::device::cuda::{CudaDevice, CudaError, DeviceBuffer, Element};
use crate::nn::{Layer, Op, Plan};
use crate::ops::{batchnorm2d, conv2d, elementwise, linear};
use std::ops::Range;

/// Filters begin at multiples of this many elements, so that bulk copies of them are aligned.
const FILTER_ALIGN: usize = 64;

#[derive(Debug)]
pub(super) struct Buffers<E: Element> {
    /// Activations and their gradients, in the plan's slots.
    pub arena: DeviceBuffer<E>,
    /// Positions of max-pools' maxima.
    pub argmax: DeviceBuffer<u8>,
    /// Batch mean and inverse standard deviation, in the ranges of the running mean and variance.
    pub saved: DeviceBuffer<f32>,
    pub params: DeviceBuffer<f32>,
    pub grad: DeviceBuffer<f32>,
    pub stats: DeviceBuffer<f32>,
    /// Loss sum, top-1, top-5.
    pub loss: DeviceBuffer<f64>,
    pub loss_scratch: DeviceBuffer<f64>,
    /// Every convolution's filter, aligned and in the arena's type.
    pub filters: DeviceBuffer<E>,
    /// Where each layer's filter lies; empty for layers without one.
    pub filter_ranges: Vec<Range<usize>>,
    segments: Segments,
    /// Partial batch-norm statistics of one layer.
    pub partials: DeviceBuffer<f32>,
    /// Partial sums of one launch.
    pub scratch: DeviceBuffer<f32>,
}

/// Source, target and length of each filter's copy.
#[derive(Debug)]
struct Segments {
    table: DeviceBuffer<i64>,
    count: usize,
    longest: usize,
}

impl<E: Element> Buffers<E> {
    pub fn new(device: &CudaDevice, plan: &Plan) -> Result<Self, CudaError> {
        let (filter_ranges, filters_len) = filter_ranges(plan);
        let sizes = buckets(plan.max_batch());
        let largest = |len: &dyn Fn(&Layer, usize) -> usize| {
            let of_layer = |layer| sizes.iter().map(|&bucket| len(layer, bucket)).max().unwrap_or(0);
            plan.layers().iter().map(of_layer).max().unwrap_or(0)
        };
        Ok(Self {
            arena: device.zeros(plan.memory().numel, "activations")?,
            argmax: device.zeros(plan.memory().argmax_bytes, "max-pool positions")?,
            saved: device.zeros(plan.num_stats(), "batch-norm statistics")?,
            params: device.zeros(plan.num_params(), "parameters")?,
            grad: device.zeros(plan.num_params(), "the gradient")?,
            stats: device.zeros(plan.num_stats(), "batch-norm statistics")?,
            loss: device.zeros(3, "the loss")?,
            loss_scratch: device.zeros(3 * plan.max_batch(), "the loss")?,
            filters: device.zeros(filters_len, "packed filters")?,
            segments: segments(device, plan, &filter_ranges)?,
            filter_ranges,
            partials: device.zeros(
                largest(&|layer, bucket| partials_len::<E>(device, plan, layer, bucket)),
                "batch-norm statistics",
            )?,
            scratch: device.zeros(
                largest(&|layer, bucket| scratch_len::<E>(device, plan, layer, bucket)),
                "partial sums",
            )?,
        })
    }

    /// Copies the filters from the parameters.
    pub fn pack_filters(&mut self, device: &CudaDevice) -> Result<(), CudaError> {
        let Self { params, filters, segments, .. } = self;
        let Segments { table, count, longest } = segments;
        elementwise::cuda::pack(device, table.view(), *count, *longest, params.view(), filters.view_mut())
    }
}

fn filter_ranges(plan: &Plan) -> (Vec<Range<usize>>, usize) {
    let mut end = 0;
    let ranges = plan
        .layers()
        .iter()
        .map(|layer| match &layer.op {
            Op::Conv2d { filter, .. } => {
                let start = end;
                let len = plan.params()[*filter].numel();
                end = (start + len).next_multiple_of(FILTER_ALIGN);
                start..start + len
            }
            _ => 0..0,
        })
        .collect();
    (ranges, end)
}

fn segments(device: &CudaDevice, plan: &Plan, ranges: &[Range<usize>]) -> Result<Segments, CudaError> {
    let mut table = Vec::new();
    let mut longest = 0;
    for (layer, range) in plan.layers().iter().zip(ranges) {
        if let Op::Conv2d { filter, .. } = &layer.op {
            let from = plan.params()[*filter].range.start;
            table.extend([from, range.start, range.len()].map(|x| x as i64));
            longest = longest.max(range.len());
        }
    }
    Ok(Segments { count: table.len() / 3, table: device.upload(&table)?, longest })
}

/// Pixels of one image of a layer's output.
pub(super) fn pixels(plan: &Plan, layer: &Layer) -> usize {
    let y = plan.tensor(layer.y);
    y.h * y.w
}

pub(super) fn extent(plan: &Plan, layer: &Layer) -> batchnorm2d::cuda::Extent {
    batchnorm2d::cuda::Extent { pixels: pixels(plan, layer), c: plan.tensor(layer.y).c }
}

fn partials_len<E: Element>(device: &CudaDevice, plan: &Plan, layer: &Layer, bucket: usize) -> usize {
    let extent = extent(plan, layer);
    let tile_rows = match &layer.op {
        Op::Conv2d { shape, .. } => conv2d::cuda::statistics_tile_rows::<E>(device, shape, bucket),
        Op::BatchNorm2d { .. } => batchnorm2d::cuda::statistics_tile_rows(extent, bucket),
        _ => return 0,
    };
    extent.totals_len(bucket, tile_rows)
}

fn scratch_len<E: Element>(device: &CudaDevice, plan: &Plan, layer: &Layer, bucket: usize) -> usize {
    match &layer.op {
        Op::Conv2d { shape, bias, .. } => {
            let bias =
                bias.map_or(0, |_| linear::cuda::bias_scratch_len(pixels(plan, layer), shape.k, bucket));
            conv2d::cuda::scratch_len::<E>(device, shape, bucket).max(bias)
        }
        Op::BatchNorm2d { .. } => batchnorm2d::cuda::backward_scratch_len(extent(plan, layer), bucket),
        _ => 0,
    }
}
