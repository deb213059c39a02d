//! Events of a run -> terminal, files, memory: one implementation of [`Sink`] each.

mod collect;
mod csv;
mod json;
mod terminal;

pub use collect::Collector;
pub use csv::{CsvFiles, read_evals, read_steps};
pub use json::JsonLines;
pub(crate) use terminal::end_words;
pub use terminal::{Plain, ProgressLine, progress};

use crate::metrics::MetricsError;
use crate::metrics::record::Event;

/// Takes the events of one run, in order: a start, steps and evaluations, an end.
pub trait Sink: Send {
    /// Handles one event; what it writes must be in the operating system's hands on return, so that a run that is
    /// killed loses nothing that it reported.
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError>;
}
