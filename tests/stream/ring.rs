//! The ring on real threads and against a queue.

use proptest::prelude::*;
use scadles::stream::ring::{PushError, RingError, SampleMeta, ring};
use std::collections::VecDeque;

const PIXEL_BYTES: usize = 3072;

/// Pixels that only sample `i` has.
fn fill(pixels: &mut [u8], i: u64) {
    let mut word = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in pixels.chunks_mut(8) {
        word = word.wrapping_mul(0xd129_0a5b_3c72_9a65).wrapping_add(i);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

fn meta(i: u64, pixels: &[u8]) -> SampleMeta {
    SampleMeta { label: crc32fast::hash(pixels), offset: i, arrival_ns: !i }
}

#[test]
fn two_threads_move_every_sample_unharmed() {
    const SAMPLES: u64 = 300_000;
    let (mut producer, mut consumer) = ring(61, PIXEL_BYTES).unwrap();
    let feeder = std::thread::spawn(move || {
        let mut pixels = vec![0; PIXEL_BYTES];
        let mut i = 0;
        while i < SAMPLES {
            fill(&mut pixels, i);
            // Both ways of writing.
            let pushed = if i % 3 == 0 {
                producer.write_slot().map(|mut slot| {
                    slot.pixels_mut().copy_from_slice(&pixels);
                    slot.commit(meta(i, &pixels));
                })
            } else {
                producer.push(&pixels, meta(i, &pixels)).ok()
            };
            match pushed {
                Some(()) => i += 1,
                None => std::thread::yield_now(),
            }
        }
        producer.counters()
    });
    let (mut next, mut chunks) = (0, 0u64);
    while next < SAMPLES {
        let chunk = consumer.read_chunk(1 + (chunks % 80) as usize);
        let wanted = chunk.len() - chunk.len() / 4;
        for (pixels, found) in chunk.iter().take(wanted) {
            assert_eq!(found, meta(next, pixels), "sample {next} is torn or out of order");
            next += 1;
        }
        if wanted == 0 {
            std::thread::yield_now();
        }
        chunk.commit(wanted);
        chunks += 1;
    }
    let counters = feeder.join().unwrap();
    assert_eq!((counters.pushed, counters.discarded), (SAMPLES, 0));
    assert_eq!(consumer.counters().popped, SAMPLES);
    assert!(consumer.is_abandoned() && consumer.is_empty());
}

#[test]
fn discarding_while_pushing_loses_nothing_uncounted() {
    const SAMPLES: u64 = 100_000;
    let (mut producer, mut consumer) = ring(32, 64).unwrap();
    let feeder = std::thread::spawn(move || {
        let mut pixels = [0; 64];
        for i in 0..SAMPLES {
            fill(&mut pixels, i);
            while producer.push(&pixels, meta(i, &pixels)).is_err() {
                std::thread::yield_now();
            }
        }
    });
    // Full at first, so that something is discarded however the threads are scheduled.
    while consumer.slots() < 32 {
        std::thread::yield_now();
    }
    let mut next = 0;
    loop {
        let last = consumer.is_abandoned();
        let chunk = consumer.read_chunk(3);
        let taken = chunk.len();
        for (pixels, found) in chunk.iter() {
            assert_eq!(found, meta(next, pixels));
            next += 1;
        }
        chunk.commit_all();
        next += consumer.discard_all_but(5) as u64;
        if last && taken == 0 {
            break;
        }
    }
    feeder.join().unwrap();
    let counters = consumer.counters();
    assert_eq!(next, SAMPLES);
    assert_eq!(counters.popped + counters.discarded, SAMPLES);
    assert!(counters.discarded > 0);
}

#[test]
fn either_half_may_go_first() {
    let (mut producer, consumer) = ring(2, 4).unwrap();
    producer.push(&[1; 4], SampleMeta::default()).unwrap();
    assert!(!producer.is_abandoned() && !consumer.is_abandoned());
    drop(consumer);
    assert!(producer.is_abandoned());
    assert_eq!(producer.push(&[1; 4], SampleMeta::default()), Err(PushError::Abandoned));

    let (mut producer, mut consumer) = ring(2, 4).unwrap();
    producer.push(&[7; 4], SampleMeta { label: 9, ..Default::default() }).unwrap();
    drop(producer);
    assert!(consumer.is_abandoned());
    assert_eq!(consumer.slots(), 1);
    let chunk = consumer.pop_chunk(1).unwrap();
    assert_eq!(chunk.iter().map(|(pixels, meta)| (pixels[0], meta.label)).collect::<Vec<_>>(), [(7, 9)]);
}

#[test]
fn wrong_sizes_are_errors() {
    assert!(matches!(ring(0, 4), Err(RingError::Empty { capacity: 0, .. })));
    assert!(matches!(ring(4, 0), Err(RingError::Empty { pixel_bytes: 0, .. })));
    assert!(matches!(ring(usize::MAX, 2), Err(RingError::OutOfMemory { .. })));
    assert!(matches!(ring(1 << 50, 3072), Err(RingError::OutOfMemory { .. })));
    let (mut producer, _consumer) = ring(1, 4).unwrap();
    assert_eq!(
        producer.push(&[0; 5], SampleMeta::default()),
        Err(PushError::PixelBytes { expected: 4, found: 5 })
    );
    producer.push(&[0; 4], SampleMeta::default()).unwrap();
    assert_eq!(producer.push(&[0; 4], SampleMeta::default()), Err(PushError::Full { capacity: 1 }));
    assert_eq!(producer.counters().rejected, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    WriteInPlace { commit: bool },
    Read { max: usize, commit: usize },
    PopExactly(usize),
    KeepNewest(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        1 => any::<bool>().prop_map(|commit| Step::WriteInPlace { commit }),
        1 => (0..6usize, 0..6usize).prop_map(|(max, commit)| Step::Read { max, commit }),
        1 => (0..4usize).prop_map(Step::PopExactly),
        1 => (0..6usize).prop_map(Step::KeepNewest),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_bounded_queue(
        capacity in 1..6usize,
        pixel_bytes in 1..5usize,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let (mut producer, mut consumer) = ring(capacity, pixel_bytes).unwrap();
        let mut model: VecDeque<u64> = VecDeque::new();
        let (mut next, mut popped, mut discarded, mut rejected) = (0u64, 0u64, 0u64, 0u64);
        let pixels_of = |i: u64| {
            let mut pixels = vec![0; pixel_bytes];
            fill(&mut pixels, i);
            pixels
        };
        for step in steps {
            match step {
                Step::Push => {
                    let pixels = pixels_of(next);
                    let result = producer.push(&pixels, meta(next, &pixels));
                    prop_assert_eq!(result.is_ok(), model.len() < capacity);
                    if result.is_ok() {
                        model.push_back(next);
                        next += 1;
                    } else {
                        rejected += 1;
                    }
                }
                Step::WriteInPlace { commit } => {
                    let pixels = pixels_of(next);
                    let slot = producer.write_slot();
                    prop_assert_eq!(slot.is_some(), model.len() < capacity);
                    if let Some(mut slot) = slot {
                        slot.pixels_mut().copy_from_slice(&pixels);
                        if commit {
                            slot.commit(meta(next, &pixels));
                            model.push_back(next);
                            next += 1;
                        }
                    }
                }
                Step::Read { max, commit } => {
                    let chunk = consumer.read_chunk(max);
                    prop_assert_eq!(chunk.len(), model.len().min(max));
                    let (first, second) = chunk.pixel_runs();
                    let runs: Vec<u8> = [first, second].concat();
                    let mut joined = Vec::new();
                    for ((pixels, found), &expected) in chunk.iter().zip(&model) {
                        prop_assert_eq!(pixels, pixels_of(expected));
                        prop_assert_eq!(found, meta(expected, pixels));
                        joined.extend_from_slice(pixels);
                    }
                    prop_assert_eq!(runs, joined);
                    let count = commit.min(chunk.len());
                    if commit > 0 {
                        chunk.commit(commit);
                    }
                    model.drain(..count);
                    popped += count as u64;
                }
                Step::PopExactly(n) => {
                    let enough = model.len() >= n;
                    match consumer.pop_chunk(n) {
                        Some(chunk) => {
                            prop_assert!(enough);
                            prop_assert!(chunk.iter().map(|(_, meta)| meta.offset).eq(model.drain(..n)));
                            chunk.commit_all();
                            popped += n as u64;
                        }
                        None => prop_assert!(!enough),
                    }
                }
                Step::KeepNewest(newest) => {
                    let dropped = model.len().saturating_sub(newest);
                    prop_assert_eq!(consumer.discard_all_but(newest), dropped);
                    model.drain(..dropped);
                    discarded += dropped as u64;
                }
            }
            prop_assert_eq!((consumer.len(), producer.len()), (model.len(), model.len()));
            prop_assert_eq!(producer.slots(), capacity - model.len());
        }
        let counters = producer.counters();
        prop_assert_eq!(
            (counters.pushed, counters.popped, counters.discarded, counters.rejected),
            (next, popped, discarded, rejected)
        );
    }
}
