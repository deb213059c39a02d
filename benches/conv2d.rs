//! Convolution passes at layers of ResNet and VGG; throughput is in FLOP, padding counted.
//!
//! `cargo bench --bench conv2d -- resnet18`, with `RAYON_NUM_THREADS=1` for one thread. Before anything is timed the three
//! passes must be transposes of one another, and single outputs must match sums in f64.

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scadles::ops::conv2d;
use scadles::shape::Conv2dShape;
use std::hint::black_box;
use std::time::Duration;
use support::{assert_agree, dot, uniform};

/// Square images and filters: name, images, C, H = W, K, R = S, stride, pad.
const LAYERS: [(&str, usize, [usize; 6]); 15] = [
    ("resnet20_16_32x32", 64, [16, 32, 16, 3, 1, 1]),
    ("resnet20_32_16x16", 64, [32, 16, 32, 3, 1, 1]),
    ("resnet20_64_8x8", 64, [64, 8, 64, 3, 1, 1]),
    ("resnet18_stem_32x32", 64, [3, 32, 64, 3, 1, 1]),
    ("resnet18_64_32x32", 64, [64, 32, 64, 3, 1, 1]),
    ("resnet18_64_128_stride2", 64, [64, 32, 128, 3, 2, 1]),
    ("resnet18_128_16x16", 64, [128, 16, 128, 3, 1, 1]),
    ("resnet18_256_8x8", 64, [256, 8, 256, 3, 1, 1]),
    ("resnet18_512_4x4", 64, [512, 4, 512, 3, 1, 1]),
    ("resnet18_512_4x4_batch8", 8, [512, 4, 512, 3, 1, 1]),
    ("resnet18_64_128_1x1_stride2", 64, [64, 32, 128, 1, 2, 0]),
    ("resnet152_1x1_64_256", 16, [64, 32, 256, 1, 1, 0]),
    ("resnet152_1x1_2048_512_4x4", 64, [2048, 4, 512, 1, 1, 0]),
    ("vgg19_512_2x2", 64, [512, 2, 512, 3, 1, 1]),
    ("imagenet_stem_7x7", 4, [3, 224, 64, 7, 2, 3]),
];

struct Buffers {
    x: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    filter: Vec<f32>,
    dfilter: Vec<f32>,
    packed_fprop: Vec<f32>,
    packed_dgrad: Vec<f32>,
    scratch: Vec<f32>,
}

type Pass = fn(&mut Buffers, &Conv2dShape, usize);

impl Buffers {
    fn new(shape: &Conv2dShape, n: usize) -> Self {
        let filter = uniform(shape.filter_len(), 2);
        let mut packed_fprop = vec![0.0; conv2d::packed_fprop_len(shape)];
        let mut packed_dgrad = vec![0.0; conv2d::packed_dgrad_len(shape)];
        conv2d::pack_fprop(shape, &filter, &mut packed_fprop);
        conv2d::pack_dgrad(shape, &filter, &mut packed_dgrad);
        Self {
            x: uniform(n * shape.x_len(), 1),
            y: vec![0.0; n * shape.y_len()],
            dx: vec![0.0; n * shape.x_len()],
            dfilter: vec![0.0; filter.len()],
            scratch: vec![0.0; conv2d::wgrad_scratch_len(shape, n)],
            filter,
            packed_fprop,
            packed_dgrad,
        }
    }

    fn fprop(&mut self, shape: &Conv2dShape, n: usize) {
        conv2d::fprop(shape, n, &self.x, &self.packed_fprop, None, false, &mut self.y);
    }

    fn dgrad(&mut self, shape: &Conv2dShape, n: usize) {
        conv2d::dgrad(shape, n, &self.y, &self.packed_dgrad, &mut self.dx);
    }

    fn wgrad(&mut self, shape: &Conv2dShape, n: usize) {
        conv2d::wgrad(shape, n, &self.x, &self.y, &mut self.dfilter, &mut self.scratch);
    }

    fn verified(name: &str, shape: &Conv2dShape, n: usize) -> Self {
        let mut buffers = Self::new(shape, n);
        buffers.verify(name, shape, n);
        buffers
    }

    /// With dy = y: |y|^2 = <x, dx> = <filter, dfilter>; and the middle output of the first image, channel 0, in f64.
    fn verify(&mut self, name: &str, shape: &Conv2dShape, n: usize) {
        self.fprop(shape, n);
        self.dgrad(shape, n);
        self.wgrad(shape, n);
        let norm = dot(&self.y, &self.y);
        assert_agree(name, dot(&self.x, &self.dx), norm, norm);
        assert_agree(name, dot(&self.filter, &self.dfilter), norm, norm);
        let (p, q) = (shape.p() / 2, shape.q() / 2);
        let mut sum = 0.0;
        for (index, &weight) in self.filter[..shape.filter_len() / shape.k].iter().enumerate() {
            let (tap, c) = (index / shape.c, index % shape.c);
            let row = (p * shape.stride + tap / shape.s * shape.dilation).wrapping_sub(shape.pad);
            let col = (q * shape.stride + tap % shape.s * shape.dilation).wrapping_sub(shape.pad);
            if row < shape.h && col < shape.w {
                sum += f64::from(weight) * f64::from(self.x[(row * shape.w + col) * shape.c + c]);
            }
        }
        assert_agree(name, f64::from(self.y[(p * shape.q() + q) * shape.k]), sum, 1.0 + sum.abs());
    }
}

fn layers(criterion: &mut Criterion) {
    for (name, n, [c, hw, k, rs, stride, pad]) in LAYERS {
        let shape = Conv2dShape { c, h: hw, w: hw, k, r: rs, s: rs, stride, pad, dilation: 1 };
        let mut group = criterion.benchmark_group(format!("conv2d/{name}"));
        group.throughput(Throughput::Elements(2 * (n * shape.macs()) as u64));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_millis(300));
        // Built and verified by the first pass that the filter on the command line lets run.
        let mut verified: Option<Buffers> = None;
        let passes: [(&str, Pass); 3] =
            [("fprop", Buffers::fprop), ("dgrad", Buffers::dgrad), ("wgrad", Buffers::wgrad)];
        for (pass, run) in passes {
            group.bench_function(pass, |bencher| {
                let buffers = verified.get_or_insert_with(|| Buffers::verified(name, &shape, n));
                bencher.iter(|| run(black_box(buffers), &shape, n));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
