//! Streams in computed time.

use super::support::{Numbered, buffer, check_counters, constant_source, model, take, virtual_stream};
use scadles::stream::policy::{BufferError, queue_growth, queue_growth_fast_stream};
use scadles::stream::ring::SampleMeta;
use scadles::stream::source::{Poll, ReplaySource, SampleSlot, Source, SourceError};
use scadles::stream::{DeviceStream, StreamError, VirtualStream};
use scadles::train::config::{ArrivalConfig, BufferConfig, BufferPolicy};
use std::io::Write;
use std::time::Duration;

const SAMPLE_BYTES: u64 = 3072 + 24;
const NEVER: Duration = Duration::MAX;

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

/// Lengths of `steps` steps of a device that waits for `batch`, then computes for `compute`.
fn step_times(stream: &mut VirtualStream, batch: usize, compute: Duration, steps: usize) -> Vec<Duration> {
    let mut now = Duration::ZERO;
    (0..steps)
        .map(|_| {
            let begin = now;
            let ready = stream.wait_for(batch, now, NEVER).unwrap();
            assert_eq!(take(stream, batch).len(), batch);
            now = ready + compute;
            stream.after_step(now).unwrap();
            now - begin
        })
        .collect()
}

#[test]
fn ddl_steps_take_the_longer_of_compute_and_arrival() {
    // 64 samples at 12/s: the paper's 5.33 s; arrival goes on during compute.
    for compute_s in [1.2, 5.0, 5.5, 9.0f64] {
        let mut stream = virtual_stream(12.0, &buffer(BufferPolicy::Persistence, 0));
        let times = step_times(&mut stream, 64, secs(compute_s), 30);
        let expected = compute_s.max(64.0 / 12.0);
        // The first step finds an empty buffer.
        assert!((times[0].as_secs_f64() - compute_s - 64.0 / 12.0).abs() < 2e-9);
        for (step, time) in times.iter().enumerate().skip(1) {
            // Arrival times are whole nanoseconds, so a difference of two may be off by one.
            let error_ns = (time.as_secs_f64() - expected).abs() * 1e9;
            assert!(error_ns <= 1.5, "compute {compute_s}, step {step}: {time:?}");
        }
        check_counters(&stream, SAMPLE_BYTES);
    }
}

#[test]
fn persistence_grows_as_equation_2_says() {
    for (rate, step_s, batch) in [(100.0, 1.2, 64), (100.0, 0.64, 64), (600.0, 1.2, 600)] {
        let mut stream = virtual_stream(rate, &buffer(BufferPolicy::Persistence, 0));
        // The first second only fills the buffer; then each step takes a batch and lasts `step_s`.
        let (start, step) = (Duration::from_secs(1), secs(step_s));
        stream.advance(start).unwrap();
        for steps in 1..=50u32 {
            assert_eq!(take(&mut stream, batch).len(), batch);
            stream.after_step(start + step * steps).unwrap();
            let expected = queue_growth(step_s, rate, batch as f64, steps.into()).unwrap();
            let found = stream.counters().occupancy_samples as f64;
            assert!(
                (found - expected).abs() < 1e-6,
                "S {rate}, t {step_s}, step {steps}: {found} {expected}"
            );
        }
        let limit = queue_growth_fast_stream(step_s, rate, 50);
        assert!((limit - 50.0 * batch as f64 - stream.held() as f64).abs() < 1e-6);
        check_counters(&stream, SAMPLE_BYTES);
    }
}

#[test]
fn truncation_keeps_one_second_or_what_it_is_told() {
    for (keep, rate, expected) in [(0, 37.5, 38), (10, 37.5, 10), (500, 37.5, 336)] {
        let mut stream = virtual_stream(rate, &buffer(BufferPolicy::Truncation, keep));
        stream.advance(secs(9.6)).unwrap();
        assert_eq!(take(&mut stream, 24).len(), 24);
        stream.after_step(secs(9.6)).unwrap();
        assert_eq!((stream.held(), stream.counters().dropped), (expected, 336 - expected as u64));
        // The newest: 360 have arrived.
        assert_eq!(take(&mut stream, 999)[0].0, 360 - expected as u64);
        check_counters(&stream, SAMPLE_BYTES);
    }
}

