//! Grids of the layer kernels, as `kernels/row_tiles.cuh` reads them: tiles of rows times channels, and flat runs of
//! elements.

use crate::device::cuda::{Batch, CudaDevice, CudaError, Element, Grid, Launch, check_len};

/// Threads of a block.
const THREADS: usize = 256;

/// Most threads of a block side by side along the channels.
const MAX_WIDTH: usize = 64;

/// Most blocks of a grid along y. Along x there may be 2^31 - 1: tiles of rows, which are many, lie there.
const MAX_BLOCKS_Y: usize = 65_535;

/// Channels of a thread where they can be loaded and stored at once.
pub(crate) const RUN_LEN: usize = 4;

/// Tiles that a large tensor is cut into: some for every multiprocessor of the largest GPUs.
const TILES: usize = 2112;

/// Elements that a tile has at least, if rows allow: some loads for each thread.
const MIN_TILE_LEN: usize = 8192;

/// Fewest and most rows of a tile. Few rows make the totals of a tile as long as the tile; many make its f32 sums coarse.
const TILE_ROWS: [usize; 2] = [32, 1024];

/// Bytes loaded and stored at once.
const PACK_BYTES: usize = 16;

/// Elements in a pack.
pub(crate) const fn pack_len<E: Element>() -> usize {
    PACK_BYTES / size_of::<E>()
}

/// Rows of a tile of at most `rows` rows of `c` channels.
pub(crate) fn tile_rows(rows: usize, c: usize) -> usize {
    let [fewest, most] = TILE_ROWS;
    let column_blocks = c.div_ceil(MAX_WIDTH * RUN_LEN);
    let least = (MIN_TILE_LEN / c.max(1)).clamp(fewest, most);
    rows.saturating_mul(column_blocks).div_ceil(TILES).clamp(least, most).next_multiple_of(fewest)
}

/// `value` as kernels take an extent.
pub(crate) fn int(kernel: &'static str, what: &'static str, value: usize) -> Result<i32, CudaError> {
    let error = CudaError::OutOfRange { kernel, what, value: value as f32, range: "below 2^31" };
    i32::try_from(value).map_err(|_| error)
}

/// The arguments that tell a kernel how many images there are: the number on the GPU, and the most it can be.
pub(crate) fn check_batch(kernel: &'static str, batch: Batch<'_>) -> Result<i32, CudaError> {
    check_len(kernel, "count", batch.count.len(), 1)?;
    int(kernel, "bucket", batch.bucket)
}

/// Tensors of `bucket * pixels` rows of `c` channels, cut into tiles: one block for each tile and block of channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTiles {
    pixels: i32,
    c: i32,
    tile_rows: i32,
    width: i32,
    runs: bool,
    blocks: [u32; 3],
}

impl RowTiles {
    /// `runs` tells whether channels can be loaded [`RUN_LEN`] at once: see [`runs`].
    pub(crate) fn new(
        kernel: &'static str,
        batch: Batch<'_>,
        (pixels, c): (usize, usize),
        tile_rows: usize,
        runs: bool,
    ) -> Result<Self, CudaError> {
        let vectors = if runs { c / RUN_LEN } else { c };
        let column_blocks = column_blocks(kernel, vectors)?;
        let width = vectors.div_ceil(column_blocks.max(1) as usize);
        let tiles = batch.bucket.saturating_mul(pixels).div_ceil(tile_rows.max(1));
        Ok(Self {
            pixels: int(kernel, "pixels", pixels)?,
            c: int(kernel, "channels", c)?,
            tile_rows: int(kernel, "tile_rows", tile_rows)?,
            width: int(kernel, "channels", width)?,
            runs,
            blocks: [int(kernel, "tiles", tiles)? as u32, column_blocks, 1],
        })
    }

    /// Whether there is nothing to launch.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }

    pub(crate) fn grid(&self) -> Grid {
        Grid { blocks: self.blocks, threads: THREADS as u32, shared_bytes: 0 }
    }

