//! Models of the ring's protocol, run by loom in every interleaving that its memory model allows:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test ring_loom --target-dir target/loom
//! ```
//!
//! loom also checks that each slot access happens after the last one of the other side, and that nothing leaks.
#![cfg(loom)]

use loom::thread;
use scadles::stream::ring::{Consumer, Producer, PushError, SampleMeta, ring};

const PIXEL_BYTES: usize = 2;

fn meta(i: u64) -> SampleMeta {
    SampleMeta { label: i as u32 + 100, offset: i, arrival_ns: i * 10 }
}

/// Pushes sample `i`; whether there was room.
fn push(producer: &mut Producer, i: u64) -> bool {
    match producer.push(&[i as u8; PIXEL_BYTES], meta(i)) {
        Ok(()) => true,
        Err(PushError::Full { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Takes at most `max` samples and checks that they are `next..`; returns the number after the last.
fn take(consumer: &mut Consumer, max: usize, mut next: u64) -> u64 {
    let chunk = consumer.read_chunk(max);
    for (pixels, found) in chunk.iter() {
        assert_eq!((pixels, found), (&[next as u8; PIXEL_BYTES][..], meta(next)));
        next += 1;
    }
    chunk.commit_all();
    next
}

#[test]
fn what_is_pushed_is_read_once_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2, PIXEL_BYTES).unwrap();
        let feeder = thread::spawn(move || {
            let mut next = 0;
            for _ in 0..4 {
                next += u64::from(push(&mut producer, next));
            }
            (producer, next)
        });
        let mut next = 0;
        for max in [1, 2] {
            next = take(&mut consumer, max, next);
        }
        let (producer, pushed) = feeder.join().unwrap();
        assert!(pushed >= 2);
        next = take(&mut consumer, 2, next);
        assert_eq!(next, pushed);
        let counters = producer.counters();
        assert_eq!(counters, consumer.counters());
        assert_eq!((counters.pushed, counters.popped, counters.rejected), (pushed, pushed, 4 - pushed));
    });
}

#[test]
fn slots_written_in_place_are_seen_whole_and_uncommitted_ones_never() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(1, PIXEL_BYTES).unwrap();
        let feeder = thread::spawn(move || {
            let mut next = 0;
            for commit in [true, false, true] {
                if let Some(mut slot) = producer.write_slot() {
                    slot.pixels_mut().fill(if commit { next as u8 } else { 255 });
                    if commit {
                        slot.commit(meta(next));
                        next += 1;
                    }
                }
            }
            next
        });
        // A chunk dropped without a commit stays.
        let seen = consumer.read_chunk(1).len();
        assert!(consumer.len() >= seen);
        let mut next = take(&mut consumer, 1, 0);
        let pushed = feeder.join().unwrap();
        next = take(&mut consumer, 1, next);
        assert_eq!(next, pushed);
    });
}

#[test]
fn an_abandoned_ring_still_gives_every_sample() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2, PIXEL_BYTES).unwrap();
        let feeder = thread::spawn(move || {
            push(&mut producer, 0);
            push(&mut producer, 1);
        });
        if consumer.is_abandoned() {
            assert_eq!(consumer.slots(), 2, "the number is final after the producer is gone");
        }
        let next = take(&mut consumer, 2, 0);
        feeder.join().unwrap();
        assert!(consumer.is_abandoned());
        assert_eq!(take(&mut consumer, 2, next), 2);
    });
}

#[test]
fn a_producer_without_consumer_is_told_and_frees_the_ring() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2, PIXEL_BYTES).unwrap();
        let reader = thread::spawn(move || take(&mut consumer, 1, 0));
        let first = producer.push(&[0; PIXEL_BYTES], meta(0));
        assert!(matches!(first, Ok(()) | Err(PushError::Abandoned)));
        reader.join().unwrap();
        assert!(producer.is_abandoned());
        assert_eq!(producer.push(&[0; PIXEL_BYTES], meta(0)), Err(PushError::Abandoned));
    });
}

#[test]
fn discarding_leaves_the_newest_and_counts_the_rest() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2, PIXEL_BYTES).unwrap();
        push(&mut producer, 0);
        let feeder = thread::spawn(move || {
            let mut next = 1;
            for _ in 0..3 {
                next += u64::from(push(&mut producer, next));
            }
            next
        });
        let dropped = consumer.discard_all_but(1) as u64;
        assert!(dropped <= 1);
        let next = take(&mut consumer, 1, dropped);
        assert_eq!(next, dropped + 1);
        let pushed = feeder.join().unwrap();
        let held = consumer.len() as u64;
        let counters = consumer.counters();
        assert_eq!((counters.pushed, counters.discarded, counters.popped), (pushed, dropped, 1));
        assert_eq!(counters.pushed, counters.popped + counters.discarded + held);
        assert_eq!(take(&mut consumer, 2, next), pushed);
    });
}
