//! Why weights cannot be read or written.

use std::path::PathBuf;
use thiserror::Error;

/// A file or a pair of vectors that does not fit the network.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read weights from {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write weights to {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another error, with the file it is about.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<WeightsError>,
    },
    /// The bytes are no safetensors file.
    #[error(
        "not a valid safetensors file ({0}); convert a .pth with safetensors.torch.save_file(state_dict, path)"
    )]
    Format(String),
    /// A tensor of the network is not in the file.
    #[error(
        "tensor '{name}' {expected:?} is missing{}; the weights are of another network",
        unknown.as_ref().map_or(String::new(), |found| format!(" (the file has '{found}', unknown here)"))
    )]
    Missing {
        /// The tensor.
        name: String,
        /// Its shape in the network, PyTorch's order.
        expected: Vec<usize>,
        /// A tensor of the file that the network does not have.
        unknown: Option<String>,
    },
    /// The file has tensors that the network does not have.
    #[error(
        "{count} tensor(s) unknown to this network, the first is '{name}'; the weights are of another network"
    )]
    Extra {
        /// The first of them by name.
        name: String,
        /// How many.
        count: usize,
    },
    /// A tensor has another shape.
    #[error(
        "tensor '{name}': the network needs shape {expected:?}, the file has {found:?}; check width and stem"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// Shape in the network, PyTorch's order.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// The head has another number of classes.
    #[error(
        "tensor '{name}': the file's head has {found} classes, the network {expected}; set classes = {found}"
    )]
    Classes {
        /// The tensor.
        name: String,
        /// Classes of the network.
        expected: usize,
        /// Classes of the file.
        found: usize,
    },
    /// A tensor has an element type that is not read.
    #[error("tensor '{name}' {expected:?} is {found}; f32, f16 and bf16 can be read")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// Element type in the file.
        found: String,
    },
    /// A vector has the wrong length.
    #[error("{what} have {found} elements, the network has {expected}")]
    Length {
        /// Which vector.
        what: &'static str,
        /// Elements of the network.
        expected: usize,
        /// Elements given.
        found: usize,
    },
}
