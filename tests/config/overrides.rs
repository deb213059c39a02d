//! Flags over files over defaults.

use scadles::train::config::{
    CompressionConfig, GateConfig, Location, Override, Partition, RatesConfig, RunConfig, ScheduleConfig,
    SyncConfig,
};
use std::io::Write;
use std::path::Path;

fn sets(assignments: &[&str]) -> Vec<Override> {
    assignments.iter().map(|text| Override::set(text).unwrap()).collect()
}

fn default_with(assignments: &[&str]) -> RunConfig {
    RunConfig::load(None, &sets(assignments)).unwrap_or_else(|error| panic!("{assignments:?}: {error}"))
}

fn refused(assignments: &[&str]) -> String {
    let error = RunConfig::load(None, &sets(assignments)).expect_err(&format!("{assignments:?}"));
    assert!(matches!(error.at, Location::Flag(_)), "{error}");
    error.to_string()
}

#[test]
fn default_then_file_then_flag() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "seed = 7\n[run]\nsteps = 50\neval-every = 5\n").unwrap();
    let config = RunConfig::load(Some(file.path()), &sets(&["run.steps=9"])).unwrap();
    assert_eq!((config.seed, config.run.steps, config.run.eval_every), (7, 9, 5));
    assert_eq!(config.model.name, RunConfig::default().model.name);
}

#[test]
fn values_are_typed_by_their_key() {
    let config = default_with(&[
        "name=42",
        "seed=1_000",
        "cluster.devices=3",
        "cluster.rates=[10, 20.5,30]",
        "data.augment=false",
        "data.partition.kind=labels",
        "data.partition.labels-per-device=2",
        "optimizer.schedule.at=0.5,0.75",
        "optimizer.schedule.factor=0.2",
        "optimizer.schedule.kind=step",
        "data.dir=\"/tmp/a b\"",
    ]);
    assert_eq!((config.name.as_str(), config.seed, config.data.augment), ("42", 1000, false));
    assert_eq!(config.cluster.rates, RatesConfig::List(vec![10.0, 20.5, 30.0]));
    assert_eq!(config.data.partition, Partition::Labels { labels_per_device: 2 });
    assert_eq!(config.optimizer.schedule, ScheduleConfig::Step { factor: 0.2, at: vec![0.5, 0.75] });
    assert_eq!(config.data.dir.as_deref(), Some(Path::new("/tmp/a b")));
    assert_eq!(default_with(&["cluster.rates=S2'"]).cluster.rates, RatesConfig::Named("S2'".into()));
    assert_eq!(
        default_with(&["cluster.devices=1", "cluster.rates=7"]).cluster.rates,
        RatesConfig::List(vec![7.0])
    );
}

#[test]
fn a_new_kind_takes_its_own_defaults_whatever_the_order() {
    let config = default_with(&["compression.clip-norm=2", "compression.kind=dgc"]);
    let CompressionConfig::Dgc(dgc) = config.compression else { panic!("{:?}", config.compression) };
    assert_eq!((dgc.density, dgc.clip_norm), (0.001, 2.0));

    let base = RunConfig { compression: CompressionConfig::None, ..RunConfig::default() };
    let config =
        base.with_overrides(&sets(&["compression.gate.delta=0.2", "compression.kind=top-k"])).unwrap();
    let CompressionConfig::TopK(top_k) = config.compression else { panic!("{:?}", config.compression) };
    assert_eq!(top_k.gate, GateConfig::Paper { delta: 0.2, ewma: 0.1 });

    let config = default_with(&["sync.steps=4", "sync.kind=local", "compression.kind=none"]);
    assert_eq!(config.sync, SyncConfig::Local { steps: 4 });
}

#[test]
fn the_same_kind_keeps_its_values() {
    let base = default_with(&["compression.density=0.05"]);
    let config = base.with_overrides(&sets(&["compression.kind=top-k"])).unwrap();
    assert_eq!(config, base);
}

#[test]
fn a_bad_flag_is_blamed_on_the_flag() {
    for (assignments, parts) in [
        (&["run.stepps=3"][..], &["--set run.stepps=3: unknown key `stepps` in [run]", "`steps`"][..]),
        (&["stepps=3"], &["unknown key `stepps`"]),
        (&["run.steps=abc"], &["--set run.steps=abc: `run.steps` must be a whole number", "`abc`"]),
        (&["run.steps=-1"], &["whole number"]),
        (&["run.steps=0"], &["--set run.steps=0: `run.steps` is 0"]),
        (&["run.steps.more=0"], &["unknown key `more` in [run.steps]"]),
        (&["run=0"], &["must be a table"]),
        (&["batch.policy=rat"], &["did you mean `rate`"]),
        (&["optimizer.nesterov=yes"], &["true or false"]),
        (&["cluster.devices=3", "cluster.rates=1,2"], &["a list of 2 values"]),
        (&["cluster.rates=1,x"], &["list of numbers"]),
        (&["compression.kind=none", "compression.density=0.1"], &["kind `none` has no key `density`"]),
        (
            &["compression.gate.kind=paper", "compression.gate.kind=always", "compression.gate.delta=1"],
            &["has no key `delta`"],
        ),
        (&["data.partition.kind=labels"], &["needs the key `labels-per-device`"]),
        (&["sync.kind=local", "sync.steps=3"], &["compression"]),
        (&["optimizer.lr=NaN"], &["`optimizer.lr` is NaN"]),
        (&["cluster.devices=9999"], &["4096"]),
    ] {
        let shown = refused(assignments);
        for part in parts {
            assert!(shown.contains(part), "want {part:?} in {shown}");
        }
    }
    assert!(Override::set("steps").unwrap_err().to_string().contains("a path, = and a value"));
    assert!(Override::set("=3").is_err());
}

#[test]
fn every_configuration_survives_the_trip_through_toml() {
    for assignments in [
        &[][..],
        &["compression.kind=none", "sync.kind=local", "sync.steps=8"],
        &["compression.kind=dgc", "cluster.rates=S1p", "model.weights=w.safetensors"],
        &[
            "data.partition.kind=dirichlet",
            "data.partition.alpha=0.3",
            "cluster.compute.kind=measured",
            "cluster.compute.slowdown=3",
        ],
        &["cluster.arrivals.kind=trace", "cluster.arrivals.path=a.csv", "seed=9223372036854775807"],
        &["cluster.devices=1", "cluster.clock=real", "source.kind=tcp", "source.addresses=[::1]:7001"],
        &[
            "cluster.devices=2",
            "cluster.clock=real",
            "source.kind=tcp",
            "source.addresses=[\"a:1\", \"b:2\"]",
        ],
    ] {
        let config = default_with(assignments);
        let text = config.to_toml();
        assert_eq!(RunConfig::from_toml(&text, Path::new("again.toml")).expect(&text), config);
    }
}
