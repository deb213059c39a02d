//! Several runs -> one page, one picture and one Markdown table; the first run is what the others are measured against.

use super::html::Page;
use super::plots::{self, Over};
use super::run::facts;
use super::short_name;
use crate::metrics::format::{bytes, count, factor, percent, seconds};
use crate::metrics::plot::{Chart, Raster};
use crate::metrics::record::RunRecord;
use crate::metrics::sink::end_words;
use crate::metrics::summary::{Comparison, Metric, RunSummary, Target};

/// The comparison of `runs` as an HTML page that loads nothing.
pub fn compare_html(runs: &[RunRecord]) -> String {
    let comparison = Comparison::new(runs);
    let names: Vec<String> = runs.iter().map(|run| short_name(&run.config.name)).collect();
    let mut page = Page::new(&names.join(" against "));
    for sentence in sentences(&comparison) {
        page.paragraph("lead", &sentence);
    }
    let charts = charts(runs);
    page.charts(&charts);
    page.details("Accuracy and loss over wall time and over steps", |page| {
        let over = |over| [plots::accuracy(runs, Some(Metric::Top1), over), plots::loss(runs, over)];
        page.charts(&[over(Over::WallTime), over(Over::Steps)].concat());
    });
    page.heading("Time to accuracy");
    let against = names.first().map_or("the first run", String::as_str);
    let note =
        format!("Cluster time until the test accuracy was first reached; factors are against {against}.");
    page.paragraph("note", &note);
    let (header, rows) = target_table(&comparison);
    page.table("First evaluation at or above the accuracy", &header, &rows);
    page.heading("Side by side");
    let (header, rows) = summary_table(&comparison);
    page.table("The whole runs", &header, &rows);
    page.heading("What was run");
    for run in runs {
        page.details(&short_name(&run.config.name), |page| {
            page.facts(&facts(run));
            page.preformatted(&run.config.to_toml());
        });
    }
    page.finish()
}

/// The comparison's main charts as one picture.
pub fn compare_raster(runs: &[RunRecord]) -> Raster {
    let names: Vec<String> = runs.iter().map(|run| short_name(&run.config.name)).collect();
    Raster::sheet(&names.join(" against "), &charts(runs), 2)
}

