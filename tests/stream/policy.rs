//! Buffer policies: conservation, order, caps, uniformity.

use proptest::prelude::*;
use scadles::stream::policy::{BufferError, Item, Policy, PolicyBuffer};

/// A number that stands for `bytes` bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    pub value: u64,
    pub bytes: u64,
}

impl Item for Number {
    fn stored_bytes(&self) -> u64 {
        self.bytes
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.value.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (value, bytes) = bytes.split_first_chunk()?;
        let value = u64::from_le_bytes(*value);
        Some(Self { value, bytes: u64::from_le_bytes(bytes.try_into().ok()?) })
    }
}

pub fn push(buffer: &mut PolicyBuffer<Number>, value: u64, bytes: u64) {
    buffer.push(Number { value, bytes }).map_err(|refused| refused.error).unwrap();
}

pub fn take(buffer: &mut PolicyBuffer<Number>, n: usize) -> Vec<u64> {
    let mut values = Vec::new();
    let count = buffer.take(n, &mut |item| values.push(item.value)).unwrap();
    assert_eq!(count, values.len());
    values
}

pub const PERSISTENCE: Policy = Policy::Persistence { spill_dir: None };

#[test]
fn truncation_keeps_the_newest_and_respects_the_cap() {
    let mut buffer = PolicyBuffer::new(1000, Policy::Truncation).unwrap();
    (0..25).for_each(|i| push(&mut buffer, i, 100));
    assert_eq!((buffer.held(), buffer.counters().dropped), (10, 15));
    assert_eq!(take(&mut buffer, 2), [15, 16]);
    buffer.after_step(3);
    assert_eq!(take(&mut buffer, 9), [22, 23, 24]);
    buffer.after_step(0);
    let counters = buffer.counters();
    assert_eq!((counters.arrived, counters.taken, counters.dropped, counters.memory_bytes), (25, 5, 20, 0));
}

#[test]
fn one_item_over_the_cap_comes_back_with_an_error() {
    for policy in [PERSISTENCE, Policy::Truncation, Policy::Reservoir { keep: 4, seed: 1, device: 0 }] {
        let mut buffer = PolicyBuffer::new(99, policy).unwrap();
        push(&mut buffer, 1, 99);
        let refused = buffer.push(Number { value: 7, bytes: 100 }).unwrap_err();
        assert_eq!(refused.item.value, 7);
        assert!(matches!(refused.error, BufferError::CapTooSmall { item_bytes: 100, cap_bytes: 99 }));
        assert!(refused.error.to_string().contains("memory-cap-mib"), "{}", refused.error);
        assert_eq!((buffer.counters().arrived, take(&mut buffer, 9)), (1, vec![1]));
    }
}

#[test]
fn after_step_leaves_persistence_and_reservoir_alone() {
    for policy in [PERSISTENCE, Policy::Reservoir { keep: 9, seed: 1, device: 0 }] {
        let mut buffer = PolicyBuffer::new(500, policy).unwrap();
        (0..5).for_each(|i| push(&mut buffer, i, 100));
        buffer.after_step(1);
        assert_eq!((buffer.held(), buffer.counters().dropped), (5, 0));
    }
}

/// How often each of `candidates` items is found in the reservoir after `scenario`, over many seeds; the worst deviation
/// in standard deviations from `expected`.
fn worst_deviation(
    candidates: usize,
    expected: f64,
    scenario: impl Fn(&mut PolicyBuffer<Number>) -> Vec<u64>,
) -> f64 {
    const SEEDS: u64 = 20_000;
    let mut counts = vec![0u32; candidates];
    for seed in 0..SEEDS {
        let policy = Policy::Reservoir { keep: 8, seed, device: 3 };
        let mut buffer = PolicyBuffer::new(1 << 20, policy).unwrap();
        scenario(&mut buffer).into_iter().for_each(|value| counts[value as usize] += 1);
    }
    let std_dev = (SEEDS as f64 * expected * (1.0 - expected)).sqrt();
    counts.iter().map(|n| (f64::from(*n) - SEEDS as f64 * expected).abs() / std_dev).fold(0.0, f64::max)
}

#[test]
fn the_reservoir_is_a_uniform_subset_of_what_arrived() {
    // 4.5 standard deviations: 2e-4 for the worst of 30 counts by chance; the seeds are fixed.
    let held = worst_deviation(30, 8.0 / 30.0, |buffer| {
        (0..30).for_each(|i| push(buffer, i, 10));
        take(buffer, 8)
    });
    assert!(held < 4.5, "{held}");
}

