//! The program: bad input and its exit codes, what commands write, Ctrl-C.

mod bad_input;
mod commands;
#[cfg(unix)]
mod interrupt;
#[path = "../report/synth.rs"]
mod synth;
