//! Compiles `kernels/*.cu` to fatbins and writes `OUT_DIR/kernels.rs`, which embeds them.
//!
//! Without nvcc the table is empty and the build goes on. Environment: `NVCC` (a path, or `none` to build without),
//! `CUDA_HOME`, `CUDA_PATH`, `SCADLES_NVCC_DIR` (a folder of NVIDIA's Python wheels), `SCADLES_CUDA_ARCHS` (such as
//! `sm_90,compute_90`). `scripts/install-nvcc` puts nvcc where it is found without any of them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Machine code for these devices, and PTX that newer ones compile when the kernel is loaded.
const DEFAULT_ARCHITECTURES: &str = "sm_80,sm_87,sm_89,sm_90,sm_90a,compute_90";
/// Kernel files with this ending use instructions that only Hopper has.
const HOPPER_ONLY: &str = "_wgmma";
const HOPPER: &str = "sm_90a";
const ENVIRONMENT: [&str; 5] = ["NVCC", "CUDA_HOME", "CUDA_PATH", "SCADLES_NVCC_DIR", "SCADLES_CUDA_ARCHS"];
/// nvcc inside a folder of NVIDIA's Python wheels.
const IN_WHEELS: &str = "nvidia/cu13/bin/nvcc";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    for name in ENVIRONMENT {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    // A folder stands for every file in it, also for new ones.
    println!("cargo:rerun-if-changed=kernels");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: build.rs runs under cargo")?);
    let Some(nvcc) = find_nvcc()? else {
        return write_table(&out, &sources()?, &[], &[], "");
    };
    println!("cargo:rerun-if-changed={}", nvcc.display());
    let list = setting("SCADLES_CUDA_ARCHS").unwrap_or_else(|| DEFAULT_ARCHITECTURES.into());
    let list = list.to_string_lossy();
    let architectures: Vec<&str> = list.split([',', ' ']).filter(|item| !item.is_empty()).collect();
    let kernels = sources()?;
    let mut jobs = Vec::new();
    for (name, path) in &kernels {
        let targets = targets(name, &architectures)?;
        if !targets.is_empty() {
            jobs.push((name.as_str(), path.as_path(), targets));
        }
    }
    compile_all(&nvcc, &jobs, &out)?;
    let names: Vec<&str> = jobs.iter().map(|(name, ..)| *name).collect();
    write_table(&out, &kernels, &names, &architectures, &toolkit(&nvcc)?)
}

/// nvcc's arguments for one kernel file. Hopper's own machine code is for the files that need it; the others take it only
/// where nothing else was asked for.
fn targets(kernel: &str, architectures: &[&str]) -> Result<Vec<String>, String> {
    let others = architectures.iter().any(|name| *name != HOPPER);
    let wanted = |name: &&&str| match kernel.ends_with(HOPPER_ONLY) {
        true => **name == HOPPER,
        false => **name != HOPPER || !others,
    };
    architectures.iter().filter(wanted).map(|name| target(name)).collect()
}

/// The value of an environment variable, if it is set to something.
fn setting(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The compiler by its real path, since through a link it does not find its headers. What is named must be there.
fn find_nvcc() -> Result<Option<PathBuf>, String> {
    let real = |path: &Path| path.canonicalize().ok().filter(|path| path.is_file());
    if let Some(nvcc) = setting("NVCC").map(PathBuf::from) {
        if nvcc.as_os_str() == "none" {
            return Ok(None);
        }
        let missing = || {
            format!("NVCC={}: no such file; name nvcc itself, or NVCC=none to build without", nvcc.display())
        };
        return real(&nvcc).map(Some).ok_or_else(missing);
    }
    for (name, inside) in
        [("SCADLES_NVCC_DIR", IN_WHEELS), ("CUDA_HOME", "bin/nvcc"), ("CUDA_PATH", "bin/nvcc")]
    {
        let Some(folder) = setting(name).map(PathBuf::from) else { continue };
        if let Some(nvcc) = real(&folder.join(inside)) {
            return Ok(Some(nvcc));
        }
        if name == "SCADLES_NVCC_DIR" {
            return Err(format!(
                "{name}={}: there is no {inside}; run scripts/install-nvcc",
                folder.display()
            ));
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).find_map(|folder| real(&folder.join("nvcc")));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    Ok(on_path.or_else(|| real(&root.join("target/nvcc").join(IN_WHEELS))))
}

/// nvcc's argument for `sm_90` (machine code) or `compute_90` (PTX).
fn target(name: &str) -> Result<String, String> {
    let number = name.strip_prefix("sm_").or_else(|| name.strip_prefix("compute_"));
    let digits = number.map(|number| number.trim_end_matches(['a', 'f']));
    match (number, digits) {
        (Some(number), Some(digits)) if digits.len() >= 2 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(format!("-gencode=arch=compute_{number},code={name}"))
        }
        _ => Err(format!("SCADLES_CUDA_ARCHS: `{name}` is neither like sm_90 nor like compute_90")),
    }
}

/// Name and path of every kernel file, sorted.
fn sources() -> Result<Vec<(String, PathBuf)>, String> {
    let entries = fs::read_dir("kernels").map_err(|error| format!("cannot read kernels/: {error}"))?;
    let mut kernels = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("cannot read kernels/: {error}"))?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            kernels.push((name, path));
        }
    }
    kernels.sort();
    Ok(kernels)
}