#[test]
fn the_reservoir_hands_out_and_keeps_without_regard_to_age() {
    let scenario = |taken_part: bool| {
        move |buffer: &mut PolicyBuffer<Number>| {
            (0..30).for_each(|i| push(buffer, i, 10));
            let taken = take(buffer, 3);
            if taken_part { taken } else { take(buffer, 5) }
        }
    };
    let taken = worst_deviation(30, 3.0 / 30.0, scenario(true));
    let kept = worst_deviation(30, 5.0 / 30.0, scenario(false));
    assert!(taken < 4.5 && kept < 4.5, "taken {taken}, kept {kept}");
}

#[test]
fn after_a_take_survivors_and_newcomers_are_equal() {
    // 5 survivors and 15 newcomers: each of the 20 is held with probability 8/20, so 6 of the 8 are newcomers.
    let deviation = worst_deviation(15, 8.0 / 20.0, |buffer| {
        (100..130).for_each(|i| push(buffer, i, 10));
        take(buffer, 3);
        (0..15).for_each(|i| push(buffer, i, 10));
        let held = take(buffer, 9);
        assert_eq!(held.len(), 8);
        held.into_iter().filter(|value| *value < 100).collect()
    });
    assert!(deviation < 4.5, "{deviation}");
}

#[test]
fn the_reservoir_repeats_with_its_seed_and_shrinks_to_its_cap() {
    let run = |seed, cap| {
        let mut buffer = PolicyBuffer::new(cap, Policy::Reservoir { keep: 8, seed, device: 0 }).unwrap();
        (0..100).for_each(|i| push(&mut buffer, i, 10));
        assert!(buffer.counters().memory_bytes <= cap);
        take(&mut buffer, 100)
    };
    assert_eq!(run(1, 1000), run(1, 1000));
    assert_ne!(run(1, 1000), run(2, 1000));
    assert_eq!(run(1, 50).len(), 5);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Take(usize),
    Truncate(usize),
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(PERSISTENCE),
        Just(Policy::Truncation),
        (1..12usize, any::<u64>()).prop_map(|(keep, seed)| Policy::Reservoir { keep, seed, device: 1 }),
    ]
}

proptest! {
    #[test]
    fn every_item_is_taken_dropped_or_held(
        policy in policy(),
        cap in 40..600u64,
        steps in proptest::collection::vec(prop_oneof![
            6 => (1..60u64).prop_map(Step::Push),
            1 => (0..15usize).prop_map(Step::Take),
            1 => (0..15usize).prop_map(Step::Truncate),
        ], 0..150),
    ) {
        let ordered = !matches!(policy, Policy::Reservoir { .. });
        let lossless = policy == PERSISTENCE;
        let mut buffer = PolicyBuffer::new(cap, policy).unwrap();
        let (mut next, mut given) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Push(bytes) => match buffer.push(Number { value: next, bytes }) {
                    Ok(()) => next += 1,
                    Err(refused) => prop_assert!(bytes > cap, "{}", refused.error),
                },
                Step::Take(n) => {
                    let held = buffer.held();
                    let taken = take(&mut buffer, n);
                    prop_assert_eq!(taken.len(), n.min(held));
                    given.extend(taken);
                }
                Step::Truncate(keep) => buffer.after_step(keep),
            }
            let c = buffer.counters();
            prop_assert!(c.memory_bytes <= cap, "{:?}", c);
            prop_assert_eq!(c.occupancy_samples, buffer.held() as u64);
            prop_assert_eq!((c.arrived, c.taken), (next, given.len() as u64));
            prop_assert_eq!(c.arrived, c.taken + c.dropped + c.occupancy_samples);
            prop_assert!(c.occupancy_bytes >= c.memory_bytes);
            prop_assert!(!lossless || c.dropped == 0);
        }
        given.extend(take(&mut buffer, usize::MAX));
        prop_assert_eq!(buffer.counters().occupancy_bytes, 0);
        prop_assert!(!ordered || given.is_sorted_by(|a, b| a < b));
        if lossless {
            prop_assert!(given.iter().copied().eq(0..next));
        }
        given.sort_unstable();
        given.dedup();
        prop_assert_eq!(given.len() as u64, buffer.counters().taken);
    }
}
