//! The live page in a headless Chromium, where one is installed: what it shows, and a picture of it.

use crate::{eventually, server, start, step};
use scadles::metrics::record::{EndReason, EvalRecord, Event};
use scadles::metrics::sink::Sink;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// The first installed browser; None, and a line that says so, without any.
fn chromium_or_skip(test: &str) -> Option<&'static str> {
    let works = |name: &&str| {
        let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works);
    if found.is_none() {
        println!("skipped: {test} (no chromium is installed)");
    }
    found
}

/// Serves a run of 40 steps, half of them before the page is opened and half while it is; returns what the browser says.
fn shown(chromium: &str, what: &str) -> String {
    let mut server = server();
    let address = server.address();
    start(&mut server);
    let tell = |server: &mut dyn Sink, numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            server.event(&Event::Step(&step(number))).unwrap();
            if number.is_multiple_of(10) {
                let top1 = 0.01 * number as f64;
                let eval = EvalRecord {
                    step: number,
                    time_s: number as f64,
                    top1,
                    top5: 0.9,
                    ..EvalRecord::default()
                };
                server.event(&Event::Eval(&eval)).unwrap();
            }
        }
    };
    tell(&mut server, 1..=20);
    let profile = tempfile::tempdir().unwrap();
    let browser = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,1900"])
        .args(["--virtual-time-budget=3000", what])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{address}/"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(address, "/metrics", |answer| answer.body.contains("scadles_live_clients 1"));
    server.event(&Event::Warning { text: "it is <b>late</b>" }).unwrap();
    tell(&mut server, 21..=40);
    thread::sleep(Duration::from_millis(500));
    server.event(&Event::End { end: EndReason::Steps, best_top1: 0.4 }).unwrap();
    // The browser's clock stands still while the stream of events is open.
    drop(server);
    String::from_utf8(browser.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_page_draws_the_run() {
    let Some(chromium) = chromium_or_skip("the live page in a browser") else { return };
    let page = shown(chromium, "--dump-dom");
    let page = page.split("<script>").next().unwrap();
    for expected in [
        "step 40 of 120",
        "run ended: all steps done",
        "<b>40 %</b><span>top-1 test accuracy (top-5 90 %)",
        "<b>1.2 k</b><span>samples trained on",
        "<b>4 kB</b><span>gradient bytes sent, 10x less than dense",
        "<b>50 %</b><span>of the steps sent compressed",
        "<b>7</b><span>samples waiting (21.5 kB)",
        "<b>5</b><span>samples dropped of 42 arrived",
        "it is &lt;b&gt;late&lt;/b&gt;",
        "Step 3: the labels of device 1 changed (drift).",
        "a \"quoted\" \\ name",
    ] {
        assert!(page.contains(expected), "the page lacks {expected}\n{page}");
    }
    assert_eq!(page.matches("<svg class=\"chart\"").count(), 8);
    assert!(!page.contains("no data yet") && !page.contains("NaN"), "{page}");
}

#[test]
fn the_page_is_not_empty_to_the_eye() {
    let Some(chromium) = chromium_or_skip("a picture of the live page") else { return };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-page.png");
    shown(chromium, &format!("--screenshot={}", path.display()));
    let mut reader = png::Decoder::new(BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((frame.width, frame.height), (1280, 1900));
    let channels = pixels.len() / (1280 * 1900);
    // The first two colours of the charts, in light mode.
    for color in [[0x1d, 0x5f, 0xd6], [0xd4, 0x6a, 0x00]] {
        let count = pixels.chunks_exact(channels).filter(|pixel| pixel[..3] == color).count();
        assert!(count > 300, "only {count} pixels of {color:x?} in {}", path.display());
    }
}
