//! The emulator (`emulator/`) for test programs: builds `libcuda.so` over kernel sources, and starts programs on it.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// Set in programs that [`Emulator::command`] starts.
pub const EMULATED: &str = "SCADLES_TEST_EMULATED";
/// Set to 1 to build with AddressSanitizer and UndefinedBehaviorSanitizer.
pub const SANITIZE: &str = "SCADLES_EMULATOR_SANITIZE";

/// No contraction: a * b + c keeps its two roundings, whatever the processor. Hidden symbols are reached without a table.
const FLAGS: &str = "-std=c++20 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-psabi -Wno-parentheses";
const PLAIN: &str = "-O2 -g1 -march=native";
const SANITIZED: &str =
    "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer";

/// A built `libcuda.so`.
#[derive(Debug)]
pub struct Emulator {
    folder: PathBuf,
    /// What must be loaded first, with sanitizers.
    preload: Option<PathBuf>,
}

/// The emulator over the kernels of the package, built once; None, and a line that says so, without a C++ compiler or the
/// sources.
pub fn emulator_or_skip(test: &str) -> Option<&'static Emulator> {
    static BUILT: OnceLock<Result<Emulator, &'static str>> = OnceLock::new();
    or_skip(test, BUILT.get_or_init(|| Emulator::build("kernels", &[&root().join("kernels")])))
}

/// `built`, or None and a line that says why.
pub fn or_skip(test: &str, built: &'static Result<Emulator, &'static str>) -> Option<&'static Emulator> {
    match built {
        Ok(emulator) => Some(emulator),
        Err(missing) => {
            println!("skipped: {test} ({missing})");
            None
        }
    }
}

impl Emulator {
    /// Builds the library `name` over the kernel files of `folders`, or takes the one built before from the same.
    ///
    /// # Errors
    /// What this machine lacks.
    ///
    /// # Panics
    /// If a source does not compile.
    pub fn build(name: &str, folders: &[&Path]) -> Result<Self, &'static str> {
        if !root().join("emulator").is_dir() || !folders.iter().all(|folder| folder.is_dir()) {
            return Err("the sources are not on this machine");
        }
        let Some(compiler) = compiler() else { return Err("no C++ compiler") };
        Ok(Build::new(compiler).library(name, folders))
    }

    /// Where the library lies, and a file for each kernel file that it holds.
    #[allow(dead_code, reason = "not every test program looks there")]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `program`, to run with the emulator in place of the driver.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let folders = std::iter::once(self.folder.clone()).chain(env::split_paths(&others));
        command.env("LD_LIBRARY_PATH", env::join_paths(folders).unwrap()).env(EMULATED, "1");
        command.env("SCADLES_KERNELS", &self.folder);
        if let Some(preload) = &self.preload {
            // Nobody frees what lives as long as the process.
            command.env("LD_PRELOAD", preload).env("ASAN_OPTIONS", "detect_leaks=0");
            command.env("UBSAN_OPTIONS", "print_stacktrace=1");
        }
        command
    }
}

/// What a program said, on both streams.
pub fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compiler() -> Option<OsString> {
    let runs =
        |name: &OsString| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let named = env::var_os("CXX").filter(|name| !name.is_empty());
    named.into_iter().chain(["g++", "clang++", "c++"].map(Into::into)).find(runs)
}

/// One build: objects are named by a hash of all that goes into them, so that what did not change is not compiled again.
struct Build {
    compiler: OsString,
    flags: Vec<String>,
    sanitize: bool,
    out: PathBuf,
    /// Of the compiler, the flags, the processor and the headers, for sources of the emulator and for kernels.
    of_emulator: Sha256,
    of_kernels: Sha256,
}

/// A source file, or the text of one that is written.
struct Source {
    name: String,
    text: String,
    path: PathBuf,
    is_kernel: bool,
}

impl Build {
    fn new(compiler: OsString) -> Self {
        let root = root();
        let sanitize = env::var(SANITIZE).is_ok_and(|value| value == "1");
        let flags = format!("{FLAGS} {}", if sanitize { SANITIZED } else { PLAIN });
        let mut flags: Vec<String> = flags.split(' ').map(Into::into).collect();
        for folder in ["emulator/include", "emulator/src", "kernels"] {
            flags.push(format!("-I{}", root.join(folder).display()));
        }
        let version = Command::new(&compiler).arg("--version").output().unwrap().stdout;
        // -march=native compiles for what /proc/cpuinfo says.
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let common = Sha256::new_with_prefix(version).chain_update(flags.join(" ") + processor);
        let with_headers = |folders: &[&str]| {
            let headers = folders.iter().flat_map(|folder| files(&root.join(folder), &["h", "cuh"]));
            headers.fold(common.clone(), |hash, path| {
                hash.chain_update(path.to_string_lossy().as_bytes()).chain_update(fs::read(&path).unwrap())
            })
        };
        let of_emulator = with_headers(&["emulator/include", "emulator/src", "emulator/src/driver"]);
        let of_kernels = with_headers(&["emulator/include", "kernels"]);
        let out = temporary().join("emulator");
        Self { compiler, flags, sanitize, out, of_emulator, of_kernels }
    }

