//! Any bytes: the payload decoder answers with elements or an error, never with a panic, and both ways of reading a
//! valid payload agree. Encoding its elements anew gives them back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scadles::compress::coding::{Coding, Payload, encode};
use scadles::train::config::{IndexCoding, ValueCoding};

/// Vectors longer than this are parsed but not allocated.
const LARGEST_VECTOR: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(payload) = Payload::parse(bytes) else { return };
    let (indices, values): (Vec<usize>, Vec<f32>) = payload.iter().unzip();
    assert_eq!(indices.len(), payload.num_kept());
    assert!(values.iter().all(|value| value.is_finite()));
    if payload.numel() > LARGEST_VECTOR {
        return;
    }
    let (mut added, mut direct) = (vec![0.0; payload.numel()], vec![0.0; payload.numel()]);
    payload.add_to(&mut added).expect("the vector has the payload's length");
    indices.iter().zip(&values).for_each(|(&index, &value)| direct[index] += value);
    assert_eq!(added, direct);

    let coding = Coding {
        values: if bytes[5] == 1 { ValueCoding::Bf16 } else { ValueCoding::F32 },
        indices: IndexCoding::Smallest,
    };
    let mut again = Vec::new();
    encode(payload.numel(), &indices, &values, coding, &mut again).expect("decoded elements can be encoded");
    let again_elements: Vec<(usize, f32)> = Payload::parse(&again).expect("valid").iter().collect();
    assert!(payload.iter().eq(again_elements));
});
