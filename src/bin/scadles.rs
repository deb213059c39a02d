//! The program `scadles`; everything it does is in [`scadles::cli`].

use scadles::{cli, train};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &|config, sinks, stop| Ok(train::run(config, sinks, stop)?))
}
