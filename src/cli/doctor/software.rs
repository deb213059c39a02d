//! The program itself, its folders, and tools beside it.

use super::Finding;
use crate::data;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the program and how it was built.
pub(super) fn version() -> Finding {
    let build = if cfg!(debug_assertions) { "development build" } else { "release build" };
    let commit = option_env!("SCADLES_COMMIT").map_or(String::new(), |commit| format!(", commit {commit}"));
    Finding::fine("scadles", format!("{}{commit}, {build}", env!("CARGO_PKG_VERSION")))
}

/// Whether runs can be written to `out`.
pub(super) fn output(out: &Path) -> Finding {
    let existing = out.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let blocked = out.exists() && !out.is_dir();
    match tempfile::NamedTempFile::new_in(existing) {
        Ok(_) if !blocked => Finding::fine("output", format!("{} can be written", out.display())),
        Ok(_) => Finding::fix(
            "output",
            format!("{} is a file", out.display()),
            format!("move {} away, or give another folder with --out", out.display()),
        ),
        Err(error) => Finding::fix(
            "output",
            format!("{} cannot be written: {error}", existing.display()),
            format!("make {} writable, or give another folder with --out", existing.display()),
        ),
    }
}

/// Data sets: the given folder, or those in the usual places.
pub(super) fn data(dir: Option<&Path>) -> Vec<Finding> {
    let Some(dir) = dir else {
        let usual = ["data/cifar-10-batches-bin", "data/cifar-100-binary"];
        let found: Vec<&str> = usual.into_iter().filter(|path| Path::new(path).is_dir()).collect();
        let text = match found.as_slice() {
            [] => "embedded data set; `scadles fetch cifar10` gets a real one".to_string(),
            found => format!("{}, and the embedded data set", found.join(", ")),
        };
        return vec![Finding::fine("data", text)];
    };
    vec![match data::load(dir) {
        Ok(sets) => {
            let (train, test) = (sets.train.len(), sets.test.len());
            Finding::fine("data", format!("{}: {train} training and {test} test images", dir.display()))
        }
        Err(error) => Finding::fix("data", format!("{} cannot be used", dir.display()), format!("{error}")),
    }]
}

/// NVIDIA's collective library, for several GPUs.
pub(super) fn nccl() -> Finding {
    let listed = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/cuda/lib64", "/usr/local/lib"];
    let mut folders = env::split_paths(&listed).chain(usual.map(PathBuf::from));
    let found = folders.find_map(|folder| {
        ["libnccl.so.2", "libnccl.so"].map(|name| folder.join(name)).into_iter().find(|path| path.exists())
    });
    Finding::fine("NCCL", found.map_or("not found; only needed for several GPUs".into(), shown))
}

/// An MPI launcher, for several processes or hosts.
pub(super) fn mpi() -> Finding {
    Finding::fine("MPI", on_path("mpirun").map_or("not found; only needed for several hosts".into(), shown))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|data| data.is_file()))
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}
