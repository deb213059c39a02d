//! An address -> a complete file, over as many connections as it takes.

use super::error::{FetchError, disk};
use super::{FetchEvent, FetchOptions};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{Response, Uri, header};

/// Nothing published is longer.
const LIMIT_BYTES: u64 = 512 << 20;
/// After this many received bytes the attempts count anew.
const ATTEMPTS_RESET_BYTES: u64 = 1 << 20;
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const CHUNK_BYTES: usize = 64 << 10;

/// How one attempt ended early.
enum Failure {
    /// Another attempt may succeed.
    Passing(String),
    /// No attempt will.
    Final(FetchError),
}

/// Completes the file `part` from `url`, starting with the bytes that are there; returns it open and locked.
pub(super) fn download(
    url: &str,
    part: &Path,
    options: &FetchOptions,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<File, FetchError> {
    let agent = agent(url, options)?;
    let mut file = open_locked(part)?;
    let (mut attempts, mut since_reset, mut base) = (1, 1, length(&file, part)?);
    loop {
        let reason = match attempt(&agent, url, part, &mut file, progress) {
            Ok(()) => return Ok(file),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(reason)) => reason,
        };
        let received_bytes = length(&file, part)?;
        if received_bytes >= base + ATTEMPTS_RESET_BYTES {
            (since_reset, base) = (1, received_bytes);
        } else if since_reset > options.retries {
            return Err(FetchError::Cut {
                url: url.into(),
                reason,
                attempts,
                received_bytes,
                part: part.into(),
            });
        }
        let wait = options.backoff.saturating_mul(1 << (since_reset - 1).min(16)).min(LONGEST_WAIT);
        (attempts, since_reset) = (attempts + 1, since_reset + 1);
        progress(FetchEvent::Retrying { attempt: attempts, wait, reason });
        std::thread::sleep(wait);
    }
}

fn agent(url: &str, options: &FetchOptions) -> Result<ureq::Agent, FetchError> {
    let uri: Uri = url.parse().map_err(|error| address(url, &error))?;
    let host = match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) => host,
        _ => return Err(address(url, &"not an http:// or https:// address")),
    };
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(options.connect_timeout))
        .timeout_per_read(Some(options.stall_timeout))
        .user_agent(concat!("scadles/", env!("CARGO_PKG_VERSION")));
    if host == "localhost" || host == "[::1]" || host.starts_with("127.") {
        config = config.proxy(None);
    }
    Ok(config.build().new_agent())
}

/// Opens `part` for appending; the lock lasts as long as the file is open.
fn open_locked(part: &Path) -> Result<File, FetchError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part);
    let file = file.map_err(disk("open", part))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FetchError::Busy { part: part.into() }),
        // Some network file systems know no locks; the checksum still guards the result.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(disk("lock", part)(error)),
    }
}

/// One request for the bytes that are missing.
fn attempt(
    agent: &ureq::Agent,
    url: &str,
    part: &Path,
    file: &mut File,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<(), Failure> {
    let have = length(file, part).map_err(Failure::Final)?;
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.call().map_err(|error| failure(url, &error))?;
    let (start, total) = match response.status().as_u16() {
        200 => (0, content_length(&response)),
        206 => match content_range(&response) {
            Some((Some(start), total)) if start == have => (have, total),
            _ => return start_over(file, part, "the server sent another range than asked for"),
        },
        416 if have > 0 => match content_range(&response) {
            Some((None, Some(total))) if total == have => return Ok(()),
            _ => return start_over(file, part, "the server has fewer bytes than were received"),
        },
        status @ (408 | 425 | 429 | 500..=599) => {
            return Err(Failure::Passing(format!("the server answers {status}")));
        }
        status => return Err(Failure::Final(FetchError::Status { url: url.into(), status })),
    };
    file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start))).map_err(refused("write", part))?;
    receive(response, url, part, file, start, total, progress)
}

/// Appends the body to the file, from byte `at` on.
fn receive(
    response: Response<ureq::Body>,
    url: &str,
    part: &Path,
    file: &mut File,
    mut at: u64,
    total: Option<u64>,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<(), Failure> {
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        progress(FetchEvent::Downloading { received_bytes: at, total_bytes: total });
        let count = match body.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Passing(format!("the connection was cut: {error}"))),
        };
        if count == 0 {
            break;
        }
        at += count as u64;
        if at > LIMIT_BYTES {
            file.set_len(0).map_err(refused("write", part))?;
            return Err(Failure::Final(FetchError::TooLong { url: url.into(), limit_bytes: LIMIT_BYTES }));
        }
        file.write_all(&chunk[..count]).map_err(refused("write", part))?;
    }
    match total {
        Some(total) if at < total => {
            Err(Failure::Passing(format!("the connection was cut after {at} of {total} bytes")))
        }
        _ => Ok(()),
    }
}

/// Drops what was received: the next attempt asks for everything.
fn start_over(file: &File, part: &Path, reason: &str) -> Result<(), Failure> {
    file.set_len(0).map_err(refused("write", part))?;
    Err(Failure::Passing(reason.into()))
}

fn content_length(response: &Response<ureq::Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// First byte and total length of `bytes 5-9/10`, `bytes 5-9/*`, `bytes */10`.
fn content_range(response: &Response<ureq::Body>) -> Option<(Option<u64>, Option<u64>)> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-').and_then(|(start, _)| start.parse().ok()), total.parse().ok()))
}

fn failure(url: &str, error: &ureq::Error) -> Failure {
    use ureq::Error as E;
    match error {
        E::Io(_) | E::Timeout(_) | E::HostNotFound | E::ConnectionFailed | E::Protocol(_) => {
            Failure::Passing(error.to_string())
        }
        _ => Failure::Final(address(url, error)),
    }
}

fn address(url: &str, reason: &dyn std::fmt::Display) -> FetchError {
    FetchError::Address { url: url.into(), reason: reason.to_string() }
}

fn length(file: &File, part: &Path) -> Result<u64, FetchError> {
    Ok(file.metadata().map_err(disk("read", part))?.len())
}

fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let wrap = disk(action, path);
    move |error| Failure::Final(wrap(error))
}
