//! First stage of a step: every device takes its batch from its stream, then samples are injected.

use super::batch::wanted_batch;
use super::injection::Injection;
use super::local_device::LocalDevice;
use super::shared_sample;
use crate::comm::{Communicator, Traffic};
use crate::error::Result;
use crate::ops::input::{Augment, ImageShape, Normalizer};
use crate::train::config::{BatchConfig, BatchPolicy};
use std::time::Duration;

/// How pixels become a batch; the same for all devices.
pub(crate) struct InputRule {
    pub image: ImageShape,
    pub normalizer: Normalizer,
    pub augment: Augment,
    pub seed: u64,
}

/// How long devices wait and how much they take.
pub(crate) struct BatchRule {
    pub config: BatchConfig,
    pub injection: Injection,
    /// A device that has not got its batch after this long goes on with what it has.
    pub wait_limit: Duration,
    /// Images that the network was planned for.
    pub max_batch: usize,
}

/// Outcome of the stage.
pub(crate) struct Gathered {
    /// When each hosted device could begin to compute.
    pub ready: Vec<Duration>,
    pub injected_samples: u64,
    pub injected_bytes: u64,
    /// Data injection on the wire.
    pub traffic: Traffic,
}

/// Fills the batch of every hosted device for `step`, which begins at `now`.
pub(crate) fn gather_batches(
    devices: &mut [LocalDevice],
    batches: &BatchRule,
    inputs: &InputRule,
    comm: &mut dyn Communicator,
    step: u64,
    now: Duration,
) -> Result<Gathered> {
    let givers = batches.injection.givers(step);
    let ready = wait_for_samples(devices, batches, comm, now)?;
    for device in devices.iter_mut() {
        let wanted = own_batch(device, batches, now).min(batches.max_batch);
        let given = match givers.contains(&device.rank) {
            true => batches.injection.shared_positions(step, device.rank, device.stream.held().min(wanted)),
            false => Vec::new(),
        };
        take_own(device, inputs, wanted, &given)?;
    }
    let mut gathered =
        Gathered { ready, injected_samples: 0, injected_bytes: 0, traffic: Traffic::default() };
    if batches.injection.is_active() {
        inject(devices, batches, inputs, comm, &mut gathered)?;
    }
    Ok(gathered)
}

/// Lets every device wait for its batch; returns when each has it, or gave up waiting.
fn wait_for_samples(
    devices: &mut [LocalDevice],
    batches: &BatchRule,
    comm: &mut dyn Communicator,
    now: Duration,
) -> Result<Vec<Duration>> {
    let deadline = now + batches.wait_limit;
    if batches.config.policy != BatchPolicy::Available {
        return devices
            .iter_mut()
            .map(|device| {
                device.stream.advance(now)?;
                let wanted = own_batch(device, batches, now);
                Ok(device.stream.wait_for(wanted, now, deadline)?)
            })
            .collect();
    }
    // Nobody waits for more than there is; only if nobody has anything, all wait for the first sample anywhere.
    for device in devices.iter_mut() {
        device.stream.advance(now)?;
    }
    let start = if comm.any(anybody_has_any(devices))? {
        now
    } else if comm.hosts_all() {
        wait_for_any(devices, now, deadline)?
    } else {
        wait_with_others(devices, comm, now, deadline)?
    };
    Ok(vec![start; devices.len()])
}

fn anybody_has_any(devices: &[LocalDevice]) -> bool {
    devices.iter().any(|device| device.stream.held() > 0)
}

