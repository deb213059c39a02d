//! Processor, memory, GPU.

use super::Finding;
use crate::units::Bytes;
use cudarc::driver::CudaContext;
use cudarc::driver::sys::CUdevice_attribute;
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
    // SAFETY: only tries to open the driver library, which runs no code of ours and is never closed.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        let gpu = fs::exists("/proc/driver/nvidia").unwrap_or(false);
        return match gpu {
            true => Finding::fix(
                "CUDA",
                "there is an NVIDIA driver but no libcuda",
                "install the driver's user-space library (libcuda.so.1) or add its folder to LD_LIBRARY_PATH",
            ),
            false => Finding::fine("CUDA", "no NVIDIA driver: runs use the CPU"),
        };
    }
    match CudaContext::device_count() {
        Ok(0) => Finding::fine("CUDA", "driver present, no device"),
        Ok(count) => Finding::fine("CUDA", (0..count as usize).map(describe).collect::<Vec<_>>().join("; ")),
        Err(error) => Finding::fix(
            "CUDA",
            format!("the driver does not answer: {error}"),
            "make `nvidia-smi` work: reload or reinstall the NVIDIA driver",
        ),
    }
}

fn describe(ordinal: usize) -> String {
    let device = CudaContext::new(ordinal).and_then(|context| {
        use CUdevice_attribute as Attribute;
        let attribute = |which| context.attribute(which);
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(format!("{ordinal}: {} (sm_{major}{minor})", context.name()?))
    });
    device.unwrap_or_else(|error| format!("{ordinal}: cannot be opened: {error}"))
}
