//! What devices send: nothing left out, top-k behind a gate, or deep gradient compression.

use serde::{Deserialize, Serialize};

/// What devices send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum CompressionConfig {
    /// The whole gradient, always.
    #[default]
    None,
    /// Top-k with error feedback behind a gate.
    TopK(TopKConfig),
    /// Deep gradient compression (1712.01887).
    Dgc(DgcConfig),
}

/// Top-k compression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TopKConfig {
    /// Kept elements / all elements (the paper's CR), in (0, 1]. Default 0.1.
    pub density: f64,
    /// Over the whole vector or per layer. Default `vector`.
    pub scope: TopKScope,
    /// Keep what was not sent for later steps. Default true.
    pub error_feedback: bool,
    /// When to send compressed. Default the paper's, delta 0.3.
    pub gate: GateConfig,
    /// Payload values. Default `f32`.
    pub values: ValueCoding,
    /// Payload indices. Default `smallest`.
    pub indices: IndexCoding,
}

/// Deep gradient compression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DgcConfig {
    /// Kept elements / all elements after warm-up, in (0, 1]. Default 0.001.
    pub density: f64,
    /// Share of the run over which the density falls from 25 %, in [0, 1). Default 0.1.
    pub warmup: f64,
    /// Largest L2 norm of a device's gradient, scaled by N^-1/2; 0 switches clipping off. Default 1.
    pub clip_norm: f64,
    /// Payload values. Default `f32`.
    pub values: ValueCoding,
}

/// Range of one top-k selection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopKScope {
    /// The whole flat gradient.
    #[default]
    Vector,
    /// Each parameter tensor.
    Layer,
}

/// Decision between compressed and dense.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum GateConfig {
    /// Always compressed.
    Always,
    /// `abs(|g|^2 - |topk(g)|^2) / |g|^2 <= delta`, exponentially averaged (paper).
    Paper {
        /// At least 0.
        delta: f64,
        /// Share of the newest value in the average, in (0, 1].
        ewma: f64,
    },
    /// `abs(sum|g_l| - sum|topk_l|) / sum|g_l| <= delta` over tensors, mean since the epoch began, devices vote
    /// (reference code).
    Reference {
        /// At least 0.
        delta: f64,
    },
}

/// How payload values are coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueCoding {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes; the rounding error stays in the residual.
    Bf16,
}

/// How payload indices are coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexCoding {
    /// The smaller of the two for this payload.
    #[default]
    Smallest,
    /// Differences of ascending indices as variable-length bytes.
    Delta,
    /// One bit per element.
    Bitmap,
}
