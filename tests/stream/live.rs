//! Streams on the wall clock: every test has a deadline of its own.

use super::support::{Numbered, buffer, check_counters, constant_source, model, take};
use scadles::stream::policy::BufferError;
use scadles::stream::source::{Poll, ReplaySource, SampleSlot, Source, SourceError};
use scadles::stream::{DeviceStream, LiveOptions, LiveStream, StreamError};
use scadles::train::config::{ArrivalConfig, BufferConfig, BufferPolicy};
use scadles::units::SamplesPerSec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SAMPLE_BYTES: u64 = 3072 + 24;

fn options(ring_samples: usize, config: BufferConfig) -> LiveOptions {
    LiveOptions { ring_samples, buffer: config, seed: 1, device: 4, epoch: Instant::now() }
}

fn in_a_minute() -> Duration {
    Duration::from_secs(60)
}

/// What a scripted source does after its last sample.
#[derive(Clone, Copy)]
enum Then {
    End,
    Silence,
    Fail,
    Panic,
}

/// `count` samples, all there at once; then something else.
struct Scripted {
    count: u64,
    next: u64,
    then: Then,
}

impl Source for Scripted {
    fn pixel_bytes(&self) -> usize {
        3072
    }
    fn next_arrival(&mut self) -> Result<Option<Duration>, SourceError> {
        Ok(None)
    }
    fn poll(&mut self, _now: Duration, slot: &mut SampleSlot<'_>) -> Result<Poll, SourceError> {
        if self.next < self.count {
            slot.meta.label = (self.next % 50) as u32;
            slot.meta.offset = self.next;
            let first = slot.meta.label * 7;
            slot.pixels.iter_mut().enumerate().for_each(|(i, pixel)| *pixel = (first as usize + i) as u8);
            self.next += 1;
            return Ok(Poll::Ready);
        }
        match self.then {
            Then::End => Ok(Poll::End),
            Then::Silence => Ok(Poll::NotYet(None)),
            Then::Fail => {
                Err(SourceError::Outside { name: "broker:9092".into(), reason: "connection lost".into() })
            }
            Then::Panic => panic!("a source with a defect"),
        }
    }
    fn rate(&self, _now: Duration) -> SamplesPerSec {
        SamplesPerSec(100.0)
    }
}

/// A source that is silent until `open`.
struct Gated {
    source: Scripted,
    open: Arc<AtomicBool>,
}

impl Source for Gated {
    fn pixel_bytes(&self) -> usize {
        self.source.pixel_bytes()
    }
    fn next_arrival(&mut self) -> Result<Option<Duration>, SourceError> {
        self.source.next_arrival()
    }
    fn poll(&mut self, now: Duration, slot: &mut SampleSlot<'_>) -> Result<Poll, SourceError> {
        if self.open.load(Ordering::Relaxed) { self.source.poll(now, slot) } else { Ok(Poll::NotYet(None)) }
    }
    fn dead_lettered(&self) -> u64 {
        3
    }
    fn lag_samples(&self) -> u64 {
        self.source.count - self.source.next
    }
    fn rate(&self, now: Duration) -> SamplesPerSec {
        self.source.rate(now)
    }
}

fn scripted(count: u64, then: Then, options: LiveOptions) -> LiveStream {
    LiveStream::spawn(Box::new(Scripted { count, next: 0, then }), options).unwrap()
}

/// Waits until `done`, at most half a minute.
fn until(stream: &mut LiveStream, done: impl Fn(&LiveStream) -> bool) {
    let begin = Instant::now();
    while !done(stream) {
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", stream.counters());
        std::thread::sleep(Duration::from_millis(1));
        stream.advance(Duration::ZERO).unwrap();
    }
}

#[test]
fn what_the_source_counts_and_the_age_of_the_oldest_reach_the_trainer() {
    let open = Arc::new(AtomicBool::new(false));
    let source = Scripted { count: 5, next: 0, then: Then::Silence };
    let source = Box::new(Gated { source, open: Arc::clone(&open) });
    let mut stream = LiveStream::spawn(source, options(16, buffer(BufferPolicy::Truncation, 0))).unwrap();
    until(&mut stream, |stream| stream.counters().lag_samples == 5);
    assert_eq!((stream.counters().dead_lettered, stream.oldest_arrival()), (3, None));
    open.store(true, Ordering::Relaxed);
    until(&mut stream, |stream| stream.counters().arrived == 5 && stream.counters().lag_samples == 0);
    // All five say that they arrived at 0; looking takes none.
    assert_eq!((stream.oldest_arrival(), stream.held()), (Some(Duration::ZERO), 5));
    assert_eq!(stream.take(5, &mut |_| {}).unwrap(), 5);
    assert_eq!(stream.oldest_arrival(), None);
}

