//! The tests of this program once more, in a process whose CUDA driver is `host/driver.cc` over `kernels/`.

use crate::support::HOST_DRIVER;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Names of the entry points in a kernel file.
fn entries(source: &str) -> Vec<&str> {
    let starts = source.split("extern \"C\" __global__ void ").skip(1);
    starts.map(|rest| rest.split_once('(').expect("an entry point has arguments").0).collect()
}

fn compiler() -> Option<OsString> {
    let runs =
        |name: &OsString| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let named = env::var_os("CXX").filter(|name| !name.is_empty());
    named.into_iter().chain(["g++", "clang++", "c++"].map(Into::into)).find(runs)
}

/// Folder with the host driver, built once; None, and a line that says so, without a C++ compiler or the sources.
fn driver_or_skip(test: &str) -> Option<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, &'static str>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        match compiler() {
            _ if !root.join("kernels").is_dir() => Err("the sources are not on this machine"),
            None => Err("no C++ compiler"),
            Some(compiler) => Ok(build(&compiler, root)),
        }
    });
    match built {
        Ok(folder) => Some(folder),
        Err(missing) => {
            println!("skipped: {test} ({missing})");
            None
        }
    }
}

fn build(compiler: &OsString, root: &Path) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-driver");
    fs::create_dir_all(&out).unwrap();
    let host = root.join("tests/kernels/host");
    let mut sources = vec![host.join("driver.cc")];
    for entry in fs::read_dir(root.join("kernels")).unwrap() {
        let kernel = entry.unwrap().path();
        if kernel.extension().is_none_or(|extension| extension != "cu") {
            continue;
        }
        let text = fs::read_to_string(&kernel).unwrap();
        let mut source = format!("#include \"shim.h\"\n#include {:?}\n", kernel);
        assert!(!entries(&text).is_empty(), "{} has no entry point", kernel.display());
        source.extend(entries(&text).iter().map(|entry| format!("ADD_KERNEL({entry})\n")));
        sources.push(out.join(kernel.file_stem().unwrap()).with_extension("cc"));
        fs::write(sources.last().unwrap(), source).unwrap();
        fs::write(sources.last().unwrap().with_extension("fatbin"), "host").unwrap();
    }
    // No contraction: a * b + c keeps its two roundings, whatever the processor. Undefined behaviour traps.
    let flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"];
    let more = ["-Wno-unknown-pragmas", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"];
    let mut command = Command::new(compiler);
    command.args(flags).args(more).arg("-I").arg(host).args(sources).arg("-o").arg(out.join("libcuda.so"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// The program with the host driver in place of the real one.
fn with_driver(driver: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(driver.to_path_buf()).chain(env::split_paths(&others));
    command.env("LD_LIBRARY_PATH", env::join_paths(folders).unwrap()).env(HOST_DRIVER, "1");
    command.env("SCADLES_KERNELS", driver); // images that this driver does not look at
    command
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

#[test]
fn every_kernel_has_the_bits_of_the_cpu_on_the_host_compiler() {
    let Some(driver) = driver_or_skip("every_kernel_has_the_bits_of_the_cpu_on_the_host_compiler") else {
        return;
    };
    let output =
        with_driver(driver, env::current_exe().unwrap()).args(["--skip", "host::"]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && !said.contains("skipped:") && !said.contains(" 0 passed"), "{said}");
}

#[test]
fn a_refused_launch_names_kernel_shapes_and_reason() {
    let Some(driver) = driver_or_skip("a_refused_launch_names_kernel_shapes_and_reason") else { return };
    for (test, error) in [
        ("add_scaled::add_scaled_has_the_bits_of_the_cpu", "kernel add_scaled_f32 over out, x [1]"),
        ("sgd::sgd_has_the_bits_of_the_cpu", "kernel sgd_f32 over params, grad [1]"),
        ("weighted_sum::weighted_sum_has_the_bits_of_the_cpu", "kernel weighted_sum_f32 over inputs [3, 1]"),
    ] {
        let mut command = with_driver(driver, env::current_exe().unwrap());
        command.args(["--exact", test]).env("HOST_DRIVER_FAIL_LAUNCH", "1");
        let output = command.output().unwrap();
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        // The panic message holds the error's Debug form.
        let (kernel, shapes) = error.split_once(" over ").unwrap();
        let kernel = kernel.strip_prefix("kernel ").unwrap();
        for word in [kernel, shapes, "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"] {
            assert!(said.contains(word), "no {word} in {said}");
        }
    }
}

#[test]
fn the_program_tells_what_it_finds() {
    let Some(driver) = driver_or_skip("the_program_tells_what_it_finds") else { return };
    let scadles = env!("CARGO_BIN_EXE_scadles");
    let out = tempfile::tempdir().unwrap();
    let mut doctor = with_driver(driver, scadles);
    let doctor = text(&doctor.arg("doctor").arg("--out").arg(out.path()).output().unwrap());
    assert!(doctor.contains("CUDA 13.0") && doctor.contains("host compiler (sm_90, "), "{doctor}");
    let mut run = with_driver(driver, scadles);
    let run = run.args(["run", "--device", "cuda", "--out"]).arg(out.path().join("run")).output().unwrap();
    let said = text(&run);
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(said.contains("device cuda: ") && said.contains("use `--device cpu`"), "{said}");
    let reason = match scadles::device::cuda::kernels().next() {
        None => "this program was built without nvcc",
        Some(_) if said.contains("runs none of the embedded kernels") => {
            "build again with SCADLES_CUDA_ARCHS=sm_90"
        }
        Some(_) => "this version runs only these kernels on CUDA: add_scaled, sgd, weighted_sum",
    };
    assert!(said.contains(reason), "{said}");
}
