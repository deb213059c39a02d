//! Properties that every split over devices must have.

use proptest::prelude::*;
use scadles::data::{PartitionError, partition};
use scadles::train::config::Partition;
use std::collections::BTreeSet;

fn labels(samples: usize, classes: usize) -> Vec<u32> {
    (0..samples).map(|i| (i * 7 % classes) as u32).collect()
}

fn rule() -> impl Strategy<Value = Partition> {
    prop_oneof![
        Just(Partition::Iid),
        (1usize..12).prop_map(|labels_per_device| Partition::Labels { labels_per_device }),
        (-8.0f64..5.0).prop_map(|power| Partition::Dirichlet { alpha: 10f64.powf(power) }),
    ]
}

/// Asserts: disjoint, ascending, not empty. Returns the number of samples used.
fn check_disjoint(parts: &[Vec<u32>], samples: usize) -> Result<usize, TestCaseError> {
    let mut seen = BTreeSet::new();
    for part in parts {
        prop_assert!(!part.is_empty());
        prop_assert!(part.is_sorted());
        for &sample in part {
            prop_assert!((sample as usize) < samples);
            prop_assert!(seen.insert(sample), "sample {} is used twice", sample);
        }
    }
    Ok(seen.len())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn parts_are_disjoint_and_complete(
        labels in prop::collection::vec(0u32..10, 1..400),
        devices in 1usize..40,
        rule in rule(),
        seed: u64,
    ) {
        let parts = match partition(&labels, 10, devices, &rule, seed) {
            Ok(parts) => parts,
            Err(PartitionError::TooFewSamples { .. }) => {
                prop_assert!(labels.len() < devices);
                return Ok(());
            }
            Err(PartitionError::ClassTooSmall { .. } | PartitionError::LabelsPerDevice { .. }) => {
                let by_label = matches!(rule, Partition::Labels { .. });
                prop_assert!(by_label);
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(parts.len(), devices);
        let used = check_disjoint(&parts, labels.len())?;
        prop_assert_eq!(&parts, &partition(&labels, 10, devices, &rule, seed).unwrap());
        let sizes = || parts.iter().map(Vec::len);
        let present = labels.iter().collect::<BTreeSet<_>>().len();
        match rule {
            Partition::Iid => {
                prop_assert_eq!(used, labels.len());
                prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
            }
            Partition::Dirichlet { .. } => prop_assert_eq!(used, labels.len()),
            Partition::Labels { labels_per_device } => {
                let mut holders = [0usize; 10];
                for part in &parts {
                    let held: BTreeSet<u32> = part.iter().map(|&sample| labels[sample as usize]).collect();
                    prop_assert_eq!(held.len(), labels_per_device);
                    held.iter().for_each(|&class| holders[class as usize] += 1);
                }
                let even = devices * labels_per_device / present;
                for class in labels.iter().collect::<BTreeSet<_>>() {
                    let holders = holders[*class as usize];
                    prop_assert!(holders == even || holders == even + 1, "{} holders, about {}", holders, even);
                }
                if even > 0 {
                    prop_assert_eq!(used, labels.len());
                }
            }
        }
    }
}

#[test]
fn seeds_differ() {
    for rule in
        [Partition::Iid, Partition::Labels { labels_per_device: 3 }, Partition::Dirichlet { alpha: 0.5 }]
    {
        let split = |seed| partition(&labels(1000, 10), 10, 7, &rule, seed).unwrap();
        assert_ne!(split(1), split(2), "{rule:?}");
    }
}

#[test]
fn dirichlet_is_skewed_for_small_alpha_and_even_for_large() {
    // Largest share of one class on one device, mean over devices.
    let skew = |alpha| {
        let labels = labels(20_000, 10);
        let parts = partition(&labels, 10, 10, &Partition::Dirichlet { alpha }, 5).unwrap();
        let largest = parts.iter().map(|part| {
            let count = |class| part.iter().filter(|&&sample| labels[sample as usize] == class).count();
            (0..10).map(count).max().unwrap() as f64 / part.len() as f64
        });
        largest.sum::<f64>() / 10.0
    };
    let (skewed, mild, even) = (skew(0.05), skew(1.0), skew(1e6));
    assert!(skewed > 0.6 && mild < 0.5 && mild > 0.15 && even < 0.11, "{skewed} {mild} {even}");
}

#[test]
fn impossible_splits_are_errors() {
    let labels = labels(100, 10);
    let split = |labels: &[u32], devices, rule| partition(labels, 10, devices, &rule, 1).unwrap_err();
    assert_eq!(split(&labels, 0, Partition::Iid), PartitionError::NoDevices);
    assert_eq!(
        split(&labels, 101, Partition::Iid),
        PartitionError::TooFewSamples { devices: 101, samples: 100 }
    );
    assert_eq!(split(&[], 1, Partition::Iid), PartitionError::TooFewSamples { devices: 1, samples: 0 });
    assert_eq!(
        split(&[0, 1, 10], 1, Partition::Iid),
        PartitionError::LabelOutOfRange { sample: 2, label: 10, classes: 10 }
    );
    for labels_per_device in [0, 11] {
        assert_eq!(
            split(&labels, 2, Partition::Labels { labels_per_device }),
            PartitionError::LabelsPerDevice { labels_per_device, classes: 10 }
        );
    }
    assert!(matches!(
        split(&labels, 30, Partition::Labels { labels_per_device: 5 }),
        PartitionError::ClassTooSmall { samples: 10, holders: 15, .. }
    ));
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(split(&labels, 2, Partition::Dirichlet { alpha }), PartitionError::Alpha { .. }));
    }
    assert!(partition(&labels, 10, 3, &Partition::Dirichlet { alpha: f64::MAX }, 1).is_ok());
    assert!(partition(&labels, 10, 3, &Partition::Dirichlet { alpha: f64::MIN_POSITIVE }, 1).is_ok());
}
