//! The configuration's keys and types as a table, so that a document can be checked with its line numbers at hand.
//!
//! serde's internally tagged enums lose the place of what they reject; this table does not. A test holds it against
//! the types: every key that they write is here, and nothing else.

/// A key of a table.
pub(super) struct Field {
    pub key: &'static str,
    pub kind: Kind,
    /// Has no default.
    pub required: bool,
}

/// What a value must be.
pub(super) enum Kind {
    Text,
    Bool,
    /// A whole number, at least 0.
    Count,
    Number,
    Numbers,
    Texts,
    /// A name or a list of numbers.
    Rates,
    Choice(&'static [&'static str]),
    Table(&'static [Field]),
    /// A table whose keys depend on its `kind`.
    Tagged(&'static [Variant]),
}

/// One `kind` of a table.
pub(super) struct Variant {
    pub name: &'static str,
    pub fields: &'static [Field],
}

const fn field(key: &'static str, kind: Kind) -> Field {
    Field { key, kind, required: false }
}

const fn required(key: &'static str, kind: Kind) -> Field {
    Field { key, kind, required: true }
}

const fn variant(name: &'static str, fields: &'static [Field]) -> Variant {
    Variant { name, fields }
}

const VALUES: Kind = Kind::Choice(&["f32", "bf16"]);

pub(super) const ROOT: &[Field] = &[
    field("name", Kind::Text),
    field("seed", Kind::Count),
    field("model", Kind::Table(MODEL)),
    field("data", Kind::Table(DATA)),
    field("cluster", Kind::Table(CLUSTER)),
    field(
        "source",
        Kind::Tagged(&[variant("replay", &[]), variant("tcp", &[required("addresses", Kind::Texts)])]),
    ),
    field("batch", Kind::Table(BATCH)),
    field("buffer", Kind::Table(BUFFER)),
    field("aggregation", Kind::Choice(&["by-samples", "uniform"])),
    field("optimizer", Kind::Table(OPTIMIZER)),
    field(
        "sync",
        Kind::Tagged(&[variant("every-step", &[]), variant("local", &[required("steps", Kind::Count)])]),
    ),
    field("compression", Kind::Tagged(&[variant("none", &[]), variant("top-k", TOP_K), variant("dgc", DGC)])),
    field("injection", Kind::Table(INJECTION)),
    field("batch-norm", Kind::Choice(&["local", "merged"])),
    field("drift", Kind::Tagged(&[variant("off", &[]), variant("page-hinkley", PAGE_HINKLEY)])),
    field("run", Kind::Table(RUN)),
];

const MODEL: &[Field] = &[
    field("name", Kind::Text),
    field("stem", Kind::Choice(&["cifar", "imagenet"])),
    field("classes", Kind::Count),
    field("width", Kind::Number),
    field("weights", Kind::Text),
];

const DATA: &[Field] = &[
    field("dir", Kind::Text),
    field("embedded-train", Kind::Count),
    field("embedded-test", Kind::Count),
    field("augment", Kind::Bool),
    field(
        "partition",
        Kind::Tagged(&[
            variant("iid", &[]),
            variant("labels", &[required("labels-per-device", Kind::Count)]),
            variant("dirichlet", &[required("alpha", Kind::Number)]),
        ]),
    ),
];

const CLUSTER: &[Field] = &[
    field("devices", Kind::Count),
    field("rates", Kind::Rates),
    field("arrivals", Kind::Tagged(ARRIVALS)),
    field("clock", Kind::Choice(&["virtual", "real"])),
    field("link", Kind::Table(LINK)),
    field("compute", Kind::Tagged(COMPUTE)),
    field("device", Kind::Choice(&["auto", "cpu", "cuda"])),
    field("precision", Kind::Choice(&["f32", "bf16"])),
    field("wait-limit-s", Kind::Number),
];

const ARRIVALS: &[Variant] = &[
    variant("constant", &[]),
    variant("poisson", &[]),
    variant("bursty", &[required("on-s", Kind::Number), required("off-s", Kind::Number)]),
    variant("diurnal", &[required("period-s", Kind::Number), required("amplitude", Kind::Number)]),
    variant("trace", &[required("path", Kind::Text)]),
];

const LINK: &[Field] = &[
    field("bandwidth-mbit-s", Kind::Number),
    field("latency-ms", Kind::Number),
    field("efficiency", Kind::Number),
];

const COMPUTE: &[Variant] = &[
    variant("k80", &[]),
    variant("measured", &[required("slowdown", Kind::Number)]),
    variant("given", &[required("overhead-s", Kind::Numbers), required("per-sample-s", Kind::Numbers)]),
];

const BATCH: &[Field] = &[
    field("policy", Kind::Choice(&["fixed", "rate", "available"])),
    field("size", Kind::Count),
    field("min", Kind::Count),
    field("max", Kind::Count),
];

const BUFFER: &[Field] = &[
    field("policy", Kind::Choice(&["persistence", "truncation", "reservoir"])),
    field("memory-cap-mib", Kind::Count),
    field("keep", Kind::Count),
    field("spill-dir", Kind::Text),
];

const OPTIMIZER: &[Field] = &[
    field("kind", Kind::Choice(&["sgd", "lars"])),
    field("lr", Kind::Number),
    field("momentum", Kind::Number),
    field("nesterov", Kind::Bool),
    field("weight-decay", Kind::Number),
    field("trust", Kind::Number),
    field("scale-lr", Kind::Bool),
    field(
        "schedule",
        Kind::Tagged(&[
            variant("constant", &[]),
            variant("step", &[required("factor", Kind::Number), required("at", Kind::Numbers)]),
            variant("cosine", &[]),
        ]),
    ),
    field("warmup", Kind::Number),
];

const TOP_K: &[Field] = &[
    field("density", Kind::Number),
    field("scope", Kind::Choice(&["vector", "layer"])),
    field("error-feedback", Kind::Bool),
    field("gate", Kind::Tagged(GATE)),
    field("values", VALUES),
    field("indices", Kind::Choice(&["smallest", "delta", "bitmap"])),
];

const GATE: &[Variant] = &[
    variant("always", &[]),
    variant("paper", &[required("delta", Kind::Number), required("ewma", Kind::Number)]),
    variant("reference", &[required("delta", Kind::Number)]),
];

const DGC: &[Field] = &[
    field("density", Kind::Number),
    field("warmup", Kind::Number),
    field("clip-norm", Kind::Number),
    field("values", VALUES),
];

const INJECTION: &[Field] = &[
    field("alpha", Kind::Number),
    field("beta", Kind::Number),
    field("batch", Kind::Choice(&["paper", "selsync"])),
];

const PAGE_HINKLEY: &[Field] = &[
    field("tolerance", Kind::Number),
    field("threshold", Kind::Number),
    field("label-window", Kind::Count),
    field("label-distance", Kind::Number),
    field("react", Kind::Choice(&["none", "lr-boost", "keep-newest"])),
    field("boost", Kind::Number),
    field("boost-steps", Kind::Count),
];

const RUN: &[Field] = &[
    field("steps", Kind::Count),
    field("max-time-s", Kind::Number),
    field("target-accuracy", Kind::Number),
    field("eval-every", Kind::Count),
    field("threads", Kind::Count),
    field("out", Kind::Text),
    field("serve", Kind::Text),
    field("serve-token-file", Kind::Text),
    field("stall-limit-s", Kind::Number),
];

impl Kind {
    /// What belongs there, in words.
    pub fn expected(&self) -> String {
        match self {
            Self::Text => "text in quotes".into(),
            Self::Bool => "true or false".into(),
            Self::Count => "a whole number, 0 or more".into(),
            Self::Number => "a number".into(),
            Self::Numbers => "a list of numbers, as [0.25, 0.5]".into(),
            Self::Texts => "a list of texts in quotes, as [\"a\", \"b\"]".into(),
            Self::Rates => "a list of numbers, one per device, or the name of a published list".into(),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
            Self::Table(_) => "a table".into(),
            Self::Tagged(variants) => format!("a table, as {{ kind = \"{}\" }}", variants[0].name),
        }
    }
}

/// The fields of `kind`, or every field of any variant when the kind is not known (yet).
pub(super) fn variant_fields<'a>(
    variants: &'a [Variant],
    kind: Option<&str>,
) -> Box<dyn Iterator<Item = &'a Field> + 'a> {
    match variants.iter().find(|variant| Some(variant.name) == kind) {
        Some(variant) => Box::new(variant.fields.iter()),
        None => Box::new(variants.iter().flat_map(|variant| variant.fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        ArrivalConfig, CompressionConfig, ComputeConfig, DgcConfig, DriftConfig, GateConfig,
        PageHinkleyConfig, Partition, RunConfig, ScheduleConfig, SourceConfig, SyncConfig, TopKConfig,
    };
    use super::*;
    use std::collections::BTreeSet;

    fn schema_keys(prefix: &str, fields: &[Field], keys: &mut BTreeSet<String>) {
        for field in fields {
            let path = format!("{prefix}{}", field.key);
            match &field.kind {
                Kind::Table(inner) => schema_keys(&format!("{path}."), inner, keys),
                Kind::Tagged(variants) => {
                    for variant in *variants {
                        keys.insert(format!("{path}.kind={}", variant.name));
                        schema_keys(&format!("{path}."), variant.fields, keys);
                    }
                }
                Kind::Choice(choices) => keys.extend(choices.iter().map(|choice| format!("{path}={choice}"))),
                _ => {
                    keys.insert(path);
                }
            }
        }
    }

    fn written_keys(prefix: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) => written_keys(&format!("{path}."), inner, keys),
                toml::Value::String(text) if key == "kind" => drop(keys.insert(format!("{path}={text}"))),
                _ => drop(keys.insert(path)),
            }
        }
    }

    /// One value of every variant with all optional keys set.
    fn variants() -> Vec<RunConfig> {
        let mut full = RunConfig::default();
        full.model.weights = Some("w".into());
        full.data.dir = Some("d".into());
        full.buffer.spill_dir = Some("s".into());
        full.run.out = Some("o".into());
        full.run.serve = Some("127.0.0.1:1".into());
        full.run.serve_token_file = Some("t".into());
        let mut configs = vec![full];
        let mut with = |change: &dyn Fn(&mut RunConfig)| {
            let mut config = RunConfig::default();
            change(&mut config);
            configs.push(config);
        };
        with(&|c| c.sync = SyncConfig::Local { steps: 2 });
        with(&|c| c.compression = CompressionConfig::None);
        with(&|c| c.source = SourceConfig::Tcp { addresses: vec!["a:1".into()] });
        with(&|c| c.compression = CompressionConfig::Dgc(DgcConfig::default()));
        for gate in [GateConfig::Always, GateConfig::Reference { delta: 1.0 }] {
            with(&|c| c.compression = CompressionConfig::TopK(TopKConfig { gate, ..TopKConfig::default() }));
        }
        with(&|c| c.data.partition = Partition::Labels { labels_per_device: 1 });
        with(&|c| c.data.partition = Partition::Dirichlet { alpha: 1.0 });
        for arrivals in [
            ArrivalConfig::Poisson,
            ArrivalConfig::Bursty { on_s: 1.0, off_s: 1.0 },
            ArrivalConfig::Diurnal { period_s: 1.0, amplitude: 1.0 },
            ArrivalConfig::Trace { path: "t".into() },
        ] {
            with(&|c| c.cluster.arrivals = arrivals.clone());
        }
        with(&|c| c.cluster.compute = ComputeConfig::Measured { slowdown: 1.0 });
        with(&|c| {
            c.cluster.compute = ComputeConfig::Given { overhead_s: vec![1.0], per_sample_s: vec![1.0] }
        });
        with(&|c| c.optimizer.schedule = ScheduleConfig::Step { factor: 0.5, at: vec![0.5] });
        with(&|c| c.optimizer.schedule = ScheduleConfig::Constant);
        with(&|c| c.drift = DriftConfig::PageHinkley(PageHinkleyConfig::default()));
        configs
    }

    #[test]
    fn the_table_and_the_types_have_the_same_keys() {
        let (mut known, mut written) = (BTreeSet::new(), BTreeSet::new());
        schema_keys("", ROOT, &mut known);
        for config in variants() {
            written_keys("", &toml::Table::try_from(&config).unwrap(), &mut written);
        }
        // Choices are checked below; here only their keys count.
        let strip = |key: &String| match key.split_once('=') {
            Some((path, _)) if !path.ends_with(".kind") || path == "optimizer.kind" => path.to_string(),
            _ => key.clone(),
        };
        let known_keys: BTreeSet<String> = known.iter().map(strip).collect();
        let written_keys: BTreeSet<String> = written.iter().map(strip).collect();
        assert_eq!(known_keys, written_keys);
    }

    #[test]
    fn the_types_accept_every_choice_of_the_table() {
        let mut known = BTreeSet::new();
        schema_keys("", ROOT, &mut known);
        for key in known.iter().filter(|key| key.contains('=') && !key.contains(".gate.")) {
            let (path, choice) = key.split_once('=').unwrap();
            if path.ends_with(".kind") && path != "optimizer.kind" {
                continue; // Covered by the variants above.
            }
            let kind = match path.split('.').next() {
                Some("compression") => "compression.kind = \"top-k\"\n",
                Some("drift") => "drift.kind = \"page-hinkley\"\n",
                _ => "",
            };
            let text = format!("{kind}{path} = \"{choice}\"\n");
            assert!(
                toml::from_str::<RunConfig>(&text).is_ok(),
                "{text}: {:?}",
                toml::from_str::<RunConfig>(&text)
            );
        }
    }
}
