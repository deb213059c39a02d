//! What compression can refuse.

/// Bad input to selection, error feedback or DGC.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A slice has another length than the plan.
    #[error("{what}: {found} elements, expected {expected}: one per parameter of the network")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Elements of the plan.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// A NaN or an infinity; the smallest such index.
    #[error("{what}[{index}] is {value}: lower the learning rate or clip the gradient")]
    NotFinite {
        /// Which vector.
        what: &'static str,
        /// Its position in the flat vector.
        index: usize,
        /// The value found there.
        value: f32,
    },
    /// The residual was lost to an earlier [`CompressError::NotFinite`].
    #[error("the residual was lost to an earlier value that is not finite: reset it or load a checkpoint")]
    Poisoned,
    /// A vector without elements.
    #[error("a vector of 0 elements cannot be compressed: the network has no parameters")]
    Empty,
    /// Layer ranges that do not tile the vector.
    #[error(
        "layer {layer} is {start}..{end}; expected a range of 1 or more elements that starts at {expected}, \
             the last one ending at {numel}"
    )]
    Layers {
        /// Position in the list of layers.
        layer: usize,
        /// Its first element.
        start: usize,
        /// One past its last element.
        end: usize,
        /// Where it had to start.
        expected: usize,
        /// Elements of the vector.
        numel: usize,
    },
    /// A number outside its range.
    #[error("{what} is {value}; it must be {range}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// The number given.
        value: f64,
        /// Its range, in words.
        range: &'static str,
    },
    /// Configuration and plan disagree about the range of one selection.
    #[error(
        "the plan selects per {plan:?}, the configuration per {config:?}: build the plan with the configured scope"
    )]
    Scope {
        /// Scope of the plan.
        plan: crate::train::config::TopKScope,
        /// Scope of the configuration.
        config: crate::train::config::TopKScope,
    },
}

/// `Ok` for a density in (0, 1].
pub(super) fn check_density(density: f64) -> Result<(), CompressError> {
    if density > 0.0 && density <= 1.0 {
        return Ok(());
    }
    Err(CompressError::OutOfRange { what: "density", value: density, range: "in (0, 1]" })
}

/// `Ok` for the right number of elements.
pub(super) fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), CompressError> {
    if found == expected { Ok(()) } else { Err(CompressError::Length { what, expected, found }) }
}

/// `Ok` for a number inside `range`, which `words` describe.
pub(super) fn check_range(
    what: &'static str,
    value: f64,
    range: std::ops::Range<f64>,
    words: &'static str,
) -> Result<(), CompressError> {
    if range.contains(&value) { Ok(()) } else { Err(CompressError::OutOfRange { what, value, range: words }) }
}

/// `Ok` if a device can take a gradient of `found` elements with this weight.
pub(super) fn check_contribution(
    found: usize,
    expected: usize,
    agg_weight: f32,
    poisoned: bool,
) -> Result<(), CompressError> {
    check_len("gradient", found, expected)?;
    check_range("agg_weight", agg_weight.into(), 0.0..f64::INFINITY, "finite and at least 0")?;
    if poisoned { Err(CompressError::Poisoned) } else { Ok(()) }
}
