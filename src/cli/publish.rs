//! `scadles publish`: plays each device's share of the data set to the run that connects.

use super::table::table;
use super::{CliError, ConfigFlags, interrupt, say};
use crate::stream::publish::{PublishError, Published, publish};
use crate::train::DeviceSources;
use crate::train::config::{RunConfig, split_address};
use clap::Args;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

/// Longest publication.
const MAX_SECONDS: f64 = 1e9;

/// Arguments of `scadles publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Configuration file of the run (TOML): its data, split, rates and seed [default: as `scadles run`]
    config: Option<PathBuf>,
    /// Address to listen on for device 0, as tcp://127.0.0.1:7001; device i gets the port i higher
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// Seconds from the first connection of a device to its end of stream [default: until Ctrl-C]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seconds: Option<f64>,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Runs the command.
pub(super) fn run(arguments: &PublishArgs) -> Result<(), CliError> {
    let length = length(arguments.seconds)?;
    let config = RunConfig::load(arguments.config.as_deref(), &arguments.flags.overrides()?)?;
    let listeners = listen(&arguments.to, config.cluster.devices)?;
    let DeviceSources { shape, sources, rates } = DeviceSources::new(&config)?;
    say(&format!("listening for {} devices from {} on", listeners.len(), arguments.to));
    let stop = interrupt::stop_flag();
    let done: Vec<Result<Published, PublishError>> = std::thread::scope(|scope| {
        let devices = listeners
            .iter()
            .zip(sources)
            .map(|(listener, source)| scope.spawn(move || publish(listener, source, shape, length, stop)));
        let threads: Vec<_> = devices.collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let mut rows = Vec::with_capacity(done.len());
    for (device, (done, target)) in done.into_iter().zip(rates).enumerate() {
        let done = done.map_err(|source| CliError::Publish { device, source })?;
        rows.push(vec![
            device.to_string(),
            format!("{target:.2}"),
            format!("{:.2}", done.rate()),
            done.samples.to_string(),
            format!("{:.1}", done.seconds),
            format!("{:.1}", done.latest_s * 1e3),
            done.connections.to_string(),
        ]);
    }
    let header = ["device", "target/s", "reached/s", "samples", "seconds", "latest by, ms", "connections"];
    say(&table(&header, &rows));
    Ok(())
}

fn length(seconds: Option<f64>) -> Result<Duration, CliError> {
    match seconds {
        None => Ok(Duration::from_secs_f64(MAX_SECONDS)),
        Some(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => Ok(Duration::from_secs_f64(seconds)),
        Some(seconds) => {
            let expected = "above 0 and at most 1e9".into();
            Err(CliError::Flag { flag: "--seconds", given: seconds.to_string(), expected })
        }
    }
}

/// One listening socket per device, on ports that follow each other.
fn listen(to: &str, devices: usize) -> Result<Vec<TcpListener>, CliError> {
    let refused = |expected: String| CliError::Flag { flag: "--to", given: to.into(), expected };
    let Some((host, first)) = to.strip_prefix("tcp://").and_then(split_address) else {
        return Err(refused("tcp://HOST:PORT, as tcp://127.0.0.1:7001".into()));
    };
    if usize::from(first) + devices > 65_536 {
        return Err(refused(format!("a port that leaves room for {devices} devices below 65536")));
    }
    let ports = first..=u16::MAX;
    ports
        .take(devices)
        .map(|port| {
            let address = format!("{host}:{port}");
            TcpListener::bind(&address).map_err(|source| CliError::Listen { address, source })
        })
        .collect()
}
