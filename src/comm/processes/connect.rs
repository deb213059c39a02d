//! How the processes of a job find each other: process 0 listens at the rendezvous, the others tell it where they listen, and
//! each pair gets one connection.

use crate::comm::CommError;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

const MAGIC: [u8; 4] = *b"SCDL";
/// Of this handshake and the frames that follow it.
const PROTOCOL: u32 = 1;
const PAUSE: Duration = Duration::from_millis(10);
/// Longest table of addresses that is believed, bytes.
const MAX_TABLE: u32 = 1 << 20;

/// Which process of which job this is, and where the job meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub process: usize,
    /// Processes of the job.
    pub processes: usize,
    /// `host:port` at which process 0 listens.
    pub rendezvous: String,
}

/// What a process says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hello {
    protocol: u32,
    job: u32,
    processes: u32,
    process: u32,
    port: u16,
}

impl Hello {
    fn encode(self) -> [u8; 22] {
        let mut bytes = [0; 22];
        bytes[..4].copy_from_slice(&MAGIC);
        let words = [self.protocol, self.job, self.processes, self.process];
        for (to, word) in bytes[4..20].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[20..].copy_from_slice(&self.port.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; 22]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (bytes[..4] == MAGIC).then(|| Self {
            protocol: word(4),
            job: word(8),
            processes: word(12),
            process: word(16),
            port: u16::from_le_bytes([bytes[20], bytes[21]]),
        })
    }
}

/// Connections to all other processes, in their order; none at this one's place. `job` must be equal in all processes: a
/// checksum of what they are about to do.
pub(super) fn connect(
    place: &Place,
    job: u32,
    deadline: Duration,
) -> Result<Vec<Option<TcpStream>>, CommError> {
    let Place { process, processes, rendezvous } = place;
    if process >= processes {
        return Err(setup(format!(
            "process {process} of {processes} does not exist; processes count from 0"
        )));
    }
    if *processes > u32::MAX as usize {
        return Err(setup(format!("{processes} processes are too many")));
    }
    let until = Instant::now() + deadline;
    let mut streams: Vec<Option<TcpStream>> = (0..*processes).map(|_| None).collect();
    if *processes == 1 {
        return Ok(streams);
    }
    if *process == 0 {
        gather(place, job, until, &mut streams)?;
    } else {
        join(place, job, until, &mut streams).map_err(|error| match error {
            Failure::Comm(error) => error,
            Failure::Io(error) => setup(format!("process {process} could not join at {rendezvous}: {error}")),
        })?;
    }
    for stream in streams.iter().flatten() {
        let set = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| stream.set_read_timeout(Some(deadline)))
            .and_then(|()| stream.set_write_timeout(Some(deadline)));
        set.map_err(|error| setup(format!("a connection cannot be set up: {error}")))?;
    }
    Ok(streams)
}

/// Process 0: waits for all others, checks that they belong to the job, and tells each where the others listen.
fn gather(
    place: &Place,
    job: u32,
    until: Instant,
    streams: &mut [Option<TcpStream>],
) -> Result<(), CommError> {
    let Place { processes, rendezvous, .. } = place;
    let listener = TcpListener::bind(rendezvous).map_err(|error| {
        setup(format!("process 0 cannot listen at {rendezvous}: {error}; choose another --rendezvous"))
    })?;
    let mut listening: Vec<Option<SocketAddr>> = vec![None; *processes];
    while streams.iter().flatten().count() + 1 < *processes {
        let Some((mut stream, from)) = accept(&listener, until).map_err(|error| setup(error.to_string()))?
        else {
            let missing: Vec<usize> = (1..*processes).filter(|&process| streams[process].is_none()).collect();
            return Err(setup(format!(
                "processes {missing:?} did not come to {rendezvous} before the deadline"
            )));
        };
        let mut bytes = [0; 22];
        if stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .and_then(|()| stream.read_exact(&mut bytes))
            .is_err()
        {
            continue; // somebody else who knocks at this port
        }
        let Some(hello) = Hello::decode(bytes) else { continue };
        let process = hello.process as usize;
        let problem = if hello.protocol != PROTOCOL {
            Some(format!(
                "speaks protocol {}, process 0 speaks {PROTOCOL}: use one version of the program",
                hello.protocol
            ))
        } else if hello.processes as usize != *processes {
            Some(format!("expects {} processes, process 0 expects {processes}", hello.processes))
        } else if hello.job != job {
            Some("has another configuration or version: give all processes the same file and flags".into())
        } else if process == 0 || process >= *processes || streams[process].is_some() {
            Some("has a number that is taken or not of this job".into())
        } else {
            None
        };
        if let Some(problem) = problem {
            let reason = format!("process {process} at {from} {problem}");
            let _ = answer(&mut stream, 1, reason.as_bytes());
            for stream in streams.iter_mut().flatten() {
                let _ = answer(stream, 1, reason.as_bytes());
            }
            return Err(setup(reason));
        }
        listening[process] = Some(SocketAddr::new(from.ip(), hello.port));
        streams[process] = Some(stream);
    }
    let table: Vec<String> = listening
        .iter()
        .map(|address| address.map_or_else(String::new, |address| address.to_string()))
        .collect();
    for (process, stream) in streams.iter_mut().enumerate() {
        if let Some(stream) = stream {
            answer(stream, 0, table.join("\n").as_bytes()).map_err(|error| {
                setup(format!("process {process} went away while the job was set up: {error}"))
            })?;
        }
    }
    Ok(())
}

