//! Records of a run, where they go while it runs, and what is made of them afterwards.
//!
//! [`record`] holds the data, [`sink`] writes it as it comes (terminal, JSON lines, CSV, memory), [`summary`] has the
//! numbers people ask for.

pub mod error;
pub mod format;
pub mod record;
pub mod sink;
pub mod summary;

pub use error::MetricsError;
