//! The program `scadles-bench`: the rows of [`scadles::cli::bench`], timed.

use scadles::cli::bench;
use std::process::ExitCode;

fn main() -> ExitCode {
    bench::main(std::env::args_os())
}
