//! Failures that the emulator is told to have, as the program's own errors tell them.

use crate::device::device_or_skip;
use crate::emulator::{emulator_or_skip, text};
use scadles::device::cuda::{CudaDevice, CudaError};
use std::env;

/// In the process of a failure: works until it comes, and says it.
#[test]
fn work() {
    let Some(_) = device_or_skip("work") else { return };
    let work = || -> Result<(), CudaError> {
        let device = CudaDevice::open(0)?;
        let mut out = device.upload(&[1.0_f32; 100])?;
        let x = device.zeros::<f32>(100, "gradients")?;
        for _ in 0..4 {
            device.add_scaled(out.view_mut(), x.view(), 0.5)?;
            device.synchronize()?;
        }
        Ok(())
    };
    match work() {
        Ok(()) => println!("no failure"),
        Err(error) => {
            println!("{error}");
            // A lost device stays lost; a refused allocation does no harm.
            println!("then: {:?}", CudaDevice::open(0).err().map(|error| error.to_string()));
        }
    }
}

#[test]
fn failures_are_told_with_what_they_concern() {
    let Some(emulator) = emulator_or_skip("failures_are_told_with_what_they_concern") else { return };
    for (variable, nth, words) in [
        (
            "SCADLES_EMULATOR_FAIL_ALLOC",
            "2",
            &[
                "there is no room on the GPU for gradients: 400 B asked, ",
                " free; lower batch.max",
                "then: None",
            ][..],
        ),
        (
            "SCADLES_EMULATOR_FAIL_LAUNCH",
            "3",
            &[
                "kernel add_scaled_f32 over out, x [100]: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
                "then: Some",
            ][..],
        ),
        ("SCADLES_EMULATOR_LOSE_DEVICE", "2", &["CUDA_ERROR_DEVICE_UNAVAILABLE", "then: Some"][..]),
        ("SCADLES_EMULATOR_LOSE_DEVICE", "3", &["CUDA_ERROR_DEVICE_UNAVAILABLE", "then: Some"][..]),
        ("SCADLES_EMULATOR_FAIL_ALLOC", "100", &["no failure"][..]),
    ] {
        let mut command = emulator.command(env::current_exe().unwrap());
        command.args(["--exact", "product::work", "--nocapture"]).env(variable, nth);
        let output = command.output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{variable}={nth}: {said}");
        for word in words {
            assert!(said.contains(word), "{variable}={nth}: no {word} in {said}");
        }
    }
}
