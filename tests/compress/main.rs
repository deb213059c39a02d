//! Compression against naive references: selection, conservation, coding, gate, DGC, and the defects it must not have.

mod coding;
mod defects;
mod dgc;
mod error_feedback;
mod support;
mod topk;
