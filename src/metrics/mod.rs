//! Records of a run, where they go, and the report made of them.

pub mod record;