/// The comparison as Markdown: sentences and tables.
pub fn compare_markdown(runs: &[RunRecord]) -> String {
    let comparison = Comparison::new(runs);
    let mut text = sentences(&comparison).join("\n\n");
    for (header, rows) in [target_table(&comparison), summary_table(&comparison)] {
        text.push_str("\n\n");
        let line = |cells: &[String]| {
            let cells: Vec<String> =
                cells.iter().map(|cell| cell.trim_start_matches('*').replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        text.push_str(&line(&header));
        text.push_str(&line(&vec!["---".to_string(); header.len()]));
        rows.iter().for_each(|row| text.push_str(&line(row)));
        text.truncate(text.trim_end().len());
    }
    text.push('\n');
    text
}

fn charts(runs: &[RunRecord]) -> Vec<Chart> {
    vec![
        plots::accuracy(runs, Some(Metric::Top1), Over::ClusterTime),
        plots::accuracy(runs, Some(Metric::Top5), Over::ClusterTime),
        plots::loss(runs, Over::ClusterTime),
        plots::total_buffers(runs),
        plots::total_bytes(runs),
        plots::accuracy(runs, Some(Metric::Top1), Over::SentBytes),
        plots::bytes(runs),
        plots::step_times(runs),
    ]
}

/// The comparison in plain words.
fn sentences(comparison: &Comparison) -> Vec<String> {
    let Some(first) = comparison.runs.first() else { return vec!["No run to compare.".into()] };
    let Some(target) = comparison.headline() else {
        return vec!["At least one run was never evaluated, so accuracies cannot be compared.".into()];
    };
    let against = short_name(&first.name);
    let mut sentences = Vec::new();
    for (i, run) in comparison.runs.iter().enumerate().skip(1) {
        let (name, accuracy) = (short_name(&run.name), percent(target.accuracy));
        sentences.push(match (target.time_s[i], target.time_s[0]) {
            (Some(own), Some(base)) => {
                let ratio = target.speedup[i].unwrap_or(f64::NAN);
                let (times, word) = if ratio >= 1.0 { (ratio, "sooner") } else { (1.0 / ratio, "later") };
                format!(
                    "{name} reaches {accuracy} top-1 after {} of cluster time, {against} after {}: {} {word}.",
                    seconds(own),
                    seconds(base),
                    factor(times)
                )
            }
            (None, _) => format!("{name} does not reach {accuracy} top-1."),
            (Some(own), None) => {
                format!("{name} reaches {accuracy} top-1 after {}; {against} does not.", seconds(own))
            }
        });
        sentences.push(format!(
            "It sends {} instead of {} of gradients and holds at most {} instead of {} waiting samples; at the end it is at \
             {} top-1, {against} at {}.",
            bytes(run.sent_bytes as f64),
            bytes(first.sent_bytes as f64),
            count(run.max_buffer_samples as f64),
            count(first.max_buffer_samples as f64),
            percent(run.final_top1),
            percent(first.final_top1)
        ));
    }
    sentences
}

fn target_table(comparison: &Comparison) -> (Vec<String>, Vec<Vec<String>>) {
    let mut header = vec!["accuracy".to_string()];
    for (i, run) in comparison.runs.iter().enumerate() {
        let name = short_name(&run.name);
        header.push(name.clone());
        header.push(format!("{name}: sent"));
        if i > 0 {
            header.push(format!("{name}: factor"));
        }
    }
    let row = |target: &Target| {
        let reason = if target.reason.is_empty() { String::new() } else { format!(" ({})", target.reason) };
        let mut cells = vec![format!("{} {}{reason}", target.metric.name(), percent(target.accuracy))];
        let soonest = target.time_s.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        for (i, time_s) in target.time_s.iter().enumerate() {
            let best = if *time_s == Some(soonest) && target.time_s.len() > 1 { "*" } else { "" };
            cells.push(time_s.map_or("not reached".into(), |time_s| format!("{best}{}", seconds(time_s))));
            cells.push(target.sent_bytes[i].map_or("–".into(), |sent| bytes(sent as f64)));
            if i > 0 {
                cells.push(target.speedup[i].map_or("–".into(), factor));
            }
        }
        cells
    };
    (header, comparison.targets.iter().map(row).collect())
}

fn summary_table(comparison: &Comparison) -> (Vec<String>, Vec<Vec<String>>) {
    let mut header = vec![String::from("of the run")];
    header.extend(comparison.runs.iter().map(|run| short_name(&run.name)));
    type Cell = fn(&RunSummary) -> String;
    let lines: [(&str, Cell); 17] = [
        ("final top-1", |run| percent(run.final_top1)),
        ("best top-1", |run| percent(run.best_top1)),
        ("final top-5", |run| percent(run.final_top5)),
        ("best top-5", |run| percent(run.best_top5)),
        ("steps", |run| run.steps.to_string()),
        ("cluster time", |run| seconds(run.time_s)),
        ("wall time", |run| seconds(run.wall_s)),
        ("samples trained on", |run| count(run.trained_samples as f64)),
        ("gradient bytes sent", |run| bytes(run.sent_bytes as f64)),
        ("dense would be", |run| bytes(run.dense_bytes as f64)),
        ("steps sent compressed (CNC)", |run| percent(run.cnc_ratio)),
        ("bytes of shared samples", |run| bytes(run.injected_bytes as f64)),
        ("most waiting samples", |run| count(run.max_buffer_samples as f64)),
        ("their bytes", |run| bytes(run.max_buffer_bytes as f64)),
        ("waiting samples at the end", |run| {
            format!("{} ({})", count(run.final_buffer_samples as f64), bytes(run.final_buffer_bytes as f64))
        }),
        ("samples dropped", |run| count(run.dropped_samples as f64)),
        ("ended", |run| end_words(run.end).split(':').next().unwrap_or_default().to_string()),
    ];
    let row = |(name, cell): (&str, Cell)| {
        std::iter::once(name.to_string()).chain(comparison.runs.iter().map(cell)).collect()
    };
    (header, lines.into_iter().map(row).collect())
}
