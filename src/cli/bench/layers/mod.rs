//! `scadles-bench cpu NETWORK`: where a training step spends its time, layer by layer.

mod ceilings;

use super::report::{Setting, time};
use crate::cli::say;
use crate::cli::table::table;
use crate::metrics::format::count;
use crate::models::{self, ModelSpec};
use crate::nn::{DropoutSeed, Executor, Layer, LayerTime, Op, Packing, Pass, Plan};
use crate::ops::conv2d::CpuElement;
use crate::train::config::Stem;
use clap::Parser;
use half::bf16;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

/// Times each layer of a network's training step on the CPU.
///
/// Rates are shares of what was measured first: f32 multiply-adds of all threads, and a copy of a long vector. Bytes are
/// those that a pass reads and writes if nothing of it is in a cache: rates above the copy's come from the cache.
#[derive(Debug, Parser)]
#[command(name = "scadles-bench cpu", version)]
struct Options {
    /// As `scadles models` lists them
    model: String,
    /// First layers: cifar or imagenet
    #[arg(long, default_value = "cifar")]
    stem: String,
    /// Images of a step
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Store activations as bf16; the peak stays that of f32
    #[arg(long)]
    bf16: bool,
    /// Steps measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 7)]
    repeats: usize,
    /// Threads; 0: one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Seed of parameters and images
    #[arg(long, value_name = "N", default_value_t = 1234)]
    seed: u64,
}

/// One pass of one layer.
#[derive(Debug, Serialize)]
struct LayerRow {
    layer: String,
    kind: String,
    pass: &'static str,
    median_s: f64,
    /// Of the step.
    share: f64,
    flops: f64,
    flops_per_s: f64,
    percent_of_peak: f64,
    bytes: f64,
    bytes_per_s: f64,
    percent_of_copy: f64,
}