    /// Adds the arguments `num_images`, `max_images`, `pixels`, `c`, `tile_rows`, `width`, `runs`.
    pub(crate) fn push(&self, launch: &mut Launch<'_>, batch: Batch<'_>) {
        launch.input(&batch.count).scalar(batch.bucket as i32).scalar(self.pixels).scalar(self.c);
        launch.scalar(self.tile_rows).scalar(self.width).scalar(i32::from(self.runs));
    }
}

/// Blocks along y for rows of so many threads' channels.
fn column_blocks(kernel: &'static str, vectors: usize) -> Result<u32, CudaError> {
    match vectors.div_ceil(MAX_WIDTH) {
        blocks if blocks <= MAX_BLOCKS_Y => Ok(blocks as u32),
        _ => Err(CudaError::OutOfRange {
            kernel,
            what: "channels, by run",
            value: vectors as f32,
            range: "at most 4,194,240",
        }),
    }
}

/// Whether rows of `c` elements that start at these addresses (null is one) fall into runs of [`RUN_LEN`].
pub(crate) fn runs<E: Element>(c: usize, addresses: &[u64]) -> bool {
    let bytes = (RUN_LEN * size_of::<E>()) as u64;
    c.is_multiple_of(RUN_LEN) && addresses.iter().all(|address| address % bytes == 0)
}

/// Whether rows of `c` elements at these addresses are whole packs.
pub(crate) fn packs<E: Element>(c: usize, addresses: &[u64]) -> bool {
    c.is_multiple_of(pack_len::<E>()) && aligned(addresses)
}

/// Whether packs start at these addresses (null is one).
pub(crate) fn aligned(addresses: &[u64]) -> bool {
    addresses.iter().all(|address| address % PACK_BYTES as u64 == 0)
}

/// Blocks that merge `tiles` totals of each of `c` channels: some channels side by side, the other threads along tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merge {
    /// Channels of a block.
    pub(crate) width: i32,
    /// Its grid.
    pub(crate) grid: Grid,
}

/// Blocks that [`Merge`] aims at: fewer leave most of a large GPU idle, more split the lines of the cache.
const MERGE_BLOCKS: usize = 64;
const MERGE_THREADS: [usize; 2] = [64, 512];

impl Merge {
    pub(crate) fn new(kernel: &'static str, tiles: usize, c: usize) -> Result<Self, CudaError> {
        let width = (c / MERGE_BLOCKS).next_power_of_two().clamp(2, 32);
        let [fewest, most] = MERGE_THREADS;
        let threads = (tiles.min(most).next_power_of_two() * width).clamp(fewest, most) as u32;
        let blocks = int(kernel, "channels", c.div_ceil(width))? as u32;
        Ok(Self { width: width as i32, grid: Grid { blocks: [blocks, 1, 1], threads, shared_bytes: 0 } })
    }
}

/// The grid of a flat pass over `numel` elements, in packs if there are any.
pub(crate) fn flat_grid<E: Element>(device: &CudaDevice, numel: usize, packs: bool) -> Grid {
    device.grid_stride(if packs { numel.div_ceil(pack_len::<E>()) } else { numel })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_many_but_not_small() {
        assert_eq!(tile_rows(0, 64), 128);
        assert_eq!(tile_rows(1, 2048), 32);
        assert_eq!(tile_rows(256 * 56 * 56, 64), 384);
        assert_eq!(tile_rows(1024 * 224 * 224, 64), 1024);
        assert_eq!(tile_rows(64, 1), 1024);
    }

    #[test]
    fn no_grid_has_more_blocks_along_y_than_a_device_takes() {
        for (vectors, blocks) in [(0, 0), (1, 1), (64, 1), (65, 2), (4_194_240, 65_535)] {
            assert_eq!(column_blocks("test", vectors).unwrap(), blocks);
        }
        let error = column_blocks("test", 4_194_241).unwrap_err().to_string();
        assert!(error.contains("at most 4,194,240"), "{error}");
    }
}
