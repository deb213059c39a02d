//! Launches from several threads.

use crate::support::device_or_skip;
use scadles::device::cuda::{CudaError, Grid};
use std::sync::Barrier;

/// Each launches with another amount of dynamic shared memory, all above what needs no asking.
#[test]
fn threads_may_ask_for_different_shared_memory() {
    const THREADS: u32 = 4;
    for _ in 0..100 {
        let Some(device) = device_or_skip("threads_may_ask_for_different_shared_memory") else { return };
        let (out, x) = (device.upload(&[1.0_f32; 4]).unwrap(), device.upload(&[0.0_f32; 4]).unwrap());
        let (out, barrier, device) = (out.view(), Barrier::new(THREADS as usize), &device);
        let launch = |shared_bytes| -> Result<(), CudaError> {
            let grid = Grid { blocks: [1; 3], threads: 32, shared_bytes };
            for _ in 0..4 {
                let mut launch = device.launch("add_scaled_f32")?;
                launch.input(&out).input(&x.view()).scalar(1.0_f32).scalar(0_i64);
                // SAFETY: the arguments are the kernel's, in order and type; of 0 elements it touches none.
                unsafe { launch.run(grid, || format!("{shared_bytes} bytes of shared memory")) }?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            for thread in 1..=THREADS {
                let (launch, barrier) = (&launch, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    launch((48 + 8 * thread) << 10).unwrap();
                });
            }
        });
        device.synchronize().unwrap();
    }
}
