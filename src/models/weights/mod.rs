//! Parameters and batch-norm statistics to and from safetensors files with torchvision's names and layouts.
//!
//! A file written here loads in PyTorch (`model.load_state_dict(safetensors.torch.load_file(path))`), and one written
//! from a torchvision `state_dict` loads here. Filters are permuted between KRSC (here) and KCRS (there). Tensors named
//! `*.num_batches_tracked` are ignored; f16 and bf16 are widened to f32.

mod error;

pub use error::WeightsError;

use crate::nn::{ParamEntry, ParamKind, Plan};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

/// What a file holds for one plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Flat parameter vector.
    pub params: Vec<f32>,
    /// Flat statistics vector.
    pub stats: Vec<f32>,
}

/// Writes a file in one piece: a file of that name is replaced only when the new one is complete.
///
/// # Errors
/// The vectors' lengths do not fit the plan, or the file cannot be written.
pub fn save(path: &Path, plan: &Plan, params: &[f32], stats: &[f32]) -> Result<(), WeightsError> {
    let tensors = exports(plan, params, stats)?;
    safetensors::serialize_to_file(tensors, None, path)
        .map_err(|source| WeightsError::Write { path: path.into(), reason: source.to_string() })
}

/// The bytes that [`save`] writes.
///
/// # Errors
/// The vectors' lengths do not fit the plan.
pub fn to_bytes(plan: &Plan, params: &[f32], stats: &[f32]) -> Result<Vec<u8>, WeightsError> {
    let tensors = exports(plan, params, stats)?;
    safetensors::serialize(tensors, None).map_err(|source| WeightsError::Format(source.to_string()))
}

/// Reads a file.
///
/// # Errors
/// The file cannot be read, or what [`from_bytes`] refuses; both name the file.
pub fn load(path: &Path, plan: &Plan) -> Result<Weights, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Read { path: path.into(), source })?;
    from_bytes(&bytes, plan)
        .map_err(|source| WeightsError::InFile { path: path.into(), source: Box::new(source) })
}

/// Parameters and statistics from the bytes of a safetensors file.
///
/// # Errors
/// Not a safetensors file; a tensor that is missing, unknown, of another shape, or not f32, f16 or bf16.
///
/// # Example
/// ```
/// use scadles::models::{self, ModelSpec, weights};
/// let plan = models::plan(&ModelSpec { width: 0.25, ..ModelSpec::default() }, 1)?;
/// let (params, stats) = (plan.init_params(1), plan.init_stats());
/// let bytes = weights::to_bytes(&plan, &params, &stats)?;
/// assert_eq!(weights::from_bytes(&bytes, &plan)?, weights::Weights { params, stats });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn from_bytes(bytes: &[u8], plan: &Plan) -> Result<Weights, WeightsError> {
    let file = SafeTensors::deserialize(bytes).map_err(|source| WeightsError::Format(source.to_string()))?;
    let known: BTreeSet<&str> = plan
        .params()
        .iter()
        .map(|entry| entry.name.as_str())
        .chain(plan.stats().iter().map(|entry| entry.name.as_str()))
        .collect();
    let mut unknown: Vec<&str> = file
        .names()
        .into_iter()
        .filter(|name| !known.contains(name) && !name.ends_with(".num_batches_tracked"))
        .collect();
    unknown.sort_unstable();

    let mut weights = Weights { params: vec![0.0; plan.num_params()], stats: vec![0.0; plan.num_stats()] };
    for entry in plan.params() {
        let values = read_tensor(&file, &entry.name, &entry.dims, is_head(plan, entry), &unknown)?;
        entry.import(&values, &mut weights.params[entry.range.clone()]);
    }
    for entry in plan.stats() {
        let values = read_tensor(&file, &entry.name, &[entry.range.len()], false, &unknown)?;
        weights.stats[entry.range.clone()].copy_from_slice(&values);
    }
    match unknown.first() {
        None => Ok(weights),
        Some(first) => Err(WeightsError::Extra { name: first.to_string(), count: unknown.len() }),
    }
}

/// Whether `entry` belongs to the last linear layer, whose outputs are the classes.
fn is_head(plan: &Plan, entry: &ParamEntry) -> bool {
    let mut last = plan.params().iter().rev();
    let module = |entry: &ParamEntry| entry.name.rsplit_once('.').map(|(module, _)| module.to_string());
    matches!(entry.kind, ParamKind::LinearFilter | ParamKind::Bias)
        && last.next().is_some_and(|head| module(head) == module(entry))
}

fn read_tensor(
    file: &SafeTensors,
    name: &str,
    dims: &[usize],
    head: bool,
    unknown: &[&str],
) -> Result<Vec<f32>, WeightsError> {
    let tensor = file.tensor(name).map_err(|_| WeightsError::Missing {
        name: name.into(),
        expected: dims.to_vec(),
        unknown: unknown.first().map(|name| name.to_string()),
    })?;
    let found = tensor.shape();
    if found != dims {
        if head && found.len() == dims.len() && found[1..] == dims[1..] {
            return Err(WeightsError::Classes { name: name.into(), expected: dims[0], found: found[0] });
        }
        let (expected, found) = (dims.to_vec(), found.to_vec());
        return Err(WeightsError::Shape { name: name.into(), expected, found });
    }
    widen(&tensor).ok_or_else(|| WeightsError::Dtype {
        name: name.into(),
        expected: dims.to_vec(),
        found: format!("{:?}", tensor.dtype()),
    })
}

/// The values as f32; `None` for a type that is no float of 32 or 16 bits.
fn widen(tensor: &TensorView) -> Option<Vec<f32>> {
    let data = tensor.data();
    let halves = || data.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
    match tensor.dtype() {
        Dtype::F32 => Some(data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        Dtype::F16 => Some(halves().map(|bits| half::f16::from_bits(bits).to_f32()).collect()),
        Dtype::BF16 => Some(halves().map(|bits| half::bf16::from_bits(bits).to_f32()).collect()),
        _ => None,
    }
}

/// One tensor on its way to a file; put into PyTorch's order when its turn comes.
struct Export<'a> {
    dims: Vec<usize>,
    values: &'a [f32],
    entry: Option<&'a ParamEntry>,
}

impl View for Export<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut values = self.values.to_vec();
        if let Some(entry) = self.entry {
            entry.export(self.values, &mut values);
        }
        values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

fn exports<'a>(
    plan: &'a Plan,
    params: &'a [f32],
    stats: &'a [f32],
) -> Result<Vec<(&'a str, Export<'a>)>, WeightsError> {
    let lengths = [("parameters", plan.num_params(), params), ("statistics", plan.num_stats(), stats)];
    for (what, expected, found) in lengths.map(|(what, expected, slice)| (what, expected, slice.len())) {
        if expected != found {
            return Err(WeightsError::Length { what, expected, found });
        }
    }
    let params = plan.params().iter().map(|entry| {
        let values = &params[entry.range.clone()];
        (entry.name.as_str(), Export { dims: entry.dims.clone(), values, entry: Some(entry) })
    });
    let stats = plan.stats().iter().map(|entry| {
        let values = &stats[entry.range.clone()];
        (entry.name.as_str(), Export { dims: vec![values.len()], values, entry: None })
    });
    Ok(params.chain(stats).collect())
}
