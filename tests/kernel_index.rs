//! Every kernel has a header, launch code, tests, a bench row and a line in the tables; no table names another.

use half::bf16;
use scadles::ops::conv2d::cuda::{Algorithm, Pass, Tile};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FIELDS: [&str; 6] = ["Role", "Shapes", "Types", "Launch", "Cost", "See"];
/// Text where a continued field begins.
const INDENT: &str = "//            ";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files of a folder and its folders; or the file itself.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.into()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => rust_files(&path),
        false => Vec::from_iter(path.extension().is_some_and(|extension| extension == "rs").then_some(path)),
    };
    paths.flat_map(of).collect()
}

/// What a kernel file says of itself.
struct Kernel {
    name: String,
    source: String,
    fields: BTreeMap<&'static str, String>,
    entries: Vec<String>,
}

impl Kernel {
    fn new(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let source = fs::read_to_string(path).unwrap();
        let header: Vec<&str> = source.lines().take_while(|line| line.starts_with("//")).collect();
        let field = |field: &'static str| {
            let start = format!("// {field:<10} ");
            let mut lines = header.iter().skip_while(|line| !line.starts_with(&start));
            let first = lines.next().unwrap_or_else(|| panic!("{name}.cu: no {field} in its header"));
            let more = lines.map_while(|line| line.strip_prefix(INDENT));
            (field, std::iter::once(&first[start.len()..]).chain(more).collect::<Vec<_>>().join(" "))
        };
        let fields = FIELDS.map(field).into();
        let entries = entries(&source);
        Self { name, source, fields, entries }
    }

    /// Paths that the field See names, with this beginning.
    fn seen(&self, beginning: &str) -> Vec<PathBuf> {
        let words = self.fields["See"].split([' ', ',']).filter(|word| word.starts_with(beginning));
        words.map(|word| root().join(word)).collect()
    }
}

/// Every kernel file, in the order of names.
fn kernels() -> Vec<Kernel> {
    let files = fs::read_dir(root().join("kernels")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "cu")).collect();
    files.sort_by_key(|path| path.file_stem().unwrap().to_owned());
    assert!(!files.is_empty());
    files.iter().map(|path| Kernel::new(path)).collect()
}

/// Names of the entry points of a source.
fn entries(source: &str) -> Vec<String> {
    let starts = source.split("__global__ void").skip(1);
    let name = |rest: &str| {
        let mut rest = rest.trim_start();
        if let Some(bounds) = rest.strip_prefix("__launch_bounds__") {
            rest = bounds.split_once(')').unwrap().1.trim_start();
        }
        rest.split_once('(').unwrap().0.to_string()
    };
    starts.map(name).collect()
}

/// Hopper's tiles have entry points whose names are put together.
fn hopper_entries() -> Vec<&'static str> {
    let of = |pass| {
        let kernel = move |tile| Algorithm { tile, splits: 1 }.kernel::<bf16>(pass);
        Tile::wgmma(pass).map(kernel).collect::<Vec<_>>()
    };
    [Pass::Fprop, Pass::Dgrad, Pass::Wgrad].into_iter().flat_map(of).collect()
}

#[test]
fn every_kernel_says_what_it_is() {
    for kernel in kernels() {
        let Kernel { name, source, entries, .. } = &kernel;
        assert!(
            source.starts_with(&format!("// {name}.cu: ")),
            "{name}.cu: the first line says what it computes"
        );
        for (field, text) in &kernel.fields {
            assert!(text.len() > 3, "{name}.cu: nothing in {field}");
        }
        assert!(!entries.is_empty(), "{name}.cu has no entry point");
        for entry in entries {
            assert!(entry.starts_with(name), "{name}.cu: entry {entry} has another name");
        }
        let declared = source.matches("extern \"C\" __global__ void").count();
        assert_eq!(declared, entries.len(), "{name}.cu: an entry that is not extern \"C\"");
        for path in ["src/", "kernels/", "tests/"].into_iter().flat_map(|start| kernel.seen(start)) {
            assert!(path.exists(), "{name}.cu: See names {}, which is not there", path.display());
        }
    }
}

#[test]
fn every_entry_is_launched_where_its_header_says_and_nowhere_else() {
    let all: Vec<(PathBuf, String)> = rust_files(&root().join("src"))
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    let hopper = hopper_entries();
    for kernel in kernels() {
        let named: Vec<PathBuf> = kernel.seen("src/").iter().flat_map(|path| rust_files(path)).collect();
        assert!(!named.is_empty(), "{}.cu: See names no launch code", kernel.name);
        for entry in &kernel.entries {
            let quoted = format!("\"{entry}\"");
            let places: Vec<&PathBuf> =
                all.iter().filter(|(_, text)| text.contains(&quoted)).map(|(path, _)| path).collect();
            let launched = places.iter().any(|path| named.contains(path));
            assert!(
                launched || hopper.contains(&entry.as_str()),
                "{entry} is not launched in {}",
                kernel.fields["See"]
            );
            // Errors of the same module may name an entry, and benchmarks ask which a device has.
            let beside = |path: &Path| named.iter().any(|named| named.parent() == path.parent());
            let bench = root().join("src/cli/bench");
            let elsewhere = places.iter().find(|path| !beside(path) && !path.starts_with(&bench));
            assert!(elsewhere.is_none(), "{entry} also stands in {}", elsewhere.unwrap().display());
        }
    }
}

