//! `scadles worker`: one process of a job whose devices are spread over several, on one machine or many.

use super::run::{self, RunArgs};
use super::{CliError, interrupt};
use crate::cluster::Link;
use crate::comm::{Communicator, Place, ProcessCommunicator};
use crate::train::config::{ClockKind, RunConfig};
use crate::train::run_process;
use clap::Args;
use std::cell::RefCell;
use std::time::Duration;

/// Arguments of `scadles worker`.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Number of this process, from 0 [default: what mpirun, srun, torchrun or `scadles launch` say]
    #[arg(long, value_name = "N")]
    process: Option<usize>,
    /// Processes of the job [default: likewise]
    #[arg(long, value_name = "N")]
    processes: Option<usize>,
    /// Where process 0 listens, HOST:PORT [default: SCADLES_RENDEZVOUS, or MASTER_ADDR and MASTER_PORT]
    #[arg(long, value_name = "ADDRESS")]
    rendezvous: Option<String>,
    /// Seconds after which a process that does not answer is lost
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the command.
pub(super) fn worker(arguments: &WorkerArgs) -> Result<(), CliError> {
    let mut config = arguments.run.config()?;
    let given = (arguments.process, arguments.processes, arguments.rendezvous.clone());
    let place = Place::from_variables(&|name| std::env::var(name).ok(), given).map_err(crate::Error::from)?;
    let link = (config.cluster.clock == ClockKind::Virtual).then(|| Link::new(&config.cluster.link));
    let deadline = Duration::from_secs(arguments.deadline);
    let comm = ProcessCommunicator::connect(&place, config.cluster.devices, job(&config), deadline, link);
    let comm: RefCell<Option<Box<dyn Communicator>>> =
        RefCell::new(Some(Box::new(comm.map_err(crate::Error::from)?)));
    if place.process == 0 {
        return run::train(config, &arguments.run, &|config, sinks, stop| {
            let comm = comm.take().expect("one run has the connections");
            Ok(run_process(config, comm, sinks, stop)?)
        });
    }
    (config.run.out, config.run.serve) = (None, None);
    let comm = comm.take().expect("nothing else has taken it");
    run_process(&config, comm, &mut [], interrupt::stop_flag())?;
    Ok(())
}

/// A checksum of what all processes must agree on: the version, and all of the configuration but where a process writes, what it
/// serves and how many threads it has.
fn job(config: &RunConfig) -> u32 {
    let mut config = config.clone();
    (config.run.out, config.run.serve, config.run.threads) = (None, None, 0);
    let text = toml::to_string(&config).unwrap_or_default();
    crc32fast::hash(format!("{} {text}", env!("CARGO_PKG_VERSION")).as_bytes())
}
