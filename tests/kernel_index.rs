//! Every kernel has a header, launch code, a test, a bench row and a line in the tables; no table names another.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Name and source of each kernel file.
fn kernels() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let kernels = files.filter(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let mut kernels: Vec<_> = kernels
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_string(), fs::read_to_string(path).unwrap())
        })
        .collect();
    kernels.sort();
    assert!(!kernels.is_empty());
    kernels
}

fn entries(source: &str) -> Vec<&str> {
    let starts = source.split("__global__ void ").skip(1);
    starts.map(|rest| rest.split_once('(').unwrap().0).collect()
}

#[test]
fn every_kernel_is_documented_launched_tested_and_timed() {
    let (table, tests, benches) =
        (read("kernels/README.md"), read("tests/kernels/main.rs"), read("src/cli/bench/cuda.rs"));
    let pending = read("results/PENDING-GPU.md");
    for (name, source) in kernels() {
        let header: String = source.lines().take_while(|line| line.starts_with("//")).collect();
        assert!(
            header.starts_with(&format!("// {name}.cu: ")),
            "{name}.cu: the first line says what it computes"
        );
        for field in ["Role", "Shapes", "Types", "Launch", "Cost", "See"] {
            assert!(header.contains(&format!("// {field:<10} ")), "{name}.cu: no {field} in its header");
        }
        let launch = read(&format!("src/device/cuda/{name}.rs"));
        let test = read(&format!("tests/kernels/{name}.rs"));
        assert!(tests.contains(&format!("mod {name};")), "tests/kernels/main.rs does not run {name}");
        assert!(test.contains("#[test]") && test.contains(&format!(".{name}(")), "{name}.rs tests no launch");
        assert!(benches.contains(&format!(".{name}(")), "src/cli/bench/cuda.rs does not time {name}");
        let row = table.lines().find(|line| line.starts_with(&format!("| [{name}]({name}.cu) |")));
        let row = row.unwrap_or_else(|| panic!("kernels/README.md has no row for {name}"));
        let waits = pending.lines().any(|line| line.starts_with(&format!("| {name}: ")));
        assert_eq!(
            row.contains("not yet measured"),
            waits,
            "{name}: kernels/README.md and PENDING-GPU.md disagree"
        );
        for entry in entries(&source) {
            assert!(entry.starts_with(&name), "{name}.cu: entry {entry} has another name");
            assert!(
                source.contains(&format!("extern \"C\" __global__ void {entry}(")),
                "{entry}: not extern \"C\""
            );
            assert!(
                row.contains(&format!("`{entry}`")),
                "kernels/README.md: the row of {name} lacks {entry}"
            );
            assert!(launch.contains(&format!("\"{entry}\"")), "{entry} is launched nowhere");
        }
    }
}

#[test]
fn no_row_names_a_kernel_that_is_gone() {
    let names: Vec<String> = kernels().into_iter().map(|(name, _)| name).collect();
    let table = read("kernels/README.md");
    let rows: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| [")?.split(']').next()).collect();
    assert_eq!(rows, names, "kernels/README.md, in the order of names");
}
