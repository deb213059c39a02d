//! The program in several processes: a whole job, and one that loses a process.

use crate::free_address;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SCADLES: &str = env!("CARGO_BIN_EXE_scadles");

const SMALL: [&str; 16] = [
    "--devices",
    "3",
    "--rates",
    "9,12,15",
    "--device",
    "cpu",
    "--set",
    "model.width=0.25",
    "--set",
    "data.embedded-train=200",
    "--set",
    "data.embedded-test=40",
    "--eval-every",
    "1000",
    "--threads",
    "1",
];

fn worker(process: usize, rendezvous: &str, out: &Path, steps: &str) -> Child {
    let mut command = Command::new(SCADLES);
    command.args(["worker", "--deadline", "4", "--quiet", "--steps", steps]).args(SMALL);
    command.args(["--process", &process.to_string(), "--processes", "3", "--rendezvous", rendezvous]);
    command.arg("--out").arg(out);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the job of process 0, with its folder at `out`, has done some steps.
fn wait_for_steps(out: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    let lines = || std::fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while lines() < 4 {
        assert!(Instant::now() < until, "the job does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(name: &str, child: &Child) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Loses process 2 by `how`; returns how long the others took to end, and their words.
fn lose(how: &str) -> (Duration, Vec<Output>) {
    let folder = tempfile::tempdir().unwrap();
    let (rendezvous, out) = (free_address(), folder.path().join("run"));
    let mut children: Vec<Child> =
        (0..3).map(|process| worker(process, &rendezvous, &out, "1000000")).collect();
    wait_for_steps(&out);
    let begin = Instant::now();
    let mut lost = children.pop().unwrap();
    signal(how, &lost);
    let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let took = begin.elapsed();
    let _ = lost.kill();
    lost.wait().unwrap();
    assert!(out.join("last.safetensors").is_file(), "the parameters of the last whole step are not kept");
    (took, outputs)
}

fn check(outputs: &[Output]) {
    for (process, output) in outputs.iter().enumerate() {
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "process {process}: {words}");
        assert!(words.contains("step ") && words.contains("process 2 is lost"), "process {process}: {words}");
    }
}

#[test]
fn a_killed_process_is_named_by_all_others_at_once() {
    let (took, outputs) = lose("-KILL");
    check(&outputs);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_stopped_process_is_named_within_the_deadline() {
    let (took, outputs) = lose("-STOP");
    check(&outputs);
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(14), "{took:?}");
}

#[test]
fn a_launched_job_trains_what_one_process_trains() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], out: &Path| {
        let mut command = Command::new(SCADLES);
        command.args(arguments).args(["--quiet", "--steps", "6"]).args(SMALL).arg("--out").arg(out);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(out.join("model.safetensors").is_file());
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
        record["parameters_crc32"].as_u64().expect("a checksum of the parameters")
    };
    let alone = run(&["run"], &folder.path().join("alone"));
    let together = run(&["launch", "-n", "3"], &folder.path().join("together"));
    assert_eq!(alone, together, "the parameters of three processes are not those of one");
    assert!(folder.path().join("together/report.html").is_file());
}

#[test]
fn a_job_whose_processes_cannot_run_says_so() {
    let output =
        Command::new(SCADLES).args(["launch", "-n", "2", "--", "--model", "resnet19"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("resnet19") && words.contains("process 1: exit status: 2"), "{words}");
    let output = Command::new(SCADLES).args(["worker", "--process", "0"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--processes"), "{output:?}");
}
