//! `kernels/coding.cu`: payloads from elsewhere through [`CudaCompressors::decode_add`], against
//! [`scadles::compress::coding::decode_add`].

use crate::support::{Vector, assert_same_bits, device_or_skip, normal};
use scadles::compress::coding::{Coding, decode_add, encode};
use scadles::compress::cuda::CudaCompressors;
use scadles::compress::{BLOCK_LEN, Plan};
use scadles::device::cuda::CudaDevice;
use scadles::rng::{Philox, Stream};
use scadles::train::config::{IndexCoding, TopKConfig, ValueCoding};
use std::sync::Arc;

fn receiver(device: &Arc<CudaDevice>, numel: usize) -> CudaCompressors {
    let plan = Arc::new(Plan::new(numel, &[], TopKConfig::default().scope).unwrap());
    CudaCompressors::new(Arc::clone(device), plan, &TopKConfig::default(), 1).unwrap()
}

/// Ascending indices, each of `numel` with the given probability in 1000.
fn indices(numel: usize, per_mille: u32, seed: u64) -> Vec<usize> {
    let mut rng = Philox::new(seed, Stream::Init, 3);
    (0..numel).filter(|_| rng.below(1000) < per_mille).collect()
}

fn values(len: usize, coding: ValueCoding) -> Vec<f32> {
    let round = |x: &f32| match coding {
        ValueCoding::F32 => *x,
        ValueCoding::Bf16 => half::bf16::from_f32(*x).to_f32(),
    };
    normal(len, 4).iter().map(round).collect()
}

const CODINGS: [(ValueCoding, IndexCoding); 4] = [
    (ValueCoding::F32, IndexCoding::Delta),
    (ValueCoding::Bf16, IndexCoding::Delta),
    (ValueCoding::F32, IndexCoding::Bitmap),
    (ValueCoding::Bf16, IndexCoding::Smallest),
];

/// Adds on both and compares sum and error.
fn check(device: &Arc<CudaDevice>, gpu: &mut CudaCompressors, bytes: &[u8], numel: usize, what: &str) {
    let start: Vec<f32> = (0..numel).map(|i| (i % 13) as f32 - 6.5).collect();
    let mut expected = start.clone();
    let expected_result = decode_add(bytes, &mut expected).map_err(|error| error.to_string());
    let mut sum = Vector::new(device, &start);
    let result = gpu.decode_add(bytes, sum.view_mut()).map_err(|error| error.to_string());
    assert_eq!(result, expected_result, "{what}");
    assert_same_bits(&sum.read(), &expected, what);
}

#[test]
fn payloads_are_added_as_on_the_cpu() {
    let Some(device) = device_or_skip("payloads_are_added_as_on_the_cpu").map(Arc::new) else { return };
    for numel in [1, 7, 8, 9, 2_047, 2_050, 40_000, BLOCK_LEN, BLOCK_LEN + 1, 2 * BLOCK_LEN + 300] {
        let mut gpu = receiver(&device, numel);
        for per_mille in [0, 1, 30, 400, 1000] {
            for (values_as, indices_as) in CODINGS {
                let at = indices(numel, per_mille, 9);
                let coding = Coding { values: values_as, indices: indices_as };
                let mut bytes = Vec::new();
                encode(numel, &at, &values(at.len(), values_as), coding, &mut bytes).unwrap();
                check(
                    &device,
                    &mut gpu,
                    &bytes,
                    numel,
                    &format!("{numel} elements, {per_mille} ‰, {coding:?}"),
                );
            }
        }
    }
    // Gaps of one, two and three bytes on both sides of each limit, and the ends of a block.
    let numel = 2 * BLOCK_LEN;
    let mut at = vec![0];
    for gap in [1, 127, 128, 129, 16_383, 16_384, 16_385, 1, 1] {
        at.push(at.last().unwrap() + gap);
    }
    at.extend([BLOCK_LEN - 1, BLOCK_LEN, 2 * BLOCK_LEN - 1]);
    let coding = Coding { values: ValueCoding::F32, indices: IndexCoding::Delta };
    let mut bytes = Vec::new();
    encode(numel, &at, &values(at.len(), ValueCoding::F32), coding, &mut bytes).unwrap();
    check(&device, &mut receiver(&device, numel), &bytes, numel, "gaps at their limits");
}

