//! A training step allocates nothing once warm, whatever the batch.

use half::bf16;
use scadles::models::{self, ModelSpec, Stem};
use scadles::nn::{DropoutSeed, Executor, Packing};
use scadles::ops::conv2d::CpuElement;
use scadles::ops::input::ImageShape;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged; counting does not touch memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_step_allocates_nothing() {
    for packing in [Packing::Kept, Packing::OnUse] {
        steps::<f32>(packing);
        steps::<bf16>(packing);
    }
}

fn steps<E: CpuElement>(packing: Packing) {
    for (name, stem, width) in [
        ("resnet20", Stem::Cifar, 0.1),
        ("resnet50", Stem::Imagenet, 0.1),
        ("vgg11_bn", Stem::Imagenet, 0.1),
        // Channels that Winograd's algorithms take.
        ("resnet18", Stem::Cifar, 0.5),
    ] {
        let image = ImageShape { h: 32, w: 32, c: 3 };
        let spec = ModelSpec { name: name.into(), stem, classes: 10, width, image };
        let plan = Arc::new(models::plan(&spec, 8).unwrap());
        let (params, mut stats) = (plan.init_params(1), plan.init_stats());
        let mut grad = vec![0.0; plan.num_params()];
        let mut executor = Executor::<E>::with_packing(plan, packing).unwrap();
        let (x, labels) = (vec![0.5; 8 * image.numel()], [1; 8]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let counts = pool.install(|| {
            let mut step = |n: usize| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                let (x, labels) = (&x[..n * image.numel()], &labels[..n]);
                let dropout = DropoutSeed { seed: 1, index: n as u64 };
                executor.load_params(&params).unwrap();
                executor.forward_backward(x, labels, &params, &mut stats, &mut grad, dropout).unwrap();
                executor.evaluate(x, labels, &params, &stats).unwrap();
                ALLOCATIONS.load(Ordering::Relaxed) - before
            };
            step(8); // rayon's queues grow once
            step(1);
            [3, 8, 0, 1, 5, 8, 2, 7].map(step)
        });
        assert_eq!(counts, [0; 8], "{name}, {packing:?}: allocations per step");
    }
}