/// Runs the command with the arguments behind its name; the exit code is 2 for wrong arguments.
pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let stem = match options.stem.as_str() {
        "cifar" => Stem::Cifar,
        "imagenet" => Stem::Imagenet,
        other => return refuse(&format!("--stem {other}: it is cifar or imagenet")),
    };
    if !(1..=4096).contains(&options.batch)
        || !(1..=10_000).contains(&options.repeats)
        || options.threads > 1024
    {
        return refuse("--batch must be 1 to 4096, --repeats 1 to 10000, --threads at most 1024");
    }
    let spec = ModelSpec { name: options.model.clone(), stem, ..ModelSpec::default() };
    let plan = match models::plan(&spec, options.batch) {
        Ok(plan) => Arc::new(plan),
        Err(error) => return refuse(&error.to_string()),
    };
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global() {
        eprintln!("error: cannot start {} threads: {error}", options.threads);
        return ExitCode::FAILURE;
    }
    let (flops, copy_bytes) = (ceilings::flops(), ceilings::copy_bytes());
    let (medians, element_bytes) = match options.bf16 {
        false => (medians::<f32>(&plan, &options), size_of::<f32>()),
        true => (medians::<bf16>(&plan, &options), size_of::<bf16>()),
    };
    match medians {
        Ok(medians) => {
            let rows = rows(&plan, (options.batch, element_bytes), &medians, flops, copy_bytes);
            let setting = super::setting(options.seed, None, false);
            let output_bytes = plan.layers().iter().map(|layer| plan.tensor(layer.y).numel()).sum::<usize>()
                * options.batch
                * element_bytes;
            print(&setting, &options, &rows, output_bytes, (flops, copy_bytes));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(2)
}

/// Median seconds of each pass, in the order of layers.
fn medians<E: CpuElement>(
    plan: &Arc<Plan>,
    options: &Options,
) -> Result<Vec<(usize, Pass, f64)>, crate::nn::NnError> {
    let (batch, seed) = (options.batch, options.seed);
    let (params, mut stats) = (plan.init_params(seed), plan.init_stats());
    let mut grad = vec![0.0; plan.num_params()];
    let x = super::rows::uniform(seed, batch * plan.image().numel());
    let labels: Vec<u32> = (0..batch).map(|i| (i % plan.classes()) as u32).collect();
    let mut executor = Executor::<E>::with_packing(Arc::clone(plan), Packing::OnUse)?;
    executor.load_params(&params)?;
    executor.clock_layers(true);
    let mut times: BTreeMap<(usize, Pass), Vec<f64>> = BTreeMap::new();
    for step in 0..=options.repeats as u64 {
        let dropout = DropoutSeed { seed, index: step };
        executor.forward_backward(&x, &labels, &params, &mut stats, &mut grad, dropout)?;
        if step > 0 {
            for &LayerTime { layer, pass, time } in executor.layer_times() {
                times.entry((layer, pass)).or_default().push(time.as_secs_f64());
            }
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    Ok(times.into_iter().map(|((layer, pass), mut times)| (layer, pass, median(&mut times))).collect())
}

fn rows(
    plan: &Plan,
    (batch, element_bytes): (usize, usize),
    medians: &[(usize, Pass, f64)],
    flops: f64,
    copy_bytes: f64,
) -> Vec<LayerRow> {
    let total: f64 = medians.iter().map(|(.., time)| time).sum();
    let summary = plan.summary();
    let row = |&(index, pass, median_s): &(usize, Pass, f64)| {
        let layer = &plan.layers()[index];
        let work = Work::of(plan, layer, pass, (batch as f64, element_bytes as f64));
        let per_s = |amount: f64| amount / median_s.max(f64::MIN_POSITIVE);
        LayerRow {
            layer: layer.name.clone(),
            kind: summary[index].kind.clone(),
            pass: name(pass),
            median_s,
            share: median_s / total,
            flops: work.flops,
            flops_per_s: per_s(work.flops),
            percent_of_peak: 100.0 * per_s(work.flops) / flops,
            bytes: work.bytes,
            bytes_per_s: per_s(work.bytes),
            percent_of_copy: 100.0 * per_s(work.bytes) / copy_bytes,
        }
    };
    medians.iter().map(row).filter(|row| row.bytes > 0.0).collect()
}

fn name(pass: Pass) -> &'static str {
    match pass {
        Pass::Forward => "forward",
        Pass::Backward => "backward",
        Pass::Wgrad => "wgrad",
        Pass::Dgrad => "dgrad",
        Pass::Loss => "loss",
    }
}

/// What a pass does.
struct Work {
    flops: f64,
    bytes: f64,
}

impl Work {
    /// Multiply-adds of convolutions, padding counted; each tensor once for each time that the pass goes over it.
    fn of(plan: &Plan, layer: &Layer, pass: Pass, (batch, element_bytes): (f64, f64)) -> Self {
        let bytes = |elements: f64| elements * element_bytes;
        let [x, y] = [layer.x, layer.y].map(|id| batch * plan.tensor(id).numel() as f64);
        match (&layer.op, pass) {
            (_, Pass::Loss) => Self { flops: 0.0, bytes: bytes(2.0 * y) },
            (Op::Conv2d { .. }, Pass::Dgrad) if layer.x == plan.layers()[0].x => {
                Self { flops: 0.0, bytes: 0.0 }
            }
            (Op::Conv2d { shape, .. }, _) => Self {
                flops: 2.0 * batch * shape.macs() as f64,
                bytes: bytes(x + y) + (size_of::<f32>() * shape.filter_len()) as f64,
            },
            // Statistics, then the output; the sums of gradients, then that of the input.
            (Op::BatchNorm2d { shortcut, .. }, Pass::Forward) => {
                Self { flops: 0.0, bytes: bytes(3.0 * x + if shortcut.is_some() { x } else { 0.0 }) }
            }
            (Op::BatchNorm2d { shortcut, relu, .. }, _) => {
                let masked = if shortcut.is_some() && *relu { 2.0 * x } else { 0.0 };
                Self { flops: 0.0, bytes: bytes(5.0 * x + masked) }
            }
            _ => Self { flops: 0.0, bytes: bytes(x + y) },
        }
    }
}

fn print(
    setting: &Setting,
    options: &Options,
    rows: &[LayerRow],
    output_bytes: usize,
    (flops, copy_bytes): (f64, f64),
) {
    let total: f64 = rows.iter().map(|row| row.median_s).sum();
    let bytes: f64 = rows.iter().map(|row| row.bytes).sum();
    let passes = bytes / output_bytes as f64;
    let images_per_s = options.batch as f64 / total;
    if options.json {
        let document = serde_json::json!({
            "setting": setting, "model": options.model, "stem": options.stem, "batch": options.batch,
            "peak_flops_per_s": flops, "copy_bytes_per_s": copy_bytes, "images_per_s": images_per_s,
            "bytes": bytes, "output_bytes": output_bytes, "passes": passes, "rows": rows,
        });
        return say(&serde_json::to_string_pretty(&document).unwrap_or_default());
    }
    say(&format!("{setting}"));
    say(&format!(
        "peak {} FLOP/s, copy {} bytes/s; {} b = {}: forward and backward {}, {} images/s",
        count(flops),
        count(copy_bytes),
        options.model,
        options.batch,
        time(total),
        count(images_per_s)
    ));
    say(&format!(
        "reads and writes {} bytes: {passes:.1} passes over the outputs of its layers, {} bytes\n",
        count(bytes),
        count(output_bytes as f64)
    ));
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let header =
        ["layer", "kind", "pass", "median", "of step", "FLOP/s", "of peak", "bytes", "bytes/s", "of copy"];
    say(&table(&header, &cells));
    say("");
    let mut kinds: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for row in rows {
        let kind = row.kind.split(' ').next().unwrap_or_default();
        *kinds.entry((kind, row.pass)).or_default() += row.median_s;
    }
    let kinds = kinds.into_iter().map(|((kind, pass), time_s)| {
        vec![format!("all {kind} {pass}"), time(time_s), format!("{:.1} %", 100.0 * time_s / total)]
    });
    say(&table(&["sum", "time", "of step"], &kinds.collect::<Vec<_>>()));
}

fn cells(row: &LayerRow) -> Vec<String> {
    let rate = |amount: f64, percent: f64| match amount > 0.0 {
        true => (count(amount), format!("{percent:.0} %")),
        false => (String::new(), String::new()),
    };
    let (flops, of_peak) = rate(row.flops_per_s, row.percent_of_peak);
    let (bytes, of_copy) = rate(row.bytes_per_s, row.percent_of_copy);
    vec![
        row.layer.clone(),
        row.kind.clone(),
        row.pass.into(),
        time(row.median_s),
        format!("{:.1} %", 100.0 * row.share),
        flops,
        of_peak,
        count(row.bytes),
        bytes,
        of_copy,
    ]
}
