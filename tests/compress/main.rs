//! Compression against naive references: selection, conservation, coding, gate, DGC, and the defects it must not have.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one layer is meant")]

mod coding;
mod defects;
mod dgc;
mod error_feedback;
mod support;
mod topk;
