//! The trainer and its configuration.

pub mod config;
