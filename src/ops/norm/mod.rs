//! Squared Euclidean norm of a flat vector on the GPU.

pub mod cuda;
