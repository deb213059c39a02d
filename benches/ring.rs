//! The sample ring against rtrb and crossbeam's `ArrayQueue`: 3 KiB samples, in one run on one machine.
//!
//! `two_threads` moves samples from a producer to a consumer thread, `one_thread` times a push and a pop after each
//! other. In all of them the producer copies 3,072 bytes and their 8-byte tag in, and the consumer adds up every
//! word of the sample; the sums are checked. rtrb is measured with `push` and `pop` of an array, and in place
//! (`write_chunk_uninit` and `read_chunk`), which is the best it can do.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use scadles::stream::ring::{self, SampleMeta};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PIXEL_BYTES: usize = 3072;
/// Pixels and an 8-byte tag, as a queue of values holds them.
const ITEM_BYTES: usize = PIXEL_BYTES + 8;
const CAPACITY: usize = 1024;
/// Samples of one measured transfer.
const TRANSFER: u64 = 20_000;

type Item = [u8; ITEM_BYTES];

fn image() -> [u8; PIXEL_BYTES] {
    std::array::from_fn(|i| (i * 31) as u8)
}

fn sum(pixels: &[u8]) -> u64 {
    let (words, _) = pixels.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

fn item(pixels: &[u8; PIXEL_BYTES], tag: u64) -> Item {
    let mut item = [0; ITEM_BYTES];
    item[..PIXEL_BYTES].copy_from_slice(pixels);
    item[PIXEL_BYTES..].copy_from_slice(&tag.to_le_bytes());
    item
}

fn tag(item: &Item) -> u64 {
    u64::from_le_bytes(*item.last_chunk().expect("an item ends with its tag"))
}

/// Tries until it works: a few spins, then the core goes to whoever else is there.
fn retry<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for spins in 0u32.. {
        if let Some(value) = attempt() {
            return value;
        }
        if spins % 64 == 63 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
    unreachable!("the loop has no end")
}

/// One producer call: sample `tag` goes in, unless the queue is full.
type Put = Box<dyn FnMut(&[u8; PIXEL_BYTES], u64) -> Option<()> + Send>;
/// One consumer call: what is there comes out; number of samples and sum of their words and tags.
type Get = Box<dyn FnMut() -> Option<(u64, u64)>>;

fn sample_ring() -> (Put, Get) {
    let (mut producer, mut consumer) = ring::ring(CAPACITY, PIXEL_BYTES).expect("memory for the ring");
    let put = move |pixels: &[u8; PIXEL_BYTES], tag| {
        producer.push(pixels, SampleMeta { offset: tag, ..Default::default() }).ok()
    };
    let get = move || {
        let chunk = consumer.read_chunk(64);
        let count = chunk.len() as u64;
        let total = chunk
            .iter()
            .fold(0, |total: u64, (pixels, meta)| total.wrapping_add(sum(pixels)).wrapping_add(meta.offset));
        chunk.commit_all();
        (count > 0).then_some((count, total))
    };
    (Box::new(put), Box::new(get))
}

fn rtrb_values() -> (Put, Get) {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Item>::new(CAPACITY);
    let put = move |pixels: &[u8; PIXEL_BYTES], tag| producer.push(item(pixels, tag)).ok();
    let get = move || {
        let item = consumer.pop().ok()?;
        Some((1, sum(&item[..PIXEL_BYTES]).wrapping_add(tag(&item))))
    };
    (Box::new(put), Box::new(get))
}

fn rtrb_in_place() -> (Put, Get) {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Item>::new(CAPACITY);
    let put = move |pixels: &[u8; PIXEL_BYTES], tag: u64| {
        let mut chunk = producer.write_chunk_uninit(1).ok()?;
        let slot = chunk.as_mut_slices().0[0].as_mut_ptr();
        // SAFETY: the slot has room for an item, all of which is written before it is committed.
        unsafe {
            slot.cast::<[u8; PIXEL_BYTES]>().write(*pixels);
            slot.cast::<u8>().add(PIXEL_BYTES).cast::<[u8; 8]>().write(tag.to_le_bytes());
            chunk.commit_all();
        }
        Some(())
    };
    let get = move || {
        let count = consumer.slots().min(64);
        let chunk = consumer.read_chunk(count).ok()?;
        let (first, second) = chunk.as_slices();
        let total = first.iter().chain(second).fold(0, |total: u64, item| {
            total.wrapping_add(sum(&item[..PIXEL_BYTES])).wrapping_add(tag(item))
        });
        chunk.commit_all();
        (count > 0).then_some((count as u64, total))
    };
    (Box::new(put), Box::new(get))
}

fn array_queue() -> (Put, Get) {
    let queue = Arc::new(ArrayQueue::<Item>::new(CAPACITY));
    let consumer = Arc::clone(&queue);
    let put = move |pixels: &[u8; PIXEL_BYTES], tag| queue.push(item(pixels, tag)).ok();
    let get = move || {
        let item = consumer.pop()?;
        Some((1, sum(&item[..PIXEL_BYTES]).wrapping_add(tag(&item))))
    };
    (Box::new(put), Box::new(get))
}

/// Makes an empty queue.
type MakeQueue = fn() -> (Put, Get);

const QUEUES: [(&str, MakeQueue); 4] = [
    ("sample_ring", sample_ring),
    ("rtrb_in_place", rtrb_in_place),
    ("rtrb_values", rtrb_values),
    ("crossbeam_array_queue", array_queue),
];

/// Moves `count` samples between two threads and checks their sum.
fn transfer((mut put, mut get): (Put, Get), count: u64) -> Duration {
    let pixels = image();
    let expected = (0..count).fold(sum(&pixels).wrapping_mul(count), u64::wrapping_add);
    let start = Arc::new(std::sync::Barrier::new(2));
    let producer_start = Arc::clone(&start);
    let producer = std::thread::spawn(move || {
        producer_start.wait();
        for tag in 0..count {
            retry(|| put(black_box(&pixels), tag));
        }
    });
    start.wait();
    let begin = Instant::now();
    let (mut received, mut total) = (0, 0u64);
    while received < count {
        let (samples, part) = retry(&mut get);
        received += samples;
        total = total.wrapping_add(part);
    }
    let elapsed = begin.elapsed();
    producer.join().expect("the producer does not panic");
    assert_eq!((received, total), (count, expected), "samples were lost or torn");
    elapsed
}

fn two_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two_threads_3KiB");
    group.throughput(Throughput::Elements(TRANSFER)).sample_size(20).measurement_time(Duration::from_secs(4));
    for (name, queue) in QUEUES {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|iterations| (0..iterations).map(|_| transfer(queue(), TRANSFER)).sum());
        });
    }
    group.finish();
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one_thread_push_pop_3KiB");
    group.throughput(Throughput::Elements(1)).sample_size(50).measurement_time(Duration::from_secs(2));
    let pixels = image();
    for (name, queue) in QUEUES {
        let (mut put, mut get) = queue();
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                put(black_box(&pixels), 1).expect("the queue is empty");
                get().expect("the queue holds one sample")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, two_threads, one_thread);
criterion_main!(benches);
