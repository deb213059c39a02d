//! `scadles-bench peers`: rows beside PyTorch on the same machine, in turns, so that both meet the same noise.

mod memory;
mod report;
mod worker;

use super::{Failure, Prepare, Row, Timed};
use clap::Parser;
use report::{Beside, PeerRow};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use worker::Worker;

/// Runs rows and PyTorch in turns and prints the ratios.
#[derive(Debug, Parser)]
#[command(name = "scadles-bench peers", version)]
struct Options {
    /// Only rows whose `group/name` contains one of these words
    filter: Vec<String>,
    /// List the rows and stop
    #[arg(long)]
    list: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// A Python that imports torch
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Also measure PyTorch with this library preloaded, as in libtcmalloc_minimal.so.4
    #[arg(long, value_name = "LIBRARY")]
    preload: Option<PathBuf>,
    /// Also measure PyTorch's compiled networks, which takes a C++ compiler and minutes
    #[arg(long)]
    compile: bool,
    /// Seconds of each window; a window has at least one call
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    window: f64,
    /// Windows of each side
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Threads of each side; 0: one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 1234)]
    seed: u64,
}

/// Runs the command with the arguments behind its name; the exit code is 2 for wrong arguments, 1 if a row failed.
pub(super) fn main(arguments: Vec<std::ffi::OsString>, rows: Vec<Row>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let window = 0.001..=60.0;
    if !window.contains(&options.window) || !(1..=1000).contains(&options.repeats) || options.threads > 1024 {
        eprintln!("error: --window must be 0.001 to 60, --repeats 1 to 1000, --threads at most 1024");
        return ExitCode::from(2);
    }
    let wanted = |row: &Row| {
        let is_named = |word: &String| row.full_name().contains(word.as_str());
        !row.peers.is_empty() && (options.filter.is_empty() || options.filter.iter().any(is_named))
    };
    let rows: Vec<Row> = rows.into_iter().filter(wanted).collect();
    if rows.is_empty() {
        let words = options.filter.join(" or ");
        eprintln!("error: no row with a peer contains {words}; `scadles-bench peers --list` shows them all");
        return ExitCode::from(2);
    }
    if options.list {
        rows.iter().for_each(|row| crate::cli::say(&row.full_name()));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global() {
        eprintln!("error: cannot start {} threads: {error}", options.threads);
        return ExitCode::FAILURE;
    }
    let setting = super::setting(options.seed, None, false);
    let mut measured = Vec::new();
    let mut failed = Vec::new();
    for row in rows {
        let name = row.full_name();
        eprintln!("{name}");
        match measure(row, &options, rayon::current_num_threads()) {
            Ok(row) => measured.push(row),
            Err(error) => failed.push((name, error.to_string())),
        }
    }
    report::print(&setting, &measured, &failed, options.json);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The ways in which PyTorch can do a row's work, each with its name.
fn ways(row: &Row, options: &Options, threads: usize) -> Vec<(String, Option<PathBuf>, Value)> {
    let mut ways = Vec::new();
    for work in &row.peers {
        let mut work = work.clone();
        work["threads"] = json!(threads);
        let layouts: &[Option<&str>] = match work["kind"].as_str() {
            Some("train" | "infer" | "conv") => &[Some("channels-last"), Some("contiguous")],
            _ => &[None],
        };
        let compiles = options.compile && matches!(work["kind"].as_str(), Some("train" | "infer"));
        for &layout in layouts {
            for compile in [false, true] {
                // Compiled networks choose their layouts themselves.
                if compile && !(compiles && layout == Some("channels-last")) {
                    continue;
                }
                let mut name: Vec<&str> = layout.or(work["way"].as_str()).into_iter().collect();
                if compile {
                    name.push("compiled");
                }
                let name = if name.is_empty() { "eager".into() } else { name.join(", ") };
                let mut work = work.clone();
                work["compile"] = json!(compile);
                if let Some(layout) = layout {
                    work["layout"] = json!(layout);
                }
                if options.preload.is_some() {
                    ways.push((format!("{name}, preloaded"), options.preload.clone(), work.clone()));
                }
                ways.push((name, None, work));
            }
        }
    }
    ways
}

fn measure(row: Row, options: &Options, threads: usize) -> Result<PeerRow, Failure> {
    let mut workers = Vec::new();
    for (name, preload, work) in ways(&row, options, threads) {
        workers.push((name, Worker::start(&options.python, preload.as_deref(), &work)?, Vec::new(), 0));
    }
    let version = workers.first().map(|(_, worker, ..)| worker.version.clone()).unwrap_or_default();
    let memory = memory::Peak::begin();
    let (group, name, work) = (row.group, row.name, row.work);
    let mut once = match row.prepare {
        Prepare::Host(prepare) => prepare(options.seed),
        Prepare::Device(prepare) => {
            let Timed { mut call, .. } = prepare(options.seed)?;
            Box::new(move || drop(call()))
        }
    };
    once();
    let mut ours = Vec::new();
    for _ in 0..options.repeats {
        let (began, mut calls) = (std::time::Instant::now(), 0);
        while calls == 0 || began.elapsed().as_secs_f64() < options.window {
            once();
            calls += 1;
        }
        ours.push(began.elapsed().as_secs_f64() / f64::from(calls));
        for (_, worker, times, peak_bytes) in &mut workers {
            let window = worker.measure(options.window)?;
            times.push(window.seconds_per_call());
            *peak_bytes = window.peak_bytes;
        }
    }
    let peak_bytes = memory.bytes();
    let peers = workers
        .into_iter()
        .map(|(name, _, times_s, peak_bytes)| Beside::new(name, &ours, times_s, peak_bytes))
        .collect();
    Ok(PeerRow::new(group, name, work, version, ours, peak_bytes, peers))
}
