//! Small networks, images that can be learned, and one network on both backends.

use scadles::device::cuda::{CudaDevice, Element, PinnedBuffer};
use scadles::models::{self, ModelSpec, Stem};
use scadles::nn::cuda::{CudaExecutor, HostBatch, HostHeader};
use scadles::nn::{DropoutSeed, Executor, Plan};
use scadles::ops::input::{self, ImageShape, Normalizer, Placement};
use scadles::ops::softmax_xent::LossStats;
use scadles::rng::{Philox, Stream};
use std::sync::Arc;

pub const SEED: u64 = 77;

/// The plan of a network on square images with 10 classes.
pub fn plan(name: &str, stem: Stem, width: f64, size: usize, max_batch: usize) -> Arc<Plan> {
    let image = ImageShape { h: size, w: size, c: 3 };
    let spec = ModelSpec { name: name.into(), stem, width, image, ..ModelSpec::default() };
    Arc::new(models::plan(&spec, max_batch).unwrap())
}

/// Images of one batch, each with a pattern of its class under noise.
pub struct Images {
    pub pixels: Vec<u8>,
    pub placements: Vec<Placement>,
    pub labels: Vec<u32>,
}

impl Images {
    pub fn draw(plan: &Plan, n: usize, step: usize) -> Self {
        let len = plan.image().numel();
        let mut rng = Philox::new(SEED, Stream::Images, step as u64);
        let labels: Vec<u32> = (0..n).map(|_| rng.below(10)).collect();
        let mut pixels = Vec::with_capacity(n * len);
        for &label in &labels {
            let mut pattern = Philox::new(SEED, Stream::Init, u64::from(label));
            pixels.extend((0..len).map(|_| (64 + pattern.below(128) + rng.below(64)) as u8));
        }
        let placement = |_| Placement {
            offset_h: rng.below(3) as isize - 1,
            offset_w: rng.below(3) as isize - 1,
            flip: rng.below(2) == 1,
        };
        let placements = (0..n).map(placement).collect();
        Self { pixels, placements, labels }
    }
}

pub fn normalizer() -> Normalizer {
    Normalizer::new(&[0.5, 0.45, 0.4], &[0.25, 0.3, 0.2])
}

/// A network on the CPU.
pub struct OnCpu {
    pub executor: Executor,
    pub stats: Vec<f32>,
    pub grad: Vec<f32>,
}

impl OnCpu {
    pub fn new(plan: &Arc<Plan>) -> Self {
        let executor = Executor::new(Arc::clone(plan)).unwrap();
        Self { executor, stats: plan.init_stats(), grad: vec![0.0; plan.num_params()] }
    }

    pub fn images(&self, images: &Images) -> Vec<f32> {
        let shape = self.executor.plan().image();
        let shape = ImageShape { h: shape.h, w: shape.w, c: shape.c };
        let mut x = vec![0.0; images.pixels.len()];
        let len = shape.numel();
        for (i, placement) in images.placements.iter().enumerate() {
            let range = i * len..(i + 1) * len;
            input::write_image(
                shape,
                &images.pixels[range.clone()],
                &normalizer(),
                *placement,
                &mut x[range],
            );
        }
        x
    }

    pub fn forward_backward(&mut self, images: &Images, params: &[f32], index: u64) -> LossStats {
        let x = self.images(images);
        self.executor.load_params(params).unwrap();
        let dropout = DropoutSeed { seed: SEED, index };
        let Self { executor, stats, grad } = self;
        executor.forward_backward(&x, &images.labels, params, stats, grad, dropout).unwrap()
    }
}

/// The same network on a GPU.
pub struct OnGpu<E: Element> {
    pub executor: CudaExecutor<E>,
    header: HostHeader,
    pixels: PinnedBuffer<u8>,
    placements: PinnedBuffer<i32>,
}

impl<E: Element> OnGpu<E> {
    pub fn new(device: &Arc<CudaDevice>, plan: &Arc<Plan>, params: &[f32]) -> Self {
        let mut executor =
            CudaExecutor::new(Arc::clone(device), Arc::clone(plan), normalizer(), SEED).unwrap();
        device.copy_from_host(params, executor.params_and_grad().0).unwrap();
        device.copy_from_host(&plan.init_stats(), executor.stats_mut()).unwrap();
        let max = plan.max_batch();
        Self {
            executor,
            header: HostHeader::new(device, max).unwrap(),
            pixels: device.pinned(max * plan.image().numel()).unwrap(),
            placements: device.pinned(3 * max).unwrap(),
        }
    }

    fn stage(&mut self, images: &Images) {
        self.pixels[..images.pixels.len()].copy_from_slice(&images.pixels);
        for (place, to) in images.placements.iter().zip(self.placements.chunks_exact_mut(3)) {
            to.copy_from_slice(&[place.offset_h as i32, place.offset_w as i32, i32::from(place.flip)]);
        }
    }

    /// Loss of a pass that trains or only evaluates.
    pub fn pass(&mut self, images: &Images, dropout_index: u64, train: bool) -> LossStats {
        self.stage(images);
        let Self { executor, header, pixels, placements } = self;
        let batch = HostBatch { pixels, placements, labels: &images.labels, dropout_index };
        executor.pack().unwrap();
        executor.clear_loss().unwrap();
        // SAFETY: the download below waits for the device before anything is written again.
        unsafe {
            match train {
                true => executor.forward_backward(batch, header),
                false => executor.evaluate(batch, header),
            }
        }
        .unwrap();
        let sums = executor.device().download(executor.loss()).unwrap();
        LossStats { loss_sum: sums[0], top1: sums[1] as u64, top5: sums[2] as u64 }
    }

    pub fn grad(&self) -> Vec<f32> {
        self.executor.device().download(self.executor.grad()).unwrap()
    }

    pub fn stats(&self) -> Vec<f32> {
        self.executor.device().download(self.executor.stats()).unwrap()
    }
}

/// `|a - b| / |b|` in the Euclidean norm; NaN if an element is.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let apart: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let length: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    (apart / length.max(f64::MIN_POSITIVE)).sqrt()
}