    fn library(&self, name: &str, folders: &[&Path]) -> Emulator {
        fs::create_dir_all(&self.out).unwrap();
        // Several test programs may build at once.
        let lock = fs::File::create(self.out.join("lock")).unwrap();
        lock.lock().unwrap();
        let mut sources = Vec::new();
        for folder in ["emulator/src", "emulator/src/driver"] {
            for path in files(&root().join(folder), &["cc"]) {
                sources.push(Source {
                    name: stem(&path),
                    text: fs::read_to_string(&path).unwrap(),
                    path,
                    is_kernel: false,
                });
            }
        }
        let mut kernels = Vec::new();
        for path in folders.iter().flat_map(|folder| files(folder, &["cu"])) {
            kernels.push(stem(&path));
            sources.push(self.kernel(&path));
        }
        let objects = self.compile(&sources);
        let mut hash = Sha256::new();
        objects.iter().for_each(|object| hash.update(object.to_string_lossy().as_bytes()));
        let folder = self.out.join(format!("{name}-{}", hex(hash)));
        if !folder.join("libcuda.so").exists() {
            fs::create_dir_all(&folder).unwrap();
            for kernel in kernels {
                // What emulator/src/driver/launch.cc reads.
                let image = format!("emulated kernel file: {kernel}\n");
                fs::write(folder.join(format!("{kernel}.fatbin")), image).unwrap();
            }
            let partial = folder.join("libcuda.so.partial");
            let mut command = Command::new(&self.compiler);
            command.args(&self.flags).args(["-shared", "-pthread"]).args(&objects).arg("-o").arg(&partial);
            run(&mut command);
            fs::rename(partial, folder.join("libcuda.so")).unwrap();
        }
        let preload = self.sanitize.then(|| {
            let found = Command::new(&self.compiler).arg("-print-file-name=libasan.so").output().unwrap();
            PathBuf::from(String::from_utf8(found.stdout).unwrap().trim()).canonicalize().unwrap()
        });
        Emulator { folder, preload }
    }

    /// The source that registers the entry points of a kernel file.
    fn kernel(&self, path: &Path) -> Source {
        let name = stem(path);
        let kernel = fs::read_to_string(path).unwrap();
        let entries = entries(&kernel);
        assert!(!entries.is_empty(), "{} has no entry point", path.display());
        let mut text = format!("#include \"emulator.h\"\n#include {path:?}\n");
        for (entry, bound) in entries {
            text += &format!("ADD_KERNEL({name:?}, {entry}, {bound})\n");
        }
        // The kernel's own text is part of what the object's name is made of.
        text += &format!("// {}\n", hex(Sha256::new_with_prefix(&kernel)));
        let path = self.out.join(format!("{name}-{}.cc", hex(Sha256::new_with_prefix(&text))));
        fs::write(&path, &text).unwrap();
        Source { name, text, path, is_kernel: true }
    }

    /// Compiles what is not there yet, several at a time.
    fn compile(&self, sources: &[Source]) -> Vec<PathBuf> {
        let object = |source: &Source| {
            let common = if source.is_kernel { &self.of_kernels } else { &self.of_emulator };
            let hash = common.clone().chain_update(&source.text);
            self.out.join(format!("{}-{}.o", source.name, hex(hash)))
        };
        let objects: Vec<PathBuf> = sources.iter().map(object).collect();
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        let jobs = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    let jobs = sources.iter().zip(&objects).collect::<Vec<_>>();
                    while let Some((source, object)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if object.exists() {
                            continue;
                        }
                        let partial = object.with_extension("partial");
                        let mut command = Command::new(&self.compiler);
                        command.args(&self.flags).arg("-c").arg(&source.path).arg("-o").arg(&partial);
                        match command.output() {
                            Ok(output) if output.status.success() => fs::rename(partial, object).unwrap(),
                            Ok(output) => {
                                failures.lock().unwrap().push(format!("{command:?}:\n{}", text(&output)));
                            }
                            Err(error) => failures.lock().unwrap().push(format!("{command:?}: {error}")),
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        objects
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}:\n{}", text(&output));
}

/// Files of a folder with one of these endings, sorted.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted = |path: &PathBuf| path.extension().is_some_and(|end| extensions.iter().any(|e| end == *e));
    let found: BTreeMap<PathBuf, ()> = entries.filter(wanted).map(|path| (path, ())).collect();
    found.into_keys().collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().into()
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

/// Entry points of a kernel file, and the most threads that their launch bounds allow a block.
fn entries(source: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for rest in source.split("extern \"C\" __global__").skip(1) {
        let (mut rest, mut bound) = (rest.trim_start(), "1024");
        loop {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = match word {
                "void" => after.trim_start(),
                "__launch_bounds__" => {
                    let (inside, after) = after.trim_start()[1..].split_once(')').unwrap();
                    bound = inside.split(',').next().unwrap();
                    after.trim_start()
                }
                _ => break found.push((word, bound)),
            };
        }
    }
    found
}

/// The folder for files of tests in cargo's target folder; cargo names it to integration tests only, beside which a unit
/// test's program lies in `<profile>/deps`.
fn temporary() -> PathBuf {
    match option_env!("CARGO_TARGET_TMPDIR") {
        Some(folder) => folder.into(),
        None => env::current_exe().unwrap().ancestors().nth(3).unwrap().join("tmp"),
    }
}
