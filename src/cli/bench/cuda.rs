//! Rows for the GPU's kernels, on a machine where they run; each is compared with the CPU before it is timed.

use super::Row;
use super::rows::uniform;
use crate::aggregate::{add_scaled, weighted_sum};
use crate::device::cuda::{CudaDevice, DeviceBuffer, DeviceMomentum, SgdStep};
use crate::optim::Sgd;
use crate::train::config::OptimizerConfig;
use std::sync::Arc;

/// Parameters of ResNet-152: vectors larger than any GPU's cache.
const NUMEL: usize = 60_192_808;
const RANKS: usize = 16;
/// Launches between two waits, so that the wait does not count.
const LAUNCHES: usize = 10;

/// A copy, which is the ceiling of what follows, and every kernel; none where [`CudaDevice::open`] fails.
pub(super) fn rows() -> Vec<Row> {
    let Ok(device) = CudaDevice::open(0) else { return Vec::new() };
    let device = Arc::new(device);
    vec![
        row(&device, "copy", 2, copy),
        row(&device, "add-scaled", 3, scaled),
        row(&device, "sgd-momentum", 5, sgd),
        row(&device, "weighted-sum-of-16", RANKS + 1, sum),
    ]
}

/// `vectors`: how many vectors one launch reads and writes.
fn row(
    device: &Arc<CudaDevice>,
    name: &str,
    vectors: usize,
    launch: fn(Arc<CudaDevice>, u64) -> Launch,
) -> Row {
    let device = Arc::clone(device);
    Row {
        group: "cuda",
        name: format!("{name}-{NUMEL}-x{LAUNCHES}"),
        work: Some(((LAUNCHES * vectors * NUMEL * size_of::<f32>()) as f64, "bytes/s")),
        prepare: Box::new(move |seed| {
            let mut launch = launch(Arc::clone(&device), seed);
            Box::new(move || {
                (0..LAUNCHES).for_each(|_| launch());
                device.synchronize().expect("a GPU that answers");
            })
        }),
    }
}

type Launch = Box<dyn FnMut()>;

fn upload(device: &CudaDevice, values: &[f32]) -> DeviceBuffer<f32> {
    device.upload(values).expect("memory on the GPU")
}

fn check(device: &CudaDevice, found: &DeviceBuffer<f32>, expected: &[f32]) {
    let found = device.download(found.view()).expect("a GPU that answers");
    assert!(found == expected, "the GPU's result differs from the CPU's");
}

fn copy(device: Arc<CudaDevice>, seed: u64) -> Launch {
    let values = uniform(seed, NUMEL);
    let (from, mut to) = (upload(&device, &values), upload(&device, &vec![0.0; NUMEL]));
    let launch = {
        let device = Arc::clone(&device);
        move |to: &mut DeviceBuffer<f32>| device.copy(from.view(), to.view_mut()).expect("equal lengths")
    };
    launch(&mut to);
    check(&device, &to, &values);
    Box::new(move || launch(&mut to))
}

fn scaled(device: Arc<CudaDevice>, seed: u64) -> Launch {
    let (mut expected, values) = (uniform(seed, NUMEL), uniform(seed + 1, NUMEL));
    let (mut out, x) = (upload(&device, &expected), upload(&device, &values));
    add_scaled(0, &values, 0.125, &mut expected).expect("equal lengths");
    device.add_scaled(out.view_mut(), x.view(), 0.125).expect("equal lengths");
    check(&device, &out, &expected);
    Box::new(move || device.add_scaled(out.view_mut(), x.view(), 0.125).expect("equal lengths"))
}

fn sgd(device: Arc<CudaDevice>, seed: u64) -> Launch {
    let (mut expected, values) = (uniform(seed, NUMEL), uniform(seed + 1, NUMEL));
    let (mut params, grad) = (upload(&device, &expected), upload(&device, &values));
    let mut velocity = upload(&device, &vec![0.0; NUMEL]);
    let config = OptimizerConfig::default();
    let step = SgdStep { lr: 1e-3, weight_decay: config.weight_decay as f32 };
    let mut cpu = Sgd::new(&config, NUMEL).expect("the defaults");
    cpu.step(&mut expected, &values, 1e-3).expect("equal lengths");
    let mut launch = {
        let device = Arc::clone(&device);
        move |params: &mut DeviceBuffer<f32>| {
            let momentum = DeviceMomentum::Classic(velocity.view_mut(), config.momentum as f32);
            device.sgd(params.view_mut(), grad.view(), momentum, step).expect("equal lengths");
        }
    };
    launch(&mut params);
    check(&device, &params, &expected);
    Box::new(move || launch(&mut params))
}

fn sum(device: Arc<CudaDevice>, seed: u64) -> Launch {
    let values = uniform(seed, NUMEL);
    let weights = [1.0 / RANKS as f32; RANKS];
    let mut expected = vec![0.0; NUMEL];
    weighted_sum(&[values.as_slice(); RANKS], &weights, &mut expected).expect("equal lengths");
    let mut inputs = device.zeros(RANKS * NUMEL, "gradients").expect("memory on the GPU");
    for rank in 0..RANKS {
        let mut all = inputs.view_mut();
        let input = all.slice_mut(rank * NUMEL..(rank + 1) * NUMEL);
        device.copy_from_host(&values, input).expect("equal lengths");
    }
    let (mut out, weights) = (upload(&device, &vec![0.0; NUMEL]), upload(&device, &weights));
    let launch = {
        let device = Arc::clone(&device);
        move |out: &mut DeviceBuffer<f32>| {
            device.weighted_sum(out.view_mut(), inputs.view(), weights.view()).expect("equal lengths")
        }
    };
    launch(&mut out);
    check(&device, &out, &expected);
    Box::new(move || launch(&mut out))
}
