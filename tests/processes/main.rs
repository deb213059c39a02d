//! Several processes of one job: the collectives, training, and what happens when a process is lost.

mod collectives;
mod faults;
mod training;

use scadles::cluster::Link;
use scadles::comm::{CommError, Place, ProcessCommunicator};
use scadles::train::config::LinkConfig;
use std::net::TcpListener;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// An address of this machine that is free now.
fn free_address() -> String {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().to_string()
}

fn link() -> Link {
    Link::new(&LinkConfig::default())
}

/// Runs `work` in each of `processes` processes, here threads, of a job with `devices` devices; returns what each gave.
fn job<T: Send>(
    processes: usize,
    devices: usize,
    work: impl Fn(usize, ProcessCommunicator) -> T + Sync,
) -> Vec<T> {
    let rendezvous = free_address();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..processes)
            .map(|process| {
                let place = Place { process, processes, rendezvous: rendezvous.clone() };
                let work = &work;
                scope.spawn(move || {
                    let comm =
                        ProcessCommunicator::connect(&place, devices, 7, DEADLINE, Some(link())).unwrap();
                    work(process, comm)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Errors of two processes that do not fit together.
fn mismatch(first: (usize, usize, u32), second: (usize, usize, u32)) -> Vec<CommError> {
    let rendezvous = free_address();
    std::thread::scope(|scope| {
        let threads: Vec<_> = [first, second]
            .into_iter()
            .map(|(process, processes, job)| {
                let place = Place { process, processes, rendezvous: rendezvous.clone() };
                scope.spawn(move || {
                    ProcessCommunicator::connect(&place, 4, job, Duration::from_secs(2), None).unwrap_err()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
