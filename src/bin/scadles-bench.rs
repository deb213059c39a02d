//! The program `scadles-bench`: what is measured; the harness is [`scadles::cli::bench`].

use rand_core::RngCore;
use scadles::cli::bench::{self, Row};
use scadles::metrics::plot::{Chart, Series, Svg, Unit};
use scadles::models::{self, ModelSpec};
use scadles::rng::{Philox, Stream};
use std::hint::black_box;
use std::process::ExitCode;

fn main() -> ExitCode {
    let rows = vec![
        Row {
            group: "rng",
            name: "philox-1MiB".into(),
            work: Some((f64::from(1 << 20), "bytes/s")),
            prepare: Box::new(|seed| {
                let mut bytes = vec![0; 1 << 20];
                let mut rng = Philox::new(seed, Stream::Images, 0);
                Box::new(move || rng.fill_bytes(black_box(&mut bytes)))
            }),
        },
        plan("resnet20"),
        plan("resnet152"),
        Row {
            group: "report",
            name: "chart-100k-points".into(),
            work: None,
            prepare: Box::new(|seed| {
                let mut rng = Philox::new(seed, Stream::Images, 1);
                let points = (0..100_000).map(|i| (f64::from(i), rng.uniform_f64())).collect();
                let chart = Chart {
                    title: "noise".into(),
                    description: "uniform numbers".into(),
                    x: ("step", Unit::Count),
                    y: Unit::Plain,
                    log_y: false,
                    include_y: Vec::new(),
                    series: vec![Series::line("noise", 0, points)],
                    rules: Vec::new(),
                };
                Box::new(move || drop(black_box(Svg::chart(&chart, "noise"))))
            }),
        },
    ];
    bench::main(std::env::args_os(), rows)
}

/// Planning of a network: layers, arena, parameter table.
fn plan(name: &'static str) -> Row {
    Row {
        group: "plan",
        name: name.into(),
        work: None,
        prepare: Box::new(move |_| {
            let spec = ModelSpec { name: name.into(), ..ModelSpec::default() };
            Box::new(move || drop(black_box(models::plan(&spec, 64))))
        }),
    }
}
