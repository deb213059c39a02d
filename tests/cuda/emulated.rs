//! The tests of this program once more, and the program itself, on the emulator.

use crate::emulator::{Emulator, emulator_or_skip};
use std::process::{Command, Output};
use std::{env, fs};

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

/// Runs the tests of one module of this program; fails unless all of them ran.
fn run_module(emulator: &Emulator, module: &str) {
    let mut command = emulator.command(env::current_exe().unwrap());
    let output = command.args([module, "--test-threads", "1"]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && !said.contains("skipped:") && !said.contains(" 0 passed"), "{said}");
}

#[test]
fn passes_on_the_emulator() {
    let Some(emulator) = emulator_or_skip("passes_on_the_emulator") else { return };
    run_module(emulator, "executor::");
}

#[test]
fn trainer_on_the_emulator() {
    let Some(emulator) = emulator_or_skip("trainer_on_the_emulator") else { return };
    run_module(emulator, "trainer::");
}

#[test]
fn training_on_the_emulator() {
    let Some(emulator) = emulator_or_skip("training_on_the_emulator") else { return };
    run_module(emulator, "training::");
}

/// A run of the program that ends after a few small steps.
fn small_run(emulator: &Emulator, out: &std::path::Path) -> Command {
    let mut command = emulator.command(env!("CARGO_BIN_EXE_scadles"));
    command.args(["run", "--devices", "2", "--steps", "2", "--rates", "4", "--set", "batch.min=1"]);
    command.args(["--set", "model.width=0.25", "--set", "data.embedded-train=40"]);
    command.args(["--set", "data.embedded-test=10", "--out"]).arg(out);
    command
}

#[test]
fn the_program_trains_on_the_gpu_it_finds() {
    let Some(emulator) = emulator_or_skip("the_program_trains_on_the_gpu_it_finds") else { return };
    let out = tempfile::tempdir().unwrap();
    for precision in ["f32", "bf16"] {
        // Without --device: the GPU is taken because it is there.
        let output = small_run(emulator, &out.path().join(precision))
            .args(["--precision", precision])
            .output()
            .unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        let record = std::fs::read_to_string(out.path().join(precision).join("run.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["computed_on"], format!("emulator, {precision}"));
        assert_eq!(record["steps"].as_array().unwrap().len(), 2);
        assert!(record["steps"][1]["loss"].as_f64().unwrap().is_finite());
    }
}

#[test]
fn a_gpu_that_cannot_be_used_is_passed_over_with_a_warning() {
    let Some(emulator) = emulator_or_skip("a_gpu_that_cannot_be_used_is_passed_over_with_a_warning") else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let no_kernels = tempfile::tempdir().unwrap();
    let run = |name: &str, device: &str| {
        let mut command = small_run(emulator, &out.path().join(name));
        command.args(["--device", device]).env("SCADLES_KERNELS", no_kernels.path()).output().unwrap()
    };
    let output = run("auto", "auto");
    let said = text(&output);
    assert!(output.status.success() && said.contains("computed on CPU"), "{said}");
    let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("the GPU is not used"), "{said}");
    assert!(!run("cuda", "cuda").status.success());
    let output = run("cpu", "cpu");
    assert!(output.status.success() && !text(&output).contains("warning: "), "{}", text(&output));
}

#[test]
fn hidden_gpus_are_none() {
    let Some(emulator) = emulator_or_skip("hidden_gpus_are_none") else { return };
    let out = tempfile::tempdir().unwrap();
    let run = |name: &str, device: &str| {
        let mut command = small_run(emulator, &out.path().join(name));
        command.args(["--device", device]).env("CUDA_VISIBLE_DEVICES", "-1").output().unwrap()
    };
    let output = run("auto", "auto");
    let said = text(&output);
    assert!(output.status.success() && said.contains("computed on CPU"), "{said}");
    assert!(!said.contains("warning: "), "{said}");
    let output = run("cuda", "cuda");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("sees 0 GPUs") && said.contains("CUDA_VISIBLE_DEVICES"), "{said}");
}

#[test]
fn a_folder_of_kernels_may_lack_hoppers_and_no_others() {
    let Some(emulator) = emulator_or_skip("a_folder_of_kernels_may_lack_hoppers_and_no_others") else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let kernels = out.path().join("kernels");
    fs::create_dir(&kernels).unwrap();
    for entry in fs::read_dir(emulator.folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".fatbin") && !name.ends_with("_wgmma.fatbin") {
            fs::copy(emulator.folder().join(&name), kernels.join(&name)).unwrap();
        }
    }
    let run = |name: &str| {
        let mut command = small_run(emulator, &out.path().join(name));
        command.args(["--device", "cuda", "--precision", "bf16"]).env("SCADLES_KERNELS", &kernels);
        command.output().unwrap()
    };
    let output = run("without");
    assert!(output.status.success(), "{}", text(&output));
    fs::remove_file(kernels.join("sgd.fatbin")).unwrap();
    let output = run("broken");
    let said = text(&output);
    assert!(!output.status.success() && said.contains("SCADLES_KERNELS: cannot read"), "{said}");
    assert!(said.contains("sgd.fatbin") && !said.contains("panicked"), "{said}");
}

#[test]
fn what_the_driver_refuses_ends_the_run_with_a_reason_and_a_cure() {
    let Some(emulator) = emulator_or_skip("what_the_driver_refuses_ends_the_run_with_a_reason_and_a_cure")
    else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    for (variable, value, words) in [
        (
            "SCADLES_EMULATOR_FAIL_ALLOC",
            "3",
            &["no room on the GPU", "asked", "free", "train in bf16", "lower batch.max", "--device cpu"][..],
        ),
        ("SCADLES_EMULATOR_FAIL_LAUNCH", "40", &["kernel ", " over ", "CUDA_ERROR_LAUNCH_FAILED"]),
        ("SCADLES_EMULATOR_LOSE_DEVICE", "60", &["CUDA_ERROR_"]),
    ] {
        let output = small_run(emulator, &out.path().join(variable)).env(variable, value).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{variable}: {said}");
        for word in words {
            assert!(said.contains(word), "{variable}: no {word:?} in {said}");
        }
        assert!(!said.contains("panicked"), "{variable}: {said}");
    }
    let mut command = small_run(emulator, &out.path().join("bf16"));
    command.args(["--precision", "bf16"]).env("SCADLES_EMULATOR_FAIL_ALLOC", "3");
    let said = text(&command.output().unwrap());
    assert!(said.contains("no room on the GPU") && !said.contains("train in bf16"), "{said}");
}
