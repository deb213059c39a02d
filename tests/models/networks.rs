use scadles::models::{self, ModelError, ModelSpec, Stem, has_stem};
use scadles::nn::{Executor, NnError, Op, ParamKind};
use scadles::ops::input::ImageShape;
use std::sync::Arc;

fn spec(name: &str, stem: Stem, classes: usize) -> ModelSpec {
    let side = if stem == Stem::Imagenet { 224 } else { 32 };
    let image = ImageShape { h: side, w: side, c: 3 };
    ModelSpec { name: name.into(), stem, classes, width: 1.0, image }
}

/// Parameters of torchvision 0.26's models with 1000 classes (`sum(p.numel() for p in m.parameters())`), and their
/// multiply-accumulates at 224 x 224 where torchvision documents them (GFLOPS in the weights' tables).
const TORCHVISION: [(&str, usize, f64); 13] = [
    ("resnet18", 11_689_512, 1.814),
    ("resnet34", 21_797_672, 3.664),
    ("resnet50", 25_557_032, 4.089),
    ("resnet101", 44_549_160, 7.801),
    ("resnet152", 60_192_808, 11.514),
    ("vgg11", 132_863_336, 7.609),
    ("vgg13", 133_047_848, 11.308),
    ("vgg16", 138_357_544, 15.47),
    ("vgg19", 143_667_240, 19.632),
    ("vgg11_bn", 132_868_840, 7.609),
    ("vgg13_bn", 133_053_736, 11.308),
    ("vgg16_bn", 138_365_992, 15.47),
    ("vgg19_bn", 143_678_248, 19.632),
];

#[test]
fn parameter_counts_and_work_are_torchvisions() {
    for (name, params, gmacs) in TORCHVISION {
        let plan = models::plan(&spec(name, Stem::Imagenet, 1000), 1).unwrap();
        assert_eq!(plan.num_params(), params, "{name}");
        let found = plan.macs_per_image() as f64 / 1e9;
        assert!((found - gmacs).abs() < 0.01 * gmacs, "{name}: {found} GMACs, torchvision says {gmacs}");
        assert_eq!(plan.classes(), 1000);
    }
}

#[test]
fn cifar_resnets_have_the_papers_parameters() {
    // He et al. (2015), table 6, gives 0.27 M, 0.46 M, 0.85 M and 1.7 M; the exact counts are those of option A.
    for (name, params) in
        [("resnet20", 269_722), ("resnet32", 464_154), ("resnet56", 853_018), ("resnet110", 1_727_962)]
    {
        let plan = models::plan(&spec(name, Stem::Cifar, 10), 4).unwrap();
        assert_eq!(plan.num_params(), params, "{name}");
    }
}

#[test]
fn tables_cover_the_flat_vectors_and_summaries_add_up() {
    for &name in models::names() {
        for stem in [Stem::Cifar, Stem::Imagenet] {
            if !has_stem(name, stem) {
                continue;
            }
            let small = ModelSpec { width: 0.1, ..spec(name, stem, 7) };
            let plan = models::plan(&small, 3).unwrap();
            let mut end = 0;
            for entry in plan.params() {
                assert_eq!(entry.range.start, end, "{name}: {}", entry.name);
                assert_eq!(entry.dims.iter().product::<usize>(), entry.numel());
                assert_eq!(entry.krsc.iter().product::<usize>(), entry.numel());
                end = entry.range.end;
            }
            assert_eq!((end, plan.num_stats() % 2), (plan.num_params(), 0));
            let summary = plan.summary();
            assert_eq!(summary.iter().map(|layer| layer.params).sum::<usize>(), plan.num_params());
            assert_eq!(summary.iter().map(|layer| layer.macs).sum::<usize>(), plan.macs_per_image());
            assert_eq!((plan.classes(), plan.max_batch()), (7, 3));
        }
    }
}

#[test]
fn names_and_order_are_torchvisions() {
    let names = |name: &str, stem| -> Vec<String> {
        let plan = models::plan(&ModelSpec { width: 0.1, ..spec(name, stem, 5) }, 1).unwrap();
        plan.params().iter().map(|entry| entry.name.clone()).collect()
    };
    let resnet = names("resnet50", Stem::Imagenet);
    let expected = [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
        "layer1.0.conv2.weight",
        "layer1.0.bn2.weight",
        "layer1.0.bn2.bias",
        "layer1.0.conv3.weight",
        "layer1.0.bn3.weight",
        "layer1.0.bn3.bias",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.weight",
        "layer1.0.downsample.1.bias",
        "layer1.1.conv1.weight",
    ];
    assert_eq!(resnet[..expected.len()], expected);
    assert_eq!(resnet[resnet.len() - 2..], ["fc.weight", "fc.bias"]);

    let vgg = names("vgg11_bn", Stem::Imagenet);
    assert_eq!(
        vgg[..5],
        ["features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias", "features.4.weight"]
    );
    assert_eq!(
        vgg[vgg.len() - 6..],
        [
            "classifier.0.weight",
            "classifier.0.bias",
            "classifier.3.weight",
            "classifier.3.bias",
            "classifier.6.weight",
            "classifier.6.bias"
        ]
    );
    let plan = models::plan(&ModelSpec { width: 0.1, ..spec("vgg11_bn", Stem::Cifar, 5) }, 1).unwrap();
    assert_eq!(plan.stats()[3].name, "features.5.running_var");
}