#[test]
fn corrupted_payloads_are_refused_with_the_error_of_the_cpu_and_nothing_is_added() {
    let test = "corrupted_payloads_are_refused_with_the_error_of_the_cpu_and_nothing_is_added";
    let Some(device) = device_or_skip(test).map(Arc::new) else { return };
    let numel = BLOCK_LEN + 3_001; // the last bitmap has bits to spare
    let mut gpu = receiver(&device, numel);
    for (values_as, indices_as) in CODINGS {
        let at = indices(numel, 5, 8);
        let coding = Coding { values: values_as, indices: indices_as };
        let mut bytes = Vec::new();
        encode(numel, &at, &values(at.len(), values_as), coding, &mut bytes).unwrap();
        let mut rng = Philox::new(1, Stream::Init, 2);
        for case in 0..40 {
            let mut bad = bytes.clone();
            // In the front, in the first indices, or anywhere.
            let reach = [40, 700, bad.len()][case % 3].min(bad.len());
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(reach as u32) as usize;
                bad[at] = [bad[at] ^ (1 << rng.below(8)), 0xff, 0x80, 0][rng.below(4) as usize];
            }
            match rng.below(6) {
                0 => bad.truncate(rng.below(bad.len() as u32) as usize),
                1 => bad.push(0),
                _ => {}
            }
            check(&device, &mut gpu, &bad, numel, &format!("case {case} of {coding:?}"));
        }
        check(&device, &mut gpu, &bytes, numel, "untouched, after all those");
    }
}

/// A payload of one block by hand.
fn by_hand(numel: u64, kept: u64, table: &[u8], body: &[u8]) -> Vec<u8> {
    [b"SDLP\x01\0\0\0", &numel.to_le_bytes()[..], &kept.to_le_bytes(), table, body].concat()
}

#[test]
fn every_rule_of_the_format_is_checked() {
    let Some(device) = device_or_skip("every_rule_of_the_format_is_checked").map(Arc::new) else { return };
    let (numel, one) = (1_000, 1.0f32.to_le_bytes());
    let mut gpu = receiver(&device, numel);
    let two = [one, one].concat();
    let body = |indices: &[u8], values: &[u8]| [indices, values].concat();
    let bitmap = |ones: &[usize]| {
        let mut bytes = vec![0u8; 125];
        ones.iter().for_each(|&i| bytes[i / 8] |= 1 << (i % 8));
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("two gaps", by_hand(1000, 2, &[4, 1], &body(&[5, 0x80, 1], &two)), true),
        ("a varint with a zero at its end", by_hand(1000, 2, &[4, 1], &body(&[5, 0x80, 0], &two)), false),
        ("a varint cut off", by_hand(1000, 2, &[4, 1], &body(&[5, 6, 0x80], &two)), false),
        ("one varint for two", by_hand(1000, 2, &[4, 1], &body(&[0x85, 0x81, 0x01], &two)), false),
        (
            "a varint of three bytes that end in another",
            by_hand(1000, 1, &[2, 2], &body(&[0x80, 0x80, 0x80], &one)),
            false,
        ),
        (
            "a varint of four bytes",
            by_hand(1000, 2, &[4, 4], &body(&[0, 0x80, 0x80, 0x80, 0x80, 1], &two)),
            false,
        ),
        ("three varints for two", by_hand(1000, 2, &[4, 1], &body(&[5, 6, 7], &two)), false),
        ("an index at the end", by_hand(1000, 1, &[2, 1], &body(&[0xe7, 7], &one)), true),
        ("an index beyond the end", by_hand(1000, 1, &[2, 1], &body(&[0xe8, 7], &one)), false),
        ("the second beyond the end", by_hand(1000, 2, &[4, 1], &body(&[0xe7, 7, 0], &two)), false),
        ("a bitmap", by_hand(1000, 2, &[5], &body(&bitmap(&[0, 999]), &two)), true),
        ("a bit too few", by_hand(1000, 2, &[5], &body(&bitmap(&[3]), &two)), false),
        ("a bit too many", by_hand(1000, 2, &[5], &body(&bitmap(&[3, 4, 5]), &two)), false),
        (
            "an infinite value",
            by_hand(1000, 2, &[4, 0], &body(&[5, 6], &[one, f32::INFINITY.to_le_bytes()].concat())),
            false,
        ),
        ("NaN", by_hand(1000, 2, &[4, 0], &body(&[5, 6], &[f32::NAN.to_le_bytes(), one].concat())), false),
        ("another length", by_hand(999, 1, &[2, 0], &body(&[5], &one)), false),
        ("another length and an index outside", by_hand(3, 1, &[2, 0], &body(&[5], &one)), false),
        ("a header alone", by_hand(1000, 0, &[], &[]), true),
        ("no header", vec![1, 2, 3], false),
    ];
    for (name, bytes, is_valid) in cases {
        assert_eq!(decode_add(&bytes, &mut vec![0.0; numel]).is_ok(), is_valid, "{name}: the CPU disagrees");
        check(&device, &mut gpu, &bytes, numel, name);
    }
    // Four bytes whose last three alone would be an index inside.
    let bytes = by_hand(40_000, 2, &[4, 3], &body(&[5, 0x80, 0x80, 0x80, 1], &two));
    check(&device, &mut receiver(&device, 40_000), &bytes, 40_000, "a varint of four bytes that fits");
    // A bit beyond the end of a block that does not end with a byte.
    let mut gpu = receiver(&device, 1_003);
    let mut bits = bitmap(&[4, 5]);
    bits.push(0b1000);
    let bytes = by_hand(1_003, 3, &[7], &body(&bits, &[&two[..], &one].concat()));
    check(&device, &mut gpu, &bytes, 1_003, "a bit beyond the end");
}
