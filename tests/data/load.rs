//! `data::load` against folders that are right, and wrong in every way a user meets.

use crate::support::shared_data_or_skip;
use proptest::prelude::*;
use scadles::data::cifar::{DecodeError, Format, decode};
use scadles::data::{DataError, load};
use std::fs;
use std::path::Path;

/// A file of `labels.len()` records whose pixels all equal the label, plus `extra` bytes.
fn file(format: Format, labels: &[u8], extra: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &label in labels {
        bytes.resize(bytes.len() + format.record_bytes(), label);
        let start = bytes.len() - format.record_bytes();
        if format == Format::Cifar100 {
            bytes[start] = label / 5;
        }
    }
    bytes.resize(bytes.len() + extra, 0);
    bytes
}

fn put(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A folder with `names`, each a CIFAR-10 file of the labels 1 and 2 (or CIFAR-100 for `train.bin`, `test.bin`).
fn folder(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let hundred = name.ends_with("train.bin") || name.ends_with("test.bin");
        put(dir.path(), name, file(if hundred { Format::Cifar100 } else { Format::Cifar10 }, &[1, 2], 0));
    }
    dir
}

fn message(dir: &Path) -> String {
    load(dir).unwrap_err().to_string()
}

#[test]
fn any_number_of_training_files_is_read_in_order() {
    let dir = folder(&["test_batch.bin"]);
    for batch in 1..=3u8 {
        put(dir.path(), &format!("data_batch_{batch}.bin"), file(Format::Cifar10, &[batch, batch], 0));
        let sets = load(dir.path()).unwrap();
        assert_eq!(sets.train.len(), 2 * usize::from(batch));
        assert_eq!(sets.train.label(sets.train.len() - 1), u32::from(batch));
        assert_eq!(sets.train.image(0), vec![1; 3072]);
    }
    let sets = load(dir.path()).unwrap();
    assert_eq!((sets.name.as_str(), sets.test.labels()), ("cifar-10", [1, 2].as_slice()));
    assert_eq!(sets.train.class_names()[9], "truck");
    let scaled = sets.train.normalization();
    assert_eq!(scaled.mean, [2.0 / 255.0; 3]);
    assert_eq!(scaled, sets.test.normalization(), "both splits use the training split's");
}

#[test]
fn the_subfolders_of_the_official_archives_are_found() {
    let ten = folder(&["cifar-10-batches-bin/data_batch_1.bin", "cifar-10-batches-bin/test_batch.bin"]);
    assert_eq!(load(ten.path()).unwrap().name, "cifar-10");
    let hundred = folder(&["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"]);
    let sets = load(hundred.path()).unwrap();
    assert_eq!((sets.name.as_str(), sets.train.classes()), ("cifar-100", 100));
    assert_eq!(sets.train.class_names()[7], "class-7", "no names file");
}

#[test]
fn two_layouts_are_ambiguous() {
    let dir = folder(&["data_batch_1.bin", "test_batch.bin", "train.bin", "test.bin"]);
    assert!(matches!(load(dir.path()), Err(DataError::Ambiguous { .. })));
    let dir = folder(&["cifar-10-batches-bin/data_batch_1.bin", "cifar-100-binary/train.bin"]);
    let said = message(dir.path());
    assert!(
        said.contains("cifar-10-batches-bin/data_batch_1.bin") && said.contains("cifar-100-binary/train.bin")
    );
}

#[test]
fn missing_things_are_named() {
    let dir = folder(&[]);
    assert!(message(&dir.path().join("nowhere")).contains("does not exist"));
    let said = message(dir.path());
    assert!(said.contains("no CIFAR data in") && said.contains("scadles fetch"), "{said}");

    let cases: [(&[&str], &str); 4] = [
        (&["data_batch_1.bin"], "test_batch.bin"),
        (&["test_batch.bin"], "data_batch_1.bin"),
        (&["data_batch_1.bin", "data_batch_3.bin", "test_batch.bin"], "data_batch_2.bin"),
        (&["test.bin"], "train.bin"),
    ];
    for (names, missing) in cases {
        let dir = folder(names);
        match load(dir.path()).unwrap_err() {
            DataError::MissingFile { path, .. } => assert!(path.ends_with(missing), "{path:?}"),
            other => panic!("{names:?}: {other}"),
        }
    }
}

