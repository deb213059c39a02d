//! Records of a run, where they go while it runs, and what is made of them afterwards.
//!
//! [`record`] holds the data, [`sink`] writes it as it comes (terminal, JSON lines, CSV, memory), [`folder`] is a run
//! on disk, [`serve`] shows it over HTTP while it goes on, [`summary`] the numbers people ask for, [`report`] the HTML and PNG pictures drawn by [`plot`].

pub mod error;
pub mod folder;
pub mod format;
pub mod plot;
pub mod record;
pub mod report;
pub mod serve;
pub mod sink;
pub mod summary;

pub use error::MetricsError;
