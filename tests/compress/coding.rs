//! Payloads: round trips, sizes, and hostile bytes.

use crate::support::{Kind, vector};
use proptest::prelude::*;
use scadles::compress::BLOCK_LEN;
use scadles::compress::coding::{Coding, CodingError, HEADER_BYTES, Payload, decode_add, encode};
use scadles::train::config::{IndexCoding, ValueCoding};

const INDEX_CODINGS: [IndexCoding; 3] = [IndexCoding::Smallest, IndexCoding::Delta, IndexCoding::Bitmap];

fn encoded(numel: usize, indices: &[usize], values: &[f32], coding: Coding) -> Vec<u8> {
    let mut bytes = vec![0xee; 5];
    encode(numel, indices, values, coding, &mut bytes).unwrap();
    bytes
}

fn f32_with(indices: IndexCoding) -> Coding {
    Coding { values: ValueCoding::F32, indices }
}

/// Table bytes of one block, by the format's description.
fn varint_len(value: usize) -> usize {
    1 + usize::from(value >= 1 << 7) + usize::from(value >= 1 << 14)
}

fn expected_len(numel: usize, indices: &[usize], value_bytes: usize, coding: IndexCoding) -> usize {
    if indices.is_empty() {
        return HEADER_BYTES;
    }
    let mut bytes = HEADER_BYTES + value_bytes * indices.len();
    for block in 0..numel.div_ceil(BLOCK_LEN) {
        let len = (numel - block * BLOCK_LEN).min(BLOCK_LEN);
        let inside: Vec<usize> =
            indices.iter().filter(|&&i| i / BLOCK_LEN == block).map(|i| i % BLOCK_LEN).collect();
        let mut next = 0;
        let delta: usize = inside.iter().map(|&i| varint_len(i - std::mem::replace(&mut next, i + 1))).sum();
        let is_bitmap = match coding {
            IndexCoding::Smallest => !inside.is_empty() && len.div_ceil(8) < delta,
            IndexCoding::Delta => false,
            IndexCoding::Bitmap => !inside.is_empty(),
        };
        bytes += varint_len(2 * inside.len() + usize::from(is_bitmap));
        bytes += match (is_bitmap, inside.is_empty()) {
            (true, _) => len.div_ceil(8),
            (false, true) => 0,
            (false, false) => delta + varint_len(delta - inside.len()),
        };
    }
    bytes
}