/// Name, path and targets of a kernel file to compile.
type Job<'a> = (&'a str, &'a Path, Vec<String>);

/// Compiles every kernel, as many at a time as cargo allows jobs.
fn compile_all(nvcc: &Path, kernels: &[Job], out: &Path) -> Result<(), String> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..kernels.len().min(jobs) {
            scope.spawn(|| {
                while let Some((name, path, targets)) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = compile(nvcc, targets, path, &out.join(format!("{name}.fatbin"))) {
                        failures.lock().expect("no compiling thread panics").push(message);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no compiling thread panics");
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn compile(nvcc: &Path, targets: &[String], kernel: &Path, fatbin: &Path) -> Result<(), String> {
    let mut command = Command::new(nvcc);
    command.args(["-fatbin", "-std=c++17", "-O3", "--fatbin-options=-compress-all"]).args(targets);
    let output = command.arg("-o").arg(fatbin).arg(kernel).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", nvcc.display()))?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if !output.status.success() {
        let kernel = kernel.display();
        return Err(format!(
            "{kernel} does not compile ({}); NVCC=none builds without kernels:\n{said}",
            output.status
        ));
    }
    for line in said.lines().filter(|line| !line.is_empty()) {
        println!("cargo:warning={line}");
    }
    Ok(())
}

/// nvcc's version, as in `13.0`.
fn toolkit(nvcc: &Path) -> Result<String, String> {
    let output = Command::new(nvcc).arg("--version").output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", nvcc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let release = text.split_once("release ").and_then(|(_, rest)| rest.split([',', ' ', '\n']).next());
    release.map(Into::into).ok_or_else(|| format!("{} --version names no release: {text}", nvcc.display()))
}

/// Names of a source's entry points, in the order of the text.
fn entries(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in source.split("extern \"C\" __global__").skip(1) {
        let mut rest = rest.trim_start();
        loop {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = match word {
                "void" => after.trim_start(),
                "__launch_bounds__" => skip_parentheses(after).trim_start(),
                _ => break found.push(word.to_string()),
            };
        }
    }
    found
}

fn skip_parentheses(text: &str) -> &str {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return &text[i + 1..],
            ')' => depth -= 1,
            _ => {}
        }
    }
    ""
}

fn write_table(
    out: &Path,
    sources: &[(String, PathBuf)],
    compiled: &[&str],
    architectures: &[&str],
    toolkit: &str,
) -> Result<(), String> {
    let image = |name: &&str| {
        let path = out.join(format!("{name}.fatbin"));
        format!("    ({name:?}, &Aligned(*include_bytes!({path:?})).0),\n")
    };
    let images: String = compiled.iter().map(image).collect();
    let mut table = String::new();
    for (name, path) in sources {
        let text =
            fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        table += &format!("    ({name:?}, &{:?}),\n", entries(&text));
    }
    let table = format!(
        "const IMAGES: &[(&str, &[u8])] = &[\n{images}];\n\
         const ENTRIES: &[(&str, &[&str])] = &[\n{table}];\n\
         const ARCHITECTURES: &[&str] = &{architectures:?};\n\
         const HOPPER_ONLY: &str = {HOPPER_ONLY:?};\n\
         const TOOLKIT: &str = {toolkit:?};\n"
    );
    fs::write(out.join("kernels.rs"), table).map_err(|error| format!("cannot write kernels.rs: {error}"))
}
