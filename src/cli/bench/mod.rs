//! The benchmark binary's harness: closures in named groups -> medians with their spread, as a table or JSON.

mod conv;
mod cuda;
mod layers;
mod peers;
mod report;
mod rows;
mod vectors;

use crate::cli::doctor::cpu_name;
use crate::cli::say;
use crate::device::cuda::CudaError;
use clap::Parser;
use report::{Bound, Failed, Measured, Setting};
use std::collections::HashMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What kept a row from being measured.
pub type Failure = Box<dyn std::error::Error>;

/// Makes what is timed from a seed, and checks its result.
pub enum Prepare {
    /// Timed by the host's clock.
    Host(Box<dyn FnOnce(u64) -> Box<dyn FnMut()>>),
    /// Tells its time itself.
    Device(Box<dyn FnOnce(u64) -> Result<Timed, Failure>>),
}

impl Prepare {
    /// From a closure that makes a closure.
    pub fn host(prepare: impl FnOnce(u64) -> Box<dyn FnMut()> + 'static) -> Self {
        Self::Host(Box::new(prepare))
    }
}

/// Runs once and tells the seconds that it took.
pub type Call = Box<dyn FnMut() -> Result<f64, Failure>>;

/// Work that tells its time.
pub struct Timed {
    /// The work.
    pub call: Call,
    /// Memory of the device that it takes, where that is of interest.
    pub memory_bytes: Option<u64>,
}

