//! The tables that map names to ranges of the flat parameter and statistics vectors.

use std::ops::Range;

/// What a parameter tensor is; decides weight decay exclusions, LARS groups and import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamKind {
    /// Filter of a convolution: KRSC here, KCRS in PyTorch.
    ConvFilter,
    /// Matrix of a linear layer: outputs x inputs, inputs in H W C order here, C H W in PyTorch.
    LinearFilter,
    /// Additive term of a convolution or linear layer.
    Bias,
    /// Scale of a batch norm.
    Gamma,
    /// Offset of a batch norm.
    Beta,
}

/// How a parameter tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element has this value.
    Constant(f32),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in `-bound..bound`.
    Uniform {
        /// Largest absolute value.
        bound: f64,
    },
}

/// One tensor of the flat parameter vector.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamEntry {
    /// torchvision's name, as in `layer1.0.conv1.weight`.
    pub name: String,
    /// Elements of the flat vector.
    pub range: Range<usize>,
    /// Extents in PyTorch's order: K C R S, K (C H W), or K.
    pub dims: Vec<usize>,
    /// Extents K R S C in which the range is stored; a linear layer on an H W C map has R = H and S = W.
    pub krsc: [usize; 4],
    /// What it is.
    pub kind: ParamKind,
    /// How it starts.
    pub init: Init,
}

impl ParamEntry {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.range.len()
    }

    /// Reorders this tensor from PyTorch's order (`src`) to storage order (`dst`). Both have [`Self::numel`] elements.
    pub fn import(&self, src: &[f32], dst: &mut [f32]) {
        let [_, r, s, c] = self.krsc;
        transpose_each(src, dst, c, r * s);
    }

    /// Reorders this tensor from storage order (`src`) to PyTorch's order (`dst`); the inverse of [`Self::import`].
    pub fn export(&self, src: &[f32], dst: &mut [f32]) {
        let [_, r, s, c] = self.krsc;
        transpose_each(src, dst, r * s, c);
    }
}

/// Transposes each `rows` x `cols` matrix of `src` into `dst`.
fn transpose_each(src: &[f32], dst: &mut [f32], rows: usize, cols: usize) {
    assert_eq!(src.len(), dst.len(), "transpose: source and destination differ in length");
    for (src, dst) in src.chunks_exact(rows * cols).zip(dst.chunks_exact_mut(rows * cols)) {
        for (col, dst) in dst.chunks_exact_mut(rows).enumerate() {
            dst.iter_mut().enumerate().for_each(|(row, d)| *d = src[row * cols + col]);
        }
    }
}

/// What a tensor of batch-norm statistics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatsKind {
    /// Running mean of a channel; starts at 0.
    RunningMean,
    /// Running unbiased variance of a channel; starts at 1.
    RunningVar,
}

/// One tensor of the flat statistics vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsEntry {
    /// torchvision's name, as in `bn1.running_mean`.
    pub name: String,
    /// Elements of the flat vector, one per channel.
    pub range: Range<usize>,
    /// What it is.
    pub kind: StatsKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_permutes_kcrs_to_krsc_and_export_undoes_it() {
        let (k, c, r, s) = (2, 3, 2, 5);
        let entry = ParamEntry {
            name: "conv.weight".into(),
            range: 0..k * c * r * s,
            dims: vec![k, c, r, s],
            krsc: [k, r, s, c],
            kind: ParamKind::ConvFilter,
            init: Init::Constant(0.0),
        };
        let torch: Vec<f32> = (0..entry.numel()).map(|i| i as f32).collect();
        let (mut stored, mut back) = (vec![0.0; torch.len()], vec![0.0; torch.len()]);
        entry.import(&torch, &mut stored);
        let at = |ki, ci, ri, si| torch[((ki * c + ci) * r + ri) * s + si];
        assert_eq!(stored[((r + 1) * s + 4) * c + 2], at(1, 2, 1, 4));
        assert_eq!(stored[3 * c + 1], at(0, 1, 0, 3));
        entry.export(&stored, &mut back);
        assert_eq!(torch, back);
    }
}