fn elements() -> impl Strategy<Value = (usize, Vec<usize>)> {
    let numel = prop_oneof![1usize..300, Just(BLOCK_LEN), BLOCK_LEN + 1..3 * BLOCK_LEN];
    (numel, prop_oneof![Just(0.0f64), 0.0001f64..0.02, 0.02f64..1.0, Just(1.0)], any::<u64>()).prop_map(
        |(numel, density, seed)| {
            let chance = vector(Kind::Normal, numel, seed);
            let fraction = |x: f32| f64::from(x.to_bits() & 0xffff) / 65_536.0;
            (numel, (0..numel).filter(|&i| fraction(chance[i]) < density).collect())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_round_trip_is_exact_and_has_the_predicted_size(
        (numel, indices) in elements(),
        coding in prop::sample::select(&INDEX_CODINGS[..]),
    ) {
        let values = vector(Kind::Wide, indices.len(), 9);
        let bytes = encoded(numel, &indices, &values, f32_with(coding));
        prop_assert_eq!(bytes.len(), expected_len(numel, &indices, 4, coding));
        let payload = Payload::parse(&bytes).unwrap();
        prop_assert_eq!((payload.numel(), payload.num_kept()), (numel, indices.len()));
        let expected: Vec<(usize, f32)> = indices.iter().copied().zip(values.iter().copied()).collect();
        prop_assert!(payload.iter().eq(expected.iter().copied()));
        let mut sum = vec![0.0; numel];
        decode_add(&bytes, &mut sum).unwrap();
        let mut direct = vec![0.0; numel];
        expected.iter().for_each(|&(i, x)| direct[i] = x);
        prop_assert!(sum == direct);

        let half = Coding { values: ValueCoding::Bf16, indices: coding };
        let bytes = encoded(numel, &indices, &values, half);
        prop_assert_eq!(bytes.len(), expected_len(numel, &indices, 2, coding));
        for ((_, found), &sent) in Payload::parse(&bytes).unwrap().iter().zip(&values) {
            // 8 bits of precision; below the smallest normal number, half of the last place of a denormal bf16.
            prop_assert!((found - sent).abs() <= (sent.abs() / 256.0).max(f32::from_bits(1 << 15)), "{sent:e} {found:e}");
        }
    }

    #[test]
    fn bytes_cut_flipped_or_made_up_never_panic(
        (numel, indices) in elements(),
        coding in prop::sample::select(&INDEX_CODINGS[..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let values = vector(Kind::Normal, indices.len(), 9);
        let good = encoded(numel, &indices, &values, f32_with(coding));
        let mut bad = good.clone();
        edits.iter().for_each(|(at, byte)| bad[at.index(good.len())] = *byte);
        for bytes in [&bad[..], &noise] {
            let mut sum = vec![0.0; numel];
            if decode_add(bytes, &mut sum).is_err() {
                prop_assert!(sum.iter().all(|&x| x == 0.0), "a refused payload was added in part");
            }
        }
        let cut = edits[0].0.index(good.len());
        prop_assert!(Payload::parse(&good[..cut]).is_err());
        let mut long = good;
        long.extend(&noise);
        prop_assert_eq!(Payload::parse(&long).is_ok(), noise.is_empty());
    }
}

#[test]
fn the_smallest_coding_is_never_larger_and_depends_on_density() {
    for (density, delta_wins) in [(0.02, true), (0.5, false)] {
        let step = (1.0 / density) as usize;
        let indices: Vec<usize> = (0..100_000).step_by(step).collect();
        let values = vec![1.0; indices.len()];
        let [smallest, delta, bitmap] =
            INDEX_CODINGS.map(|coding| encoded(100_000, &indices, &values, f32_with(coding)).len());
        assert_eq!(delta < bitmap, delta_wins);
        assert!(smallest <= delta.min(bitmap));
    }
}

#[test]
fn an_empty_payload_is_its_header() {
    for coding in INDEX_CODINGS {
        let bytes = encoded(1 << 40, &[], &[], f32_with(coding));
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Payload::parse(&bytes).unwrap().num_kept(), 0);
    }
}

#[test]
fn each_kind_of_damage_has_its_name() {
    let good = encoded(10, &[2, 5], &[1.0, 2.0], f32_with(IndexCoding::Delta));
    // Header, table [4, 0], gaps [2, 2], two values.
    assert_eq!(good[HEADER_BYTES..HEADER_BYTES + 4], [4, 0, 2, 2]);
    let bitmap = encoded(10, &[2, 5], &[1.0, 2.0], f32_with(IndexCoding::Bitmap));
    assert_eq!(bitmap[HEADER_BYTES..HEADER_BYTES + 3], [5, 0b10_0100, 0]);
    let damaged = |bytes: &[u8], edits: &[(usize, u8)]| {
        let mut bytes = bytes.to_vec();
        edits.iter().for_each(|&(at, byte)| bytes[at] = byte);
        Payload::parse(&bytes).unwrap_err()
    };
    let (h, n) = (HEADER_BYTES, good.len());
    assert!(matches!(damaged(&good, &[(0, b'X')]), CodingError::Magic { .. }));
    assert_eq!(damaged(&good, &[(4, 2)]), CodingError::Version { found: 2, supported: 1 });
    assert_eq!(damaged(&good, &[(5, 9)]), CodingError::Header { offset: 5, found: 9 });
    assert_eq!(damaged(&good, &[(7, 1)]), CodingError::Header { offset: 7, found: 1 });
    assert!(matches!(damaged(&good, &[(16, 11)]), CodingError::Count { stated: 11, found: 10, .. }));
    assert!(matches!(damaged(&good, &[(16, 1)]), CodingError::Count { what: "table", stated: 1, found: 2 }));
    assert!(matches!(damaged(&good, &[(h, 22)]), CodingError::Count { stated: 11, found: 10, .. }));
    assert!(matches!(damaged(&good, &[(15, 0x7f)]), CodingError::Truncated { part: "table", .. }));
    assert_eq!(damaged(&good, &[(h + 3, 7)]), CodingError::IndexOutOfRange { block: 0, index: 10, len: 10 });
    assert!(matches!(damaged(&good, &[(h + 1, 5)]), CodingError::Varint { part: "table entry", block: 0 }));
    assert!(matches!(damaged(&good, &[(h + 3, 0x82)]), CodingError::Varint { part: "index list", block: 0 }));
    assert!(matches!(
        damaged(&good, &[(n - 1, 0x7f), (n - 2, 0x80)]),
        CodingError::NotFinite { index: 5, .. }
    ));
    assert!(matches!(damaged(&bitmap, &[(h + 1, 0b10_0000)]), CodingError::Count { what: "bitmap", .. }));
    assert_eq!(
        damaged(&bitmap, &[(h + 2, 0b1000)]),
        CodingError::IndexOutOfRange { block: 0, index: 11, len: 10 }
    );
    assert!(matches!(Payload::parse(&good[..h - 1]), Err(CodingError::Truncated { part: "header", .. })));
    assert!(matches!(Payload::parse(&good[..n - 1]), Err(CodingError::Truncated { part: "blocks", .. })));
    assert_eq!(
        Payload::parse(&[&good[..], &[0]].concat()).unwrap_err(),
        CodingError::TrailingBytes { extra: 1 }
    );
    assert_eq!(decode_add(&good, &mut [0.0; 9]), Err(CodingError::Length { payload: 10, found: 9 }));
}

#[test]
fn elements_that_cannot_be_encoded_are_refused() {
    let refused = |indices: &[usize], values: &[f32]| {
        encode(10, indices, values, Coding::default(), &mut Vec::new()).unwrap_err()
    };
    assert_eq!(refused(&[3, 3], &[1.0, 1.0]), CodingError::NotAscending { previous: 3, index: 3 });
    assert_eq!(refused(&[3, 10], &[1.0, 1.0]), CodingError::IndexOutOfRange { block: 0, index: 10, len: 10 });
    assert!(matches!(refused(&[3], &[1.0, 1.0]), CodingError::Count { stated: 1, found: 2, .. }));
    assert!(matches!(refused(&[3, 4], &[1.0, f32::NAN]), CodingError::NotFinite { index: 4, .. }));
}
