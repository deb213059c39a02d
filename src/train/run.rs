//! A whole run: steps and evaluations until it is long enough, good enough, or asked to stop.

use super::Trainer;
use crate::cluster::Link;
use crate::comm::{CommError, Communicator, LocalCommunicator};
use crate::error::{Error, Result};
use crate::metrics::record::{EndReason, EvalRecord, Event, RunRecord, StepRecord};
use crate::metrics::sink::Sink;
use crate::train::config::RunConfig;
use std::sync::atomic::{AtomicBool, Ordering};

/// File of the final parameters in the output folder.
pub const PARAMETERS_FILE: &str = "model.safetensors";

/// File of the parameters after the last whole step of a job that lost a process.
pub const LAST_PARAMETERS_FILE: &str = "last.safetensors";

/// Steps between two comparisons of the processes' parameters.
const CHECKED_STEPS: usize = 50;

/// Trains as `config` says, telling `sinks` each event as it happens; ends soon after `stop` becomes true.
///
/// Work is done by `config.run.threads` threads. If `config.run.out` is set, the final parameters are written there as
/// [`PARAMETERS_FILE`].
///
/// # Errors
/// Whatever [`Trainer::new`] or a step cannot do, or a sink that fails. Interruption and divergence are no errors: see
/// [`RunRecord::end`].
pub fn run(config: &RunConfig, sinks: &mut [Box<dyn Sink>], stop: &AtomicBool) -> Result<RunRecord> {
    let link = Link::new(&config.cluster.link);
    let comm = Box::new(LocalCommunicator::new(config.cluster.devices, link));
    run_process(config, comm, sinks, stop)
}

/// The same for one process of a job: it hosts the devices of `comm.local_ranks()`. The process that hosts rank 0 gets the
/// records of all devices; the others get the same loss, accuracy and end.
///
/// # Errors
/// As [`run`]; also [`Error::Lost`] when another process ends or hangs.
pub fn run_process(
    config: &RunConfig,
    comm: Box<dyn Communicator>,
    sinks: &mut [Box<dyn Sink>],
    stop: &AtomicBool,
) -> Result<RunRecord> {
    let threads = config.run.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| Error::Threads { threads, source })?;
    pool.install(|| run_in_pool(config, comm, sinks, stop))
}

fn run_in_pool(
    config: &RunConfig,
    comm: Box<dyn Communicator>,
    sinks: &mut [Box<dyn Sink>],
    stop: &AtomicBool,
) -> Result<RunRecord> {
    let mut trainer = Trainer::with_communicator(config, comm)?;
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
    let end = match train(&mut trainer, config, sinks, stop, &mut steps, &mut evals) {
        Err(Error::Comm(source)) => return Err(lost(&trainer, config, source)),
        end => end?,
    };
    if trainer.any(config.run.out.is_some())? {
        let out = config.run.out.clone().unwrap_or_default();
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

/// Keeps the parameters of the last whole step where another process is lost.
fn lost(trainer: &Trainer, config: &RunConfig, source: CommError) -> Error {
    let path = config.run.out.as_ref().map(|out| out.join(LAST_PARAMETERS_FILE));
    let saved = path.filter(|path| trainer.save_alone(path).is_ok());
    Error::Lost { step: trainer.current_step(), saved, source }
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
        } else if trainer.any(stop.load(Ordering::Relaxed))? {
            Some(EndReason::Interrupted)
        } else if number >= length.steps {
            Some(EndReason::Steps)
        } else if length.max_time_s > 0.0 && trainer.is_over()? {
            Some(EndReason::Time)
        } else {
            None
        };
        if number.is_multiple_of(CHECKED_STEPS) {
            trainer.check_params()?;
        }
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
