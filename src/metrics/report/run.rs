//! One run -> its report.

use super::html::Page;
use super::plots::{self, Over};
use crate::metrics::format::{bytes, count, decimal, factor, percent, seconds};
use crate::metrics::plot::Chart;
use crate::metrics::record::{EndReason, RunRecord};
use crate::metrics::sink::end_words;
use crate::metrics::summary::RunSummary;
use crate::train::config::{
    Aggregation, ArrivalConfig, BatchPolicy, BufferPolicy, CompressionConfig, GateConfig, Partition,
    RatesConfig, RunConfig, SyncConfig,
};
use std::slice;

/// The report of `run`: an HTML page that loads nothing.
pub fn run_html(run: &RunRecord) -> String {
    let summary = RunSummary::new(run);
    let mut page = Page::new(&run.config.name);
    page.paragraph("lead", &headline(run, &summary));
    match run.end {
        EndReason::Diverged | EndReason::Interrupted => {
            page.paragraph("warn", &format!("The run ended early: {}.", end_words(run.end)));
        }
        EndReason::Time | EndReason::Target | EndReason::Steps => {
            page.paragraph("muted", &format!("It ended because: {}.", end_words(run.end)));
        }
    }
    page.tiles(&tiles(&summary));
    let all = slice::from_ref(run);
    let learning = |over| [plots::accuracy(all, None, over), plots::loss(all, over)];
    page.heading("Learning");
    page.charts(&learning(Over::ClusterTime));
    page.details("The same over wall time and over steps", |page| {
        page.charts(&[learning(Over::WallTime), learning(Over::Steps)].concat());
    });
    page.heading("Streams and devices");
    page.charts(&[plots::batches(run), plots::buffers(run)]);
    page.heading("Communication and time");
    let charts: Vec<Chart> =
        [Some(plots::bytes(all)), plots::gate(run), Some(plots::step_time(run)), Some(plots::lr(run))]
            .into_iter()
            .flatten()
            .collect();
    page.charts(&charts);
    page.heading("What was run");
    page.facts(&facts(run));
    page.details("Configuration as run", |page| page.preformatted(&run.config.to_toml()));
    page.heading("Numbers");
    tables(&mut page, run);
    page.finish()
}

fn headline(run: &RunRecord, summary: &RunSummary) -> String {
    let steps = if summary.steps == 1 { "1 step".into() } else { format!("{} steps", summary.steps) };
    let took = format!(
        "{steps}: {} of cluster time, {} on this machine.",
        seconds(summary.time_s),
        seconds(summary.wall_s)
    );
    if run.evals.is_empty() {
        return format!("{} was not evaluated. It trained for {took}", run.config.model.name);
    }
    let devices = run.config.cluster.devices;
    format!(
        "{} on {devices} device{} classifies {} of the test images of {} right (best so far {}), after {took}",
        run.config.model.name,
        if devices == 1 { "" } else { "s" },
        percent(summary.final_top1),
        data_words(run),
        percent(summary.best_top1),
    )
}

fn data_words(run: &RunRecord) -> &str {
    if run.data_set == "embedded" { "the embedded data set" } else { &run.data_set }
}

fn tiles(summary: &RunSummary) -> Vec<(String, String)> {
    let saved = summary.dense_bytes as f64 / summary.sent_bytes.max(1) as f64;
    let mut tiles = vec![
        (
            percent(summary.final_top1),
            format!("top-1 test accuracy at the end (best {})", percent(summary.best_top1)),
        ),
        (
            percent(summary.final_top5),
            format!("top-5 test accuracy at the end (best {})", percent(summary.best_top5)),
        ),
        (seconds(summary.time_s), "cluster time".into()),
        (count(summary.trained_samples as f64), "samples trained on".into()),
        (bytes(summary.sent_bytes as f64), format!("gradient bytes sent, {} less than dense", factor(saved))),
        (percent(summary.cnc_ratio), "of the steps sent compressed (CNC ratio)".into()),
        (
            count(summary.max_buffer_samples as f64),
            format!("samples waited at most ({})", bytes(summary.max_buffer_bytes as f64)),
        ),
        (count(summary.dropped_samples as f64), "samples dropped".into()),
    ];
    if summary.drifts > 0 {
        tiles.push((count(summary.drifts as f64), "changes found in the streams (drift)".into()));
    }
    if summary.injected_bytes > 0 {
        tiles.push((bytes(summary.injected_bytes as f64), "of samples shared between devices".into()));
    }
    tiles
}