/// One thing to measure.
pub struct Row {
    /// Group: `ring`, `conv2d`, `step`.
    pub group: &'static str,
    /// Named shape or case.
    pub name: String,
    /// Work of one call and its unit: `(images, "images/s")`; None shows time only.
    pub work: Option<(f64, &'static str)>,
    /// What one call takes at least, each with the name of the ceiling that limits it: `(bytes, "copy")`.
    pub bounds: Vec<(f64, &'static str)>,
    /// The name of the ceiling that this row's rate is; measured before what refers to it.
    pub measures: Option<&'static str>,
    /// The same work for PyTorch, as `benches/peers/torch_worker.py` takes it: one for each way to do it.
    pub peers: Vec<serde_json::Value>,
    /// Makes what is timed; called once, before the warm-up, and only if the row is chosen. It should check its result
    /// before it returns.
    pub prepare: Prepare,
}

impl Row {
    /// A row without ceilings.
    pub fn new(
        group: &'static str,
        name: String,
        work: Option<(f64, &'static str)>,
        prepare: Prepare,
    ) -> Self {
        Self { group, name, work, bounds: Vec::new(), measures: None, peers: Vec::new(), prepare }
    }

    /// The row with work for `scadles-bench peers`.
    pub fn beside(mut self, peers: impl IntoIterator<Item = serde_json::Value>) -> Self {
        self.peers.extend(peers);
        self
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }
}

/// Times parts of scadles on this machine.
///
/// `scadles-bench cpu NETWORK`: each layer of a training step; `scadles-bench peers`: rows beside PyTorch. Both have a
/// `--help`.
#[derive(Debug, Parser)]
#[command(name = "scadles-bench", version, about)]
struct Options {
    /// Only rows whose `group/name` contains one of these words, and the ceilings they are compared with
    filter: Vec<String>,
    /// List the rows and stop
    #[arg(long)]
    list: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Seconds to spend on each row
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    time: f64,
    /// Seconds after which the remaining rows are left out, and named
    #[arg(long, value_name = "S", default_value_t = 3600.0)]
    budget: f64,
    /// Small shapes on the GPU: tries its rows, tells nothing about speed
    #[arg(long)]
    tiny: bool,
    /// Threads; 0: one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 1234)]
    seed: u64,
}

/// Runs the chosen rows; the exit code is 2 for wrong arguments, 1 if a row failed.
///
/// With `peers` as the first argument, the rows that have a peer run in turns with it; with `cpu`, each layer of a network
/// is timed.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|word| word == "peers") {
        arguments.remove(1);
        return peers::main(arguments, rows::rows());
    }
    if arguments.get(1).is_some_and(|word| word == "cpu") {
        arguments.remove(1);
        return layers::main(arguments);
    }
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let seconds = |value: f64| value > 0.0 && value <= 3600.0;
    if !seconds(options.time) || !seconds(options.budget) || options.threads > 1024 {
        eprintln!("error: --time and --budget must be above 0 and at most 3600, --threads at most 1024");
        return ExitCode::from(2);
    }
    let mut rows = rows::rows();
    let gpu = cuda::Gpu::open(options.tiny);
    match &gpu {
        Ok(gpu) => rows.extend(gpu.rows()),
        Err(CudaError::Missing(_)) => {}
        Err(error) => eprintln!("warning: the rows of the GPU are left out: {error}"),
    }
    let chosen = choose(rows, &options.filter);
    if chosen.is_empty() {
        eprintln!(
            "error: no row contains {}; `scadles-bench --list` shows them all",
            options.filter.join(" or ")
        );
        if let (true, Err(reason @ CudaError::Missing(_))) =
            (options.filter.iter().any(|word| word.contains("cuda")), &gpu)
        {
            eprintln!("{reason}");
        }
        return ExitCode::from(2);
    }
    if options.list {
        chosen.iter().for_each(|row| say(&row.full_name()));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global() {
        eprintln!("error: cannot start {} threads: {error}", options.threads);
        return ExitCode::FAILURE;
    }
    let gpu = gpu.ok().filter(|_| chosen.iter().any(|row| row.group == cuda::GROUP));
    let setting = setting(options.seed, gpu.map(|gpu| gpu.name().into()), options.tiny);
    let (measured, failed) = measure_all(chosen, &options);
    report::print(&setting, &measured, &failed, options.json);
    if failed.iter().any(|row| !row.skipped) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// This machine and program, with the threads of the pool.
fn setting(seed: u64, gpu: Option<String>, tiny: bool) -> Setting {
    Setting {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("SCADLES_COMMIT"),
        cpu: cpu_name().unwrap_or_else(|| std::env::consts::ARCH.into()),
        gpu,
        threads: rayon::current_num_threads(),
        seed,
        tiny,
    }
}

/// Rows that contain a word of `filter`, or all, and the ceilings that they refer to.
fn choose(rows: Vec<Row>, filter: &[String]) -> Vec<Row> {
    let wanted =
        |row: &Row| filter.is_empty() || filter.iter().any(|word| row.full_name().contains(word.as_str()));
    let needed: Vec<&str> = rows
        .iter()
        .filter(|row| wanted(row))
        .flat_map(|row| row.bounds.iter().map(|bound| bound.1))
        .collect();
    rows.into_iter()
        .filter(|row| wanted(row) || row.measures.is_some_and(|name| needed.contains(&name)))
        .collect()
}

fn measure_all(rows: Vec<Row>, options: &Options) -> (Vec<Measured>, Vec<Failed>) {
    let (mut measured, mut failed) = (Vec::new(), Vec::new());
    let mut ceilings = HashMap::new();
    let (began, per_row) = (Instant::now(), Duration::from_secs_f64(options.time));
    for row in rows {
        let (group, name, measures) = (row.group, row.name.clone(), row.measures);
        if began.elapsed().as_secs_f64() > options.budget {
            failed.push(Failed { group, name, reason: "out of time: raise --budget".into(), skipped: true });
            continue;
        }
        match measure(row, options.seed, per_row, &ceilings) {
            Ok(row) => {
                if let (Some(name), Some(rate)) = (measures, row.rate) {
                    ceilings.insert(name, rate);
                }
                measured.push(row);
            }
            Err(error) => failed.push(Failed { group, name, reason: error.to_string(), skipped: false }),
        }
    }
    (measured, failed)
}

fn measure(
    row: Row,
    seed: u64,
    budget: Duration,
    ceilings: &HashMap<&'static str, f64>,
) -> Result<Measured, Failure> {
    let Timed { call: mut once, memory_bytes } = match row.prepare {
        Prepare::Device(prepare) => prepare(seed)?,
        Prepare::Host(prepare) => {
            let mut work = prepare(seed);
            let call = move || {
                let began = Instant::now();
                work();
                Ok(began.elapsed().as_secs_f64())
            };
            Timed { call: Box::new(call), memory_bytes: None }
        }
    };
    // Warm-up: a tenth of the budget, at least one call.
    let began = Instant::now();
    once()?;
    while began.elapsed() < budget / 10 {
        once()?;
    }
    let mut times_s = Vec::new();
    let began = Instant::now();
    while times_s.len() < 5 || (began.elapsed() < budget && times_s.len() < 100_000) {
        times_s.push(once()?);
    }
    times_s.sort_by(f64::total_cmp);
    let at = |share: f64| times_s[((times_s.len() - 1) as f64 * share).round() as usize];
    let median_s = at(0.5).max(f64::MIN_POSITIVE);
    let bound = |&(amount, ceiling): &(f64, &'static str)| {
        let rate = amount / median_s;
        Some(Bound { ceiling, rate, percent: 100.0 * rate / ceilings.get(ceiling)? })
    };
    let mut bounds: Vec<Bound> = row.bounds.iter().filter_map(bound).collect();
    bounds.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    Ok(Measured {
        group: row.group,
        name: row.name,
        samples: times_s.len(),
        median_s,
        fastest_s: times_s[0],
        spread: (at(0.75) - at(0.25)) / median_s,
        rate: row.work.map(|(amount, _)| amount / median_s),
        rate_unit: row.work.map(|(_, unit)| unit),
        ceiling: bounds.first().map(|bound| bound.ceiling),
        percent: bounds.first().map(|bound| bound.percent),
        bounds,
        memory_bytes,
    })
}