#[test]
fn the_memory_cap_bounds_every_policy() {
    let capped = 1024 * 1024 / SAMPLE_BYTES;
    for policy in [BufferPolicy::Persistence, BufferPolicy::Truncation, BufferPolicy::Reservoir] {
        let config = BufferConfig { memory_cap_mib: 1, keep: 5000, policy, spill_dir: None };
        let mut stream = virtual_stream(100.0, &config);
        stream.advance(Duration::from_secs(10)).unwrap();
        let c = stream.counters();
        assert_eq!(c.memory_bytes, capped * SAMPLE_BYTES, "{policy:?}");
        let kept = if policy == BufferPolicy::Persistence { 1000 } else { capped };
        assert_eq!((c.arrived, c.occupancy_samples, c.dropped), (1000, kept, 1000 - kept));
        check_counters(&stream, SAMPLE_BYTES);
        // More than the buffer can ever hold is not waited for.
        let time = stream.wait_for(4000, Duration::from_secs(10), Duration::from_secs(100)).unwrap();
        let (expected_s, held) = if policy == BufferPolicy::Persistence { (40, 4000) } else { (10, capped) };
        assert_eq!((time, stream.held() as u64), (Duration::from_secs(expected_s), held), "{policy:?}");
    }
}

#[test]
fn persistence_hands_out_every_sample_in_order_across_its_spill() {
    let config = BufferConfig { memory_cap_mib: 1, ..buffer(BufferPolicy::Persistence, 0) };
    let mut spilled = virtual_stream(500.0, &config);
    let mut roomy = virtual_stream(500.0, &buffer(BufferPolicy::Persistence, 0));
    let mut all = Vec::new();
    let mut most_spilled = 0;
    for step in 1..=20u64 {
        for stream in [&mut spilled, &mut roomy] {
            stream.advance(Duration::from_secs(step)).unwrap();
        }
        most_spilled = most_spilled.max(spilled.counters().spilled_samples);
        let n = if step < 10 { 300 } else { 1000 };
        let taken = take(&mut spilled, n);
        assert_eq!(taken, take(&mut roomy, n));
        all.extend(taken);
    }
    assert!(most_spilled > 1000 && roomy.counters().spilled_samples == 0);
    assert!(all.iter().map(|sample| sample.0).eq(0..10_000));
}

#[test]
fn a_deadline_ends_the_wait_and_so_does_a_stream_without_samples() {
    let mut stream = virtual_stream(2.0, &buffer(BufferPolicy::Persistence, 0));
    assert_eq!(stream.wait_for(3, Duration::ZERO, NEVER).unwrap(), secs(1.5));
    // Held already: no time passes. Deadline in the past: not before now.
    assert_eq!(stream.wait_for(3, secs(1.7), NEVER).unwrap(), secs(1.7));
    assert_eq!(stream.wait_for(9, secs(1.8), secs(1.0)).unwrap(), secs(1.8));
    assert_eq!(stream.wait_for(9, secs(1.8), secs(3.2)).unwrap(), secs(3.2));
    assert_eq!(stream.held(), 6);
    assert_eq!(take(&mut stream, 99).len(), 6);
    assert_eq!(take(&mut stream, 99).len(), 0);
    stream.after_step(secs(3.2)).unwrap();

    // A rate of 0 for ever, and one of 0 for a while.
    let mut trace = tempfile::NamedTempFile::new().unwrap();
    trace.write_all(b"0,0,0\n0,1,10\n1,1,0\n100,1,10\n101,0,0\n").unwrap();
    let streams = model(1.0, ArrivalConfig::Trace { path: trace.path().into() }, 2);
    let open = |device: usize| {
        let data = Numbered::new(5, 3072);
        let source = ReplaySource::new(data, vec![0, 1], streams.arrivals(device), 1, device as u64).unwrap();
        VirtualStream::new(source, &buffer(BufferPolicy::Truncation, 0), 1, device as u64).unwrap()
    };
    let mut silent = open(0);
    assert_eq!(silent.wait_for(1, secs(4.0), NEVER).unwrap(), secs(4.0));
    silent.after_step(secs(5.0)).unwrap();
    assert_eq!((silent.held(), silent.rate(secs(5.0)).0), (0, 0.0));
    let mut paused = open(1);
    assert_eq!(paused.wait_for(20, secs(50.0), secs(60.0)).unwrap(), secs(60.0));
    assert_eq!((paused.held(), paused.rate(secs(60.0)).0), (10, 0.0));
    assert_eq!(paused.wait_for(11, secs(60.0), NEVER).unwrap(), secs(100.1));
}