/// What was run, in words.
pub(super) fn facts(run: &RunRecord) -> Vec<(&'static str, String)> {
    let RunConfig {
        model, cluster, batch, buffer, optimizer, sync, compression, injection, data, seed, ..
    } = &run.config;
    let stem = format!("{:?}", model.stem).to_lowercase();
    let rates = match &cluster.rates {
        RatesConfig::Named(name) => format!("{name} (mean rates {})", rate_list(&run.rates)),
        RatesConfig::List(_) => rate_list(&run.rates),
    };
    let arrivals = match &cluster.arrivals {
        ArrivalConfig::Constant => "evenly spaced".to_string(),
        ArrivalConfig::Poisson => "Poisson".into(),
        ArrivalConfig::Bursty { on_s, off_s } => format!("bursts of {on_s} s, pauses of {off_s} s"),
        ArrivalConfig::Diurnal { period_s, amplitude } => {
            format!("sine of {period_s} s, amplitude {amplitude}")
        }
        ArrivalConfig::Trace { path } => format!("recorded in {}", path.display()),
    };
    let partition = match data.partition {
        Partition::Iid => "every device draws from all classes".to_string(),
        Partition::Labels { labels_per_device: 1 } => "1 class per device".into(),
        Partition::Labels { labels_per_device } => format!("{labels_per_device} classes per device"),
        Partition::Dirichlet { alpha } => format!("Dirichlet, alpha {alpha}"),
    };
    let batch = match batch.policy {
        BatchPolicy::Fixed => format!("{} samples on every device", batch.size),
        BatchPolicy::Rate => format!("what one second brings, {} to {} samples", batch.min, batch.max),
        BatchPolicy::Available => format!("what has arrived, at most {} samples", batch.max),
    };
    let buffer = match buffer.policy {
        BufferPolicy::Persistence => {
            format!("every sample kept, {} MiB in memory, the rest on disk", buffer.memory_cap_mib)
        }
        BufferPolicy::Truncation => "newest samples kept, the rest dropped after each step".into(),
        BufferPolicy::Reservoir => "a random subset kept".into(),
    };
    let compression = match compression {
        CompressionConfig::None => "none".to_string(),
        CompressionConfig::TopK(top_k) => {
            let gate = match top_k.gate {
                GateConfig::Always => "always compressed".to_string(),
                GateConfig::Paper { delta, ewma } => format!("paper's gate, delta {delta}, average {ewma}"),
                GateConfig::Reference { delta } => format!("reference code's gate, delta {delta}"),
            };
            format!("top-k, density {}, {gate}", top_k.density)
        }
        CompressionConfig::Dgc(dgc) => format!("deep gradient compression, density {}", dgc.density),
    };
    let weight = match run.config.aggregation {
        Aggregation::BySamples => "its share of the step's samples",
        Aggregation::Uniform => "the same for all",
    };
    let sync = match sync {
        SyncConfig::EveryStep => "gradients in every step".to_string(),
        SyncConfig::Local { steps } => format!("parameters averaged every {steps} steps"),
    };
    let mut facts = vec![
        ("Network", format!("{} with {stem} stem, {} parameters", model.name, count(run.parameters as f64))),
        ("Data", format!("{}, {} classes, {partition}", data_words(run), run.classes)),
        ("Devices", format!("{}, {} clock", cluster.devices, format!("{:?}", cluster.clock).to_lowercase())),
        ("Streams, samples/s", format!("{rates}; arrivals {arrivals}")),
        ("Batch", batch),
        ("Buffer", buffer),
        ("Weight of a device", weight.into()),
        ("Synchronisation", sync),
        ("Compression", compression),
        (
            "Optimizer",
            format!(
                "{}, learning rate {}, momentum {}, weight decay {}",
                format!("{:?}", optimizer.kind).to_uppercase(),
                optimizer.lr,
                optimizer.momentum,
                optimizer.weight_decay
            ),
        ),
    ];
    if injection.alpha > 0.0 {
        facts.push(("Data injection", format!("alpha {}, beta {}", injection.alpha, injection.beta)));
    }
    facts.push(("Seed", seed.to_string()));
    facts.push(("Program", format!("scadles {}", run.version)));
    if !run.computed_on.is_empty() {
        facts.push(("Computed on", run.computed_on.clone()));
    }
    facts.push(("Final parameters", format!("CRC-32 {:08x}", run.parameters_crc32)));
    facts
}

