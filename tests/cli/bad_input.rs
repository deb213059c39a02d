//! Bad input: exit code 2, one message that names the place and the cure, no panic.

use crate::emulator::{emulator_or_skip, text};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Arguments, files to be there (path, text), parts of the message.
type Case = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static [&'static str]);

const CASES: &[Case] = &[
    (&[], &[], &["Usage: scadles <COMMAND>"]),
    (&["fly"], &[], &["unrecognized subcommand 'fly'"]),
    (&["run", "--stepz", "3"], &[], &["unexpected argument '--stepz'", "--steps"]),
    (&["run", "--steps"], &[], &["a value is required for '--steps"]),
    (&["run", "a.toml", "b.toml"], &[], &["unexpected argument 'b.toml'"]),
    (&["run", "--steps", "0"], &[], &["--steps 0: `run.steps` is 0"]),
    (&["run", "--steps", "-3"], &[], &["--steps -3", "whole number"]),
    (&["run", "--steps", "ten"], &[], &["--steps ten", "whole number"]),
    (&["run", "--devices", "0"], &[], &["--devices 0", "from 1 to 4096"]),
    (&["run", "--devices", "5000"], &[], &["from 1 to 4096"]),
    (&["run", "--rates", "S9"], &[], &["--rates S9", "did you mean `S1`"]),
    (&["run", "--rates", "10,20"], &[], &["--rates 10,20", "a list of 2 values", "cluster.devices is 8"]),
    (&["run", "--rates", "10,-20", "--devices", "2"], &[], &["cluster.rates[1]", "-20"]),
    (&["run", "--model", "resnet21"], &[], &["--model resnet21", "did you mean `resnet20`"]),
    (&["run", "--stem", "imagenet"], &[], &["--stem imagenet", "resnet20 has only the stem"]),
    (&["run", "--lr", "0"], &[], &["--lr 0", "above 0"]),
    (&["run", "--lr", "-0.1"], &[], &["--lr -0.1", "above 0"]),
    (&["run", "--lr", "nan"], &[], &["NaN", "above 0"]),
    (&["run", "--seed", "-1"], &[], &["--seed -1", "whole number"]),
    (&["run", "--seed", "99999999999999999999"], &[], &["whole number"]),
    (&["run", "--batch-policy", "rat"], &[], &["did you mean `rate`"]),
    (&["run", "--compression", "topk"], &[], &["did you mean `top-k`"]),
    (&["run", "--density", "2"], &[], &["--density 2", "above 0 and at most 1"]),
    (&["run", "--compression", "none", "--density", "0.1"], &[], &["kind `none` has no key `density`"]),
    (&["run", "--delta", "-1"], &[], &["--delta -1", "0 or more"]),
    (&["run", "--injection", "0.5"], &[], &["--injection 0.5", "two shares, as 0.5,0.25"]),
    (&["run", "--injection", "2,0.5"], &[], &["injection.alpha", "from 0 to 1"]),
    (&["run", "--injection", "0.5,0"], &[], &["set both above 0"]),
    (&["run", "--partition", "skewed"], &[], &["--partition skewed", "labels:COUNT"]),
    (&["run", "--partition", "labels:0"], &[], &["--partition labels:0", "from 1 to 100"]),
    (&["run", "--partition", "labels:11"], &[], &["at most 10"]),
    (&["run", "--partition", "dirichlet:-1"], &[], &["above 0"]),
    (&["run", "--clock", "wall"], &[], &["the choices are virtual, real"]),
    (&["run", "--device", "tpu"], &[], &["cannot be `tpu`"]),
    (&["run", "--threads", "5000"], &[], &["from 0 to 1024"]),
    (&["run", "--target-accuracy", "95"], &[], &["--target-accuracy 95", "from 0 to 1"]),
    (&["run", "--max-time", "-1"], &[], &["--max-time -1", "0 or more"]),
    (&["run", "--eval-every", "0"], &[], &["--eval-every 0"]),
    (&["run", "--name", "a/b"], &[], &["--name a/b", "name a folder"]),
    (&["run", "--set", "batch.mim=3"], &[], &["--set batch.mim=3", "did you mean `min`"]),
    (&["run", "--set", "batch"], &[], &["a path, = and a value"]),
    (
        &["run", "--set", "batch.min=64", "--set", "batch.max=8"],
        &[],
        &["batch.min (64) is above batch.max (8)"],
    ),
    (&["run", "none.toml"], &[], &["cannot read none.toml"]),
    (&["run", "."], &[], &["cannot read ."]),
    (
        &["run", "bad.toml"],
        &[("bad.toml", "[run]\nstepps = 3\n")],
        &["bad.toml:2:1", "did you mean `steps`", "2 | stepps = 3"],
    ),
    (&["run", "bad.toml"], &[("bad.toml", "[run\n")], &["bad.toml:1:5", "not TOML"]),
    (&["run", "bad.toml"], &[("bad.toml", "seed = \"x\"\n")], &["bad.toml:1:8", "whole number"]),
    (
        &["run", "bad.toml"],
        &[("bad.toml", "[sync]\nkind = \"local\"\nsteps = 2\n")],
        &["bad.toml:2:8", "compression"],
    ),
    (&["run", "--out", "file/run"], &[("file", "")], &["cannot create file/run", "--out"]),
    (&["compare", "scadle", "ddl"], &[], &["`scadle` is no preset", "did you mean `scadles`"]),
    (&["compare", "ddl"], &[], &["only one run to compare (ddl)"]),
    (&["compare", "empty", "ddl"], &[("empty/x", "")], &["empty holds no finished run"]),
    (&["compare", "old", "ddl"], &[("old/run.json", "{}")], &["old/run.json is not a run record"]),
    (&["compare", "bad.toml", "ddl"], &[("bad.toml", "a = 1")], &["bad.toml:1:1", "unknown key `a`"]),
    (&["compare", "--base", "none.toml"], &[], &["cannot read none.toml"]),
    (&["compare", "--steps", "x"], &[], &["--steps x"]),
    (&["models", "--batch", "0"], &[], &["--batch 0", "from 1 to 65536"]),
    (&["models", "--classes", "0"], &[], &["--classes 0"]),
    (&["fetch", "cifar11"], &[], &["invalid value 'cifar11'", "cifar10"]),
    (&["fetch", "cifar10", "--sha256", "abc"], &[], &["not a SHA-256", "64 hexadecimal digits"]),
    (&["fetch", "cifar10", "--url", "ftp://x/y"], &[], &["cannot fetch from", "http://"]),
];

/// Input that only the work itself finds wrong.
const DATA_CASES: &[Case] = &[
    (&["--data", "nowhere"], &[], &["nowhere does not exist"]),
    (&["--data", "empty"], &[("empty/readme", "")], &["no CIFAR data in empty", "scadles fetch cifar10"]),
    (
        &["--data", "cut"],
        &[("cut/train.bin", "abc"), ("cut/test.bin", "abc")],
        &["cut short", "3 of 3074 bytes"],
    ),
    (&["--data", "xz"], &[("xz/train.bin.xz", ""), ("xz/test.bin.xz", "")], &["is compressed", "xz -dk"]),
    (&["--device", "cuda"], &[], &["device cuda", "--device cpu"]),
    (&["--set", "model.weights=none.safetensors"], &[], &["cannot read weights from none.safetensors"]),
    (&["--set", "model.weights=w"], &[("w", "hi")], &["w: not a valid safetensors file"]),
    (
        &["--set", "cluster.arrivals.kind=trace", "--set", "cluster.arrivals.path=none.csv"],
        &[],
        &["rate trace none.csv"],
    ),
    (
        &["--set", "cluster.arrivals.kind=trace", "--set", "cluster.arrivals.path=bad.csv"],
        &[("bad.csv", "a,b\n")],
        &["bad.csv, line 1"],
    ),
    (&["--devices", "300"], &[], &["300 devices but only 200 training samples"]),
    (
        &["--set", "buffer.policy=persistence", "--set", "buffer.spill-dir=none"],
        &[],
        &["cannot spill samples to none", "set buffer.spill-dir to an existing folder"],
    ),
];

/// The program on a machine without a GPU, whatever this one has.
fn scadles(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scadles"));
    command.args(arguments).current_dir(folder).env("CUDA_VISIBLE_DEVICES", "-1").output().unwrap()
}

#[test]
fn each_ends_with_exit_code_2_and_says_why() {
    check(&[], CASES);
}

#[test]
fn bad_data_ends_with_exit_code_2_and_says_why() {
    let small = ["run", "--steps", "1", "--set", "data.embedded-train=200", "--set", "data.embedded-test=20"];
    check(&small, DATA_CASES);
}

#[test]
fn all_the_same_on_a_machine_with_a_gpu() {
    let name = "all_the_same_on_a_machine_with_a_gpu";
    let Some(emulator) = emulator_or_skip(name) else { return };
    let mut command = emulator.command(std::env::current_exe().unwrap());
    let output = command.args(["bad_input::", "--skip", name]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && said.contains("4 passed"), "{said}");
}

fn check(first: &[&str], cases: &[Case]) {
    for (arguments, files, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in *files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let output = scadles(folder.path(), &[first, *arguments].concat());
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {shown}");
        assert!(!shown.contains("panicked") && !shown.contains("RUST_BACKTRACE"), "{arguments:?}: {shown}");
        assert!(output.stdout.is_empty(), "{arguments:?} also prints on standard output");
        for part in *parts {
            assert!(shown.contains(part), "{arguments:?}: want {part:?} in\n{shown}");
        }
        // No half-made folder of a run that never began.
        let left = folder.path().join("runs/scadles");
        assert!(!left.exists(), "{arguments:?} left a folder");
    }
}

#[test]
fn help_and_information_end_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["--help"][..], "Usage: scadles"),
        (&["--version"], "scadles "),
        (&["run", "--help"], "--target-accuracy"),
        (&["doctor"], "nothing to fix"),
        (&["doctor", "--data", "nowhere"], "fix first: "),
        (&["models"], "resnet152"),
        (&["models", "--json"], "\"macs_per_image\""),
    ] {
        let output = scadles(folder.path(), arguments);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Machines differ in what they lack; the last line is about it either way.
        let found = shown.contains(part) || (part == "nothing to fix" && shown.contains("fix first: "));
        assert!(found, "{arguments:?}: want {part:?} in\n{shown}");
    }
}

#[test]
fn the_benchmark_program_lists_measures_and_refuses() {
    let bench = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_scadles-bench")).args(arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, list, _) = bench(&["--list"]);
    assert!(code == Some(0) && list.contains("ring/push-read-3072-bytes"), "{list}");
    let (code, table, _) = bench(&["ring/", "--time", "0.02"]);
    assert!(code == Some(0) && table.contains("median") && table.contains("samples/s"), "{table}");
    let (_, json, _) = bench(&["ring/", "--time", "0.02", "--json", "--seed", "7"]);
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["setting"]["seed"], 7);
    assert!(document["rows"][0]["median_s"].as_f64().unwrap() > 0.0);
    for (arguments, part) in
        [(&["nothing-like-it"][..], "--list"), (&["--time", "0"], "--time"), (&["--tim"], "--time")]
    {
        let (code, _, shown) = bench(arguments);
        assert!(code == Some(2) && shown.contains(part), "{arguments:?}: {shown}");
    }
}
