//! `scadles publish` to `scadles run` over TCP, as two processes.

use scadles::metrics::folder::RunFolder;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

const SCADLES: &str = env!("CARGO_BIN_EXE_scadles");
/// What both sides must agree on.
const DATA: [&str; 8] = [
    "--devices",
    "2",
    "--rates",
    "40,20",
    "--set",
    "data.embedded-train=200",
    "--set",
    "data.embedded-test=20",
];

/// The first of two free ports that follow each other.
fn two_ports() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).ok();
    for _ in 0..100 {
        let first = free(0).unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && free(port + 1).is_some() {
            return port;
        }
    }
    panic!("no two free ports");
}

fn publish(to: &str, more: &[&str]) -> Command {
    let mut command = Command::new(SCADLES);
    command.args(["publish", "--to", to]).args(more).args(DATA).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_run_trains_on_what_a_publisher_sends() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("run");
    let first = two_ports();
    let addresses = format!("source.addresses=127.0.0.1:{first},127.0.0.1:{}", first + 1);
    // The run starts first: it waits for its publishers.
    let run = Command::new(SCADLES)
        .args(["run", "-q", "--clock", "real", "--set", "source.kind=tcp", "--set", &addresses])
        .args(["--device", "cpu", "--steps", "3", "--eval-every", "3", "--threads", "1", "--out"])
        .arg(&folder)
        .args(["--set", "model.width=0.125", "--set", "batch.max=16"])
        .args(DATA)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let publisher = publish(&format!("tcp://127.0.0.1:{first}"), &["--seconds", "10"]).spawn().unwrap();
    let run = run.wait_with_output().unwrap();
    let publisher = publisher.wait_with_output().unwrap();
    assert!(run.status.success() && publisher.status.success(), "{} {}", text(&run), text(&publisher));
    let record = RunFolder::read(&folder).unwrap();
    assert_eq!(record.steps.len(), 3);
    assert!(record.steps.iter().all(|step| step.local_batch.iter().all(|batch| *batch > 0)));
    assert!(record.steps.iter().all(|step| step.loss.is_finite()));
    let report = text(&publisher);
    let row = |device: &str| -> Vec<f64> {
        let line = report.lines().find(|line| line.starts_with(device)).expect(&report);
        line.split_whitespace().map(|cell| cell.parse().unwrap()).collect()
    };
    assert_eq!((row("0 ")[1], row("1 ")[1]), (40.0, 20.0));
    // A slow machine catches up, so the rate over the whole time holds unless the reader has left for good.
    assert!(row("0 ")[3] > 0.0 && row("0 ")[2] <= 41.0, "{report}");
}

#[test]
fn what_cannot_be_published_is_refused() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp://{}", holder.local_addr().unwrap());
    let cases: [(&str, &[&str], &str); 5] = [
        ("udp://127.0.0.1:7001", &[], "tcp://HOST:PORT"),
        ("tcp://127.0.0.1:65535", &[], "room for 2 devices"),
        ("tcp://127.0.0.1:7001", &["--seconds", "0"], "above 0"),
        (&taken, &[], "choose another address with --to"),
        ("tcp://no-such-host.invalid:7001", &[], "no-such-host.invalid:7001"),
    ];
    for (to, more, part) in cases {
        let output = publish(to, more).output().unwrap();
        assert!(output.status.code() == Some(2) && text(&output).contains(part), "{}", text(&output));
    }
}
