//! What the processes of a job tell each other in a step, so that clock, learning rate and records are the same on all.

use super::{Trainer, not_the_same_call};
use crate::comm::Traffic;
use crate::error::Result;
use crate::metrics::record::StepRecord;
use crate::train::engine::StepOutcome;
use std::time::Duration;

/// A step's outcome over all processes.
pub(super) struct Told {
    /// The latest of each time.
    pub times: [Duration; 3],
    pub loss_sum: f64,
    pub top1: f64,
    pub grad_norm: f64,
    pub sent_elements: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// The latest of the times, in ns, at place `column` of all rows. Exact for 104 days.
pub(super) fn latest(rows: &[Vec<f64>], column: usize) -> Duration {
    let latest = rows.iter().filter_map(|row| row.get(column)).copied().fold(0.0, f64::max);
    Duration::from_nanos(latest as u64)
}

impl Trainer {
    /// Share of the run that is done, as process 0 sees it; takes up what drift on any process makes of the learning rate.
    pub(super) fn agree_on_progress(&mut self, now: Duration) -> Result<f64> {
        let factor = self.drift.as_ref().map_or(1.0, |drift| drift.lr_factor(self.step));
        let rows = self.comm.share(&[self.progress(now), factor])?;
        if rows.iter().any(|row| row.len() != 2) {
            return Err(not_the_same_call().into());
        }
        self.lr_factor = rows.iter().map(|row| row[1]).fold(1.0, f64::max);
        Ok(rows[0][0])
    }

    /// Sums, or maxima, of what the processes have seen.
    pub(super) fn share_outcome(
        &mut self,
        outcome: &StepOutcome,
        traffic: &Traffic,
        times: [Duration; 3],
    ) -> Result<Told> {
        let exchange = &outcome.exchange;
        let [end, compute, ready] = times.map(|time| time.as_nanos() as f64);
        let row = [
            end,
            compute,
            ready,
            outcome.loss.loss_sum,
            outcome.loss.top1 as f64,
            outcome.grad_norm,
            exchange.sent_elements as f64,
            traffic.sent_bytes as f64,
            traffic.received_bytes as f64,
        ];
        let rows = self.comm.share(&row)?;
        if rows.iter().any(|other| other.len() != row.len()) {
            return Err(not_the_same_call().into());
        }
        let sum = |column: usize| rows.iter().map(|row| row[column]).sum::<f64>();
        // NaN is larger than any.
        let max = |column: usize| {
            rows.iter().map(|row| row[column]).fold(0.0, |a: f64, b| if b.is_nan() || b > a { b } else { a })
        };
        Ok(Told {
            times: [0, 1, 2].map(|column| latest(&rows, column)),
            loss_sum: sum(3),
            top1: sum(4),
            grad_norm: max(5),
            // A dense sum counts the elements of all devices already.
            sent_elements: if exchange.compressed { sum(6) } else { max(6) } as u64,
            sent_bytes: sum(7) as u64,
            received_bytes: sum(8) as u64,
        })
    }

    /// Loss and stream of every device, into the record of the step.
    pub(super) fn record_devices(
        &mut self,
        record: &mut StepRecord,
        now: Duration,
        device_loss: &[f64],
    ) -> Result<()> {
        const COLUMNS: usize = 9;
        let mut own = Vec::with_capacity(COLUMNS * self.devices.len());
        for (index, device) in self.devices.iter_mut().enumerate() {
            let counters = device.stream.counters();
            let age = match (counters.occupancy_samples, device.stream.oldest_arrival()) {
                (0, _) => 0.0,
                (_, Some(arrival)) => now.saturating_sub(arrival).as_secs_f64(),
                (_, None) => f64::NAN,
            };
            own.extend([
                device_loss.get(index).copied().unwrap_or(f64::NAN),
                counters.occupancy_samples as f64,
                counters.occupancy_bytes as f64,
                counters.dropped as f64,
                counters.arrived as f64,
                counters.taken as f64,
                counters.dead_lettered as f64,
                counters.lag_samples as f64,
                age,
            ]);
        }
        for device in self.comm.share(&own)?.iter().flat_map(|row| row.as_chunks::<COLUMNS>().0) {
            let [loss, occupancy, bytes, dropped, arrived, taken, dead_lettered, lag, age] = *device;
            record.device_loss.push(loss);
            record.occupancy_samples.push(occupancy as u64);
            record.occupancy_bytes.push(bytes as u64);
            record.dropped_samples.push(dropped as u64);
            record.arrived_samples.push(arrived as u64);
            record.taken_samples.push(taken as u64);
            record.dead_lettered_samples.push(dead_lettered as u64);
            record.lag_samples.push(lag as u64);
            record.oldest_age_s.push(age);
        }
        Ok(())
    }
}
