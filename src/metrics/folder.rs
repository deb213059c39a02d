//! A run on disk: `config.toml`, `metrics.jsonl`, `steps.csv`, `evals.csv` while it runs; `run.json` and
//! `report.html` at its end.

use crate::metrics::MetricsError;
use crate::metrics::record::RunRecord;
use crate::metrics::report;
use crate::metrics::sink::{CsvFiles, JsonLines, Sink};
use crate::train::config::RunConfig;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Creates the folder, writes the configuration as run, and removes the results of an earlier run in it.
    pub fn create(path: &Path, config: &RunConfig) -> Result<Self, MetricsError> {
        fs::create_dir_all(path).map_err(MetricsError::io("create", path))?;
        let folder = Self { path: path.to_path_buf() };
        for result in ["run.json", "report.html"].map(|name| path.join(name)) {
            if result.exists() {
                fs::remove_file(&result).map_err(MetricsError::io("replace", &result))?;
            }
        }
        folder.write("config.toml", config.to_toml().as_bytes())?;
        Ok(folder)
    }

    /// The folder at `path`, which is there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// The folder `base`, or `base-2`, `base-3`, ... if it already holds the file `marker` (`run.json`).
    pub fn unused(base: &Path, marker: &str) -> PathBuf {
        let name = base.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let numbered = |n: usize| base.with_file_name(format!("{name}-{n}"));
        let mut candidates = std::iter::once(base.to_path_buf()).chain((2..).map(numbered));
        candidates.find(|path| !path.join(marker).exists()).expect("the candidates never end")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sinks that fill it while the run goes on.
    pub fn sinks(&self) -> Result<Vec<Box<dyn Sink>>, MetricsError> {
        let lines = JsonLines::create(&self.path.join("metrics.jsonl"))?;
        Ok(vec![Box::new(lines), Box::new(CsvFiles::create(&self.path)?)])
    }

    /// Writes `run.json` and `report.html`; returns the report's path.
    pub fn finish(&self, record: &RunRecord) -> Result<PathBuf, MetricsError> {
        let path = self.path.join("run.json");
        let json = serde_json::to_vec(record).map_err(|source| MetricsError::Json { path, source })?;
        self.write("run.json", &json)?;
        self.write("report.html", report::run_html(record).as_bytes())
    }

    /// Removes the files of a run that failed before its first event, and the folder if nothing else is in it.
    pub fn discard_if_unused(&self) {
        let empty = fs::metadata(self.path.join("metrics.jsonl")).is_ok_and(|file| file.len() == 0);
        if empty {
            // What cannot be removed stays: the run's own error is the one to report.
            for name in ["metrics.jsonl", "steps.csv", "evals.csv", "config.toml"] {
                let _ = fs::remove_file(self.path.join(name));
            }
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Writes `name` whole or not at all (a temporary file, then a rename); returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, MetricsError> {
        let path = self.path.join(name);
        let written = tempfile::NamedTempFile::new_in(&self.path).and_then(|mut file| {
            file.write_all(bytes)?;
            make_readable(file.path())?;
            file.persist(&path).map_err(|error| error.error)
        });
        written.map_err(MetricsError::io("write", &path))?;
        Ok(path)
    }

    /// The record of the finished run in the folder at `path`.
    pub fn read(path: &Path) -> Result<RunRecord, MetricsError> {
        let file = path.join("run.json");
        if !file.is_file() {
            return Err(MetricsError::NoRun { path: path.to_path_buf() });
        }
        let json = fs::read(&file).map_err(MetricsError::io("read", &file))?;
        serde_json::from_slice(&json).map_err(|source| MetricsError::Json { path: file, source })
    }
}

/// Temporary files are private; results are as readable as any file that a program writes.
#[cfg(unix)]
fn make_readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_counts_past_finished_runs_only() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("ddl");
        assert_eq!(RunFolder::unused(&base, "run.json"), base);
        for (name, next) in [("ddl", "ddl-2"), ("ddl-2", "ddl-3")] {
            fs::create_dir(root.path().join(name)).unwrap();
            assert_eq!(RunFolder::unused(&base, "run.json"), root.path().join(name));
            fs::write(root.path().join(name).join("run.json"), "{}").unwrap();
            assert_eq!(RunFolder::unused(&base, "run.json"), root.path().join(next));
        }
    }

    #[test]
    fn a_folder_without_a_run_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(RunFolder::read(root.path()), Err(MetricsError::NoRun { .. })));
        fs::write(root.path().join("run.json"), "{\"version\": 3}").unwrap();
        let text = RunFolder::read(root.path()).unwrap_err().to_string();
        assert!(text.contains("run.json") && text.contains("not a run record"), "{text}");
    }
}