#[test]
fn first_parameters_have_the_published_spread_and_depend_on_the_seed() {
    let plan = models::plan(&spec("resnet18", Stem::Cifar, 10), 1).unwrap();
    let params = plan.init_params(3);
    assert_eq!(params, plan.init_params(3));
    for entry in plan.params() {
        let tensor = &params[entry.range.clone()];
        let n = tensor.len() as f64;
        let variance = tensor.iter().map(|&p| f64::from(p) * f64::from(p)).sum::<f64>() / n;
        let expected = match entry.kind {
            ParamKind::ConvFilter => 2.0 / (entry.dims[0] * entry.dims[2] * entry.dims[3]) as f64,
            ParamKind::Gamma => 1.0,
            ParamKind::Beta => 0.0,
            ParamKind::LinearFilter | ParamKind::Bias => 1.0 / (3.0 * 512.0),
        };
        // A sample variance of n normal numbers strays by sqrt(2 / n) of itself; 6 deviations.
        assert!(
            (variance - expected).abs() <= 6.0 * (2.0 / n).sqrt() * expected,
            "{}: {variance}",
            entry.name
        );
    }
    let other = plan.init_params(4);
    let conv = plan.params()[0].range.clone();
    assert_ne!(params[conv.clone()], other[conv]);
    assert_ne!(params[plan.params()[3].range.start], params[0]);
}

#[test]
fn impossible_specifications_are_named_errors() {
    let plan = |change: &dyn Fn(&mut ModelSpec), batch| {
        let mut spec = spec("vgg11", Stem::Cifar, 10);
        change(&mut spec);
        models::plan(&spec, batch).unwrap_err()
    };
    let unknown = plan(&|s| s.name = "vgg12".into(), 1);
    assert!(
        matches!(&unknown, ModelError::Unknown { nearest, .. } if nearest.contains(&"vgg11")),
        "{unknown}"
    );
    assert!(unknown.to_string().contains("nearest: vgg1"), "{unknown}");
    let stem = plan(&|s| (s.name, s.stem) = ("resnet20".into(), Stem::Imagenet), 1);
    assert!(matches!(stem, ModelError::Stem { .. }));
    assert!(matches!(plan(&|s| s.classes = 0, 1), ModelError::NoClasses { .. }));
    for width in [0.0, -1.0, 4.01, f64::NAN, f64::INFINITY] {
        assert!(matches!(plan(&|s| s.width = width, 1), ModelError::Width { .. }), "{width}");
    }
    assert!(matches!(plan(&|s| s.image.w = 0, 1), ModelError::EmptyImage { .. }));
    assert!(matches!(plan(&|_| (), 0), ModelError::NoBatch { .. }));
    let small = plan(&|s| s.image.h = 31, 1);
    let source = NnError::ImageTooSmall {
        layer: "features.20".into(),
        image: scadles::nn::TensorShape { h: 31, w: 32, c: 3 },
        h: 1,
        w: 2,
        window: 2,
    };
    assert_eq!(small, ModelError::Plan { name: "vgg11".into(), source });
    assert!(small.to_string().contains("31x32x3"), "{small}");
    let huge = plan(&|_| (), usize::MAX / 1000);
    assert!(matches!(huge, ModelError::Plan { source: NnError::OutOfMemory { .. }, .. }), "{huge}");
    let wide = plan(&|s| s.image.h = usize::MAX / 2, 1);
    assert!(matches!(wide, ModelError::Plan { .. } | ModelError::EmptyImage { .. }), "{wide}");
}

#[test]
fn the_papers_networks_fit_their_memory() {
    // 16 devices in 20 GiB: 16 residuals, parameters, gradient and momentum take 19 x 0.54 GiB (VGG-19), which leaves 9 GiB.
    let image = ImageShape { h: 32, w: 32, c: 3 };
    for (name, stem) in [
        ("resnet152", Stem::Imagenet),
        ("vgg19_bn", Stem::Imagenet),
        ("resnet152", Stem::Cifar),
        ("vgg19", Stem::Cifar),
    ] {
        let plan = models::plan(&ModelSpec { image, ..spec(name, stem, 1000) }, 100).unwrap();
        let activations: usize = plan.layers().iter().map(|layer| 400 * plan.tensor(layer.y).numel()).sum();
        let executor = Executor::<f32>::new(Arc::new(plan.clone())).unwrap();
        println!(
            "{name} {stem:?}, batch 100: arena {} MiB (activations alone {} MiB), with packed filters and scratch {} MiB",
            plan.activation_bytes() >> 20,
            activations >> 20,
            executor.memory_bytes() >> 20
        );
        assert!(executor.memory_bytes() < 9 << 30, "{name} {stem:?}");
        assert!(
            plan.activation_bytes() < activations * 3 / 2,
            "gradients share the memory of dead activations"
        );
    }
}

#[test]
fn a_shortcut_gradient_takes_no_memory_of_its_own() {
    let plan = models::plan(&spec("resnet18", Stem::Cifar, 10), 8).unwrap();
    let block = plan.layers().iter().position(|layer| layer.name == "layer1.1.bn2").unwrap();
    let Op::BatchNorm2d { shortcut: Some(_), .. } = plan.layers()[block].op else { panic!("no shortcut") };
    let slots = &plan.memory().layers;
    let before = plan.layers().iter().position(|layer| layer.name == "layer1.0.bn2").unwrap();
    assert_eq!(slots[block].dy, slots[before].dy, "the gradient runs down the shortcuts in one slot");
}
