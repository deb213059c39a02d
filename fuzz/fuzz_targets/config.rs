//! Any text as a configuration: an error with a message, or a configuration that survives the trip through TOML.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scadles::train::config::RunConfig;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match RunConfig::from_toml(text, Path::new("fuzz.toml")) {
        Ok(config) => {
            let again = RunConfig::from_toml(&config.to_toml(), Path::new("again.toml"));
            assert_eq!(again.expect("what was accepted is accepted again"), config);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
