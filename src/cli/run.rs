//! `scadles run`: one configuration -> a trained network, its records and its report.

use super::{CliError, ConfigFlags, Runner, interrupt, say};
use crate::metrics::folder::RunFolder;
use crate::metrics::format::{bytes, count, factor, percent, seconds};
use crate::metrics::record::{EndReason, RunRecord};
use crate::metrics::serve::{LiveServer, ServeOptions, TOKEN_VARIABLE};
use crate::metrics::sink::{JsonLines, progress};
use crate::metrics::summary::RunSummary;
use crate::train::config::RunConfig;
use clap::Args;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Arguments of `scadles run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Configuration file (TOML), see examples/ [default: ScaDLES on the embedded data set]
    config: Option<PathBuf>,
    /// Folder for metrics, report and parameters [default: runs/NAME, numbered if taken]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// What a command prints while it works.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct OutputArgs {
    /// Print every event as a line of JSON on standard output
    #[arg(long)]
    json: bool,
    /// Print nothing but errors (and JSON, if asked for)
    #[arg(long, short)]
    quiet: bool,
}

impl OutputArgs {
    /// Prints a line for a person: on standard output, or beside the JSON on standard error.
    pub fn say(self, line: &str) {
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => drop(writeln!(io::stderr(), "{line}")),
            (false, false) => say(line),
        }
    }
}

impl RunArgs {
    /// The configuration that file and flags describe.
    pub fn config(&self) -> Result<RunConfig, CliError> {
        let mut config = RunConfig::load(self.config.as_deref(), &self.flags.overrides()?)?;
        if let Some(out) = &self.out {
            config.run.out = Some(out.clone());
        }
        Ok(config)
    }
}

/// Runs the command.
pub(super) fn run(arguments: &RunArgs, runner: &Runner<'_>) -> Result<(), CliError> {
    train(arguments.config()?, arguments, runner)
}

/// Trains `config` into its folder and says what came out.
pub(super) fn train(mut config: RunConfig, arguments: &RunArgs, runner: &Runner<'_>) -> Result<(), CliError> {
    let path = match &config.run.out {
        Some(path) => path.clone(),
        None => RunFolder::unused(&Path::new("runs").join(&config.name), "run.json"),
    };
    config.run.out = Some(path.clone());
    let (record, report) = execute(&config, &path, arguments.output, runner, interrupt::stop_flag())?;
    for line in summary_lines(&record) {
        arguments.output.say(&line);
    }
    arguments.output.say(&format!("report: {}", report.display()));
    if record.end == EndReason::Diverged { Err(CliError::Diverged { report }) } else { Ok(()) }
}

/// Trains `config` with all sinks of its folder and the terminal; returns the record and the report's path.
pub(super) fn execute(
    config: &RunConfig,
    path: &Path,
    output: OutputArgs,
    runner: &Runner<'_>,
    stop: &AtomicBool,
) -> Result<(RunRecord, PathBuf), CliError> {
    let options = ServeOptions::from_config(&config.run, std::env::var_os(TOKEN_VARIABLE))?;
    let server = options.map(LiveServer::start).transpose()?;
    let folder = RunFolder::create(path, config).map_err(|source| CliError::Output { source })?;
    let mut sinks = folder.sinks().map_err(|source| CliError::Output { source })?;
    if output.json {
        sinks.push(Box::new(JsonLines::new(io::stdout(), "standard output")));
    }
    if !output.quiet {
        sinks.push(progress());
    }
    if let Some(server) = server {
        output.say(&format!("live page: http://{}/", server.address()));
        sinks.push(Box::new(server));
    }
    let trained = runner(config, &mut sinks, stop);
    drop(sinks);
    let record = trained.inspect_err(|_| folder.discard_if_unused())?;
    let report = folder.finish(&record)?;
    Ok((record, report))
}

fn summary_lines(record: &RunRecord) -> Vec<String> {
    let summary = RunSummary::new(record);
    let (steps, time, wall) = (summary.steps, seconds(summary.time_s), seconds(summary.wall_s));
    let saved = summary.dense_bytes as f64 / summary.sent_bytes.max(1) as f64;
    vec![
        format!(
            "{}: top-1 {} (best {}), top-5 {} after {steps} steps, {time} of cluster time, {wall} here",
            summary.name,
            percent(summary.final_top1),
            percent(summary.best_top1),
            percent(summary.final_top5)
        ),
        format!(
            "sent {} of gradients, {} less than dense; {} of the steps compressed; at most {} samples waited, {} dropped",
            bytes(summary.sent_bytes as f64),
            factor(saved),
            percent(summary.cnc_ratio),
            count(summary.max_buffer_samples as f64),
            count(summary.dropped_samples as f64)
        ),
    ]
}
