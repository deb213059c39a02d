//! Inputs and parameters that both sides can make: a hash of the tensor's name and the element's index in PyTorch's
//! order. The twin of `uniform`, `labels` and `values` in scripts/make_fixtures.py.

fn hash(name: &str, index: u32) -> u32 {
    let seed = name.bytes().fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut h = index.wrapping_mul(0x9e37_79b1).wrapping_add(seed);
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// Numbers in [-1, 1).
pub fn uniform(name: &str, numel: usize) -> Vec<f32> {
    let scale = 2f32.powi(-23);
    (0..numel as u32).map(|i| (hash(name, i) >> 8) as f32 * scale - 1.0).collect()
}

/// Labels in `0..classes`.
pub fn labels(name: &str, n: usize, classes: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (hash(name, i) >> 8) % classes as u32).collect()
}

/// A parameter or statistic of a network by its PyTorch name and shape, in PyTorch's order. `beta`: it is the offset of a
/// batch norm, 2 to 3 away from 0, so that few values lie on the edge of a ReLU.
pub fn values(name: &str, dims: &[usize], beta: bool) -> Vec<f32> {
    if beta {
        return uniform(name, dims[0]).iter().map(|u| u + 2f32.copysign(*u)).collect();
    }
    let fan_in = dims[1..].iter().product::<usize>() as f64;
    let (offset, scale) = match dims.len() {
        4 => (0.0, (6.0 / fan_in).sqrt() as f32),
        2 => (0.0, (3.0 / fan_in).sqrt() as f32),
        _ if name.ends_with("running_var") => (3.0, 1.0),
        _ if name.ends_with("weight") => (1.0, 0.25),
        _ => (0.0, 0.25),
    };
    uniform(name, dims.iter().product()).iter().map(|u| offset + u * scale).collect()
}

/// Images in C H W order to H W C; filters K C R S to K R S C. `pixels` is H * W or R * S.
pub fn channels_last(src: &[f32], c: usize, pixels: usize) -> Vec<f32> {
    let image = |image: &[f32]| (0..pixels * c).map(|i| image[i % c * pixels + i / c]).collect::<Vec<f32>>();
    src.chunks_exact(c * pixels).flat_map(image).collect()
}
