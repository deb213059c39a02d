//! Processor, memory, GPU.

use super::Finding;
use crate::device::cuda::{self, DeviceInfo, Driver, Missing};
use crate::units::Bytes;
use std::fs;

/// Name of the processor and the vector instructions that the CPU backend can use.
pub(super) fn processor() -> Finding {
    let name = cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let features = features();
    let list =
        if features.is_empty() { "no vector extensions known here".into() } else { features.join(" ") };
    Finding::fine("processor", format!("{name}: {list}"))
}

/// The processor's name as the operating system gives it.
pub(in crate::cli) fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    known.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// Threads that a run will use.
pub(super) fn threads() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let setting = std::env::var("RAYON_NUM_THREADS");
    let limit = setting.map_or(String::new(), |threads| format!(" (RAYON_NUM_THREADS is {threads})"));
    Finding::fine("threads", format!("{cores} available{limit}"))
}

/// Memory that is free for a run.
pub(super) fn memory() -> Finding {
    let Some((total, free)) = memory_bytes() else {
        return Finding::fine("memory", "unknown on this system");
    };
    let text = format!("{free} free of {total}");
    if free < Bytes(1_500_000_000) {
        return Finding::fix(
            "memory",
            text,
            "free some memory: even ResNet-20 wants about 1 GB with its data set",
        );
    }
    Finding::fine("memory", text)
}

fn memory_bytes() -> Option<(Bytes, Bytes)> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let entry = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(Bytes(kib * 1024))
    };
    Some((entry("MemTotal:")?, entry("MemAvailable:")?))
}

/// The CUDA driver and its devices.
pub(super) fn cuda() -> Finding {
    match cuda::probe() {
        Driver::Absent(Missing::Driver) => Finding::fine("CUDA", "no NVIDIA driver: runs use the CPU"),
        Driver::Absent(missing) => Finding::fix("CUDA", "cannot be used", missing.to_string()),
        Driver::Present { version: (major, minor), devices } => {
            let list: Vec<String> =
                devices.iter().enumerate().map(|(i, device)| describe(i, device)).collect();
            let list = if list.is_empty() { "no GPU".into() } else { list.join("; ") };
            let use_it = if cuda::probe().missing(0).is_none() { ": runs use GPU 0" } else { "" };
            Finding::fine("CUDA", format!("driver for CUDA {major}.{minor}; {list}{use_it}"))
        }
    }
}

fn describe(ordinal: usize, device: &Result<DeviceInfo, String>) -> String {
    match device {
        Ok(DeviceInfo { name, capability: (major, minor), memory }) => {
            format!("{ordinal}: {name} (sm_{major}{minor}, {memory})")
        }
        Err(status) => format!("{ordinal}: {status}"),
    }
}

/// The GPU kernels in this program, and whether the first GPU runs them.
pub(super) fn kernels() -> Finding {
    let names: Vec<&str> = cuda::kernels().collect();
    let text = match cuda::toolkit() {
        None => "none: built without nvcc".to_string(),
        Some(toolkit) => {
            let architectures = cuda::architectures().join(", ");
            format!("{} for {architectures} (nvcc {toolkit})", names.join(", "))
        }
    };
    match cuda::probe().missing(0) {
        Some(missing @ (Missing::Kernels | Missing::Architecture { .. })) => {
            Finding::fix("GPU kernels", text, missing.to_string())
        }
        _ => Finding::fine("GPU kernels", text),
    }
}