#[test]
fn compressed_files_are_a_hint() {
    let cases: [(&[&str], &str); 6] = [
        (&["data_batch_1.bin.xz", "test_batch.bin.xz"], "xz -dk "),
        (&["data_batch_1.bin", "data_batch_2.bin.xz", "test_batch.bin"], "data_batch_2.bin.xz"),
        (&["data_batch_1.bin", "test_batch.bin.gz"], "gzip -dk "),
        (&["cifar-10-batches-bin/test_batch.bin.xz"], "xz -dk "),
        (&["train.bin.bz2"], "bzip2 -dk "),
        (&["cifar-100-binary.tar.gz"], "tar -xzf "),
    ];
    for (names, hint) in cases {
        let dir = folder(names);
        let error = load(dir.path()).unwrap_err();
        assert!(matches!(error, DataError::Compressed { .. }), "{names:?}: {error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
    // A whole unpacked set is not disturbed by what it was unpacked from.
    let dir =
        folder(&["data_batch_1.bin", "data_batch_1.bin.xz", "test_batch.bin", "cifar-10-binary.tar.gz"]);
    assert_eq!(load(dir.path()).unwrap().train.len(), 2);
}

#[test]
fn damaged_files_are_named_with_record_and_offset() {
    let dir = folder(&["data_batch_1.bin", "test_batch.bin"]);
    put(dir.path(), "data_batch_2.bin", file(Format::Cifar10, &[1], 17));
    let said = message(dir.path());
    assert!(
        said.contains("data_batch_2.bin: record 1 is cut short at byte 3090: 17 of 3073 bytes"),
        "{said}"
    );

    put(dir.path(), "data_batch_2.bin", file(Format::Cifar10, &[1, 10], 0));
    let said = message(dir.path());
    assert!(said.contains("data_batch_2.bin: record 1: label 10 at byte 3073 is not below 10"), "{said}");

    put(dir.path(), "data_batch_2.bin", []);
    assert!(message(dir.path()).contains("data_batch_2.bin: the file is empty"));

    put(dir.path(), "data_batch_2.bin", file(Format::Cifar10, &[1], 0));
    put(dir.path(), "batches.meta.txt", "airplane\nautomobile\n\n");
    assert!(message(dir.path()).contains("2 names for 10 classes"));

    let dir = folder(&["test.bin"]);
    put(dir.path(), "train.bin", file(Format::Cifar100, &[3, 100], 0));
    let said = message(dir.path());
    assert!(said.contains("train.bin: record 1: coarse label 20 at byte 3074 is not below 20"), "{said}");

    let dir = folder(&["test_batch.bin"]);
    fs::create_dir(dir.path().join("data_batch_1.bin")).unwrap();
    assert!(matches!(load(dir.path()), Err(DataError::Io { .. })), "a folder in the place of a file");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn decoding_never_panics(ten: bool, records in 0usize..4, extra in 0usize..3, salt: u8, labels in 1..=120u8) {
        let format = if ten { Format::Cifar10 } else { Format::Cifar100 };
        let len = records * format.record_bytes() + extra;
        let bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_add(salt) % labels).collect();
        let head = if ten { 1 } else { 2 };
        let in_range = bytes.chunks_exact(format.record_bytes()).all(|record| match format {
            Format::Cifar10 => record[0] < 10,
            Format::Cifar100 => record[0] < 20 && record[1] < 100,
        });
        match decode(format, &bytes) {
            Ok(decoded) => {
                prop_assert!(records > 0 && extra == 0 && in_range);
                for (i, record) in bytes.chunks_exact(format.record_bytes()).enumerate() {
                    prop_assert_eq!(decoded.labels[i], u32::from(record[head - 1]));
                    for (channel, row, column) in [(0, 0, 0), (1, 5, 31), (2, 31, 7)] {
                        let planar = record[head + (channel * 32 + row) * 32 + column];
                        prop_assert_eq!(decoded.images[((i * 32 + row) * 32 + column) * 3 + channel], planar);
                    }
                }
            }
            Err(DecodeError::Empty) => prop_assert_eq!(len, 0),
            Err(DecodeError::LabelOutOfRange { .. }) => prop_assert!(!in_range),
            Err(_) => prop_assert!(extra > 0 && in_range),
        }
    }
}

#[test]
fn real_cifar_10() {
    let Some(dir) = shared_data_or_skip("real_cifar_10", "cifar-10-small") else { return };
    let sets = load(&dir).unwrap();
    assert_eq!((sets.name.as_str(), sets.train.len(), sets.test.len()), ("cifar-10", 5000, 1000));
    assert_eq!(sets.train.class_names()[0], "airplane");
    for (set, per_class) in [(&sets.train, 500), (&sets.test, 100)] {
        for class in 0..10 {
            assert_eq!(set.labels().iter().filter(|&&label| label == class).count(), per_class);
        }
    }
    // The whole training set's statistics are known: mean .4914 .4822 .4465, std .2470 .2435 .2616.
    let measured = sets.train.normalization();
    for (got, want) in
        measured.mean.iter().chain(&measured.std).zip([0.4914, 0.4822, 0.4465, 0.2470, 0.2435, 0.2616])
    {
        assert!((got - want).abs() < 0.01, "{got} is far from {want}");
    }
    // Neighbouring pixels of a photograph are alike only if planes were transposed rightly.
    let image = sets.train.image(0);
    let rough = |step: usize| -> u64 {
        image.iter().zip(&image[step..]).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum()
    };
    assert!(rough(3) < rough(37 * 3) / 2, "{} against {}", rough(3), rough(37 * 3));
}

#[test]
fn real_cifar_100() {
    let Some(dir) = shared_data_or_skip("real_cifar_100", "cifar-100-small") else { return };
    let sets = load(&dir).unwrap();
    assert_eq!((sets.name.as_str(), sets.train.len(), sets.test.len()), ("cifar-100", 10_000, 2_000));
    assert_eq!(sets.train.class_names()[99], "worm");
    assert!((0..100).all(|class| sets.test.labels().iter().filter(|&&label| label == class).count() == 20));
}

#[test]
fn real_cifar_10_whole_or_compressed() {
    let Some(dir) = shared_data_or_skip("real_cifar_10_whole_or_compressed", "cifar-10-batches-bin") else {
        return;
    };
    if !dir.join("data_batch_1.bin").exists() {
        assert!(message(&dir).contains("xz -dk"));
        return;
    }
    let sets = load(dir.parent().unwrap()).unwrap();
    assert_eq!((sets.train.len(), sets.test.len()), (50_000, 10_000));
    let measured = sets.train.normalization();
    let published = [0.4914, 0.4822, 0.4465, 0.2470, 0.2435, 0.2616];
    for (got, want) in measured.mean.iter().chain(&measured.std).zip(published) {
        assert!((got - want).abs() < 1e-4, "{got} is not {want}");
    }
}
