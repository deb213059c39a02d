//! Kernels with mistakes, each launched in a process of its own: the emulator must not let them pass.

use crate::device::{args, device_or_skip};
use crate::emulator::{Emulator, SANITIZE, text};
use crate::host::own_kernels_or_skip;
use cudarc::driver::{result, sys};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Names what [`launch`] launches.
const CASE: &str = "EMULATOR_TEST_CASE";
const SEEDS: [u32; 5] = [1, 2, 3, 4, 5];

/// A map of rows of 32 f32.
fn rows_map(address: u64, rows: u64) -> sys::CUtensorMap {
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: the arrays have the rank's lengths.
    let status = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            2,
            address as *mut _,
            [32, rows].as_ptr(),
            [128].as_ptr(),
            [32, 8].as_ptr(),
            [1, 1].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    status.result().unwrap();
    map
}

/// In the process of a case: launches it and checks its result.
#[test]
fn launch() {
    let Ok(case) = env::var(CASE) else { return };
    let Some(device) = device_or_skip("launch") else { return };
    let len = 16 * 256_usize;
    let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
    let (from, out) = (device.upload(&x), device.allocate(4 * len));
    let reversed: Vec<f32> = (0..len).map(|i| (i / 256 * 256 + 255 - i % 256) as f32).collect();
    match case.as_str() {
        "pipelines_barrier" | "pipelines_async" => device.launch(&case, 16, 256, 0, args![out, from]),
        "pipelines_bulk" => device.launch(&case, 16, 256, 1024, args![out, rows_map(from, 128)]),
        "pipelines_product" => device.launch(&case, 1, 128, 4096, args![out]),
        "faults_beside_allocation" => {
            let small = device.allocate(4 * 1001);
            device.launch(&case, 1, 1, 0, args![small, 1001_i64]);
        }
        "faults_beside_dynamic_shared" => device.launch(&case, 1, 1, 100, args![out, 100]),
        "faults_beside_shared" => device.launch(&case, 1, 1, 0, args![out, 8]),
        "faults_overflow" => device.launch(&case, 1, 1, 0, args![out, i32::MAX]),
        _ => device.launch(&case, 1, 32, 0, args![out, from]),
    }
    let found = device.read::<f32>(out, len);
    match case.as_str() {
        // 16 * (1 + 4 + 9 + 16)
        "pipelines_product" => assert_eq!(found[..64 * 64], [480.0; 64 * 64]),
        _ if case.starts_with("pipelines_") => assert_eq!(found, reversed),
        _ => {}
    }
    // What the emulator finds after all launches, it finds here.
    // SAFETY: allocated above.
    unsafe { result::free_sync(out) }.unwrap();
    println!("nothing was found in {case}");
}

fn run(emulator: &Emulator, case: &str, seed: u32) -> Output {
    let mut command = emulator.command(env::current_exe().unwrap());
    command.args(["--exact", "mistakes::launch", "--nocapture"]);
    command.env(CASE, case).env("SCADLES_EMULATOR_SEED", seed.to_string()).output().unwrap()
}

fn passes(emulator: &Emulator, case: &str, seed: u32) -> bool {
    let output = run(emulator, case, seed);
    let said = text(&output);
    let passed = said.contains(&format!("nothing was found in {case}"));
    // Wrong numbers, or the emulator's own word: not a failure to run at all.
    let told = said.contains("assertion `left == right` failed") || said.contains("emulator: kernel ");
    assert!(output.status.success() == passed && told != passed, "{said}");
    passed
}

/// The kernels with the lines of one of them taken out that are marked as its guard.
fn without_guard(kernel: &str) -> Emulator {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator/kernels/pipelines.cu");
    let text = fs::read_to_string(source).unwrap();
    let (before, body) = text.split_once(&format!(" {kernel}(")).unwrap();
    let guard = body.lines().find(|line| line.ends_with("// guard")).unwrap();
    let text = format!("{before} {kernel}({}", body.replacen(guard, "", 1));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("emulator-without/{kernel}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("pipelines.cu"), text).unwrap();
    Emulator::build(&format!("without-{kernel}"), &[&folder]).unwrap()
}

#[test]
fn a_guard_taken_away_is_missed() {
    let Some(emulator) = own_kernels_or_skip("a_guard_taken_away_is_missed") else { return };
    for case in ["pipelines_barrier", "pipelines_async", "pipelines_bulk", "pipelines_product"] {
        for seed in SEEDS {
            assert!(passes(emulator, case, seed), "{case} as it stands, seed {seed}");
        }
        let broken = without_guard(case);
        assert!(SEEDS.iter().any(|&seed| !passes(&broken, case, seed)), "{case} passes without its guard");
    }
}

#[test]
fn faults_are_named_with_kernel_block_and_thread() {
    let Some(emulator) = own_kernels_or_skip("faults_are_named_with_kernel_block_and_thread") else { return };
    let sanitized = env::var(SANITIZE).is_ok_and(|value| value == "1");
    for (case, words) in [
        ("faults_barrier_in_branch", ["divergent barrier", "block (0, 0, 0), thread ("]),
        ("faults_deadlock", ["deadlock", "in __syncthreads, line "]),
        ("faults_deadlock", ["15 more in __shfl_sync", "kernel faults_deadlock"]),
        ("faults_misaligned_copy", ["is not aligned to 16", "block (0, 0, 0), thread ("]),
        ("faults_beside_allocation", ["beside an allocation of 4004 bytes", "faults_beside_allocation"]),
        ("faults_beside_dynamic_shared", ["beside the 100 bytes of dynamic", "faults_beside_dynamic"]),
    ] {
        let words = match case {
            _ if sanitized && case.contains("beside") => ["AddressSanitizer: heap-buffer-overflow", case],
            _ => words,
        };
        let output = run(emulator, case, 1);
        let said = text(&output);
        assert!(!output.status.success(), "{case}: {said}");
        for word in words {
            assert!(said.contains(word), "{case}: no {word} in {said}");
        }
    }
}

#[test]
fn sanitizers_see_what_nothing_else_does() {
    if env::var(SANITIZE).is_ok_and(|value| value == "1") {
        let Some(emulator) = own_kernels_or_skip("sanitizers_see_what_nothing_else_does") else { return };
        for (case, report) in [
            ("faults_beside_shared", "AddressSanitizer: global-buffer-overflow"),
            ("faults_overflow", "runtime error: signed integer overflow"),
        ] {
            let output = run(emulator, case, 1);
            let said = text(&output);
            assert!(!output.status.success() && said.contains(report), "{case}: {said}");
        }
    } else {
        println!("skipped: sanitizers_see_what_nothing_else_does ({SANITIZE} is not 1)");
    }
}
