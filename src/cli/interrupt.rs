//! Ctrl-C: the first press asks the run to end, the second ends the program.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// The flag that the first Ctrl-C raises; installs the handler.
pub(super) fn stop_flag() -> &'static AtomicBool {
    INSTALLED.get_or_init(|| {
        let handler = || {
            // Relaxed: the flag carries no other data, the trainer polls it once a step.
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            let _ = writeln!(
                io::stderr(),
                "\nending after this step and writing the report; Ctrl-C again to quit at once"
            );
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            let _ = writeln!(io::stderr(), "warning: Ctrl-C will end the run without a report: {error}");
        }
    });
    &STOP
}
