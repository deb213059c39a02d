//! Reports: self-contained, well-formed, and unbroken by odd runs.

mod html;
mod synth;

use scadles::metrics::folder::RunFolder;
use scadles::metrics::record::{EndReason, EvalRecord, RunRecord};
use scadles::metrics::report::{compare_html, compare_markdown, compare_raster, run_html};
use scadles::metrics::summary::Comparison;
use std::path::Path;
use std::time::{Duration, Instant};
use synth::{DDL, SCADLES, Shape, run};

/// Pages to look at stay under `target/tmp`.
fn keep(name: &str, bytes: &[u8]) {
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), bytes).unwrap();
}

#[test]
fn a_report_is_one_page_with_all_its_parts() {
    let page = run_html(&run(&SCADLES));
    keep("report.html", page.as_bytes());
    html::check(&page);
    for part in [
        "prefers-color-scheme:dark",
        "width=device-width",
        "top-1 test accuracy at the end",
        "<title id=\"chart1-t\">Test accuracy</title>",
        "Waiting samples per device",
        "delta 0.3",
        "Learning rate",
        "Time per step",
        "Bytes per step",
        "density = 0.1",
        "CRC-32 deadbeef",
    ] {
        assert!(page.contains(part), "the report lacks {part}");
    }
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
}

#[test]
fn a_comparison_states_the_factor() {
    let runs = [run(&DDL), run(&SCADLES)];
    let page = compare_html(&runs);
    keep("compare.html", page.as_bytes());
    html::check(&page);
    let raster = compare_raster(&runs);
    keep("compare.png", &raster.png(Path::new("compare.png")).unwrap());
    let comparison = Comparison::new(&runs);
    let target = comparison.headline().unwrap();
    assert_eq!(target.accuracy, runs[0].evals.last().unwrap().top1.min(runs[1].evals.last().unwrap().top1));
    // DDL's last evaluation is its first at its own final accuracy, at step 200; ScaDLES passes it at step 180.
    assert_eq!(target.time_s, [Some(200.0 * 5.3), Some(180.0 * 1.3)]);
    assert!((target.speedup[1].unwrap() - 200.0 * 5.3 / (180.0 * 1.3)).abs() < 1e-12);
    let markdown = compare_markdown(&runs);
    keep("compare.md", markdown.as_bytes());
    assert!(markdown.contains("4.53x sooner") && page.contains("4.53x sooner"), "{markdown}");
    assert!(markdown.lines().filter(|line| line.starts_with('|')).count() > 20);
}

#[test]
fn names_are_escaped_everywhere() {
    let mut odd = run(&Shape { steps: 40, ..SCADLES });
    odd.config.name = "<b>\"a\" & 'b'</b><script>alert(1)</script>|`".into();
    odd.data_set = "<i>".into();
    odd.config.model.name = "</title><x>".into();
    for page in [run_html(&odd), compare_html(&[odd.clone(), odd.clone()])] {
        html::check(&page);
        assert!(!page.contains("<b>\"a\"") && !page.contains("alert(1)</script>") && !page.contains("<x>"));
        assert!(page.contains("&lt;b&gt;&quot;a&quot; &amp; &#39;b&#39;"));
    }
}

fn check_all(record: &RunRecord) {
    html::check(&run_html(record));
    html::check(&compare_html(&[record.clone(), run(&SCADLES)]));
    html::check(&compare_html(&[run(&SCADLES), record.clone()]));
    compare_raster(&[record.clone(), run(&DDL)]).png(Path::new("x.png")).unwrap();
    compare_markdown(&[run(&DDL), record.clone()]);
}

#[test]
fn empty_and_short_runs_make_pages() {
    for steps in [0, 1, 2] {
        let mut short = run(&Shape { steps, ..SCADLES });
        check_all(&short);
        short.evals = vec![EvalRecord { step: steps, top1: 0.1, ..EvalRecord::default() }];
        short.end = EndReason::Interrupted;
        check_all(&short);
    }
    let mut bare = run(&Shape { devices: 0, ..SCADLES });
    bare.rates.clear();
    check_all(&bare);
    html::check(&compare_html(&[]));
    html::check(&compare_html(&[run(&SCADLES)]));
    compare_raster(&[]);
}

#[test]
fn values_that_are_no_numbers_leave_gaps() {
    let mut diverged = run(&SCADLES);
    diverged.end = EndReason::Diverged;
    for step in diverged.steps.iter_mut().skip(90) {
        step.loss = f64::NAN;
        step.gate_value = f64::INFINITY;
        step.lr = f64::NEG_INFINITY;
        step.sent_bytes = u64::MAX;
        step.occupancy_samples.fill(u64::MAX);
    }
    diverged.evals.iter_mut().skip(4).for_each(|eval| (eval.loss, eval.top1) = (f64::NAN, f64::NAN));
    check_all(&diverged);
    for step in &mut diverged.steps {
        (step.loss, step.time_s, step.wall_s, step.step_s) = (f64::NAN, f64::NAN, f64::NAN, 1e308);
    }
    check_all(&diverged);
}

#[test]
fn thousands_of_devices_and_steps_stay_small_and_quick() {
    let began = Instant::now();
    let many = run(&Shape { devices: 4096, steps: 60, ..SCADLES });
    let long = run(&Shape { steps: 20_000, ..DDL });
    for record in [many, long] {
        let page = run_html(&record);
        html::check(&page);
        assert!(page.len() < 3_000_000, "{} bytes", page.len());
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_folder_reads_back_what_it_wrote() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("deep").join("run");
    let mut record = run(&SCADLES);
    record.steps[3].loss = f64::INFINITY;
    let folder = RunFolder::create(&path, &record.config).unwrap();
    let report = folder.finish(&record).unwrap();
    assert!(report.ends_with("report.html") && report.is_file());
    let again = RunFolder::read(&path).unwrap();
    assert!(again.steps[3].loss.is_nan(), "JSON has no infinity");
    record.steps[3].loss = 0.0;
    let mut compared = again;
    compared.steps[3].loss = 0.0;
    assert!(compared == record, "the record changed on its way through the file");
    // A second run in the same folder does not leave the first one's results behind while it runs.
    RunFolder::create(&path, &record.config).unwrap();
    assert!(!path.join("run.json").exists() && !report.exists() && path.join("config.toml").exists());
}
