//! Samples from another machine: records over TCP.

mod connection;
mod meter;

use super::{Poll, SampleSlot, Source, SourceError};
use crate::shape::ImageShape;
use crate::stream::record::{CHECKSUM_BYTES, Decoded, Decoder, HEADER_BYTES, Header, Poison};
use crate::stream::ring::SampleMeta;
use crate::units::SamplesPerSec;
use connection::{Connection, Received};
use meter::RateMeter;
use std::time::Duration;

/// Pieces of work of one poll (reads and records put aside), so that a flood of bad bytes does not keep the feeder from
/// its other work.
const WORK_PER_POLL: usize = 64;

/// What a socket delivers, and where it is.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// `host:port` of the publisher.
    pub address: String,
    /// Size of every image.
    pub shape: ImageShape,
    /// Labels are below this.
    pub classes: usize,
    /// Rate until one has been measured.
    pub expected_rate: SamplesPerSec,
}

/// Reads [records](crate::stream::record) from a publisher. Connects (again) by itself, waiting longer after each
/// failure, and answers [`Poll::NotYet`] meanwhile; ends only at the publisher's end record. A record that is damaged,
/// of another size or with an unknown label is put aside and counted.
pub struct SocketSource {
    options: SocketOptions,
    connection: Connection,
    decoder: Decoder,
    meter: RateMeter,
    dead_lettered: u64,
    last_poison: Option<Poison>,
    ended: bool,
}

impl SocketSource {
    /// A source that begins to connect at its first poll.
    pub fn new(options: SocketOptions) -> Self {
        let decoder = Decoder::new(options.shape.numel());
        let connection = Connection::new(options.address.clone());
        let meter = RateMeter::new(options.expected_rate.0);
        Self { options, connection, decoder, meter, dead_lettered: 0, last_poison: None, ended: false }
    }

    /// Why the newest record put aside was no sample.
    pub fn last_poison(&self) -> Option<Poison> {
        self.last_poison
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connection.opened()
    }
}

fn put_aside(poison: Poison, last: &mut Option<Poison>, count: &mut u64) {
    *last = Some(poison);
    *count += 1;
}

/// Whether the trainer can use the sample.
fn check(header: &Header, options: &SocketOptions) -> Result<(), Poison> {
    let Header { height, width, channels, label, .. } = *header;
    let found = ImageShape { h: height.into(), w: width.into(), c: channels.into() };
    if found != options.shape {
        return Err(Poison::Shape { height, width, channels });
    }
    if label as usize >= options.classes {
        return Err(Poison::Label { label, classes: options.classes });
    }
    Ok(())
}

impl Source for SocketSource {
    fn pixel_bytes(&self) -> usize {
        self.options.shape.numel()
    }

    fn next_arrival(&mut self) -> Result<Option<Duration>, SourceError> {
        Ok(None)
    }

    fn poll(&mut self, now: Duration, slot: &mut SampleSlot<'_>) -> Result<Poll, SourceError> {
        if self.ended {
            return Ok(Poll::End);
        }
        self.meter.advance(now);
        for _ in 0..WORK_PER_POLL {
            match self.decoder.next_record() {
                Decoded::Sample(header, pixels) => {
                    self.connection.is_useful();
                    if let Err(poison) = check(&header, &self.options) {
                        put_aside(poison, &mut self.last_poison, &mut self.dead_lettered);
                        continue;
                    }
                    slot.pixels.copy_from_slice(pixels);
                    slot.meta = SampleMeta {
                        label: header.label,
                        offset: header.sequence,
                        arrival_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
                    };
                    self.meter.count();
                    return Ok(Poll::Ready);
                }
                Decoded::End(_) => {
                    self.ended = true;
                    self.connection.close(now);
                    return Ok(Poll::End);
                }
                Decoded::Poison(poison) => {
                    put_aside(poison, &mut self.last_poison, &mut self.dead_lettered);
                }
                Decoded::Incomplete => match self.connection.receive(now, self.decoder.space()) {
                    Received::Bytes(count) => self.decoder.filled(count),
                    Received::Nothing => return Ok(Poll::NotYet(None)),
                    Received::Closed => {
                        if let Some(poison) = self.decoder.finish() {
                            put_aside(poison, &mut self.last_poison, &mut self.dead_lettered);
                        }
                        return Ok(Poll::NotYet(None));
                    }
                },
            }
        }
        // More may be waiting.
        Ok(Poll::NotYet(Some(now)))
    }

    fn dead_lettered(&self) -> u64 {
        self.dead_lettered
    }

    fn lag_samples(&self) -> u64 {
        (self.decoder.held() / (self.pixel_bytes() + HEADER_BYTES + CHECKSUM_BYTES)) as u64
    }

    fn rate(&self, _now: Duration) -> SamplesPerSec {
        SamplesPerSec(self.meter.rate())
    }
}
