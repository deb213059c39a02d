//! The example configurations are valid and say what they are for.

use scadles::train::config::RunConfig;
use std::fs;
use std::path::Path;

#[test]
fn each_parses_validates_and_explains_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let config = RunConfig::from_toml(&text, &file).unwrap_or_else(|error| panic!("{error}"));
        let stem = file.file_stem().unwrap().to_str().unwrap();
        assert!(
            stem == config.name || stem.ends_with(&format!("-{}", config.name)),
            "{stem}: the run {} is named after its file, or what follows the data set in its name",
            config.name
        );
        assert!(text.starts_with("# "), "{stem}: the first line says what it is for");
        let mut lines = text.lines().take_while(|line| line.starts_with('#'));
        let command =
            |line: &str| line.contains("scadles ") && line.contains(&format!("examples/{stem}.toml"));
        assert!(lines.any(command), "{stem}: shows its command");
    }
}
