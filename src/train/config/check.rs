//! A parsed document -> the first key or value that does not fit the [schema](super::schema).

use super::error::{ConfigError, Problem};
use super::locate::Document;
use super::nearest;
use super::schema::{Field, Kind, Variant, variant_fields};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Checks every key and type of `table`, which stands at `path` (empty at the top).
pub(super) fn check_table(
    document: &Document<'_>,
    path: &str,
    table: &DeTable<'_>,
    fields: &[Field],
) -> Result<(), ConfigError> {
    for (key, value) in table.iter() {
        let Some(field) = fields.iter().find(|field| field.key == key.get_ref()) else {
            let problem = unknown_key(path, key.get_ref(), fields.iter().map(|field| field.key));
            return Err(ConfigError { problem: Box::new(problem), at: document.location(key.span()) });
        };
        check_value(document, &join(path, field.key), value, &field.kind)?;
    }
    Ok(())
}

fn check_value(
    document: &Document<'_>,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    kind: &Kind,
) -> Result<(), ConfigError> {
    let fail = |problem: Problem| {
        Err(ConfigError { problem: Box::new(problem), at: document.location(value.span()) })
    };
    match (kind, value.get_ref()) {
        (Kind::Table(fields), DeValue::Table(table)) => check_table(document, path, table, fields),
        (Kind::Tagged(variants), DeValue::Table(table)) => check_tagged(document, path, table, variants),
        (Kind::Choice(choices), DeValue::String(word)) => match choices.contains(&word.as_ref()) {
            true => Ok(()),
            false => fail(unknown_choice(path, word, choices.to_vec())),
        },
        (Kind::Text | Kind::Rates, DeValue::String(_)) | (Kind::Bool, DeValue::Boolean(_)) => Ok(()),
        (Kind::Count, DeValue::Integer(number)) => {
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(0..) => Ok(()),
                _ => fail(wrong_type(path, kind, number)),
            }
        }
        (Kind::Number, DeValue::Integer(_) | DeValue::Float(_)) => Ok(()),
        (Kind::Numbers | Kind::Rates, DeValue::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                check_value(document, &format!("{path}[{i}]"), item, &Kind::Number)?;
            }
            Ok(())
        }
        (Kind::Texts, DeValue::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                check_value(document, &format!("{path}[{i}]"), item, &Kind::Text)?;
            }
            Ok(())
        }
        (_, other) => fail(wrong_type(path, kind, describe(other))),
    }
}

fn check_tagged(
    document: &Document<'_>,
    path: &str,
    table: &DeTable<'_>,
    variants: &[Variant],
) -> Result<(), ConfigError> {
    let mut kind = None;
    if let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == "kind") {
        let names = variants.iter().map(|variant| variant.name).collect();
        let problem = match value.get_ref() {
            DeValue::String(word) if variants.iter().any(|variant| variant.name == word) => {
                kind = Some(word.to_string());
                None
            }
            DeValue::String(word) => Some(unknown_choice(&join(path, "kind"), word, names)),
            other => Some(Problem::WrongType {
                key: join(path, "kind"),
                expected: format!("one of {}", names.join(", ")),
                found: describe(other),
            }),
        };
        if let Some(problem) = problem {
            return Err(ConfigError { problem: Box::new(problem), at: document.location(value.span()) });
        }
    }
    for (key, value) in table.iter().filter(|(key, _)| key.get_ref() != "kind") {
        let Some(field) = variant_fields(variants, kind.as_deref()).find(|field| field.key == key.get_ref())
        else {
            let problem = unknown_variant_key(path, key.get_ref(), kind.as_deref(), variants);
            return Err(ConfigError { problem: Box::new(problem), at: document.location(key.span()) });
        };
        check_value(document, &join(path, field.key), value, &field.kind)?;
    }
    Ok(())
}

/// The first table in `tree` that lacks a key without default, or its `kind`.
pub(super) fn missing_key(path: &str, tree: &toml::Table, fields: &[Field]) -> Option<Problem> {
    fields.iter().find_map(|field| {
        let path = join(path, field.key);
        let table = tree.get(field.key).and_then(toml::Value::as_table)?;
        match &field.kind {
            Kind::Table(fields) => missing_key(&path, table, fields),
            Kind::Tagged(variants) => {
                let kind = table.get("kind").and_then(toml::Value::as_str);
                let Some(variant) = variants.iter().find(|variant| Some(variant.name) == kind) else {
                    let names: Vec<&str> = variants.iter().map(|variant| variant.name).collect();
                    let expected = format!("one of {}", names.join(", "));
                    return Some(Problem::MissingKey { key: "kind", table: path, expected });
                };
                let mut needed = variant.fields.iter().filter(|field| field.required);
                match needed.find(|field| !table.contains_key(field.key)) {
                    Some(field) => Some(Problem::MissingKey {
                        key: field.key,
                        table: format!("{path} of kind {}", variant.name),
                        expected: field.kind.expected(),
                    }),
                    None => missing_key(&path, table, variant.fields),
                }
            }
            _ => None,
        }
    })
}

pub(super) fn unknown_key(table: &str, key: &str, known: impl Iterator<Item = &'static str>) -> Problem {
    let known: Vec<&'static str> = known.collect();
    let near = nearest(key, known.iter().copied()).map(str::to_string);
    Problem::UnknownKey { key: key.into(), table: table.into(), near, known }
}

pub(super) fn unknown_variant_key(
    table: &str,
    key: &str,
    kind: Option<&str>,
    variants: &[Variant],
) -> Problem {
    let has = |variant: &&Variant| variant.fields.iter().any(|field| field.key == key);
    let owners: Vec<&'static str> = variants.iter().filter(has).map(|variant| variant.name).collect();
    match kind {
        Some(kind) if !owners.is_empty() => {
            Problem::OtherKind { key: key.into(), table: table.into(), kind: kind.into(), owners }
        }
        _ => {
            let fields = variant_fields(variants, kind).map(|field| field.key);
            let mut known: Vec<&'static str> = std::iter::once("kind").chain(fields).collect();
            known.dedup();
            unknown_key(table, key, known.into_iter())
        }
    }
}

pub(super) fn unknown_choice(key: &str, word: &str, choices: Vec<&'static str>) -> Problem {
    let near = nearest(word, choices.iter().copied()).map(str::to_string);
    Problem::UnknownChoice { key: key.into(), found: short(word), near, choices }
}

pub(super) fn wrong_type(key: &str, kind: &Kind, found: impl ToString) -> Problem {
    Problem::WrongType { key: key.into(), expected: kind.expected(), found: found.to_string() }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

/// At most 40 characters of a user's text, control characters blanked.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(40).is_some() {
        shown.push('…');
    }
    shown
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{}\"", short(text)),
        DeValue::Integer(number) => short(&number.to_string()),
        DeValue::Float(number) => short(number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
