//! Bad configurations: each must be refused with the place and the cure.

use scadles::train::config::{ConfigError, Location, RunConfig};
use std::path::Path;

fn refused(text: &str) -> (ConfigError, String) {
    let error = RunConfig::from_toml(text, Path::new("bad.toml")).expect_err(text);
    let shown = error.to_string();
    (error, shown)
}

/// (text, line:column, parts of the message).
const BAD: &[(&str, &str, &[&str])] = &[
    ("sed = 1", "1:1", &["unknown key `sed`", "did you mean `seed`", " 1 | sed = 1", "   | ^^^"]),
    ("[run]\nstepps = 5", "2:1", &["`stepps` in [run]", "`steps`"]),
    ("[run]\nmax_time_s = 5", "2:1", &["did you mean `max-time-s`"]),
    ("[run]\ncolour = 5", "2:1", &["the keys are steps, max-time-s"]),
    ("[optimiser]\nlr = 0.1", "1:2", &["did you mean `optimizer`"]),
    ("[run]\nsteps = \"many\"", "2:9", &["`run.steps` must be a whole number", "\"many\""]),
    ("[run]\nsteps = 1.5", "2:9", &["whole number", "1.5"]),
    ("[run]\nsteps = -5", "2:9", &["whole number, 0 or more, not -5"]),
    ("[run]\nsteps = 99999999999999999999", "2:9", &["whole number"]),
    ("[run]\nsteps = 0", "2:9", &["`run.steps` is 0", "from 1 to"]),
    ("seed = true", "1:8", &["`seed` must be a whole number", "true"]),
    ("[run]\nthreads = 5000", "2:11", &["1024"]),
    ("run = 3", "1:7", &["`run` must be a table"]),
    ("[model]\nname = 3", "2:8", &["text in quotes"]),
    ("[model]\nname = \"resnet21\"", "2:8", &["cannot be `resnet21`", "did you mean `resnet20`"]),
    ("[model]\nname = \"transformer\"", "2:8", &["the choices are resnet18"]),
    ("[model]\nstem = \"imagenet\"", "2:8", &["resnet20 has only the stem", "resnet18"]),
    ("[model]\nwidth = 0.0", "2:9", &["above 0 and at most 4"]),
    ("[model]\nwidth = nan", "2:9", &["`model.width` is NaN"]),
    ("[model]\nstem = \"cifr\"", "2:8", &["cannot be `cifr`", "did you mean `cifar`"]),
    ("[model]\nclasses = 5", "2:11", &["at least 10, the classes of the embedded data set"]),
    ("[cluster]\ndevices = 0", "2:11", &["from 1 to 4096"]),
    ("[cluster]\ndevices = 5000", "2:11", &["from 1 to 4096"]),
    ("[cluster]\nrates = \"S3\"", "2:9", &["cannot be `S3`", "did you mean `S1`"]),
    ("[cluster]\nrates = [1, 2]", "2:9", &["a list of 2 values", "cluster.devices is 8"]),
    ("[cluster]\ndevices = 2\nrates = [1, -2]", "3:13", &["`cluster.rates[1]` is -2"]),
    ("[cluster]\ndevices = 2\nrates = [1, \"a\"]", "3:13", &["`cluster.rates[1]` must be a number"]),
    ("[cluster]\narrivals = \"poisson\"", "2:12", &["a table, as { kind = \"constant\" }"]),
    ("[cluster.arrivals]\nkind = \"poison\"", "2:8", &["did you mean `poisson`"]),
    (
        "[cluster.arrivals]\nkind = \"bursty\"\non-s = 1",
        "1:10",
        &["`cluster.arrivals of kind bursty` needs the key `off-s`"],
    ),
    (
        "[cluster.arrivals]\nkind = \"poisson\"\non-s = 1",
        "3:1",
        &["kind `poisson` has no key `on-s`", "kind `bursty` has it"],
    ),
    ("[cluster.arrivals]\nkind = \"diurnal\"\nperiod-s = 9\namplitude = 1.5", "4:13", &["from 0 to 1"]),
    (
        "[cluster.compute]\nkind = \"given\"\noverhead-s = [1, 2]\nper-sample-s = [1]",
        "3:14",
        &["single one for all"],
    ),
    ("[cluster.compute]\nkind = \"measured\"\nslowdown = 0", "3:12", &["above 0"]),
    ("[cluster.link]\nefficiency = 1.5", "2:14", &["from 0.001 to 1"]),
    ("[cluster.link]\nbandwidth-mbit-s = 1e-300", "2:20", &["from 0.001 to"]),
    ("[cluster.link]\nlatency-ms = 1e300", "2:14", &["from 0 to 1000000"]),
    ("[cluster]\nwait-limit-s = 1e300", "2:16", &["from 0 to 1000000000"]),
    ("[cluster]\nwait-limit-s = 0", "2:16", &["above 0"]),
    (
        "[cluster.compute]\nkind = \"given\"\noverhead-s = [1]\nper-sample-s = [1e300]",
        "4:17",
        &["`cluster.compute.per-sample-s[0]`", "from 0 to 1000000"],
    ),
    ("[cluster.compute]\nkind = \"measured\"\nslowdown = 1e300", "3:12", &["from 0 to 1000000"]),
    ("[cluster]\nclock = \"wall\"", "2:9", &["the choices are virtual, real"]),
    (
        "[batch]\nmin = 64\nmax = 32",
        "2:7",
        &["batch.min (64) is above batch.max (32)", "lower min or raise max"],
    ),
    ("[batch]\npolicy = \"fixed\"\nsize = 2000", "3:8", &["above batch.max (1024)"]),
    ("[buffer]\nkeep = 1000000", "2:8", &["does not fit buffer.memory-cap-mib"]),
    ("[buffer]\npolicy = \"reservoir\"\nkeep = 10", "3:8", &["never holds a batch"]),
    ("[optimizer]\nlr = -0.1", "2:6", &["`optimizer.lr` is -0.1", "above 0"]),
    ("[optimizer]\nlr = inf", "2:6", &["`optimizer.lr` is inf"]),
    ("[optimizer]\nmomentum = 1.0", "2:12", &["below 1"]),
    ("[optimizer]\nnesterov = true\nmomentum = 0.0", "2:12", &["needs momentum"]),
    (
        "[optimizer]\nkind = \"lars\"\nnesterov = true",
        "3:12",
        &["LARS has no Nesterov", "set nesterov to false"],
    ),
    (
        "[optimizer.schedule]\nkind = \"step\"\nfactor = 0.2\nat = [0.5, 0.25]",
        "4:12",
        &["above the position before it, 0.5"],
    ),
    ("[optimizer.schedule]\nkind = \"step\"\nfactor = 0.2\nat = []", "4:6", &["a list of shares"]),
    ("[optimizer.schedule]\nkind = \"step\"\nfactor = 0.2", "1:12", &["needs the key `at`"]),
    (
        "[sync]\nkind = \"local\"\nsteps = 4",
        "2:8",
        &["no gradient to compress", "compression.kind to \"none\""],
    ),
    ("[compression]\ndensity = 0.1", "1:2", &["needs the key `kind`", "none, top-k, dgc"]),
    ("[compression]\nkind = \"top-k\"\ndensty = 0.1", "3:1", &["did you mean `density`"]),
    ("[compression]\nkind = \"topk\"", "2:8", &["did you mean `top-k`"]),
    ("[compression]\nkind = 4", "2:8", &["one of none, top-k, dgc"]),
    ("[compression]\nkind = \"top-k\"\ndensity = 0", "3:11", &["above 0 and at most 1"]),
    ("[compression]\nkind = \"none\"\ndensity = 0.1", "3:1", &["kind `top-k` or `dgc` has it"]),
    (
        "[compression.gate]\nkind = \"paper\"\ndelta = 0.1\newma = 0.1",
        "1:2",
        &["`compression` needs the key `kind`"],
    ),
    ("[optimizer]\nmomentum = 0\n[compression]\nkind = \"dgc\"", "2:12", &["plain momentum"]),
    ("[optimizer]\nnesterov = true\n[compression]\nkind = \"dgc\"", "2:12", &["plain momentum"]),
    ("[injection]\nalpha = 0.5", "2:9", &["set both above 0"]),
    ("[cluster]\ndevices = 1\n[injection]\nalpha = 1\nbeta = 1", "4:9", &["only one"]),
    ("[data.partition]\nkind = \"labels\"\nlabels-per-device = 11", "3:21", &["at most 10"]),
    ("[data.partition]\nkind = \"dirichlet\"\nalpha = 0", "3:9", &["above 0"]),
    ("name = \"../x\"", "1:8", &["name a folder"]),
    ("name = \"\"", "1:8", &["name a folder"]),
    ("[run]\nsteps = 5\nsteps = 6", "3:1", &["not TOML", "duplicate key"]),
    ("[run\nsteps = 5", "1:5", &["not TOML"]),
    ("a = = 2", "1:5", &["not TOML"]),
];

