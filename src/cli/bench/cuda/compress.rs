//! Compression of one device's gradient: compensation, exact selection, packing; and what undoes it.

use super::data::random;
use super::{COPY, Gpu};
use crate::cli::bench::{Failure, Row, Timed};
use crate::compress::cuda::CudaCompressors;
use crate::compress::{DeviceCompressor, Plan, num_kept};
use crate::train::config::{TopKConfig, TopKScope};
use std::sync::Arc;

const SIZES: [usize; 4] = [1_000_000, 10_000_000, 60_000_000, 140_000_000];
const DENSITIES: [f64; 2] = [0.01, 0.1];
/// As with 16 ranks of equal weight.
const WEIGHT: f32 = 1.0 / 16.0;

/// What is timed of a compressor that has a gradient.
#[derive(Clone, Copy)]
enum Part {
    /// Accumulation, selection, packing: the payload stays on the GPU.
    Pack,
    /// The same, with the payload on the host.
    Encode,
    /// The packed elements added to a vector.
    Scatter,
    /// A payload on the host, decoded and added to a vector.
    Decode,
    /// Accumulation, selection, and then everything sent.
    Dense,
}

pub(super) fn rows(gpu: &Gpu) -> Vec<Row> {
    let mut rows = Vec::new();
    for numel in SIZES.into_iter().take(gpu.size(SIZES.len(), 1)) {
        let numel = gpu.size(numel, 20_000);
        for density in DENSITIES {
            let kept = num_kept(numel, density);
            let tag = format!("n={numel:.0e} k={density}");
            // The gradient is read, the residual read and written; 4 bytes of value and 4 of position for what is kept.
            let selected = 12 * numel + 8 * kept;
            let mut add = |name: &str, bytes: usize, part: Part| {
                let prepare = move |gpu: &Gpu, seed| prepare(gpu, seed, numel, density, part);
                let work = (bytes as f64, "bytes/s");
                rows.push(gpu.row(format!("{name} {tag}"), work, vec![(bytes as f64, COPY)], prepare));
            };
            add("top-k + error feedback + pack", selected, Part::Pack);
            if numel <= 60_000_000 {
                add("encode", selected + 8 * kept, Part::Encode);
                add("scatter-add", 16 * kept, Part::Scatter);
                add("decode-add", 24 * kept, Part::Decode);
                if density == DENSITIES[0] {
                    add("dense step", 28 * numel, Part::Dense);
                }
            }
        }
    }
    rows
}

fn prepare(gpu: &Gpu, seed: u64, numel: usize, density: f64, part: Part) -> Result<Timed, Failure> {
    let plan = Arc::new(Plan::new(numel, &[], TopKScope::Vector)?);
    let config = TopKConfig { density, ..TopKConfig::default() };
    let gradient: Vec<f32> = random(seed, numel);
    let mut cpu = DeviceCompressor::new(Arc::clone(&plan), &config)?;
    let mut expected = Vec::new();
    cpu.accumulate(&gradient, WEIGHT)?;
    cpu.encode_sparse(&mut expected);

    let mut compressors = CudaCompressors::new(Arc::clone(&gpu.device), plan, &config, 1)?;
    let gradient = gpu.upload(&gradient)?;
    compressors.accumulate(0, gradient.view(), WEIGHT)?;
    let mut payload = [Vec::new()];
    compressors.encode_sparse(&mut payload)?;
    if payload[0] != expected {
        return Err("wrong result: the payload is not the CPU's".into());
    }
    let mut sum = gpu.zeros::<f32>(numel)?;
    gpu.queued(move || {
        match part {
            Part::Pack => {
                compressors.accumulate(0, gradient.view(), WEIGHT)?;
                compressors.take_sparse()?;
            }
            Part::Encode => {
                compressors.accumulate(0, gradient.view(), WEIGHT)?;
                compressors.encode_sparse(&mut payload)?;
            }
            Part::Scatter => compressors.add_sent(0, sum.view_mut())?,
            Part::Decode => compressors.decode_add(&payload[0], sum.view_mut())?,
            Part::Dense => {
                compressors.accumulate(0, gradient.view(), WEIGHT)?;
                compressors.add_dense(sum.view_mut())?;
            }
        }
        Ok(())
    })
}
