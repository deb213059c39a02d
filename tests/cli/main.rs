//! The program: bad input and its exit codes, what commands write, Ctrl-C.

mod bad_input;
mod commands;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../support/emulator.rs"]
mod emulator;
#[cfg(unix)]
mod interrupt;
#[path = "../report/synth.rs"]
mod synth;
