//! Devices in several processes, on one machine or many: one TCP connection for each pair of processes.
//!
//! A sum is cut into one part per process. Each process gets its part from all others, adds in the order of processes, and sends
//! the result to all: every element is added up once, in one place, so results are the same bytes everywhere, and each process
//! sends `2 (P - 1) / P` of the vector, as the ring algorithms do. With one device per process the order is that of ranks, and
//! the bytes are those of [`LocalCommunicator`](super::LocalCommunicator).
//!
//! Nothing waits for ever: each read and write has the deadline. Whoever loses a process names it, tells all others which
//! one it was, and closes; the others then name the same process.

mod connect;
mod place;
mod wire;

pub use connect::Place;

use super::{CommError, Communicator, Traffic};
use crate::cluster::Link;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};
use wire::Op;

/// Payloads up to this size are sent before anything is received: they fit the buffers of a connection.
const SMALL: usize = 4096;

/// The collectives of one process of a job.
#[derive(Debug)]
pub struct ProcessCommunicator {
    process: usize,
    /// Ranks of each process.
    ranks: Vec<Range<usize>>,
    streams: Vec<Option<TcpStream>>,
    /// What the last call received from each process.
    inbox: Vec<Vec<u8>>,
    sum: Vec<f32>,
    sequence: u64,
    /// Computes the time of a call instead of measuring it, for runs in computed time.
    link: Option<Link>,
}

impl ProcessCommunicator {
    /// Meets the other processes of the job; `world_size` devices are split evenly over them, in order. `job` must be equal in all
    /// of them. `deadline` bounds the meeting and every later wait for another process. With a `link`, times are those of
    /// the simulated cluster's link; without, they are measured.
    ///
    /// # Errors
    /// [`CommError::Setup`]: fewer devices than processes, a process that does not come or runs another job.
    pub fn connect(
        place: &Place,
        world_size: usize,
        job: u32,
        deadline: Duration,
        link: Option<Link>,
    ) -> Result<Self, CommError> {
        let processes = place.processes;
        if world_size < processes {
            let reason =
                format!("{processes} processes for {world_size} devices; use at most one process per device");
            return Err(CommError::Setup { reason });
        }
        let streams = connect::connect(place, job, deadline)?;
        let first = |process: usize| process * world_size / processes;
        Ok(Self {
            process: place.process,
            ranks: (0..processes).map(|process| first(process)..first(process + 1)).collect(),
            inbox: vec![Vec::new(); processes],
            streams,
            sum: Vec::new(),
            sequence: 0,
            link,
        })
    }

    /// Sends `outgoing[p]` to each other process `p` and receives one payload from each into the inbox.
    fn exchange(&mut self, op: Op, outgoing: &[&[u8]]) -> Result<(), CommError> {
        self.sequence += 1;
        let (me, count) = (self.process, self.streams.len());
        let done = (1..count).try_for_each(|round| {
            self.exchange_two(op, (me + round) % count, (me + count - round) % count, outgoing)
        });
        if let Err(error) = &done {
            self.abort(error);
        }
        done
    }