#[test]
fn every_kernel_has_tests_that_run() {
    let main = read("tests/kernels/main.rs");
    for kernel in kernels() {
        let tests = kernel.seen("tests/kernels/");
        assert!(!tests.is_empty(), "{}.cu: See names no test", kernel.name);
        for path in tests {
            let module = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                main.contains(&format!("\nmod {module};")),
                "tests/kernels/main.rs does not run {module}"
            );
            let test = fs::read_to_string(&path).unwrap();
            assert!(test.contains("#[test]"), "{} holds no test", path.display());
        }
    }
}

/// The cells of a kernel's row.
struct Row<'a> {
    name: &'a str,
    entries: &'a str,
    floor: &'a str,
    tests: &'a str,
    bench: &'a str,
    best: &'a str,
}

fn rows(table: &str) -> Vec<Row<'_>> {
    let lines = table.lines().filter(|line| line.starts_with("| ["));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [kernel, entries, _shapes, _types, _bytes, _flop, floor, tests, bench, best] = cells[..]
            else {
                panic!("kernels/README.md: {} cells in {line}", cells.len())
            };
            assert!(cells.iter().all(|cell| !cell.is_empty()), "kernels/README.md: an empty cell in {line}");
            let name = kernel.strip_prefix('[').and_then(|rest| rest.split_once(']')).unwrap();
            assert_eq!(name.1, format!("({}.cu)", name.0), "kernels/README.md: the link of {}", name.0);
            Row { name: name.0, entries, floor, tests, bench, best }
        })
        .collect()
}

#[test]
fn every_kernel_has_a_row_and_no_row_names_one_that_is_gone() {
    let table = read("kernels/README.md");
    let pending = read("results/PENDING-GPU.md");
    let benches: String = rust_files(&root().join("src/cli/bench/cuda")).iter().map(read).collect();
    let (kernels, rows) = (kernels(), rows(&table));
    let listed: Vec<&str> = rows.iter().map(|row| row.name).collect();
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    assert_eq!(listed, names, "kernels/README.md, in the order of names");
    for (kernel, row) in kernels.iter().zip(&rows) {
        let name = &kernel.name;
        let listed: Vec<&str> = row.entries.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, kernel.entries, "kernels/README.md: the entries of {name}");
        assert!(row.floor.contains("us") || row.floor.contains("ms"), "kernels/README.md: floor of {name}");
        for path in kernel.seen("tests/kernels/") {
            let file = path.file_name().unwrap().to_str().unwrap();
            assert!(
                row.tests.contains(&format!("`{file}`")),
                "kernels/README.md: {name} is tested by {file}"
            );
        }
        // What times it is the beginning of a row's name, as it stands in the benchmark's source.
        let timed: Vec<&str> = row.bench.split('`').skip(1).step_by(2).collect();
        assert!(!timed.is_empty(), "kernels/README.md: {name} is timed by nothing");
        for row in timed {
            assert!(benches.contains(&format!("\"{row}")), "src/cli/bench/cuda has no row `{row}` ({name})");
        }
        let waits = pending.lines().any(|line| line.starts_with(&format!("| {name}: ")));
        let measured = row.best != "not yet measured";
        assert_ne!(measured, waits, "{name}: kernels/README.md and PENDING-GPU.md disagree");
        let dated = row.best.split(|c: char| !c.is_ascii_digit() && c != '-').any(|word| word.len() == 10);
        assert!(!measured || dated, "kernels/README.md: {name} was measured when?");
    }
    for line in pending.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some((name, _)) = line.split_once(": ") else { continue };
        let kernel = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        assert!(
            !kernel || kernels.iter().any(|kernel| kernel.name == name),
            "PENDING-GPU.md: no kernel {name}"
        );
    }
}

/// Benchmarks call the launch code of every kernel: functions of an op, of the device, or the compressor.
#[test]
fn every_launch_file_is_called_by_a_benchmark() {
    let benches: String = rust_files(&root().join("src/cli/bench/cuda")).iter().map(read).collect();
    for kernel in kernels() {
        for path in kernel.seen("src/") {
            let path = path.strip_prefix(root()).unwrap();
            let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
            let call = match parts[..] {
                ["src", "ops", op, ..] => format!("{op}::cuda"),
                ["src", "device", "cuda", file] => {
                    let name = file.trim_end_matches(".rs");
                    if name == "peak" { "peak::".into() } else { format!("device.{name}(") }
                }
                ["src", "compress", "cuda", ..] => "CudaCompressors".into(),
                _ => continue, // the CPU's counterpart
            };
            assert!(benches.contains(&call), "{}: no benchmark calls `{call}`", kernel.name);
        }
    }
}
