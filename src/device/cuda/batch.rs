//! How many images a launch works on.

use super::memory::View;

/// Images of one call. Grids are sized for `bucket`; how many images there really are stands on the GPU, so that recorded
/// launches serve every batch of their bucket. A kernel writes nothing of images beyond that number.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Most images; tensors have room for as many.
    pub bucket: usize,
    /// One element: the images there are, at most `bucket`.
    pub count: View<'a, i32>,
}