    /// Sends to one process while receiving from another.
    fn exchange_two(&mut self, op: Op, to: usize, from: usize, outgoing: &[&[u8]]) -> Result<(), CommError> {
        let Self { streams, inbox, sequence, .. } = self;
        let gone = |process| CommError::Peer { process, op: op.name(), reason: "it was lost before".into() };
        let to_stream = streams[to].as_ref().ok_or_else(|| gone(to))?;
        let from_stream = streams[from].as_ref().ok_or_else(|| gone(from))?;
        let payload = outgoing[to];
        if payload.len() <= SMALL {
            wire::send(to_stream, to, op, *sequence, payload)?;
            return wire::receive(from_stream, from, op, *sequence, &mut inbox[from]);
        }
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| wire::send(to_stream, to, op, *sequence, payload));
            let received = wire::receive(from_stream, from, op, *sequence, &mut inbox[from]);
            if received.is_err() && !sender.is_finished() {
                // It may wait for a process that waits for the lost one.
                let _ = to_stream.shutdown(Shutdown::Both);
            }
            let sent = sender.join().unwrap_or_else(|_| Err(gone(to)));
            received.and(sent)
        })
    }

    /// Tells all others why this process goes.
    fn abort(&mut self, error: &CommError) {
        let (culprit, reason) = match error {
            CommError::Peer { process, reason, op } => (*process, format!("in {op}, {reason}")),
            CommError::Aborted { process, reason } => (*process, reason.clone()),
            other => (self.process, other.to_string()),
        };
        for stream in self.streams.iter_mut() {
            if let Some(stream) = stream.take() {
                wire::abort(&stream, culprit, &reason);
            }
        }
    }

    /// Bytes of process `process` in the last call; `own` for this one.
    fn received<'a>(&'a self, process: usize, own: &'a [u8]) -> &'a [u8] {
        if process == self.process { own } else { &self.inbox[process] }
    }

    fn wrong_size(&self, process: usize, op: Op) -> CommError {
        let reason = format!("{} bytes came from it, another number was due", self.inbox[process].len());
        CommError::Peer { process, op: op.name(), reason }
    }

    fn traffic(
        &self,
        begin: Instant,
        sent: usize,
        received: usize,
        computed: impl Fn(&Link) -> Duration,
    ) -> Traffic {
        let elapsed = self.link.as_ref().map_or_else(|| begin.elapsed(), computed);
        Traffic { sent_bytes: sent as u64, received_bytes: received as u64, elapsed }
    }

    fn others(&self) -> usize {
        self.streams.len() - 1
    }

    fn contributions(&self, op: &'static str, found: usize) -> Result<(), CommError> {
        let expected = self.ranks[self.process].len();
        if found == expected { Ok(()) } else { Err(CommError::Contributions { op, expected, found }) }
    }

    /// One row of numbers of each process.
    fn rows(&mut self, op: Op, row: &[f64]) -> Result<Vec<Vec<f64>>, CommError> {
        let own: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.exchange(op, &vec![&own[..]; self.streams.len()])?;
        let numbers = |process: usize| {
            let (words, rest) = self.received(process, &own).as_chunks::<8>();
            let row = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
            if rest.is_empty() { Ok(row) } else { Err(self.wrong_size(process, op)) }
        };
        (0..self.streams.len()).map(numbers).collect()
    }
}

impl Communicator for ProcessCommunicator {
    fn world_size(&self) -> usize {
        self.ranks.last().map_or(0, |ranks| ranks.end)
    }

    fn local_ranks(&self) -> Range<usize> {
        self.ranks[self.process].clone()
    }

    fn all_gather_scalars(&mut self, local: &[f64], all: &mut [f64]) -> Result<Traffic, CommError> {
        self.contributions("all_gather_scalars", local.len())?;
        let begin = Instant::now();
        for (process, row) in self.rows(Op::Scalars, local)?.into_iter().enumerate() {
            let ranks = self.ranks[process].clone();
            if row.len() != ranks.len() {
                return Err(self.wrong_size(process, Op::Scalars));
            }
            all[ranks].copy_from_slice(&row);
        }
        let (own, world_size) = (local.len(), self.world_size());
        let received = 8 * (world_size - own);
        Ok(self.traffic(begin, 8 * own * self.others(), received, |link| {
            link.all_gather_time((0..world_size).map(|_| 8))
        }))
    }

