//! What `run` and `compare` write, with a runner that makes its records up.

use crate::synth::{self, Shape};
use scadles::cli::{CliError, main};
use scadles::metrics::MetricsError;
use scadles::metrics::folder::RunFolder;
use scadles::metrics::record::{EndReason, Event, RunRecord};
use scadles::metrics::sink::{Sink, read_evals, read_steps};
use scadles::train::config::{BatchPolicy, CompressionConfig, Override, RunConfig};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sends a made-up run through the sinks; ends early when asked to.
pub fn made_up(
    config: &RunConfig,
    sinks: &mut [Box<dyn Sink>],
    stop: &AtomicBool,
) -> Result<RunRecord, CliError> {
    let ddl = config.batch.policy == BatchPolicy::Fixed;
    let shape = Shape { steps: config.run.steps as u64, ..if ddl { synth::DDL } else { synth::SCADLES } };
    let mut record = synth::run(&shape);
    record.config = config.clone();
    let mut send = |event: Event<'_>| sinks.iter_mut().try_for_each(|sink| sink.event(&event));
    let (parameters, data_set, computed_on) = (record.parameters, &record.data_set, &record.computed_on);
    send(Event::Start { config, parameters, data_set, computed_on })?;
    for i in 0..record.steps.len() {
        let step = &record.steps[i];
        send(Event::Step(step))?;
        if let Some(eval) = record.evals.iter().find(|eval| eval.step == step.step) {
            send(Event::Eval(eval))?;
        }
        if ["slow", "stubborn"].contains(&config.name.as_str()) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        if stop.load(Ordering::Relaxed) && config.name != "stubborn" {
            record.steps.truncate(i + 1);
            record.evals.retain(|eval| eval.step <= i as u64 + 1);
            record.end = EndReason::Interrupted;
            break;
        }
    }
    if config.name == "diverges" {
        record.end = EndReason::Diverged;
    }
    send(Event::End { end: record.end, best_top1: record.best_top1() })?;
    Ok(record)
}

fn scadles(arguments: &[&str]) -> u8 {
    scadles_with(arguments, &made_up)
}

fn scadles_with(arguments: &[&str], runner: &scadles::cli::Runner<'_>) -> u8 {
    let code = main(std::iter::once("scadles").chain(arguments.iter().copied()).map(Into::into), runner);
    (0..=255).find(|&number| ExitCode::from(number) == code).unwrap()
}

fn path(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

#[test]
fn a_run_leaves_all_its_files() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    assert_eq!(scadles(&["run", "--quiet", "--steps", "60", "--seed", "5", "--out", path(&out)]), 0);
    let record = RunFolder::read(&out).unwrap();
    assert_eq!((record.config.seed, record.steps.len(), record.evals.len()), (5, 60, 3));
    assert_eq!(read_steps(&out.join("steps.csv")).unwrap(), record.steps);
    assert_eq!(read_evals(&out.join("evals.csv")).unwrap(), record.evals);
    assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().count(), 60 + 3 + 2);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().ends_with("</html>\n"));
    // The configuration as run starts the same run again.
    let again = RunConfig::load(Some(&out.join("config.toml")), &[]).unwrap();
    assert_eq!(again, record.config);
}

#[test]
fn a_run_that_diverges_fails_with_a_report() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    assert_eq!(scadles(&["run", "-q", "--name", "diverges", "--out", path(&out)]), 1);
    assert!(out.join("report.html").exists());
}

#[test]
fn a_run_that_cannot_begin_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    let bad_input =
        || CliError::from(RunConfig::load(None, &[Override::set("run.steps=0").unwrap()]).unwrap_err());
    let failure = || {
        let source = std::io::ErrorKind::StorageFull.into();
        CliError::Metrics(MetricsError::Io { action: "write", path: "x".into(), source })
    };
    let cases: [(&dyn Fn() -> CliError, u8); 2] = [(&bad_input, 2), (&failure, 1)];
    for (error, code) in cases {
        let refuses = |_: &RunConfig, _: &mut [Box<dyn Sink>], _: &AtomicBool| Err(error());
        assert_eq!(scadles_with(&["run", "-q", "--out", path(&out)], &refuses), code);
        assert!(!out.exists());
    }
}

#[test]
fn compare_trains_ddl_and_scadles_on_the_same_terms() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("compare");
    assert_eq!(scadles(&["compare", "-q", "--steps", "200", "--seed", "3", "--out", path(&out)]), 0);
    let [ddl, ours] = ["ddl", "scadles"].map(|name| RunFolder::read(&out.join(name)).unwrap());
    assert_eq!((ddl.config.batch.policy, ours.config.batch.policy), (BatchPolicy::Fixed, BatchPolicy::Rate));
    assert_eq!(ddl.config.compression, CompressionConfig::None);
    assert_eq!(
        (ddl.config.seed, &ddl.config.data, &ddl.config.cluster),
        (3, &ours.config.data, &ours.config.cluster)
    );
    for name in ["compare.html", "compare.png", "compare.md", "compare.json"] {
        assert!(fs::metadata(out.join(name)).unwrap().len() > 500, "{name}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("compare.json")).unwrap()).unwrap();
    assert_eq!((&json["runs"][0]["name"], &json["runs"][1]["name"]), (&"ddl".into(), &"scadles".into()));
    assert!(json["targets"][0]["speedup"][1].as_f64().unwrap() > 1.0);

    // Finished runs compare without training; runs of one name are told apart.
    let again = root.path().join("again");
    let never = |_: &RunConfig, _: &mut [Box<dyn Sink>], _: &AtomicBool| -> Result<RunRecord, CliError> {
        panic!("finished runs are not trained again")
    };
    let (first, second) = (out.join("ddl"), out.join("scadles"));
    let arguments = ["compare", "-q", path(&first), path(&second), path(&first), "--out", path(&again)];
    assert_eq!(scadles_with(&arguments, &never), 0);
    let page = fs::read_to_string(again.join("compare.html")).unwrap();
    assert!(page.contains("ddl against scadles against ddl-2"));
}

#[test]
fn one_configuration_is_the_base_of_both_presets() {
    let root = tempfile::tempdir().unwrap();
    let (file, out) = (root.path().join("base.toml"), root.path().join("out"));
    fs::write(&file, "seed = 77\n[run]\nsteps = 40\n[compression]\nkind = \"top-k\"\ndensity = 0.01\n")
        .unwrap();
    assert_eq!(scadles(&["compare", "-q", path(&file), "--out", path(&out)]), 0);
    let ours = RunFolder::read(&out.join("scadles")).unwrap().config;
    let CompressionConfig::TopK(top_k) = ours.compression else { panic!("{:?}", ours.compression) };
    assert_eq!((ours.seed, ours.run.steps, top_k.density), (77, 40, 0.01));
    assert_eq!(RunFolder::read(&out.join("ddl")).unwrap().config.seed, 77);
}
