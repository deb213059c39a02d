//! The benchmark binary's harness: closures in named groups -> medians with their spread, as a table or JSON.

mod cuda;
mod rows;

pub use rows::all as rows;

use crate::cli::doctor::cpu_name;
use crate::cli::say;
use crate::cli::table::table;
use crate::metrics::format::seconds;
use clap::Parser;
use serde::Serialize;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Spread (interquartile range / median) above which a row is called noisy.
const NOISY: f64 = 0.1;

/// Makes the closure to time from a seed.
pub type Prepare = Box<dyn FnOnce(u64) -> Box<dyn FnMut()>>;

/// One thing to measure.
pub struct Row {
    /// Group: `ring`, `conv2d`, `step`.
    pub group: &'static str,
    /// Named shape or case.
    pub name: String,
    /// Work of one call and its unit: `(images, "images/s")`; None shows time only.
    pub work: Option<(f64, &'static str)>,
    /// Makes the closure to time; called once, before the warm-up, and only if the row is chosen. It should check its
    /// result before it returns.
    pub prepare: Prepare,
}

/// Times parts of scadles on this machine.
#[derive(Debug, Parser)]
#[command(name = "scadles-bench", version, about)]
struct Options {
    /// Only rows whose `group/name` contains one of these words
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
    /// Threads; 0: one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 1234)]
    seed: u64,
}

/// Where and how was measured.
#[derive(Debug, Serialize)]
struct Setting {
    version: &'static str,
    commit: Option<&'static str>,
    cpu: String,
    threads: usize,
    seed: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    group: &'static str,
    name: String,
    samples: usize,
    median_s: f64,
    fastest_s: f64,
    /// Interquartile range / median.
    spread: f64,
    rate: Option<f64>,
    rate_unit: Option<&'static str>,
}

/// Runs the chosen ones of `rows`; the exit code is 2 for wrong arguments.
pub fn main(arguments: impl IntoIterator<Item = OsString>, rows: Vec<Row>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if !(options.time > 0.0 && options.time <= 3600.0) || options.threads > 1024 {
        eprintln!("error: --time must be above 0 and at most 3600, --threads at most 1024");
        return ExitCode::from(2);
    }
    let full_name = |row: &Row| format!("{}/{}", row.group, row.name);
    let wanted = |row: &Row| {
        options.filter.is_empty() || options.filter.iter().any(|word| full_name(row).contains(word.as_str()))
    };
    let chosen: Vec<Row> = rows.into_iter().filter(wanted).collect();
    if chosen.is_empty() {
        eprintln!(
            "error: no row contains {}; `scadles-bench --list` shows them all",
            options.filter.join(" or ")
        );
        return ExitCode::from(2);
    }
    if options.list {
        chosen.iter().for_each(|row| say(&full_name(row)));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global() {
        eprintln!("error: cannot start {} threads: {error}", options.threads);
        return ExitCode::FAILURE;
    }
    let setting = Setting {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("SCADLES_COMMIT"),
        cpu: cpu_name().unwrap_or_else(|| std::env::consts::ARCH.into()),
        threads: rayon::current_num_threads(),
        seed: options.seed,
    };
    let budget = Duration::from_secs_f64(options.time);
    let measured: Vec<Measured> = chosen.into_iter().map(|row| measure(row, options.seed, budget)).collect();
    report(&setting, &measured, options.json);
    ExitCode::SUCCESS
}

fn measure(row: Row, seed: u64, budget: Duration) -> Measured {
    let mut work = (row.prepare)(seed);
    let mut once = || {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64()
    };
    // Warm-up: a tenth of the budget, at least one call.
    let began = Instant::now();
    once();
    while began.elapsed() < budget / 10 {
        once();
    }
    let mut times_s = Vec::new();
    let began = Instant::now();
    while times_s.len() < 5 || (began.elapsed() < budget && times_s.len() < 100_000) {
        times_s.push(once());
    }
    times_s.sort_by(f64::total_cmp);
    let at = |share: f64| times_s[((times_s.len() - 1) as f64 * share).round() as usize];
    let median_s = at(0.5);
    Measured {
        group: row.group,
        name: row.name,
        samples: times_s.len(),
        median_s,
        fastest_s: times_s[0],
        spread: (at(0.75) - at(0.25)) / median_s.max(f64::MIN_POSITIVE),
        rate: row.work.map(|(amount, _)| amount / median_s.max(f64::MIN_POSITIVE)),
        rate_unit: row.work.map(|(_, unit)| unit),
    }
}

fn report(setting: &Setting, measured: &[Measured], json: bool) {
    if json {
        let document = serde_json::json!({ "setting": setting, "rows": measured });
        return say(&serde_json::to_string_pretty(&document).unwrap_or_default());
    }
    let Setting { version, commit, cpu, threads, seed } = setting;
    let commit = commit.unwrap_or("unknown");
    say(&format!("scadles {version}, commit {commit}; {cpu}, {threads} threads, seed {seed}\n"));
    let cells = |row: &Measured| {
        let rate = row.rate.map_or(String::new(), |rate| {
            format!("{} {}", crate::metrics::format::count(rate), row.rate_unit.unwrap_or_default())
        });
        let spread = format!("{:.1} %", 100.0 * row.spread);
        vec![format!("{}/{}", row.group, row.name), time(row.median_s), time(row.fastest_s), spread, rate]
    };
    let rows: Vec<Vec<String>> = measured.iter().map(cells).collect();
    say(&table(&["what", "median", "fastest", "spread", "rate"], &rows));
    let noisy: Vec<&str> =
        measured.iter().filter(|row| row.spread > NOISY).map(|row| row.name.as_str()).collect();
    if !noisy.is_empty() {
        say(&format!(
            "\nwarning: times of {} spread by more than {:.0} %: quiet the machine or raise --time",
            noisy.join(", "),
            100.0 * NOISY
        ));
    }
}

fn time(time_s: f64) -> String {
    match time_s {
        t if t < 1e-6 => format!("{:.0} ns", t * 1e9),
        t if t < 1e-3 => format!("{:.1} us", t * 1e6),
        t => seconds(t),
    }
}
