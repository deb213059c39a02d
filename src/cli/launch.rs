//! `scadles launch`: all processes of a job on this machine.

use super::{CliError, interrupt};
use clap::Args;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Arguments of `scadles launch`.
#[derive(Debug, Args)]
pub(super) struct LaunchArgs {
    /// Processes to start
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    processes: u16,
    /// Arguments of `scadles worker`: a configuration file and flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    worker: Vec<OsString>,
}

/// A process of the job and whoever reads its words.
struct Worker {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

/// Runs the command: process 0 speaks for the job, the words of others are prefixed with their number.
pub(super) fn launch(arguments: &LaunchArgs) -> Result<(), CliError> {
    // Ctrl-C reaches the workers too, which end together; this process waits for them.
    let _ = interrupt::stop_flag();
    let failed = |source: io::Error| CliError::Launch { reason: source.to_string() };
    let program = std::env::current_exe().map_err(failed)?;
    let rendezvous = free_address().map_err(failed)?;
    let count = usize::from(arguments.processes);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let has_threads =
        arguments.worker.iter().any(|argument| argument.to_string_lossy().starts_with("--threads"));
    let mut workers: Vec<Worker> = Vec::with_capacity(count);
    for process in 0..count {
        let mut command = Command::new(&program);
        command.arg("worker").args(&arguments.worker);
        if !has_threads {
            command.arg("--threads").arg((cores / count).max(1).to_string());
        }
        command
            .env("SCADLES_PROCESS", process.to_string())
            .env("SCADLES_PROCESSES", count.to_string())
            .env("SCADLES_RENDEZVOUS", &rendezvous)
            .stdin(Stdio::null());
        if process > 0 {
            command.stdout(Stdio::null()).stderr(Stdio::piped());
        }
        match command.spawn() {
            Ok(mut child) => {
                let reader = child.stderr.take().map(|words| {
                    std::thread::spawn(move || {
                        for line in BufReader::new(words).lines().map_while(Result::ok) {
                            let _ = writeln!(io::stderr(), "[process {process}] {line}");
                        }
                    })
                });
                workers.push(Worker { child, reader });
            }
            Err(error) => {
                workers.iter_mut().for_each(|worker| drop(worker.child.kill()));
                return Err(CliError::Launch {
                    reason: format!("process {process} could not be started: {error}"),
                });
            }
        }
    }
    let mut bad = Vec::new();
    for (process, mut worker) in workers.into_iter().enumerate() {
        let status = worker.child.wait().map_err(failed)?;
        if let Some(reader) = worker.reader {
            let _ = reader.join();
        }
        if !status.success() {
            bad.push(format!("process {process}: {status}"));
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(CliError::Launch { reason: bad.join(", ") }) }
}

/// An address of this machine that is free now.
fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}
