//! This program once more, in processes whose CUDA driver is the emulator over the kernels beside this file.

use crate::emulator::{Emulator, or_skip, text};
use std::env;
use std::path::Path;
use std::sync::OnceLock;

/// The emulator over `tests/emulator/kernels/`.
pub fn own_kernels_or_skip(test: &str) -> Option<&'static Emulator> {
    static BUILT: OnceLock<Result<Emulator, &'static str>> = OnceLock::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator/kernels");
    or_skip(test, BUILT.get_or_init(|| Emulator::build("emulator-test", &[&folder])))
}

#[test]
fn every_part_passes_in_several_orders() {
    let Some(emulator) = own_kernels_or_skip("every_part_passes_in_several_orders") else { return };
    for (seed, threads) in [("1", "1"), ("2", "3"), ("3", "2"), ("4", "8")] {
        let mut command = emulator.command(env::current_exe().unwrap());
        command.args(["--skip", "host::", "--skip", "mistakes::", "--skip", "product::"]);
        command.env("SCADLES_EMULATOR_SEED", seed).env("SCADLES_EMULATOR_THREADS", threads);
        let output = command.output().unwrap();
        let said = text(&output);
        let ran = !said.contains("skipped:") && !said.contains(" 0 passed");
        assert!(output.status.success() && ran, "seed {seed}: {said}");
    }
}

#[test]
fn an_older_device_can_be_had() {
    let Some(emulator) = own_kernels_or_skip("an_older_device_can_be_had") else { return };
    for (variable, capability) in [("90", "(9, 0)"), ("80", "(8, 0)"), ("87", "(8, 7)")] {
        let mut command = emulator.command(env::current_exe().unwrap());
        command.args(["--exact", "driver::hopper_images_need_a_hopper", "--nocapture"]);
        let output = command.env("SCADLES_EMULATOR_CAPABILITY", variable).output().unwrap();
        let said = text(&output);
        assert!(output.status.success() && said.contains(&format!("capability {capability}")), "{said}");
    }
}
