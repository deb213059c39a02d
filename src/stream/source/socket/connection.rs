//! A TCP connection that opens itself again, and on which no call blocks.

use std::io::{ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// Longest wait for an answer to a connection attempt.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Wait before the second attempt; it doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Longest wait between attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Answer of a connection.
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// None, or not connected.
    Nothing,
    /// The connection has just ended.
    Closed,
}

enum State {
    /// Not before this time.
    Waiting(Duration),
    /// A thread connects.
    Connecting(Receiver<TcpStream>),
    Open(TcpStream),
}

pub(super) struct Connection {
    address: String,
    state: State,
    wait: Duration,
    opened: u64,
}

impl Connection {
    pub(super) fn new(address: String) -> Self {
        Self { address, state: State::Waiting(Duration::ZERO), wait: FIRST_WAIT, opened: 0 }
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// The peer speaks the protocol: after its end, try again soon.
    pub(super) fn is_useful(&mut self) {
        self.wait = FIRST_WAIT;
    }

    /// Closes; the next attempt comes after a wait that doubles each time.
    pub(super) fn close(&mut self, now: Duration) {
        self.state = State::Waiting(now + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Reads what has come into `space`, which must not be empty; moves connecting on.
    pub(super) fn receive(&mut self, now: Duration, space: &mut [u8]) -> Received {
        match &mut self.state {
            State::Waiting(until) if now < *until => Received::Nothing,
            State::Waiting(_) => {
                self.connect(now);
                Received::Nothing
            }
            State::Connecting(answer) => {
                match answer.try_recv() {
                    Ok(stream) => {
                        self.state = State::Open(stream);
                        self.opened += 1;
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => self.close(now),
                }
                Received::Nothing
            }
            State::Open(stream) => match stream.read(space) {
                Ok(count) if count > 0 => Received::Bytes(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => Received::Bytes(0),
                Ok(_) | Err(_) => {
                    self.close(now);
                    Received::Closed
                }
            },
        }
    }

    /// Connects on a thread of its own, which ends by itself: name look-up and connecting block.
    fn connect(&mut self, now: Duration) {
        let (sender, answer) = channel();
        let address = self.address.clone();
        let thread = std::thread::Builder::new().name("scadles-connect".into()).spawn(move || {
            if let Some(stream) = open(&address) {
                // Nobody waits any more when the source has been dropped.
                let _ = sender.send(stream);
            }
        });
        match thread {
            Ok(_) => self.state = State::Connecting(answer),
            Err(_) => self.close(now),
        }
    }
}

fn open(address: &str) -> Option<TcpStream> {
    let stream = address
        .to_socket_addrs()
        .ok()?
        .find_map(|address| TcpStream::connect_timeout(&address, CONNECT_LIMIT).ok())?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}
