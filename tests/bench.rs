//! `scadles-bench`: the GPU's rows on the emulator, each of which checks itself, and the report that joins them with a peer's;
//! layers of a network; rows beside a peer.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/emulator.rs"]
mod emulator;

use emulator::{Emulator, emulator_or_skip, text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Rows of each kind, of few enough threads for the emulator.
const ROWS: [&str; 9] = [
    "cuda/weighted",
    "cuda/top-k",
    "cuda/decode-add",
    "cuda/train resnet20 b=2 fp32",
    "cuda/conv 3x3 2x3x32x32->64",
    "cuda/linear",
    "cuda/bn train fwd",
    "cuda/avgpool",
    "cuda/softmax",
];

fn measured(emulator: &Emulator) -> String {
    let mut bench = emulator.command(env!("CARGO_BIN_EXE_scadles-bench"));
    let output = bench.args(["--json", "--tiny", "--time", "0.001"]).args(ROWS).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn rows_are_checked_and_set_beside_a_peers() {
    let Some(emulator) = emulator_or_skip("rows_are_checked_and_set_beside_a_peers") else { return };
    let json = measured(emulator);
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["failed"], Value::Array(Vec::new()));
    let rows = document["rows"].as_array().unwrap();
    for word in ROWS {
        let name = word.strip_prefix("cuda/").unwrap();
        assert!(rows.iter().any(|row| row["name"].as_str().unwrap().starts_with(name)), "no row {word}");
    }
    for row in rows {
        // Ceilings come without being asked for; everything else is a share of one.
        let is_ceiling = row["name"].as_str().unwrap().starts_with("ceiling ");
        assert_eq!(row["percent"].is_null(), is_ceiling, "{row}");
        assert!(row["median_s"].as_f64().unwrap() > 0.0, "{row}");
    }
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("bench.json"), &json).unwrap();
    report(out.path(), rows);
}

#[test]
fn a_gpu_that_does_not_open_is_named_once() {
    let Some(emulator) = emulator_or_skip("a_gpu_that_does_not_open_is_named_once") else { return };
    let kernels = tempfile::tempdir().unwrap();
    let mut bench = emulator.command(env!("CARGO_BIN_EXE_scadles-bench"));
    let output = bench.arg("cuda/").env("SCADLES_KERNELS", kernels.path()).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("SCADLES_KERNELS: cannot read").count(), 1, "{said}");
    // Rows of the host are measured all the same.
    let mut bench = emulator.command(env!("CARGO_BIN_EXE_scadles-bench"));
    let output = bench.args(["ring/", "--time", "0.001"]).env("SCADLES_KERNELS", kernels.path()).output();
    let output = output.unwrap();
    let said = text(&output);
    assert!(output.status.success() && said.contains("warning: the rows of the GPU are left out"), "{said}");
}

/// A peer that takes thrice the time of ours, and one that takes twice.
fn report(out: &Path, rows: &[Value]) {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: report (no python3)");
        return;
    }
    let seconds = |name: &str| {
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name}"))["median_s"]
            .as_f64()
            .unwrap()
    };
    let step = seconds("train resnet20 b=2 fp32");
    let mean_us = 1e6 * seconds("weighted mean 16 x 4e3");
    let peers = [
        serde_json::json!({"group": "train", "name": "resnet20", "dtype": "tf32", "batch": 2, "img_s": 0.25 / step}),
        serde_json::json!({"group": "graph", "name": "resnet20", "dtype": "tf32", "batch": 2, "img_s": 0.5 / step,
            "mode": "graph", "peak_mem_mib": 1}),
        serde_json::json!({"group": "reduce", "name": "weighted mean 16 x 4e+03: w @ M (mv)", "us": 3.0 * mean_us}),
        serde_json::json!({"group": "reduce", "name": "weighted mean 16 x 4e+03: add_ loop", "us": 4.0 * mean_us,
            "graph_us": 2.0 * mean_us}),
        serde_json::json!({"group": "reduce", "name": "weighted mean 16 x 1e+07: w @ M (mv)", "us": 1.0}),
    ];
    let lines: Vec<String> = peers.iter().map(Value::to_string).collect();
    fs::write(out.join("peers.jsonl"), lines.join("\n")).unwrap();
    let check = |status: &str| {
        let line = serde_json::json!({"check": "kernels", "status": status, "seconds": 1, "detail": "tests.txt",
            "date": "2026-01-02T03:04:05Z", "gpu": "unknown"});
        fs::write(out.join("checks.jsonl"), line.to_string()).unwrap();
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/gpu_report.py");
    let run = || Command::new("python3").arg(&script).arg(out).output().unwrap();

    check("passed");
    let output = run();
    assert!(output.status.success(), "{}", text(&output));
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap();
    let close = |found: &Value, expected: f64| (found.as_f64().unwrap() / expected - 1.0).abs() < 1e-6;
    let joined: Vec<&Value> =
        summary["kernels"].as_array().unwrap().iter().filter(|row| row["section"] == "reduction").collect();
    assert_eq!(joined.len(), 1, "{joined:?}");
    assert!(close(&joined[0]["ratio"], 2.0), "{}", joined[0]);
    // Two images a step against half an image in the same time.
    let steps = summary["steps"].as_array().unwrap();
    assert!(steps.len() == 1 && close(&steps[0]["ratio"], 4.0), "{steps:?}");
    assert_eq!(steps[0]["peer"], "graph tf32");
    let table = fs::read_to_string(out.join("table.md")).unwrap();
    assert!(table.contains("weighted mean 16 x 4e3") && table.contains("not measured"), "{table}");

    check("failed");
    assert!(!run().status.success(), "a failed check passed");
}

fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_scadles-bench")).args(arguments).output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), out, error)
}

#[test]
fn layers_of_a_step_add_up() {
    let (code, out, error) = bench(&["cpu", "resnet20", "--batch", "2", "--repeats", "3", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    let document: Value = serde_json::from_str(&out).unwrap();
    let rows = document["rows"].as_array().unwrap();
    let of = |layer: &str| -> Vec<&str> {
        let rows = rows.iter().filter(|row| row["layer"] == layer);
        rows.map(|row| row["pass"].as_str().unwrap()).collect()
    };
    assert_eq!(of("conv1"), ["forward", "wgrad"]);
    assert_eq!(of("layer1.0.conv1"), ["forward", "wgrad", "dgrad"]);
    assert_eq!(of("bn1"), ["forward", "backward"]);
    assert_eq!(of("fc"), ["forward", "wgrad", "dgrad", "loss"]);
    let sum = |key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>();
    assert!((sum("share") - 1.0).abs() < 0.05, "{}", sum("share"));
    // 40.8 M multiply-adds of a forward pass; the first layer has no gradient of its input.
    let flops = 2.0 * 2.0 * (3.0 * 40.8e6 - 0.44e6);
    assert!((sum("flops") / flops - 1.0).abs() < 0.01, "{} of {flops}", sum("flops"));
    assert!(document["peak_flops_per_s"].as_f64().unwrap() > 1e8);

    let (code, out, error) =
        bench(&["cpu", "resnet20", "--batch", "2", "--repeats", "1", "--bf16", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    let narrow: Value = serde_json::from_str(&out).unwrap();
    let ratio = |key: &str| narrow[key].as_f64().unwrap() / document[key].as_f64().unwrap();
    assert_eq!(ratio("output_bytes"), 0.5);
    // Filters are f32 in both.
    assert!((0.5..0.8).contains(&ratio("bytes")), "{}", ratio("bytes"));
    assert!((8.0..16.0).contains(&document["passes"].as_f64().unwrap()), "{}", document["passes"]);

    let (code, _, error) = bench(&["cpu", "resnet21"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("resnet21") && error.contains("resnet20"), "{error}");
}

/// A program in Python's place that answers each line with the next of `answers`, the last one for ever.
#[cfg(unix)]
fn peer(folder: &Path, answers: [&str; 2]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("python");
    let [first, next] = answers;
    let script = format!("#!/bin/sh\nread line; echo '{first}'\nwhile read line; do echo '{next}'; done\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().into()
}

#[cfg(unix)]
#[test]
fn rows_stand_beside_a_peer() {
    let folder = tempfile::tempdir().unwrap();
    let measured = r#"{"calls": 2, "seconds": 8.0, "peak_bytes": 1000}"#;
    let python = peer(folder.path(), [r#"{"ready": "9.9"}"#, measured]);
    let arguments =
        ["peers", "--python", &python, "--window", "0.01", "--repeats", "3", "infer/resnet20-cifar-b1"];
    let (code, out, error) = bench(&[&arguments[..], &["--json"]].concat());
    assert_eq!(code, Some(0), "{error}");
    let document: Value = serde_json::from_str(&out).unwrap();
    let row = &document["rows"][0];
    assert_eq!((row["torch"].as_str(), row["peers"].as_array().unwrap().len()), (Some("9.9"), 2));
    let ours = row["median_s"].as_f64().unwrap();
    assert_eq!(row["peers"][0]["median_s"], 4.0);
    let ratio = row["peers"][0]["ratio"][0].as_f64().unwrap();
    assert!((ratio * ours / 4.0 - 1.0).abs() < 1e-6, "{ratio} with {ours} s");
    let (code, out, _) = bench(&arguments);
    assert!(code == Some(0) && out.contains("torch, channels-last") && out.contains("torch 9.9"), "{out}");

    let python = peer(folder.path(), [r#"{"error": "no torch here"}"#, measured]);
    let (code, out, _) = bench(&["peers", "--python", &python, "infer/resnet20-cifar-b1"]);
    assert!(code == Some(1) && out.contains("no torch here"), "{out}");
    let (code, out, _) = bench(&["peers", "--python", "/nowhere/python", "infer/resnet20-cifar-b1"]);
    assert!(code == Some(1) && out.contains("cannot start /nowhere/python"), "{out}");
    assert_eq!(bench(&["peers", "no such row"]).0, Some(2));
}
