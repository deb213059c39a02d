//! What is wrong with a configuration, and where: file, line and column, or the flag.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A configuration that cannot be run, with the place to change.
#[derive(Debug)]
pub struct ConfigError {
    /// What is wrong.
    pub problem: Box<Problem>,
    /// Where it was written.
    pub at: Location,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("this is not TOML: {message}")]
    Syntax {
        /// The parser's reason.
        message: String,
    },
    /// No such key.
    #[error("unknown key `{key}`{}{}", inside(table), suggestion(near.as_deref(), known, "keys"))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The table it was written in; empty at the top.
        table: String,
        /// A known key that looks like it.
        near: Option<String>,
        /// All keys of the table.
        known: Vec<&'static str>,
    },
    /// The key belongs to another `kind` of its table.
    #[error("`{table}` of kind `{kind}` has no key `{key}`; {} has it", kinds(owners))]
    OtherKind {
        /// The key as written.
        key: String,
        /// Its table.
        table: String,
        /// The table's kind.
        kind: String,
        /// Kinds with that key.
        owners: Vec<&'static str>,
    },
    /// A value of the wrong type.
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType {
        /// Path of the key.
        key: String,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A word that is none of the choices.
    #[error("`{key}` cannot be `{found}`{}", suggestion(near.as_deref(), choices, "choices"))]
    UnknownChoice {
        /// Path of the key.
        key: String,
        /// The word as written.
        found: String,
        /// A choice that looks like it.
        near: Option<String>,
        /// All choices.
        choices: Vec<&'static str>,
    },
    /// A key that must be given is not.
    #[error("`{table}` needs the key `{key}`: {expected}")]
    MissingKey {
        /// The key.
        key: &'static str,
        /// Its table, with its kind.
        table: String,
        /// What belongs there.
        expected: String,
    },
    /// A value outside its range.
    #[error("`{key}` is {found}; it must be {expected}")]
    OutOfRange {
        /// Path of the key.
        key: String,
        /// The value.
        found: String,
        /// The range.
        expected: String,
    },
    /// Values that exclude each other.
    #[error("{why}; {cure}")]
    Conflict {
        /// Paths of the keys, the one to change first.
        keys: Vec<&'static str>,
        /// Why they exclude each other.
        why: String,
        /// What to do.
        cure: String,
    },
}

/// Where a value was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// Nowhere: a default, or a value set by a program.
    #[default]
    Unknown,
    /// On the command line.
    Flag(String),
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// Line from 1.
        line: usize,
        /// Column from 1, in characters.
        column: usize,
        /// The line's text.
        text: String,
        /// Characters to underline, at least 1.
        width: usize,
    },
}

impl Problem {
    /// The problem without a place.
    pub(super) fn nowhere(self) -> ConfigError {
        ConfigError { problem: Box::new(self), at: Location::Unknown }
    }

    /// Paths of the keys that could be changed, most likely first.
    pub(super) fn keys(&self) -> Vec<String> {
        match self {
            Self::Read { .. } | Self::Syntax { .. } => Vec::new(),
            Self::UnknownKey { key, table, .. } | Self::OtherKind { key, table, .. } if table.is_empty() => {
                vec![key.clone()]
            }
            Self::UnknownKey { key, table, .. } | Self::OtherKind { key, table, .. } => {
                vec![format!("{table}.{key}")]
            }
            Self::MissingKey { table, .. } => vec![table.split(' ').next().unwrap_or_default().to_string()],
            Self::WrongType { key, .. } | Self::UnknownChoice { key, .. } | Self::OutOfRange { key, .. } => {
                vec![key.clone()]
            }
            Self::Conflict { keys, .. } => keys.iter().map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Location::Unknown => write!(f, "{}", self.problem),
            Location::Flag(flag) => write!(f, "{flag}: {}", self.problem),
            Location::File { path, line, column, text, width } => {
                let gutter = " ".repeat(line.to_string().len());
                writeln!(f, "{}:{line}:{column}: {}", path.display(), self.problem)?;
                let (text, shift) = excerpt(text, *column);
                let marks = "^".repeat((*width).clamp(1, 60));
                writeln!(f, " {line} | {text}")?;
                write!(f, " {gutter} | {}{marks}", " ".repeat(shift))
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.problem)
    }
}

/// At most 100 characters of a line around `column`, control characters blanked, and where the column is in them.
fn excerpt(text: &str, column: usize) -> (String, usize) {
    let skip = column.saturating_sub(1).saturating_sub(60);
    let shown = text.chars().skip(skip).take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (shown, column.saturating_sub(1) - skip)
}

fn inside(table: &str) -> String {
    if table.is_empty() { String::new() } else { format!(" in [{table}]") }
}

fn kinds(owners: &[&str]) -> String {
    let names: Vec<String> = owners.iter().map(|owner| format!("`{owner}`")).collect();
    format!("kind {}", names.join(" or "))
}

fn suggestion(near: Option<&str>, known: &[&str], what: &str) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; the {what} are {}", known.join(", ")),
    }
}
