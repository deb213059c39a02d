//! The program `scadles`: arguments -> a command's work, its words on the terminal, its exit code.
//!
//! Exit codes: 0 done, 1 the work failed, 2 the input (flags, configuration, data) cannot be used, 130 interrupted
//! twice.

pub mod bench;
mod compare;
mod doctor;
mod error;
mod fetch;
mod flags;
mod interrupt;
mod launch;
mod models;
mod presets;
mod publish;
mod run;
mod table;
mod worker;

pub use error::CliError;
pub use flags::ConfigFlags;

use crate::metrics::record::RunRecord;
use crate::metrics::sink::Sink;
use crate::train::config::RunConfig;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// Trains one configuration: every event goes to the sinks, a raised flag ends the run early.
pub type Runner<'a> =
    dyn Fn(&RunConfig, &mut [Box<dyn Sink>], &AtomicBool) -> Result<RunRecord, CliError> + 'a;

/// Trains ResNet and VGG together on edge devices that each get a live stream of samples.
#[derive(Debug, Parser)]
#[command(name = "scadles", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train one configuration and write a report.
    Run(run::RunArgs),
    /// Train or read several runs and put them side by side: ScaDLES against DDL by default.
    Compare(compare::CompareArgs),
    /// Be one process of a job whose devices are spread over several processes or machines.
    Worker(Box<worker::WorkerArgs>),
    /// Start all processes of a job on this machine.
    Launch(launch::LaunchArgs),
    /// Say what this machine offers and what to fix first.
    Doctor(doctor::DoctorArgs),
    /// List the networks with their sizes.
    Models(models::ModelsArgs),
    /// Play each device's share of the data set over TCP, for a run with `source.kind = "tcp"`.
    Publish(publish::PublishArgs),
    /// Download CIFAR-10 or CIFAR-100.
    Fetch(fetch::FetchArgs),
}

/// Runs the program with `arguments` (the program's name first); `runner` trains.
pub fn main(arguments: impl IntoIterator<Item = OsString>, runner: &Runner<'_>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let done = match cli.command {
        Command::Run(arguments) => run::run(&arguments, runner),
        Command::Compare(arguments) => compare::compare(&arguments, runner),
        Command::Worker(arguments) => worker::worker(&arguments),
        Command::Launch(arguments) => launch::launch(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Models(arguments) => models::models(&arguments),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Fetch(arguments) => fetch::fetch(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints a line on standard output; a reader that went away is no error.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
