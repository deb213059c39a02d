//! A source over TCP: samples, poison, publishers that go away and come back.

use scadles::shape::ImageShape;
use scadles::stream::record::{Header, Poison, encode_end, encode_sample};
use scadles::stream::ring::SampleMeta;
use scadles::stream::source::{Poll, SampleSlot, SocketOptions, SocketSource, Source};
use scadles::units::SamplesPerSec;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const SHAPE: ImageShape = ImageShape { h: 4, w: 3, c: 3 };

fn record(sequence: u64, label: u32, height: u16) -> Vec<u8> {
    let header = Header { height, width: 3, channels: 3, label, sequence, event_time_ns: 1 };
    let mut bytes = Vec::new();
    encode_sample(&header, &vec![sequence as u8; usize::from(height) * 9], &mut bytes).unwrap();
    bytes
}

fn source(address: String) -> SocketSource {
    SocketSource::new(SocketOptions { address, shape: SHAPE, classes: 10, expected_rate: SamplesPerSec(5.0) })
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Polls until `count` samples have come or the source ends; their offsets, and whether it ended.
fn poll(source: &mut SocketSource, began: Instant, count: usize) -> (Vec<u64>, bool) {
    let mut pixels = [0; 36];
    let mut offsets = Vec::new();
    let limit = Instant::now();
    while offsets.len() < count {
        assert!(limit.elapsed() < Duration::from_secs(20), "{offsets:?} after 20 s");
        let now = began.elapsed();
        let mut slot = SampleSlot { pixels: &mut pixels, meta: SampleMeta::default() };
        match source.poll(now, &mut slot).unwrap() {
            Poll::Ready => {
                assert_eq!(u128::from(slot.meta.arrival_ns), now.as_nanos());
                assert_eq!(slot.pixels[..], [slot.meta.offset as u8; 36]);
                offsets.push(slot.meta.offset);
            }
            Poll::NotYet(_) => std::thread::sleep(Duration::from_millis(1)),
            Poll::End => return (offsets, true),
        }
    }
    (offsets, false)
}

/// Connects the source to the listener.
fn accept(listener: &TcpListener, source: &mut SocketSource, began: Instant) -> TcpStream {
    let before = source.connections();
    listener.set_nonblocking(true).unwrap();
    let mut slot_pixels = [0; 36];
    let mut accepted = None;
    while accepted.is_none() || source.connections() == before {
        assert!(began.elapsed() < Duration::from_secs(20), "no connection");
        let mut slot = SampleSlot { pixels: &mut slot_pixels, meta: SampleMeta::default() };
        assert!(matches!(source.poll(began.elapsed(), &mut slot).unwrap(), Poll::NotYet(_)));
        accepted = accepted.or_else(|| listener.accept().ok());
        std::thread::sleep(Duration::from_millis(1));
    }
    let (stream, _) = accepted.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn poison_is_put_aside_and_counted() {
    let (listener, address) = listener();
    let (mut source, began) = (source(address), Instant::now());
    let mut peer = accept(&listener, &mut source, began);
    let mut damaged = record(1, 1, 4);
    damaged[50] ^= 1;
    let mut bytes = [record(0, 9, 4), damaged, record(2, 10, 4), record(3, 1, 2), record(4, 0, 4)].concat();
    encode_end(5, &mut bytes);
    // In small pieces, so that records come in parts.
    for piece in bytes.chunks(13) {
        peer.write_all(piece).unwrap();
    }
    assert_eq!(poll(&mut source, began, usize::MAX), (vec![0, 4], true));
    assert_eq!(source.dead_lettered(), 3);
    assert_eq!(source.last_poison(), Some(Poison::Shape { height: 2, width: 3, channels: 3 }));
    assert_eq!(poll(&mut source, began, 1), (vec![], true));
}

#[test]
fn a_flood_of_poison_is_worked_off() {
    let (listener, address) = listener();
    let (mut source, began) = (source(address), Instant::now());
    let mut peer = accept(&listener, &mut source, began);
    let flood: Vec<u8> = (0..500).flat_map(|sequence| record(sequence, 99, 4)).collect();
    peer.write_all(&[flood, record(500, 1, 4)].concat()).unwrap();
    assert_eq!(poll(&mut source, began, 1), (vec![500], false));
    assert_eq!(source.dead_lettered(), 500);
}

#[test]
fn a_lost_publisher_is_waited_for() {
    let (first, address) = listener();
    let (mut source, began) = (source(address.clone()), Instant::now());
    let mut peer = accept(&first, &mut source, began);
    let bytes = [record(0, 1, 4), record(1, 1, 4), record(2, 1, 4)[..20].to_vec()].concat();
    peer.write_all(&bytes).unwrap();
    drop((peer, first));
    assert_eq!(poll(&mut source, began, 2), (vec![0, 1], false));
    // Nobody listens: every poll answers at once.
    let mut pixels = [0; 36];
    let away = Instant::now();
    let mut slowest = Duration::ZERO;
    while away.elapsed() < Duration::from_millis(300) {
        let mut slot = SampleSlot { pixels: &mut pixels, meta: SampleMeta::default() };
        let asked = Instant::now();
        assert_eq!(source.poll(began.elapsed(), &mut slot).unwrap(), Poll::NotYet(None));
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(slowest < Duration::from_millis(250), "{slowest:?}");
    assert_eq!(source.dead_lettered(), 1);
    assert_eq!(source.last_poison(), Some(Poison::Truncated { held: 20 }));

    let second = TcpListener::bind(&address).unwrap();
    let mut peer = accept(&second, &mut source, began);
    let mut bytes = record(2, 1, 4);
    encode_end(3, &mut bytes);
    peer.write_all(&bytes).unwrap();
    assert_eq!(poll(&mut source, began, usize::MAX), (vec![2], true));
    assert_eq!(source.connections(), 2);
}

#[test]
fn the_rate_is_measured() {
    let (listener, address) = listener();
    let (mut source, began) = (source(address), Instant::now());
    assert_eq!(source.rate(Duration::ZERO).0, 5.0);
    let mut peer = accept(&listener, &mut source, began);
    let sender = std::thread::spawn(move || {
        let start = Instant::now();
        for sequence in 0..600 {
            let due = Duration::from_millis(5) * sequence;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            peer.write_all(&record(sequence.into(), 1, 4)).unwrap();
        }
    });
    poll(&mut source, began, 600);
    sender.join().unwrap();
    // 3 s at 200/s from an expectation of 5/s: 63% of the way, about 128/s.
    let rate = source.rate(began.elapsed()).0;
    assert!((80.0..200.0).contains(&rate), "{rate}");
}
