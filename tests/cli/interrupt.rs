//! Ctrl-C: once ends the run with its report, twice ends the program with 130.

use crate::commands::made_up;
use scadles::metrics::folder::RunFolder;
use scadles::metrics::record::EndReason;
use scadles::metrics::sink::read_steps;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const OUT: &str = "SCADLES_TEST_INTERRUPT_OUT";
const NAME: &str = "SCADLES_TEST_INTERRUPT_NAME";

/// The process that is interrupted: does nothing unless started by the tests below.
#[test]
fn child() {
    let Ok(out) = std::env::var(OUT) else { return };
    let name = std::env::var(NAME).unwrap();
    let arguments = ["scadles", "run", "-q", "--name", &name, "--steps", "3000", "--out", &out];
    scadles::cli::main(arguments.map(Into::into), &made_up);
}

/// Starts the run called `name`: `slow` ends when it is asked to, `stubborn` does not.
fn start(out: &Path, name: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["interrupt::child", "--exact"])
        .env(OUT, out)
        .env(NAME, name)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let steps = || read_steps(&out.join("steps.csv")).map_or(0, |steps| steps.len());
    wait_for("the first steps", || steps() >= 3);
    child
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "no {what} after 30 s");
        sleep(Duration::from_millis(10));
    }
}

fn end(mut child: Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("the program did not end");
        }
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn once_ends_the_run_with_its_report() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    let child = start(&out, "slow");
    interrupt(&child);
    assert!(end(child).success());
    let record = RunFolder::read(&out).unwrap();
    assert_eq!(record.end, EndReason::Interrupted);
    assert!(record.steps.len() < 3000 && out.join("report.html").exists());
    assert_eq!(read_steps(&out.join("steps.csv")).unwrap(), record.steps);
}

#[test]
fn a_killed_run_keeps_every_step_it_reported() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    let mut child = start(&out, "slow");
    child.kill().unwrap();
    child.wait().unwrap();
    let steps = read_steps(&out.join("steps.csv")).unwrap();
    assert!(steps.len() >= 3 && steps.iter().zip(1..).all(|(step, number)| step.step == number));
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn twice_ends_the_program() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    let child = start(&out, "stubborn");
    interrupt(&child);
    // Let the first signal be handled: two pending ones count as one.
    sleep(Duration::from_millis(200));
    interrupt(&child);
    assert_eq!(end(child).code(), Some(130));
}
