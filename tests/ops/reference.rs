//! The convolution passes as plain f64 loop nests, straight from their definition: what the kernels are compared with.

use scadles::shape::Conv2dShape;

/// Calls `visit` with the flat indices (x, filter, y) of every product that the convolution of `n` images sums.
fn for_each_product(shape: &Conv2dShape, n: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let Conv2dShape { c, h, w, k, r, s, stride, pad, dilation } = *shape;
    for image in 0..n {
        for p in 0..shape.p() {
            for q in 0..shape.q() {
                for channel in 0..k {
                    for i in 0..r {
                        for j in 0..s {
                            let row = (p * stride + i * dilation).wrapping_sub(pad);
                            let col = (q * stride + j * dilation).wrapping_sub(pad);
                            if row >= h || col >= w {
                                continue;
                            }
                            for c_index in 0..c {
                                visit(
                                    ((image * h + row) * w + col) * c + c_index,
                                    ((channel * r + i) * s + j) * c + c_index,
                                    ((image * shape.p() + p) * shape.q() + q) * k + channel,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A result and, for each of its elements, the sum of the magnitudes of its terms: the scale of its rounding error.
#[derive(Debug)]
pub struct Sums {
    pub values: Vec<f64>,
    pub magnitudes: Vec<f64>,
}

impl Sums {
    fn zero(len: usize) -> Self {
        Self { values: vec![0.0; len], magnitudes: vec![0.0; len] }
    }

    fn add(&mut self, index: usize, a: f32, b: f32) {
        let product = f64::from(a) * f64::from(b);
        self.values[index] += product;
        self.magnitudes[index] += product.abs();
    }
}

/// `y` without bias.
pub fn fprop(shape: &Conv2dShape, n: usize, x: &[f32], filter: &[f32]) -> Sums {
    let mut y = Sums::zero(n * shape.y_len());
    for_each_product(shape, n, |ix, jf, iy| y.add(iy, x[ix], filter[jf]));
    y
}

/// `dx`.
pub fn dgrad(shape: &Conv2dShape, n: usize, dy: &[f32], filter: &[f32]) -> Sums {
    let mut dx = Sums::zero(n * shape.x_len());
    for_each_product(shape, n, |ix, jf, iy| dx.add(ix, dy[iy], filter[jf]));
    dx
}

/// `dfilter`.
pub fn wgrad(shape: &Conv2dShape, n: usize, x: &[f32], dy: &[f32]) -> Sums {
    let mut dfilter = Sums::zero(shape.filter_len());
    for_each_product(shape, n, |ix, jf, iy| dfilter.add(jf, x[ix], dy[iy]));
    dfilter
}