    fn all_reduce_sum(&mut self, vector: &mut [f32]) -> Result<Traffic, CommError> {
        let begin = Instant::now();
        let (len, count, me) = (vector.len(), self.streams.len(), self.process);
        let part = |process: usize| len * process / count..len * (process + 1) / count;
        if count > 1 {
            let parts: Vec<&[u8]> =
                (0..count).map(|process| bytemuck::cast_slice(&vector[part(process)])).collect();
            self.exchange(Op::ReduceScatter, &parts)?;
            let own: &[u8] = bytemuck::cast_slice(&vector[part(me)]);
            let mut sum = std::mem::take(&mut self.sum);
            sum.clear();
            sum.resize(part(me).len(), 0.0);
            for process in 0..count {
                let (terms, rest) = self.received(process, own).as_chunks::<4>();
                if terms.len() != sum.len() || !rest.is_empty() {
                    return Err(self.wrong_size(process, Op::ReduceScatter));
                }
                let terms = terms.iter().map(|term| f32::from_le_bytes(*term));
                match process {
                    0 => sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum = term),
                    _ => sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term),
                }
            }
            self.exchange(Op::AllGather, &vec![bytemuck::cast_slice(&sum); count])?;
            for process in 0..count {
                let (values, rest) = self.received(process, bytemuck::cast_slice(&sum)).as_chunks::<4>();
                let part = &mut vector[part(process)];
                if values.len() != part.len() || !rest.is_empty() {
                    return Err(self.wrong_size(process, Op::AllGather));
                }
                part.iter_mut().zip(values).for_each(|(to, value)| *to = f32::from_le_bytes(*value));
            }
            self.sum = sum;
        }
        let own = 4 * part(me).len();
        let moved = (4 * len - own) + own * self.others();
        let world_size = self.world_size();
        Ok(self.traffic(begin, moved, moved, |link| link.all_reduce_time(4 * len as u64, world_size)))
    }

    fn all_gather_bytes(
        &mut self,
        local: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<Traffic, CommError> {
        self.contributions("all_gather_bytes", local.len())?;
        let begin = Instant::now();
        let mut own = Vec::new();
        for block in local {
            own.extend_from_slice(&(block.len() as u64).to_le_bytes());
            own.extend_from_slice(block);
        }
        self.exchange(Op::Blocks, &vec![&own[..]; self.streams.len()])?;
        let mut lens = Vec::with_capacity(self.world_size());
        for (process, ranks) in self.ranks.iter().enumerate() {
            let mut rest = self.received(process, &own);
            for rank in ranks.clone() {
                let block = rest.split_first_chunk::<8>().and_then(|(len, blocks)| {
                    blocks.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
                });
                let Some((block, blocks)) = block else { return Err(self.wrong_size(process, Op::Blocks)) };
                visit(rank, block);
                lens.push(block.len() as u64);
                rest = blocks;
            }
        }
        let hosted: u64 = lens[self.local_ranks()].iter().sum();
        let received = (lens.iter().sum::<u64>() - hosted) as usize;
        Ok(self.traffic(begin, hosted as usize * self.others(), received, |link| {
            link.all_gather_time(lens.iter().copied())
        }))
    }

    fn all_reduce_hosted(&mut self, _: usize) -> Result<Traffic, CommError> {
        Err(self.not_hosted("all_reduce_hosted"))
    }

    fn all_gather_hosted(&mut self, _: &[u64]) -> Result<Traffic, CommError> {
        Err(self.not_hosted("all_gather_hosted"))
    }

    fn share(&mut self, row: &[f64]) -> Result<Vec<Vec<f64>>, CommError> {
        self.rows(Op::Share, row)
    }

    fn broadcast(&mut self, vector: &mut [f32]) -> Result<(), CommError> {
        let payload: &[u8] = if self.process == 0 { bytemuck::cast_slice(vector) } else { &[] };
        self.exchange(Op::Broadcast, &vec![payload; self.streams.len()])?;
        if self.process != 0 {
            let (values, rest) = self.inbox[0].as_chunks::<4>();
            if values.len() != vector.len() || !rest.is_empty() {
                return Err(self.wrong_size(0, Op::Broadcast));
            }
            vector.iter_mut().zip(values).for_each(|(to, value)| *to = f32::from_le_bytes(*value));
        }
        Ok(())
    }
}

impl ProcessCommunicator {
    fn not_hosted(&self, op: &'static str) -> CommError {
        CommError::NotHosted { op, hosted: self.local_ranks().len(), world_size: self.world_size() }
    }
}
