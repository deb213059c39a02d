//! How a run ends, and what it leaves.

use super::{run, small};
use scadles::metrics::MetricsError;
use scadles::metrics::record::{EndReason, Event};
use scadles::metrics::sink::Sink;
use scadles::train::PARAMETERS_FILE;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks the run to stop after a number of steps.
struct StopAfter(u64, Arc<AtomicBool>);

impl Sink for StopAfter {
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        if matches!(event, Event::Step(step) if step.step == self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn an_interrupted_run_still_evaluates_and_saves() {
    let out = tempfile::tempdir().unwrap();
    let mut config = small(2, &[9.0]);
    config.run.steps = 1000;
    config.run.out = Some(out.path().join("new/folder"));
    let stop = Arc::new(AtomicBool::new(false));
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(StopAfter(3, Arc::clone(&stop)))];
    let record = scadles::train::run(&config, &mut sinks, &stop).unwrap();
    assert_eq!((record.end, record.steps.len(), record.evals.len()), (EndReason::Interrupted, 3, 1));
    assert!(out.path().join("new/folder").join(PARAMETERS_FILE).is_file());
}

#[test]
fn time_and_target_end_a_run_early() {
    let mut config = small(2, &[9.0]);
    config.run.steps = 1000;
    config.run.max_time_s = 2.5;
    assert_eq!(run(&config).end, EndReason::Time);
    config.run.max_time_s = 0.0;
    config.run.target_accuracy = 0.001;
    config.run.eval_every = 2;
    let record = run(&config);
    assert!(record.end == EndReason::Target && record.steps.len().is_multiple_of(2), "{:?}", record.end);
}

#[test]
fn a_diverging_run_ends_by_name_and_keeps_finite_parameters() {
    let mut config = small(2, &[9.0]);
    config.run.steps = 60;
    config.optimizer.lr = 1e30;
    let out = tempfile::tempdir().unwrap();
    config.run.out = Some(out.path().into());
    let record = run(&config);
    assert_eq!(record.end, EndReason::Diverged);
    assert!(record.steps.len() < 60);
    let trainer = scadles::train::Trainer::new(&config).unwrap();
    let saved = scadles::models::weights::load(&out.path().join(PARAMETERS_FILE), trainer.plan()).unwrap();
    assert!(saved.params.iter().all(|param| param.is_finite()));
}

/// Sees no step.
struct NoStep;

impl Sink for NoStep {
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        assert!(!matches!(event, Event::Step(_)), "a step was trained before the folder was tried");
        Ok(())
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_before_the_first_step() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut config = small(2, &[9.0]);
    config.run.out = Some(file.path().join("run"));
    let error = scadles::train::run(&config, &mut [Box::new(NoStep)], &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, scadles::Error::Write { .. }), "{error}");
}

#[test]
fn saved_parameters_start_the_next_run_where_this_one_ended() {
    let out = tempfile::tempdir().unwrap();
    let mut config = small(2, &[9.0]);
    config.run.out = Some(out.path().into());
    let first = run(&config);
    config.model.weights = Some(out.path().join(PARAMETERS_FILE));
    let mut trainer = scadles::train::Trainer::new(&config).unwrap();
    assert_eq!(crc32fast::hash(bytemuck::cast_slice(&trainer.params().unwrap())), first.parameters_crc32);
    let (again, last) = (trainer.evaluate().unwrap(), first.evals.last().unwrap());
    assert_eq!((again.top1, again.loss), (last.top1, last.loss));
}
