//! A key path in a TOML document -> its line and column.

use super::error::Location;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// A file's text, kept to point into it.
pub(super) struct Document<'a> {
    pub path: &'a Path,
    pub text: &'a str,
}

impl Document<'_> {
    /// The place of a byte range.
    pub fn location(&self, span: Range<usize>) -> Location {
        let start = floor_char_boundary(self.text, span.start);
        let end = floor_char_boundary(self.text, span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[..start].matches('\n').count() + 1;
        let text = self.text[line_start..].lines().next().unwrap_or_default();
        let line_end = line_start + text.len();
        let width = self.text[start..end.min(line_end).max(start)].chars().count().max(1);
        let column = self.text[line_start..start].chars().count() + 1;
        Location::File { path: PathBuf::from(self.path), line, column, text: text.to_string(), width }
    }

    /// The place of the first of `keys` (`cluster.rates[3]`) that the document holds, or of the nearest table around
    /// the first one.
    pub fn find(&self, keys: &[String]) -> Location {
        let Ok(table) = DeTable::parse(self.text) else { return Location::Unknown };
        let found: Vec<(Range<usize>, bool)> =
            keys.iter().filter_map(|key| walk(table.get_ref(), key)).collect();
        let exact = found.iter().find(|(_, whole)| *whole).or(found.first());
        exact.map_or(Location::Unknown, |(span, _)| self.location(span.clone()))
    }
}

/// The span of the deepest part of `key` in `table`, and whether that is all of it.
fn walk(table: &DeTable<'_>, key: &str) -> Option<(Range<usize>, bool)> {
    let mut table = table;
    let mut span = None;
    let parts: Vec<&str> = key.split('.').collect();
    for (i, part) in parts.iter().enumerate() {
        let (name, index) = match part.trim_end_matches(']').split_once('[') {
            Some((name, index)) => (name, index.parse::<usize>().ok()),
            None => (*part, None),
        };
        let Some((name, value)) = table.iter().find(|(known, _)| known.get_ref() == name) else {
            return span.map(|span| (span, false));
        };
        span = Some(match (index, value.get_ref()) {
            (Some(index), DeValue::Array(items)) => items.get(index).map_or(value.span(), |item| item.span()),
            (_, DeValue::Table(_)) => name.span(),
            _ => value.span(),
        });
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return span.map(|span| (span, i + 1 == parts.len())),
        }
    }
    span.map(|span| (span, true))
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_line_and_column() {
        let text = "name = \"ä\"\n[cluster]\n  rates = [1,\n    -2]\n";
        let document = Document { path: Path::new("x.toml"), text };
        let place = |key: &str| match document.find(&[key.to_string()]) {
            Location::File { line, column, width, .. } => (line, column, width),
            other => panic!("{other:?}"),
        };
        assert_eq!(place("cluster.rates[1]"), (4, 5, 2));
        assert_eq!(place("cluster.rates"), (3, 11, 3));
        assert_eq!(place("cluster.devices"), (2, 2, 7));
        assert_eq!(place("name"), (1, 8, 3));
        assert_eq!(document.find(&["seed".into()]), Location::Unknown);
    }

    #[test]
    fn any_range_is_safe() {
        let document = Document { path: Path::new("x"), text: "ä\r\nö" };
        for start in 0..9 {
            for end in 0..9 {
                document.location(Range { start, end });
            }
        }
        Document { path: Path::new("x"), text: "" }.location(0..5);
    }
}
