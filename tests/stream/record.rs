//! Records on the wire: the layout, and a decoder that survives any bytes.

use proptest::prelude::*;
use scadles::stream::record::{
    CHECKSUM_BYTES, Decoded, Decoder, EncodeError, HEADER_BYTES, Header, Poison, encode_end, encode_sample,
};

const PIXELS: usize = 4 * 3 * 3;

fn header(sequence: u64) -> Header {
    Header { height: 4, width: 3, channels: 3, label: 7, sequence, event_time_ns: 1_700_000_000_000_000_000 }
}

fn sample(sequence: u64) -> Vec<u8> {
    let pixels: Vec<u8> = (0..PIXELS).map(|i| (i as u64 * 5 + sequence) as u8).collect();
    let mut bytes = Vec::new();
    encode_sample(&header(sequence), &pixels, &mut bytes).unwrap();
    bytes
}

fn stream(count: u64) -> Vec<u8> {
    (0..count).flat_map(sample).collect()
}

/// Everything in `bytes`, given in pieces of `piece` bytes: sequences of the samples, and the poison.
fn decode(bytes: &[u8], piece: usize) -> (Vec<u64>, Vec<Poison>) {
    let (mut decoder, mut samples, mut poison) = (Decoder::new(PIXELS), Vec::new(), Vec::new());
    for part in bytes.chunks(piece) {
        decoder.space()[..part.len()].copy_from_slice(part);
        decoder.filled(part.len());
        loop {
            match decoder.next_record() {
                Decoded::Sample(found, pixels) => {
                    assert_eq!(found, header(found.sequence));
                    assert_eq!(pixels[1], (5 + found.sequence) as u8);
                    samples.push(found.sequence);
                }
                Decoded::End(count) => samples.push(u64::MAX - count),
                Decoded::Poison(reason) => poison.push(reason),
                Decoded::Incomplete => break,
            }
        }
        assert!(!decoder.space().is_empty());
    }
    poison.extend(decoder.finish());
    (samples, poison)
}

#[test]
fn the_layout_is_the_documented_one() {
    let bytes = sample(9);
    assert_eq!(bytes.len(), HEADER_BYTES + PIXELS + CHECKSUM_BYTES);
    assert_eq!(bytes[..12], [b'S', b'C', b'D', b'L', 1, 0, 4, 0, 3, 0, 3, 0]);
    assert_eq!(bytes[12..24], [7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[24..32], 1_700_000_000_000_000_000_u64.to_le_bytes());
    assert_eq!(bytes[32..36], [36, 0, 0, 0]);
    let checksum = crc32fast::hash(&bytes[..HEADER_BYTES + PIXELS]);
    assert_eq!(bytes[HEADER_BYTES + PIXELS..], checksum.to_le_bytes());
    let refused = encode_sample(&header(0), &[0; 5], &mut Vec::new());
    assert_eq!(refused, Err(EncodeError { pixels: 5, expected: 36 }));
}

#[test]
fn every_kind_of_poison_is_named_and_what_follows_is_read() {
    let damaged = |at: usize, value: u8| {
        let mut bytes = sample(1);
        bytes[at] = value;
        bytes
    };
    type Matches = fn(&Poison) -> bool;
    let cases: [(Vec<u8>, Matches); 6] = [
        (b"no record at all".to_vec(), |p| *p == Poison::Garbage),
        (damaged(4, 9), |p| *p == Poison::Version(9)),
        (damaged(5, 2), |p| *p == Poison::Kind(2)),
        (damaged(32, 37), |p| *p == Poison::Length { length: 37, pixels: 36 }),
        (damaged(40, 255), |p| matches!(p, Poison::Checksum { .. })),
        (sample(1)[..50].to_vec(), |p| matches!(p, Poison::Checksum { .. })),
    ];
    for (bad, expected) in cases {
        let mut bytes = sample(0);
        bytes.extend_from_slice(&bad);
        bytes.extend(sample(2));
        encode_end(2, &mut bytes);
        let (samples, poison) = decode(&bytes, 17);
        assert_eq!(samples, [0, 2, u64::MAX - 2], "{poison:?}");
        assert!(poison.len() == 1 && expected(&poison[0]), "{poison:?}");
    }
    let mut long = Vec::new();
    let wide = Header { height: 40, ..header(0) };
    encode_sample(&wide, &[1; 360], &mut long).unwrap();
    let (samples, poison) = decode(&[long, sample(3)].concat(), 64);
    assert_eq!((samples, poison), (vec![3], vec![Poison::TooLong { length: 360, max: PIXELS }]));
    let (samples, poison) = decode(&stream(2)[..100], 64);
    assert_eq!((samples, poison), (vec![0], vec![Poison::Truncated { held: 24 }]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), piece in 1..80_usize) {
        let (samples, _) = decode(&bytes, piece);
        prop_assert!(samples.is_empty());
        // A good record behind them is found.
        let (samples, _) = decode(&[bytes, sample(5)].concat(), piece);
        prop_assert_eq!(samples, [5]);
    }

    #[test]
    fn headers_with_a_magic_are_survived(tail in prop::collection::vec(any::<u8>(), 0..200), piece in 1..80_usize) {
        let bytes = [b"SCDL\x01\x00".as_slice(), &tail, &sample(5)].concat();
        let (samples, poison) = decode(&bytes, piece);
        prop_assert!(samples == [5] && !poison.is_empty(), "{:?} {:?}", samples, poison);
    }

    #[test]
    fn a_flipped_bit_costs_the_record_it_is_in(at in 0..5 * (40 + PIXELS), bit in 0..8_u32, piece in 1..200_usize) {
        let mut bytes = stream(5);
        bytes[at] ^= 1_u8 << bit;
        let (samples, poison) = decode(&bytes, piece);
        let hit = (at / (40 + PIXELS)) as u64;
        let others: Vec<u64> = (0..5).filter(|sequence| *sequence != hit).collect();
        prop_assert!(samples == others && !poison.is_empty(), "{:?} {:?}", samples, poison);
    }

    #[test]
    fn bytes_left_out_cost_the_records_they_are_in(from in 0..3 * 76_usize, count in 1..76_usize, piece in 1..200_usize) {
        let mut bytes = stream(6);
        bytes.drain(from..from + count);
        let (samples, _) = decode(&bytes, piece);
        let hit = (from / 76) as u64..=((from + count - 1) / 76) as u64;
        let others: Vec<u64> = (0..6).filter(|sequence| !hit.contains(sequence)).collect();
        prop_assert_eq!(samples, others);
    }
}
