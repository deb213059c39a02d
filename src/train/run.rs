//! A whole run: steps and evaluations until it is long enough, good enough, or asked to stop.

use super::Trainer;
use crate::error::{Error, Result};
use crate::metrics::record::{EndReason, EvalRecord, Event, RunRecord, StepRecord};
use crate::metrics::sink::Sink;
use crate::train::config::RunConfig;
use std::sync::atomic::{AtomicBool, Ordering};

/// File of the final parameters in the output folder.
pub const PARAMETERS_FILE: &str = "model.safetensors";

/// Trains as `config` says, telling `sinks` each event as it happens; ends soon after `stop` becomes true.
///
/// Work is done by `config.run.threads` threads. If `config.run.out` is set, the final parameters are written there as
/// [`PARAMETERS_FILE`].
///
/// # Errors
/// Whatever [`Trainer::new`] or a step cannot do, or a sink that fails. Interruption and divergence are no errors: see
/// [`RunRecord::end`].
pub fn run(config: &RunConfig, sinks: &mut [Box<dyn Sink>], stop: &AtomicBool) -> Result<RunRecord> {
    let threads = config.run.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| Error::Threads { threads, source })?;
    pool.install(|| run_in_pool(config, sinks, stop))
}

fn run_in_pool(config: &RunConfig, sinks: &mut [Box<dyn Sink>], stop: &AtomicBool) -> Result<RunRecord> {
    let mut trainer = Trainer::new(config)?;
    let parameters = trainer.plan().num_params() as u64;
    if let Some(out) = &config.run.out {
        // Before the work: a folder that cannot be made must not cost a trained network.
        std::fs::create_dir_all(out).map_err(|source| Error::Write { path: out.clone(), source })?;
    }
    let (data_set, computed_on) = (trainer.data_set(), trainer.computed_on());
    tell(sinks, &Event::Start { config, parameters, data_set, computed_on })?;
    if let Some(reason) = trainer.passed_over() {
        let text = format!("the GPU is not used, {reason}; `--device cuda` insists on it");
        tell(sinks, &Event::Warning { text: &text })?;
    }
    let (mut steps, mut evals) = (Vec::new(), Vec::new());
    let end = train(&mut trainer, config, sinks, stop, &mut steps, &mut evals)?;
    if let Some(out) = &config.run.out {
        trainer.save(&out.join(PARAMETERS_FILE))?;
    }
    let record = RunRecord {
        version: env!("CARGO_PKG_VERSION").into(),
        config: config.clone(),
        data_set: trainer.data_set().into(),
        classes: trainer.classes(),
        parameters,
        computed_on: trainer.computed_on().into(),
        rates: trainer.rates().to_vec(),
        end,
        steps,
        evals,
        parameters_crc32: crc32fast::hash(bytemuck::cast_slice(&trainer.params()?)),
    };
    tell(sinks, &Event::End { end, best_top1: record.best_top1() })?;
    Ok(record)
}

fn train(
    trainer: &mut Trainer,
    config: &RunConfig,
    sinks: &mut [Box<dyn Sink>],
    stop: &AtomicBool,
    steps: &mut Vec<StepRecord>,
    evals: &mut Vec<EvalRecord>,
) -> Result<EndReason> {
    let length = &config.run;
    loop {
        let step = trainer.step()?;
        tell(sinks, &Event::Step(&step))?;
        let number = step.step as usize;
        steps.push(step);
        let end = if trainer.diverged() {
            Some(EndReason::Diverged)
        } else if stop.load(Ordering::Relaxed) {
            Some(EndReason::Interrupted)
        } else if number >= length.steps {
            Some(EndReason::Steps)
        } else if length.max_time_s > 0.0 && trainer.now().as_secs_f64() >= length.max_time_s {
            Some(EndReason::Time)
        } else {
            None
        };
        if end.is_some() || number.is_multiple_of(length.eval_every) {
            let eval = trainer.evaluate()?;
            tell(sinks, &Event::Eval(&eval))?;
            let reached = length.target_accuracy > 0.0 && eval.top1 >= length.target_accuracy;
            evals.push(eval);
            if let Some(end) = end.or(reached.then_some(EndReason::Target)) {
                return Ok(end);
            }
        }
    }
}

fn tell(sinks: &mut [Box<dyn Sink>], event: &Event<'_>) -> Result<()> {
    sinks.iter_mut().try_for_each(|sink| sink.event(event))?;
    Ok(())
}
