//! The contract of a communicator, held by processes and by one process that hosts all.

use crate::{free_address, job, link, mismatch};
use scadles::cluster::link::{all_gather_sent_bytes, all_reduce_sent_bytes};
use scadles::comm::{CommError, Communicator, LocalCommunicator, Place, ProcessCommunicator, Traffic};
use std::time::Duration;

const DEVICES: usize = 5;

/// A term of rank `rank`: not exact in f32 when added up, so that the order shows.
fn term(rank: usize, i: usize) -> f32 {
    ((rank * 31 + i * 7) % 101) as f32 * 0.1 - 3.0
}

/// The sum in the order of ranks.
fn sum_of(ranks: impl Iterator<Item = usize>, len: usize) -> Vec<f32> {
    let mut sum = vec![0.0; len];
    ranks.for_each(|rank| sum.iter_mut().enumerate().for_each(|(i, sum)| *sum += term(rank, i)));
    sum
}

#[test]
fn sums_are_those_of_one_process_and_the_same_bytes_everywhere() {
    for len in [0, 1, 3, 4097, 100_000] {
        for processes in [1, 2, 3, 5] {
            let results = job(processes, DEVICES, |_, mut comm| {
                let mut vector = sum_of(comm.local_ranks(), len);
                let traffic = comm.all_reduce_sum(&mut vector).unwrap();
                (vector, traffic)
            });
            let expected = sum_of(0..DEVICES, len);
            for (vector, _) in &results {
                assert!(vector == &results[0].0, "{processes} processes differ in a sum of {len}");
                for (a, b) in vector.iter().zip(&expected) {
                    assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} for {b}");
                }
                assert!(
                    processes < DEVICES || vector == &expected,
                    "one device each, yet not the bytes of one process"
                );
            }
            let sent: u64 = results.iter().map(|(_, traffic)| traffic.sent_bytes).sum();
            assert_eq!(
                sent,
                all_reduce_sent_bytes(4 * len as u64, processes),
                "{processes} processes, {len} floats"
            );
        }
    }
}

#[test]
fn blocks_and_scalars_come_in_rank_order_with_the_time_and_bytes_of_one_process() {
    let block = |rank: usize| vec![rank as u8; [0, 7, 10_000, 1, 0][rank]];
    let blocks: Vec<_> = (0..DEVICES).map(block).collect();
    let run = |comm: &mut dyn Communicator| {
        let ranks = comm.local_ranks();
        let mut seen = Vec::new();
        let gathered = comm
            .all_gather_bytes(&blocks[ranks.clone()], &mut |rank, block| seen.push((rank, block.to_vec())))
            .unwrap();
        let mut scalars = [0.0; DEVICES];
        let own: Vec<f64> = ranks.map(|rank| rank as f64 + 0.5).collect();
        comm.all_gather_scalars(&own, &mut scalars).unwrap();
        (seen, scalars, gathered)
    };
    let (seen, scalars, traffic) = run(&mut LocalCommunicator::new(DEVICES, link()));
    for processes in [1, 2, 4, 5] {
        let results = job(processes, DEVICES, |_, mut comm| run(&mut comm));
        for (theirs, their_scalars, their_traffic) in &results {
            assert!(theirs == &seen && their_scalars == &scalars);
            assert_eq!(their_traffic.elapsed, traffic.elapsed);
        }
        let sent: u64 = results.iter().map(|(.., traffic)| traffic.sent_bytes).sum();
        let total = blocks.iter().map(|block| block.len() as u64).sum::<u64>();
        assert_eq!(sent, (processes as u64 - 1) * total);
        assert!(
            processes < DEVICES
                || sent == all_gather_sent_bytes(blocks.iter().map(|block| block.len() as u64))
        );
    }
}

#[test]
fn rows_flags_and_vectors_of_the_first_process_reach_all() {
    let results = job(3, DEVICES, |process, mut comm| {
        let rows = comm.share(&vec![process as f64; process]).unwrap();
        let flags = [comm.any(process == 2).unwrap(), comm.any(false).unwrap()];
        let mut vector = vec![process as f32; 3000];
        comm.broadcast(&mut vector).unwrap();
        let same = comm.check_equal("a number", 5).is_ok();
        let error = comm.check_equal("the parameters", u32::from(process == 1)).unwrap_err().to_string();
        (rows, flags, vector, same, error)
    });
    for (rows, flags, vector, same, error) in results {
        assert_eq!(rows, [vec![], vec![1.0], vec![2.0, 2.0]]);
        assert_eq!((flags, same), ([true, false], true));
        assert!(vector.iter().all(|&x| x == 0.0));
        assert!(error.contains("the parameters of processes [1] differ"), "{error}");
    }
}

#[test]
fn a_wrong_number_of_contributions_is_an_error_of_the_caller_alone() {
    job(2, DEVICES, |_, mut comm| {
        let error = comm.all_gather_scalars(&[1.0; 7], &mut [0.0; DEVICES]).unwrap_err();
        assert!(matches!(error, CommError::Contributions { found: 7, .. }), "{error}");
        assert!(matches!(comm.all_reduce_hosted(3), Err(CommError::NotHosted { .. })));
        assert_eq!(comm.all_reduce_sum(&mut []).unwrap().sent_bytes, Traffic::default().sent_bytes);
    });
}

#[test]
fn who_does_not_fit_is_named() {
    for error in mismatch((0, 2, 1), (1, 2, 2)) {
        assert!(error.to_string().contains("process 1 at 127.0.0.1"), "{error}");
        assert!(error.to_string().contains("another configuration or version"), "{error}");
    }
    for error in mismatch((0, 3, 1), (1, 2, 1)) {
        assert!(error.to_string().contains("expects 2 processes, process 0 expects 3"), "{error}");
    }
    let alone = Place { process: 0, processes: 3, rendezvous: free_address() };
    let error = ProcessCommunicator::connect(&alone, 4, 1, Duration::from_millis(300), None).unwrap_err();
    assert!(error.to_string().contains("processes [1, 2] did not come"), "{error}");
    let error = ProcessCommunicator::connect(&alone, 2, 1, Duration::from_millis(300), None).unwrap_err();
    assert!(error.to_string().contains("3 processes for 2 devices"), "{error}");
}