#[test]
fn each_is_refused_at_its_line_with_a_cure() {
    for (text, place, parts) in BAD {
        let (error, shown) = refused(text);
        assert!(matches!(error.at, Location::File { .. }), "{text}\n{shown}");
        assert!(shown.starts_with(&format!("bad.toml:{place}: ")), "want {place}\n{text}\n{shown}");
        for part in *parts {
            assert!(shown.contains(part), "want {part:?} in\n{shown}");
        }
    }
}

#[test]
fn a_seed_beyond_toml_is_refused_in_code() {
    let config = RunConfig { seed: u64::MAX, ..RunConfig::default() };
    assert!(config.validate().unwrap_err().to_string().contains("`seed` is 18446744073709551615"));
}

#[test]
fn classes_are_checked_against_the_data() {
    let mut config = RunConfig::default();
    config.model.classes = 20;
    assert!(config.validate_classes("cifar10", 10).is_ok());
    assert!(config.validate_classes("cifar100", 100).unwrap_err().to_string().contains("cifar100"));
}

#[test]
fn a_missing_file_is_named() {
    let error = RunConfig::load(Some(Path::new("no/such.toml")), &[]).unwrap_err().to_string();
    assert!(error.contains("cannot read no/such.toml"), "{error}");
}

#[test]
fn broken_text_never_panics() {
    let text = RunConfig::default().to_toml();
    let mut pieces =
        vec![String::new(), "\u{feff}".into(), "ä = \"ö".into(), "[[run]]".into(), "run.run = 1".into()];
    pieces.extend((0..text.len()).step_by(7).map(|end| text[..end].to_string()));
    pieces.extend((0..text.len()).step_by(5).map(|at| format!("{}\u{0}ß{}", &text[..at], &text[at..])));
    for piece in pieces {
        if let Err(error) = RunConfig::from_toml(&piece, Path::new("x.toml")) {
            assert!(!error.to_string().is_empty());
        }
    }
}
