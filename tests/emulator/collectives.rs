//! `kernels/collectives.cu`.

use crate::device::{args, device_or_skip};
use crate::numbers::normal;

#[test]
fn shuffles_stay_within_their_width() {
    let Some(device) = device_or_skip("shuffles_stay_within_their_width") else { return };
    for width in [32, 16, 8, 4, 2] {
        let out = device.allocate(64 * 16);
        device.launch("collectives_shuffles", 1, 64, 0, args![out, width as i32]);
        for (thread, found) in device.read::<u32>(out, 256).chunks_exact(4).enumerate() {
            let (warp, lane) = (thread / 32 * 32, thread % 32);
            let (segment, place) = (lane / width * width, lane % width);
            // As CUDA's guide has it: up and down keep their own number at the edge; xor may reach a lower segment.
            let sources = [
                segment + 3 % width,
                if place >= 2 { lane - 2 } else { lane },
                if place + 5 < width { lane + 5 } else { lane },
                if (lane ^ 6) / width > lane / width { lane } else { lane ^ 6 },
            ];
            let expected = sources.map(|source| 100 + (warp + source) as u32);
            assert_eq!(found, expected, "width {width}, thread {thread}");
        }
    }
}

#[test]
fn votes_count_the_lanes_and_threads_there_are() {
    let Some(device) = device_or_skip("votes_count_the_lanes_and_threads_there_are") else { return };
    for threads in [32_usize, 45, 64, 100] {
        let out = device.allocate(threads * 32);
        device.launch("collectives_votes", 1, threads as u32, 0, args![out]);
        for (thread, found) in device.read::<u32>(out, 8 * threads).chunks_exact(8).enumerate() {
            let first = thread / 32 * 32;
            let lanes = first..threads.min(first + 32);
            let mask = |wanted: &dyn Fn(usize) -> bool| {
                let lanes = lanes.clone().filter(|lane| wanted(lane - first));
                lanes.map(|lane| 1_u32 << (lane - first)).sum::<u32>()
            };
            let whole = lanes.len() == 32;
            let expected = [
                mask(&|lane| lane % 3 == 0),
                u32::from(whole),
                u32::from(!whole),
                mask(&|lane| lane % 5 == (thread - first) % 5),
                (0..threads).filter(|i| i % 7 == 0).count() as u32,
                u32::from(threads > 40),
                u32::from(threads <= 40),
                lanes.clone().sum::<usize>() as u32,
            ];
            assert_eq!(found, expected, "{threads} threads, thread {thread}");
        }
    }
}

#[test]
fn halves_of_a_warp_go_their_own_ways() {
    let Some(device) = device_or_skip("halves_of_a_warp_go_their_own_ways") else { return };
    for threads in [128_usize, 256, 1024] {
        let out = device.allocate(threads * 4);
        device.launch("collectives_branches", 1, threads as u32, 0, args![out]);
        let groups = 3 * threads / 64;
        for (thread, &found) in device.read::<u32>(out, 3 * threads / 4).iter().enumerate() {
            let group = (thread / 16 + 1) % groups;
            let expected: usize = (16 * group..16 * (group + 1)).sum();
            assert_eq!(found as usize, expected, "{threads} threads, thread {thread}");
        }
    }
}

#[test]
fn atomics_lose_nothing_between_blocks() {
    let Some(device) = device_or_skip("atomics_lose_nothing_between_blocks") else { return };
    let (count, lowest) = (device.upload(&[0_u32, 5]), device.upload(&[i32::MAX]));
    let (bits, sum, sums) = (device.upload(&[0_u64]), device.upload(&[0_f32]), device.upload(&[0_f64]));
    device.launch("collectives_atomics", 300, 64, 0, args![count, lowest, bits, sum, sums]);
    let threads = 300 * 64;
    assert_eq!(device.read::<u32>(count, 2), [threads, 2 * threads + 5]);
    assert_eq!(device.read::<i32>(lowest, 1), [1001 - threads as i32]);
    assert_eq!(device.read::<u64>(bits, 1), [u64::MAX]);
    assert_eq!(device.read::<f32>(sum, 1), [threads as f32]);
    assert_eq!(device.read::<f64>(sums, 1), [f64::from(threads) / 2.0]);
}

#[test]
fn sums_of_blocks() {
    let Some(device) = device_or_skip("sums_of_blocks") else { return };
    for (len, blocks) in [(1, 1), (255, 1), (10_007, 7), (100_003, 64)] {
        let x = normal(len, len as u64);
        let (from, out) = (device.upload(&x), device.allocate(4 * blocks));
        device.launch("collectives_sum", blocks as u32, 256, 0, args![out, from, len as i64]);
        let found: f64 = device.read::<f32>(out, blocks).iter().map(|&x| f64::from(x)).sum();
        let expected: f64 = x.iter().map(|&x| f64::from(x)).sum();
        assert!((found - expected).abs() < 1e-2, "{len} elements: {found}, expected {expected}");
    }
}

#[test]
fn every_thread_of_a_grid_of_three_extents_runs_once() {
    let Some(device) = device_or_skip("every_thread_of_a_grid_of_three_extents_runs_once") else { return };
    for (grid, block) in [([3, 2, 5], [7, 3, 2]), ([2, 3, 1], [32, 4, 8]), ([1, 1, 1], [1, 1, 1])] {
        let [blocks, threads] = [grid, block].map(|extents: [u32; 3]| extents.iter().product::<u32>());
        let out = device.upload(&vec![0_u32; (blocks * threads) as usize]);
        device.try_launch("collectives_indices", grid, block, 0, args![out]).unwrap();
        let found = device.read::<u32>(out, (blocks * threads) as usize);
        let expected: Vec<u32> = (0..blocks * threads).map(|i| 1 + i % threads).collect();
        assert_eq!(found, expected);
    }
}