#[test]
fn persistence_gives_every_sample_in_order_through_ring_memory_and_disk() {
    // Ring 16, memory for about 322 more, the rest on disk.
    let config = BufferConfig { memory_cap_mib: 1, ..buffer(BufferPolicy::Persistence, 0) };
    let mut stream = scripted(3000, Then::End, options(16, config));
    until(&mut stream, |stream| stream.counters().arrived == 3000);
    let counters = stream.counters();
    assert_eq!((counters.occupancy_samples, counters.dropped), (3000, 0));
    assert!(counters.spilled_samples > 2500 && counters.memory_bytes <= 1 << 20, "{counters:?}");
    let mut next = 0;
    while next < 3000 {
        let now = stream.wait_for(7, Duration::ZERO, in_a_minute()).unwrap();
        for (offset, label) in take(&mut stream, 7) {
            assert_eq!((offset, label), (next, (next % 50) as u32));
            next += 1;
        }
        stream.after_step(now).unwrap();
    }
    check_counters(&stream, SAMPLE_BYTES);
    // The source has ended and all is taken: answered at once.
    let begin = Instant::now();
    stream.wait_for(1, Duration::ZERO, in_a_minute()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20) && stream.held() == 0);
}

#[test]
fn a_live_replay_arrives_at_its_rate_and_matches_the_virtual_order() {
    let options = options(64, buffer(BufferPolicy::Persistence, 0));
    let epoch = options.epoch;
    let mut stream = LiveStream::spawn(Box::new(constant_source(400.0)), options).unwrap();
    let mut expected = super::support::virtual_stream(400.0, &buffer(BufferPolicy::Persistence, 0));
    expected.advance(Duration::from_secs(1)).unwrap();
    for batch in 1..=5u32 {
        let time = stream.wait_for(40, epoch.elapsed(), in_a_minute()).unwrap();
        // The 40th sample of each batch arrives at batch * 0.1 s; how much later it is seen is the machine's affair.
        assert!(time >= Duration::from_millis(100) * batch, "batch {batch} at {time:?}");
        assert_eq!(take(&mut stream, 40), take(&mut expected, 40));
        stream.after_step(time).unwrap();
    }
    assert_eq!(stream.rate(Duration::ZERO).0, 400.0);
}

#[test]
fn truncation_keeps_the_newest_of_ring_and_overflow() {
    // The ring holds the oldest 16 of 3000, the others wait behind it.
    let mut stream = scripted(3000, Then::Silence, options(16, buffer(BufferPolicy::Truncation, 40)));
    until(&mut stream, |stream| stream.counters().arrived == 3000);
    assert_eq!(take(&mut stream, 4).len(), 4);
    stream.after_step(Duration::ZERO).unwrap();
    until(&mut stream, |stream| stream.counters().occupancy_samples <= 40 + 16);
    until(&mut stream, |stream| stream.held() == 16);
    let mut offsets = Vec::new();
    until(&mut stream, |stream| stream.held() > 0);
    while stream.counters().occupancy_samples > 0 {
        offsets.extend(take(&mut stream, 16).iter().map(|sample| sample.0));
        stream.advance(Duration::ZERO).unwrap();
    }
    assert!(offsets.is_sorted() && offsets.ends_with(&(2960..3000).collect::<Vec<_>>()), "{offsets:?}");
    check_counters(&stream, SAMPLE_BYTES);
    assert_eq!(stream.counters().taken, 4 + offsets.len() as u64);
}

#[test]
fn truncation_without_overflow_discards_in_the_ring() {
    let mut stream = scripted(60, Then::Silence, options(64, buffer(BufferPolicy::Truncation, 10)));
    until(&mut stream, |stream| stream.held() == 60);
    assert_eq!(take(&mut stream, 5).len(), 5);
    stream.after_step(Duration::ZERO).unwrap();
    assert_eq!((stream.held(), stream.counters().dropped), (10, 45));
    assert!(take(&mut stream, 64).iter().map(|sample| sample.0).eq(50..60));
}

#[test]
fn the_reservoir_keeps_a_subset_behind_the_ring() {
    let mut stream = scripted(1000, Then::Silence, options(16, buffer(BufferPolicy::Reservoir, 20)));
    until(&mut stream, |stream| stream.counters().arrived == 1000);
    until(&mut stream, |stream| stream.counters().occupancy_samples == 36);
    assert!(take(&mut stream, 16).iter().map(|sample| sample.0).eq(0..16));
    until(&mut stream, |stream| stream.held() == 16);
    let chosen = take(&mut stream, 16);
    assert!(chosen.iter().any(|sample| sample.0 > 500), "{chosen:?}");
    check_counters(&stream, SAMPLE_BYTES);
}