fn rate_list(rates: &[f64]) -> String {
    let shown: Vec<String> = rates.iter().take(16).map(|rate| count((rate * 10.0).round() / 10.0)).collect();
    let more = if rates.len() > 16 { format!(" and {} more", rates.len() - 16) } else { String::new() };
    format!("{}{more}", shown.join(" "))
}

fn tables(page: &mut Page, run: &RunRecord) {
    let head = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let evals: Vec<Vec<String>> = run
        .evals
        .iter()
        .map(|eval| {
            let times = [seconds(eval.time_s), seconds(eval.wall_s)];
            let [time, wall] = times;
            vec![
                eval.step.to_string(),
                time,
                wall,
                decimal(eval.loss, 4),
                percent(eval.top1),
                percent(eval.top5),
            ]
        })
        .collect();
    page.details("Evaluations", |page| {
        let header = head(&["after step", "cluster time", "wall time", "loss", "top-1", "top-5"]);
        page.table("Accuracy on the test set", &header, &evals);
    });
    let steps: Vec<Vec<String>> = run
        .steps
        .iter()
        .map(|step| {
            vec![
                step.step.to_string(),
                seconds(step.time_s),
                seconds(step.step_s),
                decimal(step.loss, 4),
                step.global_batch.to_string(),
                decimal(step.lr, 4),
                bytes(step.sent_bytes as f64),
                if step.compressed { "compressed".into() } else { "dense".into() },
                decimal(step.gate_value, 3),
            ]
        })
        .collect();
    page.details("Steps", |page| {
        let names =
            ["step", "cluster time", "took", "loss", "samples", "learning rate", "sent", "as", "gate"];
        page.table("Training steps", &head(&names), &steps);
    });
    let Some(last) = run.steps.last() else { return };
    let trained = |device: usize| {
        run.steps
            .iter()
            .filter_map(|step| step.local_batch.get(device))
            .fold(0u64, |sum, &n| sum.saturating_add(n))
    };
    let highest =
        |device: usize| run.steps.iter().filter_map(|step| step.occupancy_samples.get(device)).max();
    let number = |value: Option<&u64>| value.map_or("–".into(), u64::to_string);
    let devices = 0..last.local_batch.len();
    // Long lists are cut by the table; counting every device of thousands over every step would take minutes.
    let every = devices.len().div_ceil(60).max(1);
    let rows: Vec<Vec<String>> = devices
        .step_by(every)
        .map(|device| {
            vec![
                format!("d{device}"),
                run.rates.get(device).map_or("–".into(), |&rate| count((rate * 10.0).round() / 10.0)),
                number(last.arrived_samples.get(device)),
                trained(device).to_string(),
                number(last.dropped_samples.get(device)),
                number(highest(device)),
                number(last.occupancy_samples.get(device)),
            ]
        })
        .collect();
    let drifts: Vec<Vec<String>> = run
        .steps
        .iter()
        .flat_map(|step| {
            step.drift.iter().map(|drift| {
                vec![
                    step.step.to_string(),
                    format!("d{}", drift.device),
                    seconds(step.time_s),
                    drift.kind.name().into(),
                    decimal(drift.value, 3),
                    decimal(drift.threshold, 3),
                ]
            })
        })
        .collect();
    if !drifts.is_empty() {
        page.details("Drift", |page| {
            let names = ["step", "device", "cluster time", "changed", "value", "threshold"];
            page.table("Changes found in the streams", &head(&names), &drifts);
        });
    }
    page.details("Devices", |page| {
        let names = [
            "device",
            "samples/s",
            "arrived",
            "trained on",
            "dropped",
            "waited at most",
            "waiting at the end",
        ];
        let caption = if every == 1 {
            "Samples of each device".into()
        } else {
            format!("Samples of every {every}th device")
        };
        page.table(&caption, &head(&names), &rows);
    });
}
