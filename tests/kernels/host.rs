//! The tests of this program once more, in a process whose CUDA driver is the emulator over `kernels/`.

use crate::emulator::{emulator_or_skip, text};
use std::env;

#[test]
fn every_kernel_test_passes_on_the_emulator() {
    let Some(emulator) = emulator_or_skip("every_kernel_test_passes_on_the_emulator") else { return };
    let output = emulator.command(env::current_exe().unwrap()).args(["--skip", "host::"]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && !said.contains("skipped:") && !said.contains(" 0 passed"), "{said}");
}

#[test]
fn a_failed_launch_names_kernel_shapes_and_reason() {
    let Some(emulator) = emulator_or_skip("a_failed_launch_names_kernel_shapes_and_reason") else { return };
    for (test, kernel, shapes) in [
        ("add_scaled::add_scaled_has_the_bits_of_the_cpu", "add_scaled_f32", "out, x [1]"),
        ("sgd::sgd_has_the_bits_of_the_cpu", "sgd_f32", "params, grad [1]"),
        ("weighted_sum::weighted_sum_has_the_bits_of_the_cpu", "weighted_sum_f32", "inputs [3, 1]"),
    ] {
        let mut command = emulator.command(env::current_exe().unwrap());
        command.args(["--exact", test]).env("SCADLES_EMULATOR_FAIL_LAUNCH", "1");
        let output = command.output().unwrap();
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        // The panic message holds the error's Debug form.
        for word in [kernel, shapes, "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"] {
            assert!(said.contains(word), "no {word} in {said}");
        }
    }
}

#[test]
fn the_program_tells_what_it_finds() {
    let Some(emulator) = emulator_or_skip("the_program_tells_what_it_finds") else { return };
    let scadles = env!("CARGO_BIN_EXE_scadles");
    let out = tempfile::tempdir().unwrap();
    let mut doctor = emulator.command(scadles);
    let doctor = text(&doctor.arg("doctor").arg("--out").arg(out.path()).output().unwrap());
    assert!(doctor.contains("CUDA 13.0") && doctor.contains("emulator (sm_90, "), "{doctor}");
}
