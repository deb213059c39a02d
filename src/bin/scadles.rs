//! Command line (in progress).

fn main() {}
