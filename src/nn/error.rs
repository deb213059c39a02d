//! What can go wrong when a plan is run.

use super::plan::TensorShape;
use crate::ops::softmax_xent::LabelError;
use crate::shape::ShapeError;
use thiserror::Error;

/// A call that does not fit the plan.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum NnError {
    /// A slice has the wrong number of elements.
    #[error("{what} has {found} elements, the network needs {expected}")]
    Length {
        /// Argument.
        what: &'static str,
        /// Elements needed.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// More images than planned for.
    #[error(
        "batch of {found} images, but the network was planned for at most {max}: plan with a larger max_batch"
    )]
    BatchTooLarge {
        /// Planned maximum.
        max: usize,
        /// Images given.
        found: usize,
    },
    /// A label is not a class of the head.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A window does not fit on the map it slides over.
    #[error(
        "{layer}: a window of {window}x{window} does not fit on its {h}x{w} map; images of {image} are too small \
         for this network"
    )]
    ImageTooSmall {
        /// Layer.
        layer: String,
        /// The network's image.
        image: TensorShape,
        /// Height of the layer's input.
        h: usize,
        /// Width of the layer's input.
        w: usize,
        /// Height and width of the window.
        window: usize,
    },
    /// A layer's tensors cannot be addressed.
    #[error("{layer}: {source}")]
    Shape {
        /// Layer.
        layer: String,
        /// What is wrong.
        source: Box<ShapeError>,
    },
    /// The arena or the packed filters do not fit in memory.
    #[error("cannot allocate {bytes} bytes for {what}: lower the largest batch or the width of the network")]
    OutOfMemory {
        /// Which buffer.
        what: &'static str,
        /// Its size.
        bytes: u128,
    },
    /// Parameters were never loaded.
    #[error("no parameters loaded: call load_params before running the network")]
    NoParams,
}
