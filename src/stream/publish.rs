//! Plays a device's share of a data set to whoever connects, as [records](super::record) at the times of an arrival
//! process: the other end of a [`SocketSource`](super::source::SocketSource).

use super::record::{EncodeError, Header, encode_end, encode_sample};
use super::source::ReplaySource;
use crate::shape::ImageShape;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest time without a look at the stop flag.
const REST: Duration = Duration::from_millis(20);
/// Longest wait for the reader to close after the end record.
const LINGER: Duration = Duration::from_secs(2);

/// What has been published to one device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Published {
    /// Samples written.
    pub samples: u64,
    /// From the first connection to the end.
    pub seconds: f64,
    /// Most that a sample was written after its time, s.
    pub latest_s: f64,
    /// Readers that connected, one after the other.
    pub connections: u64,
}

impl Published {
    /// Samples per second reached.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.samples as f64 / self.seconds } else { 0.0 }
    }
}

/// Why nothing more is published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The listening socket failed.
    #[error("waiting for a connection: {0}")]
    Accept(#[from] io::Error),
    /// Images that are not of the given shape.
    #[error("the data set cannot be published: {0}")]
    Encode(#[from] EncodeError),
    /// Images that no record can describe.
    #[error(
        "images of {}x{}x{} do not fit a record: at most 65535 rows and columns and 255 channels",
        shape.h,
        shape.w,
        shape.c
    )]
    Shape {
        /// Shape of the images.
        shape: ImageShape,
    },
}

/// Publishes `source` to one reader at a time, for `length` from the first connection on or until `stop` is raised, and
/// then sends an end record. Each sample has its own time from the start, so delays do not add up; what comes due
/// without a reader, or while one is slow, is sent as soon as it can be. A sample whose writing fails is sent again to
/// the next reader; what a lost reader had received but not read is gone.
///
/// # Errors
/// See [`PublishError`].
pub fn publish(
    listener: &TcpListener,
    mut source: ReplaySource,
    shape: ImageShape,
    length: Duration,
    stop: &AtomicBool,
) -> Result<Published, PublishError> {
    let mut header = image_header(shape)?;
    listener.set_nonblocking(true)?;
    let mut done = Published::default();
    let Some(mut reader) = accept(listener, || stop.load(Ordering::Relaxed))? else { return Ok(done) };
    done.connections = 1;
    let start = Instant::now();
    let over = || stop.load(Ordering::Relaxed) || start.elapsed() >= length;
    let mut record = Vec::new();
    'samples: while let Some(due) = source.peek().filter(|due| *due < length) {
        while let Some(rest) = due.checked_sub(start.elapsed()).filter(|rest| !rest.is_zero()) {
            if over() {
                break 'samples;
            }
            std::thread::sleep(rest.min(REST));
        }
        let Some(sample) = source.next_ref(due) else { break };
        header.label = source.samples().label(sample.index);
        header.sequence = sample.offset;
        header.event_time_ns = unix_time_ns();
        record.clear();
        encode_sample(&header, source.samples().pixels(sample.index), &mut record)?;
        while !write(&mut reader, &record, &over) {
            if over() {
                break 'samples;
            }
            let Some(next) = accept(listener, over)? else { break 'samples };
            reader = next;
            done.connections += 1;
        }
        done.samples += 1;
        done.latest_s = done.latest_s.max(start.elapsed().saturating_sub(due).as_secs_f64());
    }
    while !over() && source.peek().is_none_or(|due| due >= length) {
        std::thread::sleep(REST.min(length.saturating_sub(start.elapsed())));
    }
    done.seconds = start.elapsed().as_secs_f64();
    finish(&mut reader, done.samples);
    Ok(done)
}

fn image_header(shape: ImageShape) -> Result<Header, PublishError> {
    let fits = |_| PublishError::Shape { shape };
    Ok(Header {
        height: shape.h.try_into().map_err(fits)?,
        width: shape.w.try_into().map_err(fits)?,
        channels: shape.c.try_into().map_err(fits)?,
        ..Header::default()
    })
}

/// The next reader; none once `over`.
fn accept(listener: &TcpListener, over: impl Fn() -> bool) -> io::Result<Option<TcpStream>> {
    while !over() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(REST))?;
                return Ok(Some(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(REST),
            // A reader that left before it was let in.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Writes all of `bytes`; false when the reader is gone, or does not read until `over`.
fn write(reader: &mut TcpStream, mut bytes: &[u8], over: &impl Fn() -> bool) -> bool {
    while !bytes.is_empty() {
        match reader.write(bytes) {
            Ok(0) => return false,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if over() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Sends the end record and waits for the reader to close, so that nothing in flight is thrown away.
fn finish(reader: &mut TcpStream, samples: u64) {
    let began = Instant::now();
    let late = || began.elapsed() >= LINGER;
    let mut record = Vec::new();
    encode_end(samples, &mut record);
    // A reader that has gone needs no end.
    if !write(reader, &record, &late) || reader.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let _ = reader.set_read_timeout(Some(REST));
    let mut rest = [0; 256];
    while !late() {
        match reader.read(&mut rest) {
            Ok(count) if count > 0 => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return,
        }
    }
}

fn unix_time_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
