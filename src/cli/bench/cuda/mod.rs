//! Rows of the GPU: what a device can do at best, every kernel, whole training steps, on a machine where they run.
//!
//! Each row checks its result before it is timed. Kernels are recorded many times in a graph, over several sets of buffers
//! in turn where one would stay in the cache, and timed by the GPU's clock; what waits for the host in the middle is timed
//! from its first launch to its last. Rates are shares of the ceilings of [`ceilings`], measured first.
//!
//! Names are those of the PyTorch rows that `scripts/gpu_report.py` sets beside them.

mod ceilings;
mod compress;
mod conv;
mod data;
mod heads;
mod layers;
mod step;
mod vectors;

use super::{Failure, Prepare, Row, Timed};
use crate::device::cuda::{CudaDevice, CudaError};
use std::sync::Arc;

/// The group of all rows here.
pub(super) const GROUP: &str = "cuda";

/// The ceilings' names.
const COPY: &str = "copy";
const READ: &str = "read";
const FILL: &str = "fill";
const FMA: &str = "fma-f32";
const MMA: &str = "mma-bf16";
const WGMMA: &str = "wgmma-bf16";

/// Seconds that a recorded graph should take, so that its launch does not count, and most launches in one.
const WINDOW_S: f64 = 2e-3;
const MAX_LAUNCHES: usize = 100;
/// Bytes that a row's sets of buffers should have together: several times any GPU's cache.
const COLD_BYTES: usize = 300_000_000;
const MAX_SETS: usize = 8;

/// The device, and whether shapes are small.
#[derive(Clone)]
pub(super) struct Gpu {
    device: Arc<CudaDevice>,
    tiny: bool,
}

impl Gpu {
    /// The first GPU.
    pub(super) fn open(tiny: bool) -> Result<Self, CudaError> {
        Ok(Self { device: Arc::new(CudaDevice::open(0)?), tiny })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.device.name()
    }

    /// All rows.
    pub(super) fn rows(&self) -> Vec<Row> {
        [ceilings::rows, vectors::rows, compress::rows, step::rows, conv::rows, layers::rows]
            .into_iter()
            .flat_map(|rows| rows(self))
            .collect()
    }

    /// A row whose work is `work` and whose time is at least that of `bounds`.
    fn row(
        &self,
        name: String,
        work: (f64, &'static str),
        bounds: Vec<(f64, &'static str)>,
        prepare: impl FnOnce(&Gpu, u64) -> Result<Timed, Failure> + 'static,
    ) -> Row {
        let gpu = self.clone();
        let prepare = Prepare::Device(Box::new(move |seed| prepare(&gpu, seed)));
        Row { bounds, ..Row::new(GROUP, name, Some(work), prepare) }
    }

    /// A row that moves `bytes`, at the rate of a copy at best.
    fn memory_row(
        &self,
        name: String,
        bytes: usize,
        prepare: impl FnOnce(&Gpu, u64) -> Result<Timed, Failure> + 'static,
    ) -> Row {
        self.row(name, (bytes as f64, "bytes/s"), vec![(bytes as f64, COPY)], prepare)
    }

    /// The ceiling of bf16 products.
    fn matrix(&self) -> &'static str {
        if self.device.has_kernel("peak_wgmma_bf16") { WGMMA } else { MMA }
    }

    /// `full`, or `tiny` where shapes are small.
    fn size(&self, full: usize, tiny: usize) -> usize {
        if self.tiny { tiny } else { full }
    }

    /// How many sets of buffers of so many bytes to take in turn.
    fn sets(&self, bytes: usize) -> usize {
        if self.tiny { 2 } else { COLD_BYTES.div_ceil(bytes.max(1)).clamp(1, MAX_SETS) }
    }

    /// The time of a launch over these sets of buffers in turn.
    fn rotated<T: 'static>(
        &self,
        mut sets: Vec<T>,
        mut launch: impl FnMut(&mut T) -> Result<(), CudaError> + 'static,
    ) -> Result<Timed, Failure> {
        self.replayed(move |i| {
            let at = i % sets.len();
            launch(&mut sets[at])
        })
    }

    /// The time of one of `launch(0), launch(1), ...`, replayed from a graph of many. They launch and do nothing else.
    fn replayed(
        &self,
        mut launch: impl FnMut(usize) -> Result<(), CudaError> + 'static,
    ) -> Result<Timed, Failure> {
        const TRIED: usize = 3;
        let device = Arc::clone(&self.device);
        launch(0)?;
        let one_s = self.elapsed(|| (0..TRIED).try_for_each(&mut launch).map_err(Into::into))? / TRIED as f64;
        let launches = ((WINDOW_S / one_s.max(1e-9)) as usize).clamp(1, MAX_LAUNCHES);
        let mut graph = device.capture(|| (0..launches).try_for_each(&mut launch))?;
        let gpu = self.clone();
        let call = move || {
            let _buffers = &launch; // the graph holds their addresses
            Ok(gpu.elapsed(|| Ok(device.replay(&mut graph)?))? / launches as f64)
        };
        Ok(Timed { call: Box::new(call), memory_bytes: None })
    }

    /// The time of `work`, which may wait for the device in between.
    fn queued(&self, mut work: impl FnMut() -> Result<(), Failure> + 'static) -> Result<Timed, Failure> {
        let gpu = self.clone();
        Ok(Timed { call: Box::new(move || gpu.elapsed(&mut work)), memory_bytes: None })
    }

    /// Seconds on the GPU's clock, from what was queued before `work` to its end.
    fn elapsed(&self, work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
        let begin = self.device.mark_time()?;
        work()?;
        let end = self.device.mark_time()?;
        self.device.synchronize()?;
        Ok(begin.elapsed(&end)?.as_secs_f64())
    }
}
