//! `scadles worker`: one process of a job whose devices are spread over several, on one machine or many.

use super::run::{self, RunArgs};
use super::{CliError, interrupt};
use crate::cluster::Link;
use crate::comm::{Communicator, Place, ProcessCommunicator};
use crate::train::config::{ClockKind, DeviceKind, RunConfig};
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
    /// Seconds after which a process that does not answer is lost; more than the slowest process takes for a step, or process 0
    /// for an evaluation. Devices wait for samples for half of it at most
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
    if config.cluster.clock == ClockKind::Real {
        // A device without samples must not look like a lost one.
        config.cluster.wait_limit_s = config.cluster.wait_limit_s.min(deadline.as_secs_f64() / 2.0);
    }
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

/// A checksum of what all processes must agree on: the version, and all of the configuration but what belongs to one machine: paths,
/// the live page, threads, the device. What the files hold is compared when they are loaded.
fn job(config: &RunConfig) -> u32 {
    let mut config = config.clone();
    (config.run.out, config.run.serve, config.run.serve_token_file) = (None, None, None);
    (config.data.dir, config.model.weights, config.buffer.spill_dir) = (None, None, None);
    (config.run.threads, config.cluster.device) = (0, DeviceKind::Auto);
    let text = toml::to_string(&config).unwrap_or_default();
    crc32fast::hash(format!("{} {text}", env!("CARGO_PKG_VERSION")).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_machine_may_differ_between_processes_and_nothing_else() {
        let config = RunConfig::default();
        let with = |change: &dyn Fn(&mut RunConfig)| {
            let mut config = config.clone();
            change(&mut config);
            job(&config)
        };
        let here = with(&|config| {
            (config.run.out, config.data.dir) = (Some("out".into()), Some("data".into()));
            (config.run.threads, config.cluster.device) = (3, DeviceKind::Cpu);
        });
        assert_eq!(here, job(&config));
        assert_ne!(with(&|config| config.optimizer.lr *= 2.0), job(&config));
        assert_ne!(with(&|config| config.cluster.wait_limit_s = 7.0), job(&config));
    }
}
