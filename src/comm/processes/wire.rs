//! Frames between two processes: a header that says which call they belong to, then the payload.

use crate::comm::CommError;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// A collective, as both ends must name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    Scalars = 1,
    ReduceScatter,
    AllGather,
    Blocks,
    Broadcast,
    Share,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalars => "all_gather_scalars",
            Self::ReduceScatter | Self::AllGather => "all_reduce_sum",
            Self::Blocks => "all_gather_bytes",
            Self::Broadcast => "broadcast",
            Self::Share => "share",
        }
    }
}

const DATA: u8 = 0;
const ABORT: u8 = 1;
const HEADER: usize = 24;

/// Longest payload that is believed, 64 GiB: a longer one is a damaged header.
const MAX_PAYLOAD: u64 = 1 << 36;

/// Longest reason that an abort carries, bytes.
const MAX_REASON: u64 = 4096;

/// How long an abort may take to leave.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

fn header(kind: u8, op: u8, sequence: u64, len: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    (header[0], header[1]) = (kind, op);
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&len.to_le_bytes());
    header
}

/// Sends one frame to process `to`.
pub(super) fn send(
    mut stream: &TcpStream,
    to: usize,
    op: Op,
    sequence: u64,
    payload: &[u8],
) -> Result<(), CommError> {
    let header = header(DATA, op as u8, sequence, payload.len() as u64);
    let sent = stream.write_all(&header).and_then(|()| stream.write_all(payload));
    sent.map_err(|error| lost(to, op, &error))
}

/// Receives the frame of process `from` for this call into `payload`.
pub(super) fn receive(
    mut stream: &TcpStream,
    from: usize,
    op: Op,
    sequence: u64,
    payload: &mut Vec<u8>,
) -> Result<(), CommError> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).map_err(|error| lost(from, op, &error))?;
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let (their_sequence, len) = (word(8), word(16));
    if header[0] == ABORT {
        let mut reason = Vec::new();
        let read = stream.take(len.min(MAX_REASON)).read_to_end(&mut reason);
        let reason =
            read.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&reason).into_owned());
        return Err(CommError::Aborted { process: their_sequence as usize, reason });
    }
    if (header[0], header[1], their_sequence) != (DATA, op as u8, sequence) || len > MAX_PAYLOAD {
        let reason = format!(
            "it is in call {their_sequence} of kind {}, this process in call {sequence} of kind {}: they do not run the same job",
            header[1], op as u8
        );
        return Err(CommError::Peer { process: from, op: op.name(), reason });
    }
    payload.clear();
    let read = stream.take(len).read_to_end(payload).map_err(|error| lost(from, op, &error))?;
    match read as u64 == len {
        true => Ok(()),
        false => Err(lost(from, op, &ErrorKind::UnexpectedEof.into())),
    }
}

/// Tells the other end, as far as it still listens, that process `culprit` ended the job.
pub(super) fn abort(mut stream: &TcpStream, culprit: usize, reason: &str) {
    let reason = &reason.as_bytes()[..reason.len().min(MAX_REASON as usize)];
    let header = header(ABORT, 0, culprit as u64, reason.len() as u64);
    let _ = stream.set_write_timeout(Some(ABORT_TIMEOUT));
    let _ = stream.write_all(&[&header[..], reason].concat());
    let _ = stream.shutdown(Shutdown::Write);
}

fn lost(process: usize, op: Op, error: &io::Error) -> CommError {
    let reason = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            "nothing came from it within the deadline: it hangs, was stopped, or its link is cut".into()
        }
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::ConnectionAborted => "its connection was closed: it ended or was killed".into(),
        _ => error.to_string(),
    };
    CommError::Peer { process, op: op.name(), reason }
}