enum Failure {
    Comm(CommError),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Any other process: reports to process 0, connects to those before it, and is called by those behind it.
fn join(place: &Place, job: u32, until: Instant, streams: &mut [Option<TcpStream>]) -> Result<(), Failure> {
    let Place { process, processes, rendezvous } = place;
    let mut root = call(rendezvous, until)?;
    let any: IpAddr = if root.local_addr()?.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let listener = TcpListener::bind((any, 0))?;
    let hello = Hello {
        protocol: PROTOCOL,
        job,
        processes: *processes as u32,
        process: *process as u32,
        port: listener.local_addr()?.port(),
    };
    root.write_all(&hello.encode())?;
    root.set_read_timeout(Some(until.saturating_duration_since(Instant::now()).max(PAUSE)))?;
    let mut head = [0; 5];
    root.read_exact(&mut head)?;
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if len > MAX_TABLE {
        return Err(io::Error::other("what answered there is no process of this program").into());
    }
    let mut body = vec![0; len as usize];
    root.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if head[0] != 0 {
        return Err(Failure::Comm(setup(body)));
    }
    streams[0] = Some(root);
    for (other, address) in body.split('\n').enumerate().take(*process).skip(1) {
        let mut stream = call(address, until)?;
        stream.write_all(&(*process as u32).to_le_bytes())?;
        streams[other] = Some(stream);
    }
    while streams.iter().flatten().count() + 1 < *processes {
        let Some((mut stream, _)) = accept(&listener, until)? else {
            let missing: Vec<usize> =
                (process + 1..*processes).filter(|&other| streams[other].is_none()).collect();
            return Err(Failure::Comm(setup(format!(
                "processes {missing:?} did not call process {process} before the deadline"
            ))));
        };
        let mut number = [0; 4];
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        if stream.read_exact(&mut number).is_err() {
            continue;
        }
        let other = u32::from_le_bytes(number) as usize;
        if other > *process && other < *processes && streams[other].is_none() {
            streams[other] = Some(stream);
        }
    }
    Ok(())
}

fn answer(stream: &mut TcpStream, status: u8, body: &[u8]) -> io::Result<()> {
    let len = (body.len() as u32).to_le_bytes();
    stream.write_all(&[&[status], &len[..], body].concat())
}

/// The next caller; none at the deadline.
fn accept(listener: &TcpListener, until: Instant) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some((stream, from)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Ok(None);
                }
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Connects to `address`, again and again until the deadline: whoever listens there may start later.
fn call(address: &str, until: Instant) -> io::Result<TcpStream> {
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        let addresses = address.to_socket_addrs();
        match addresses {
            Ok(addresses) => {
                for address in addresses {
                    match TcpStream::connect_timeout(&address, left) {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error,
                    }
                }
            }
            Err(error) => last = error,
        }
        if Instant::now() >= until {
            return Err(io::Error::new(last.kind(), format!("nobody listens at {address}: {last}")));
        }
        std::thread::sleep(PAUSE);
    }
}

pub(super) fn setup(reason: String) -> CommError {
    CommError::Setup { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_wire_and_noise_is_none() {
        let hello = Hello { protocol: 1, job: 0xfeed_beef, processes: 3, process: 2, port: 4711 };
        assert_eq!(Hello::decode(hello.encode()), Some(hello));
        assert_eq!(Hello::decode(*b"GET / HTTP/1.1\r\nHost: "), None);
    }
}
