//! Networks by name: sizes, names and errors, and their weights in files.

mod networks;
mod weights;
