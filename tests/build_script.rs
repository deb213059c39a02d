//! `build.rs` by itself: what it does without nvcc, with one, and with one that fails.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The compiled build script.
fn script() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build-script");
        let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "-o"]).arg(&out).arg(source("build.rs"));
        assert!(command.status().unwrap().success());
        out
    })
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs it over the kernels of this crate with `environment` and nothing else; gives also the table it wrote.
fn run(out: &Path, environment: &[(&str, &str)]) -> (Output, String) {
    let mut command = Command::new(script());
    command.current_dir(source("")).env_clear().env("OUT_DIR", out).env("NUM_JOBS", "2");
    let output = command.envs(environment.iter().copied()).output().unwrap();
    (output, fs::read_to_string(out.join("kernels.rs")).unwrap_or_default())
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program in place of nvcc.
fn nvcc(folder: &Path, body: &str) -> String {
    let path = folder.join("nvcc");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().into()
}

/// Answers the version and writes its arguments where a fatbin is wanted.
const ECHO: &str = r#"
if [ "$1" = --version ]; then echo "Cuda compilation tools, release 13.0, V13.0.88"; exit; fi
all="$*"
while [ "$1" != -o ]; do shift; done
echo "$all" > "$2""#;

#[test]
fn without_nvcc_the_table_is_empty() {
    let out = tempfile::tempdir().unwrap();
    for environment in [
        &[("NVCC", "none")][..],
        &[("CUDA_HOME", "/nowhere"), ("PATH", "/nowhere"), ("CARGO_MANIFEST_DIR", "/nowhere")],
    ] {
        let (output, table) = run(out.path(), environment);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("warning"), "{output:?}");
        assert!(table.contains("IMAGES: &[(&str, &[u8])] = &[\n];"), "{table}");
        assert!(
            table.contains("ARCHITECTURES: &[&str] = &[];") && table.contains("TOOLKIT: &str = \"\";"),
            "{table}"
        );
    }
}

#[test]
fn every_kernel_is_compiled_for_every_architecture() {
    let out = tempfile::tempdir().unwrap();
    let nvcc = nvcc(out.path(), ECHO);
    let (output, table) = run(out.path(), &[("NVCC", &nvcc), ("PATH", "/usr/bin:/bin")]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("rerun-if-changed=kernels\n"), "{output:?}");
    let default = r#"["sm_80", "sm_87", "sm_89", "sm_90", "sm_90a", "compute_90"]"#;
    assert!(table.contains(default) && table.contains(r#"TOOLKIT: &str = "13.0""#), "{table}");
    for entry in fs::read_dir(source("kernels")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "cu") {
            let arguments = fs::read_to_string(out.path().join(format!("{name}.fatbin"))).unwrap();
            let hopper = "arch=compute_90a,code=sm_90a";
            let others = [
                "arch=compute_87,code=sm_87",
                "arch=compute_90,code=sm_90 ",
                "arch=compute_90,code=compute_90 ",
            ];
            // Instructions that only Hopper has are compiled for nothing else, and nothing else for Hopper alone.
            let only_hopper = name.ends_with("_wgmma");
            assert_eq!(arguments.contains(hopper), only_hopper, "{arguments}");
            for target in others {
                assert_eq!(arguments.contains(target), !only_hopper, "{arguments}");
            }
            assert!(table.contains(&format!("(\"{name}\", &Aligned(*include_bytes!(")), "{table}");
        }
    }
    let environment =
        [("NVCC", nvcc.as_str()), ("PATH", "/usr/bin:/bin"), ("SCADLES_CUDA_ARCHS", "sm_90a, compute_80")];
    let (_, table) = run(out.path(), &environment);
    assert!(table.contains(r#"["sm_90a", "compute_80"]"#), "{table}");
}

#[test]
fn what_is_wrong_stops_the_build_and_is_shown() {
    let out = tempfile::tempdir().unwrap();
    let (output, _) = run(out.path(), &[("NVCC", "/nowhere/nvcc")]);
    assert!(complaint(&output).contains("NVCC=/nowhere/nvcc: no such file"));
    let (output, _) = run(out.path(), &[("SCADLES_NVCC_DIR", "/nowhere")]);
    assert!(complaint(&output).contains("run scripts/install-nvcc"));
    let fails = nvcc(out.path(), "echo 'sgd.cu(7): error: expected a ;' >&2; exit 2");
    let (output, _) = run(out.path(), &[("NVCC", &fails)]);
    let said = complaint(&output);
    assert!(said.contains("kernels/sgd.cu does not compile") && said.contains("expected a ;"), "{said}");
    for bad in ["90", "sm_", "sm_9x", "sm_90,compute"] {
        let (output, _) = run(out.path(), &[("NVCC", &fails), ("SCADLES_CUDA_ARCHS", bad)]);
        assert!(complaint(&output).contains("SCADLES_CUDA_ARCHS: `"), "{bad}");
    }
}
