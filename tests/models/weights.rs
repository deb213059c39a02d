use safetensors::tensor::{Dtype, TensorView};
use scadles::models::{
    self, ModelSpec, Stem,
    weights::{self, Weights, WeightsError},
};
use scadles::nn::Plan;
use scadles::ops::input::ImageShape;
use std::collections::BTreeMap;

fn small(name: &str, stem: Stem, classes: usize, width: f64) -> Plan {
    let image = ImageShape { h: 32, w: 32, c: 3 };
    models::plan(&ModelSpec { name: name.into(), stem, classes, width, image }, 1).unwrap()
}

/// Distinct values everywhere, so that a swapped element shows.
fn counting(plan: &Plan) -> Weights {
    let count = |n: usize| (0..n).map(|i| i as f32 / 7.0).collect();
    Weights { params: count(plan.num_params()), stats: count(plan.num_stats()) }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A file's tensors, changed by `change` and put together again.
fn edited(plan: &Plan, change: impl FnOnce(&mut Tensors)) -> Result<Weights, WeightsError> {
    let Weights { params, stats } = counting(plan);
    let bytes = weights::to_bytes(plan, &params, &stats).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, t)| (name.into(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, dims, data))| (name, TensorView::new(*dtype, dims.clone(), data).unwrap()));
    weights::from_bytes(&safetensors::serialize(views, None).unwrap(), plan)
}

#[test]
fn files_give_back_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (name, stem) in
        [("resnet18", Stem::Imagenet), ("resnet20", Stem::Cifar), ("vgg11_bn", Stem::Imagenet)]
    {
        let plan = small(name, stem, 3, 0.05);
        let path = folder.path().join(name);
        let Weights { params, stats } = counting(&plan);
        weights::save(&path, &plan, &params, &stats).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), weights::to_bytes(&plan, &params, &stats).unwrap());
        assert_eq!(weights::load(&path, &plan).unwrap(), Weights { params, stats });
    }
}

#[test]
fn filters_are_in_pytorchs_order_in_the_file() {
    let plan = small("vgg11", Stem::Imagenet, 3, 0.05);
    let Weights { params, stats } = counting(&plan);
    let bytes = weights::to_bytes(&plan, &params, &stats).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // features.3.weight [6, 3, 3, 3] and classifier.0.weight [205, 26 * 7 * 7]
    for (name, [k, c, r, s]) in
        [("features.3.weight", [6, 3, 3, 3]), ("classifier.0.weight", [205, 26, 7, 7])]
    {
        let entry = plan.params().iter().find(|entry| entry.name == name).unwrap();
        let stored = &params[entry.range.clone()];
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.shape(), entry.dims);
        assert_eq!(stored.len(), k * c * r * s);
        for (i, bytes) in tensor.data().chunks_exact(4).enumerate() {
            let (ki, ci, ri, si) = (i / (c * r * s), i / (r * s) % c, i / s % r, i % s);
            let value = f32::from_le_bytes(bytes.try_into().unwrap());
            assert_eq!(value, stored[((ki * r + ri) * s + si) * c + ci], "{name} {:?}", (ki, ci, ri, si));
        }
    }
}

#[test]
fn sixteen_bit_floats_are_widened_and_counters_ignored() {
    let plan = small("resnet20", Stem::Cifar, 10, 0.25);
    let weights = edited(&plan, |tensors| {
        tensors.insert("bn1.num_batches_tracked".into(), (Dtype::I64, vec![], vec![0; 8]));
        let halves = |dtype, value: u16| (dtype, vec![4], value.to_le_bytes().repeat(4));
        tensors.insert("bn1.weight".into(), halves(Dtype::BF16, half::bf16::from_f32(-1.5).to_bits()));
        tensors.insert("bn1.running_mean".into(), halves(Dtype::F16, half::f16::from_f32(0.125).to_bits()));
    });
    let weights = weights.unwrap();
    assert_eq!(weights.params[plan.params()[1].range.clone()], [-1.5; 4]);
    assert_eq!(weights.stats[..4], [0.125; 4]);
}

#[test]
fn what_does_not_fit_is_named_with_both_shapes() {
    let plan = small("resnet20", Stem::Cifar, 10, 0.25);
    let message = |change: &dyn Fn(&mut Tensors)| edited(&plan, change).unwrap_err().to_string();

    let missing = message(&|t| drop(t.remove("layer1.0.conv1.weight")));
    assert!(missing.contains("'layer1.0.conv1.weight' [4, 4, 3, 3] is missing"), "{missing}");
    let extra = message(&|t| drop(t.insert("fc2.bias".into(), (Dtype::F32, vec![1], vec![0; 4]))));
    assert!(extra.contains("the first is 'fc2.bias'"), "{extra}");
    let renamed = message(&|t| {
        let head = t.remove("fc.bias").unwrap();
        t.insert("linear.bias".into(), head);
    });
    assert!(renamed.contains("'fc.bias' [10] is missing (the file has 'linear.bias'"), "{renamed}");
    let shape = message(&|t| t.get_mut("conv1.weight").unwrap().1 = vec![4, 3, 9]);
    assert!(shape.contains("[4, 3, 3, 3]") && shape.contains("[4, 3, 9]"), "{shape}");
    let dtype = message(&|t| t.get_mut("bn1.running_var").unwrap().0 = Dtype::I32);
    assert!(dtype.contains("'bn1.running_var' [4] is I32"), "{dtype}");
    let double = message(&|t| drop(t.insert("fc.bias".into(), (Dtype::F64, vec![10], vec![0; 80]))));
    assert!(double.contains("is F64"), "{double}");

    let other_head = small("resnet20", Stem::Cifar, 100, 0.25);
    let Weights { params, stats } = counting(&other_head);
    let bytes = weights::to_bytes(&other_head, &params, &stats).unwrap();
    let classes = weights::from_bytes(&bytes, &plan).unwrap_err();
    assert!(matches!(&classes, WeightsError::Classes { expected: 10, found: 100, .. }), "{classes}");

    let short = weights::to_bytes(&plan, &params, &stats).unwrap_err();
    assert!(matches!(short, WeightsError::Length { what: "parameters", .. }), "{short}");
}

#[test]
fn broken_files_are_errors() {
    let plan = small("resnet20", Stem::Cifar, 2, 0.1);
    let Weights { params, stats } = counting(&plan);
    let good = weights::to_bytes(&plan, &params, &stats).unwrap();
    for len in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        assert!(weights::from_bytes(&good[..len], &plan).is_err(), "cut at {len}");
    }
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for i in 0..8 + header {
        for flip in [1, 4, 0x80] {
            let mut bad = good.clone();
            bad[i] ^= flip;
            let _ = weights::from_bytes(&bad, &plan); // must not panic; a changed digit may still be a valid file
        }
    }
    for text in ["", "{}", "\u{2}\0\0\0\0\0\0\0{}", "PK\u{3}\u{4} a zip from torch.save"] {
        assert!(weights::from_bytes(text.as_bytes(), &plan).is_err(), "{text:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let absent = weights::load(&folder.path().join("none.safetensors"), &plan).unwrap_err().to_string();
    assert!(absent.contains("none.safetensors"), "{absent}");
    let path = folder.path().join("cut.safetensors");
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    let cut = weights::load(&path, &plan).unwrap_err().to_string();
    assert!(cut.contains("cut.safetensors") && cut.contains("not a valid safetensors file"), "{cut}");
    let no_folder = weights::save(&folder.path().join("no/folder"), &plan, &params, &stats).unwrap_err();
    assert!(matches!(no_folder, WeightsError::Write { .. }));
}
