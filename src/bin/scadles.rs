//! The program `scadles`; everything it does is in [`scadles::cli`].

use scadles::cli::{self, CliError};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &|_, _, _| Err(CliError::NoTrainer))
}