/// As [`wait_for_any`], where some of the devices are in other processes.
fn wait_with_others(
    devices: &mut [LocalDevice],
    comm: &mut dyn Communicator,
    now: Duration,
    deadline: Duration,
) -> Result<Duration> {
    let next = devices.iter().filter_map(|device| device.stream.next_arrival()).min();
    let all_next = comm.share(&[next.map_or(f64::INFINITY, |next| next.as_nanos() as f64)])?;
    let first = all_next.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    if first.is_finite() {
        let start = Duration::from_nanos(first as u64).clamp(now, deadline);
        for device in devices.iter_mut() {
            device.stream.advance(start)?;
        }
        return Ok(start);
    }
    let mut time = now;
    loop {
        let begin = time;
        time = wait_for_any(devices, time, (time + SHARED_TURN).min(deadline))?;
        let done = anybody_has_any(devices) || time >= deadline;
        // Streams of all processes that have ended wait for nothing.
        let ended = time == begin;
        let rows = comm.share(&[f64::from(u8::from(done)), f64::from(u8::from(ended))])?;
        if rows.iter().any(|row| row[0] != 0.0) || rows.iter().all(|row| row[1] != 0.0) {
            return Ok(time);
        }
    }
}

/// Longest wait for samples before the other processes are asked.
const SHARED_TURN: Duration = Duration::from_millis(20);

/// Longest wait for one device of several on the wall clock before the next one is asked.
const TURN: Duration = Duration::from_millis(2);

/// Waits until any device holds a sample, at most until `deadline`; returns the time.
fn wait_for_any(devices: &mut [LocalDevice], now: Duration, deadline: Duration) -> Result<Duration> {
    if let Some(first) = devices.iter().filter_map(|device| device.stream.next_arrival()).min() {
        let start = first.clamp(now, deadline);
        for device in devices.iter_mut() {
            device.stream.advance(start)?;
        }
        return Ok(start);
    }
    let mut time = now;
    while time < deadline {
        let begin = time;
        for device in devices.iter_mut() {
            time = time.max(device.stream.wait_for(1, time, (time + TURN).min(deadline))?);
            if device.stream.held() > 0 {
                return Ok(time);
            }
        }
        if time == begin {
            break; // all streams have ended
        }
    }
    Ok(time)
}

fn own_batch(device: &LocalDevice, batches: &BatchRule, now: Duration) -> usize {
    batches.injection.own_batch(wanted_batch(&batches.config, device.stream.rate(now)))
}

/// Takes a device's `wanted` own samples, fewer if fewer are held, straight from its stream into the batch, keeping a
/// copy of those at the positions `given`, which ascend.
fn take_own(device: &mut LocalDevice, inputs: &InputRule, wanted: usize, given: &[usize]) -> Result<()> {
    let (rank, batch) = (device.rank, &mut device.batch);
    batch.clear();
    device.stream.take(wanted, &mut |sample| {
        let position = batch.labels.len();
        if given.binary_search(&position).is_ok() {
            shared_sample::encode(&mut batch.shared, sample.label, sample.offset, sample.pixels);
        }
        batch.push(inputs, augment_key(rank, rank, sample.offset), sample.label, sample.pixels);
    })?;
    batch.own = batch.labels.len();
    Ok(())
}

/// Sends the shared samples to all other devices, which append them to their batches in rank order.
fn inject(
    devices: &mut [LocalDevice],
    batches: &BatchRule,
    inputs: &InputRule,
    comm: &mut dyn Communicator,
    gathered: &mut Gathered,
) -> Result<()> {
    let blocks: Vec<Vec<u8>> =
        devices.iter_mut().map(|device| std::mem::take(&mut device.batch.shared)).collect();
    let pixel_bytes = inputs.image.numel();
    gathered.traffic = comm.all_gather_bytes(&blocks, &mut |giver, block| {
        gathered.injected_bytes += block.len() as u64;
        for (label, offset, pixels) in shared_sample::decode(block, pixel_bytes) {
            gathered.injected_samples += 1;
            for device in devices.iter_mut().filter(|device| device.rank != giver) {
                if device.batch.labels.len() < batches.max_batch {
                    let key = augment_key(device.rank, giver, offset);
                    device.batch.push(inputs, key, label, pixels);
                }
            }
        }
    })?;
    devices.iter_mut().zip(blocks).for_each(|(device, block)| device.batch.shared = block);
    Ok(())
}

/// Key of a sample's random crop and flip: receiver, giver (4,096 devices each) and position in the giver's source.
fn augment_key(receiver: usize, giver: usize, offset: u64) -> u64 {
    (receiver as u64) << 52 | (giver as u64) << 40 | (offset & ((1 << 40) - 1))
}
