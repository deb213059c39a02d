//! TOML text and flags -> a checked [`RunConfig`]; and back to TOML.

use super::RunConfig;
use super::check::{check_table, missing_key};
use super::error::{ConfigError, Location, Problem};
use super::locate::Document;
use super::overrides::{Override, apply, table_of};
use super::schema::ROOT;
use std::fs;
use std::path::Path;
use toml::de::DeTable;

impl RunConfig {
    /// The configuration in `text`, which was read from `path` (used in messages only).
    ///
    /// # Errors
    /// Text that is not TOML, unknown keys, wrong types, and everything that [`RunConfig::validate`] refuses; the
    /// message shows file, line, column, the line itself and the cure.
    ///
    /// # Example
    /// ```
    /// use scadles::train::config::RunConfig;
    /// use std::path::Path;
    /// let text = "[cluster]\ndevices = 2\nrates = [30, 60]\n";
    /// let config = RunConfig::from_toml(text, Path::new("two.toml"))?;
    /// assert_eq!((config.cluster.devices, config.model.name.as_str()), (2, "resnet20"));
    /// let error = RunConfig::from_toml("[run]\nstepps = 2\n", Path::new("bad.toml")).unwrap_err();
    /// assert!(error.to_string().contains("bad.toml:2:1: unknown key `stepps` in [run]; did you mean `steps`?"));
    /// # Ok::<(), scadles::train::config::ConfigError>(())
    /// ```
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::from_sources(Some(Document { path, text }), &[])
    }

    /// The configuration in the file at `path` (none: the default), changed by `overrides`.
    ///
    /// # Errors
    /// As [`RunConfig::from_toml`]; a value from a flag is blamed on the flag.
    pub fn load(path: Option<&Path>, overrides: &[Override]) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::from_sources(None, overrides) };
        let text = fs::read_to_string(path)
            .map_err(|source| Problem::Read { path: path.to_path_buf(), source }.nowhere())?;
        Self::from_sources(Some(Document { path, text: &text }), overrides)
    }

    /// This configuration with `overrides` applied.
    ///
    /// # Errors
    /// As [`RunConfig::load`].
    pub fn with_overrides(&self, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::from_tree(table_of(self), None, overrides)
    }

    /// The configuration as TOML that [`RunConfig::from_toml`] reads back.
    pub fn to_toml(&self) -> String {
        table_of(self).to_string()
    }

    fn from_sources(document: Option<Document<'_>>, overrides: &[Override]) -> Result<Self, ConfigError> {
        let base = match &document {
            None => Self::default(),
            Some(document) => parse(document)?,
        };
        Self::from_tree(table_of(&base), document.as_ref(), overrides)
    }

    fn from_tree(
        mut tree: toml::Table,
        document: Option<&Document<'_>>,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        apply(&mut tree, overrides)?;
        let blame = |problem: Problem| {
            let at = place(&problem, document, overrides);
            ConfigError { problem: Box::new(problem), at }
        };
        if let Some(problem) = missing_key("", &tree, ROOT) {
            return Err(blame(problem));
        }
        let config: Self = tree
            .try_into()
            .map_err(|error| blame(Problem::Syntax { message: error.message().to_string() }))?;
        config.check().map_err(blame)?;
        Ok(config)
    }
}

fn parse(document: &Document<'_>) -> Result<RunConfig, ConfigError> {
    let syntax = |error: &toml::de::Error| ConfigError {
        problem: Box::new(Problem::Syntax { message: error.message().to_string() }),
        at: document.location(error.span().unwrap_or(0..0)),
    };
    let table = DeTable::parse(document.text).map_err(|error| syntax(&error))?;
    check_table(document, "", table.get_ref(), ROOT)?;
    let tree: toml::Table = toml::from_str(document.text).map_err(|error| syntax(&error))?;
    if let Some(problem) = missing_key("", &tree, ROOT) {
        let at = document.find(&problem.keys());
        return Err(ConfigError { problem: Box::new(problem), at });
    }
    toml::from_str(document.text).map_err(|error| syntax(&error))
}

/// Where the value behind `problem` came from: the last flag that set one of its keys, else the file.
fn place(problem: &Problem, document: Option<&Document<'_>>, overrides: &[Override]) -> Location {
    let keys = problem.keys();
    let sets = |change: &&Override| {
        keys.iter().any(|key| {
            let key = key.split('[').next().unwrap_or_default();
            key == change.key || change.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    match overrides.iter().rev().find(sets) {
        Some(change) => Location::Flag(change.flag.clone()),
        None => document.map_or(Location::Unknown, |document| document.find(&keys)),
    }
}
