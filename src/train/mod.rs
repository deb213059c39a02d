//! The trainer and its configuration.

pub mod batch;
pub mod config;
pub mod injection;