#[test]
fn streams_repeat_with_their_seed_and_differ_between_devices() {
    let run = |seed, device: usize, policy| {
        let arrivals = model(40.0, ArrivalConfig::Poisson, 3).arrivals(device);
        let data = Numbered::new(64, 3072);
        let source = ReplaySource::new(data, (0..64).collect(), arrivals, seed, device as u64).unwrap();
        let mut stream = VirtualStream::new(source, &buffer(policy, 50), seed, device as u64).unwrap();
        let mut log = Vec::new();
        for step in 1..40 {
            let now = stream.wait_for(30, Duration::from_secs(step), Duration::from_secs(step + 1)).unwrap();
            log.push((now, take(&mut stream, 30), stream.counters()));
            stream.after_step(now).unwrap();
        }
        log
    };
    for policy in [BufferPolicy::Persistence, BufferPolicy::Truncation, BufferPolicy::Reservoir] {
        assert_eq!(run(1, 0, policy), run(1, 0, policy));
        assert_ne!(run(1, 0, policy), run(2, 0, policy));
        assert_ne!(run(1, 0, policy), run(1, 1, policy));
    }
}

#[test]
fn a_replay_shows_the_whole_partition_each_epoch_in_a_new_order() {
    let arrivals = model(10.0, ArrivalConfig::Constant, 1).arrivals(0);
    let partition = vec![3, 5, 8, 13, 21];
    let mut source = ReplaySource::new(Numbered::new(30, 4), partition.clone(), arrivals, 7, 2).unwrap();
    let mut epochs = Vec::new();
    for epoch in 0..20u64 {
        let mut seen = Vec::new();
        for position in 0..5 {
            let offset = epoch * 5 + position;
            let arrival = Duration::from_millis((offset + 1) * 100);
            let (mut pixels, meta) = ([0; 4], SampleMeta::default());
            let mut slot = SampleSlot { pixels: &mut pixels, meta };
            assert_eq!(source.next_arrival().unwrap(), Some(arrival));
            let early = arrival - Duration::from_nanos(1);
            assert_eq!(source.poll(early, &mut slot).unwrap(), Poll::NotYet(Some(arrival)));
            assert_eq!(source.poll(arrival, &mut slot).unwrap(), Poll::Ready);
            assert_eq!((slot.meta.offset, slot.meta.arrival()), (offset, arrival));
            let label = slot.meta.label;
            assert_eq!(pixels[0], (label * 7) as u8);
            seen.push(label);
        }
        epochs.push(seen.clone());
        seen.sort_unstable();
        assert_eq!(seen, partition);
    }
    epochs.sort();
    epochs.dedup();
    assert!(epochs.len() > 12, "{} orders in 20 epochs", epochs.len());
}

#[test]
fn impossible_streams_are_errors() {
    let arrivals = || model(1.0, ArrivalConfig::Constant, 1).arrivals(0);
    let empty = ReplaySource::new(Numbered::new(3, 4), vec![], arrivals(), 1, 6).err();
    assert!(matches!(empty, Some(SourceError::EmptyPartition { device: 6 })));
    let outside = ReplaySource::new(Numbered::new(3, 4), vec![0, 3], arrivals(), 1, 0).err();
    assert!(matches!(outside, Some(SourceError::Index { index: 3, len: 3, .. })));
    let config = BufferConfig { memory_cap_mib: 0, ..Default::default() };
    let no_cap = VirtualStream::new(constant_source(1.0), &config, 1, 0).err();
    let too_small = BufferError::CapTooSmall { item_bytes: SAMPLE_BYTES, cap_bytes: 0 };
    assert_eq!(no_cap.map(|error| error.to_string()), Some(StreamError::from(too_small).to_string()));
    let config =
        BufferConfig { spill_dir: Some("/nonexistent".into()), ..buffer(BufferPolicy::Persistence, 0) };
    let no_dir = VirtualStream::new(constant_source(1.0), &config, 1, 0).err();
    assert!(matches!(no_dir, Some(StreamError::Buffer(BufferError::SpillDir { .. }))));
}