#[test]
fn no_samples_are_answered_by_the_deadline() {
    let mut stream = scripted(3, Then::Silence, options(16, buffer(BufferPolicy::Truncation, 0)));
    until(&mut stream, |stream| stream.held() == 3);
    let deadline = Duration::from_secs(1);
    let time = stream.wait_for(5, Duration::ZERO, deadline).unwrap();
    assert!(time >= deadline && time < in_a_minute() && stream.held() == 3);
    // More than the ring holds is not waited for.
    let mut full = scripted(100, Then::Silence, options(16, buffer(BufferPolicy::Persistence, 0)));
    full.wait_for(50, Duration::ZERO, in_a_minute()).unwrap();
    assert_eq!(full.held(), 16);
    let mut trace = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut trace, b"0,0,0\n").unwrap();
    let arrivals = model(1.0, ArrivalConfig::Trace { path: trace.path().into() }, 1).arrivals(0);
    let silent = ReplaySource::new(Numbered::new(5, 3072), vec![1], arrivals, 1, 0).unwrap();
    let begin = Instant::now();
    let options = options(16, buffer(BufferPolicy::Persistence, 0));
    let mut silent = LiveStream::spawn(Box::new(silent), options).unwrap();
    silent.wait_for(1, Duration::ZERO, in_a_minute()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30) && silent.held() == 0);
}

/// The error of a stream that must fail at its first wait: the end of the feeder is never taken for the stream's.
fn first_error(stream: &mut LiveStream) -> StreamError {
    stream.wait_for(16, Duration::ZERO, in_a_minute()).expect_err("a failed source")
}

#[test]
fn a_failing_or_panicking_source_is_an_error_with_its_reason() {
    let mut panicked = scripted(2, Then::Panic, options(16, buffer(BufferPolicy::Truncation, 0)));
    let error = first_error(&mut panicked);
    let StreamError::FeederPanicked { device: 4, message } = error else { panic!("{error}") };
    assert_eq!(message, "a source with a defect");
    assert!(matches!(panicked.advance(Duration::ZERO), Err(StreamError::Failed { device: 4 })));

    let mut failed = scripted(2, Then::Fail, options(16, buffer(BufferPolicy::Truncation, 0)));
    let error = first_error(&mut failed);
    assert!(matches!(error, StreamError::Source(SourceError::Outside { .. })));
    assert_eq!(error.to_string(), "source broker:9092: connection lost");
    assert!(matches!(failed.wait_for(1, Duration::ZERO, in_a_minute()), Err(StreamError::Failed { .. })));
}

#[test]
fn a_spill_that_fails_reaches_the_trainer() {
    let dir = tempfile::tempdir().unwrap();
    let spill = dir.path().join("spill");
    std::fs::create_dir(&spill).unwrap();
    let config = BufferConfig {
        memory_cap_mib: 1,
        spill_dir: Some(spill.clone()),
        ..buffer(BufferPolicy::Persistence, 0)
    };
    // Nothing comes before the folder is gone.
    let open = Arc::new(AtomicBool::new(false));
    let source =
        Gated { source: Scripted { count: 3000, next: 0, then: Then::End }, open: Arc::clone(&open) };
    let mut stream = LiveStream::spawn(Box::new(source), options(16, config)).unwrap();
    std::fs::remove_dir(&spill).unwrap();
    std::fs::write(&spill, "").unwrap();
    open.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    let error = loop {
        assert!(begin.elapsed() < Duration::from_secs(30), "no error");
        std::thread::sleep(Duration::from_millis(5));
        if let Err(error) = stream.advance(Duration::ZERO) {
            break error;
        }
    };
    assert!(matches!(error, StreamError::Buffer(BufferError::SpillDir { path, .. }) if path == spill));
}

#[test]
fn a_ring_larger_than_the_cap_is_an_error() {
    let config = BufferConfig { memory_cap_mib: 1, ..Default::default() };
    let error = LiveStream::spawn(Box::new(constant_source(1.0)), options(339, config)).err();
    assert!(matches!(error, Some(StreamError::RingOverCap { cap_bytes: 1048576, .. })));
    let config = BufferConfig { memory_cap_mib: 1, ..Default::default() };
    assert!(LiveStream::spawn(Box::new(constant_source(1.0)), options(337, config)).is_ok());
    let error = LiveStream::spawn(Box::new(constant_source(1.0)), options(0, BufferConfig::default())).err();
    assert!(matches!(error, Some(StreamError::Ring(_))));
}

#[test]
fn dropping_a_stream_ends_its_thread_at_once_even_at_rest() {
    let begin = Instant::now();
    for _ in 0..20 {
        drop(LiveStream::spawn(
            Box::new(constant_source(0.001)),
            options(4, buffer(BufferPolicy::Truncation, 0)),
        ));
        drop(scripted(100, Then::End, options(4, buffer(BufferPolicy::Persistence, 0))));
    }
    assert!(begin.elapsed() < Duration::from_secs(20));
}
