//! Any bytes as a CIFAR file: an error or whole records, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scadles::data::cifar::{DecodeError, Format, SHAPE, decode};

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (ten, mut bytes) = input;
    let format = if ten { Format::Cifar10 } else { Format::Cifar100 };
    check(format, &bytes);
    // The fuzzer seldom hits a whole number of records by itself.
    bytes.resize(bytes.len().next_multiple_of(format.record_bytes()), 0);
    check(format, &bytes);
});

fn check(format: Format, bytes: &[u8]) {
    match decode(format, bytes) {
        Ok(records) => {
            assert_eq!(records.labels.len() * format.record_bytes(), bytes.len());
            assert_eq!(records.images.len(), records.labels.len() * SHAPE.numel());
            assert!(records.labels.iter().all(|&label| (label as usize) < format.classes()));
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let DecodeError::LabelOutOfRange { offset_bytes, value, .. } = error {
                assert_eq!(bytes[offset_bytes], value);
            }
        }
    }
}
