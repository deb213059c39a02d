//! Flags -> changes of a configuration, typed by the key that they change.

use super::RunConfig;
use super::check::{join, short, unknown_choice, unknown_key, unknown_variant_key, wrong_type};
use super::error::{ConfigError, Location, Problem};
use super::schema::{Field, Kind, ROOT, variant_fields};
use toml::{Table, Value};

/// One change of a configuration from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The flag as the user typed it, for error messages: `--steps 0`.
    pub flag: String,
    /// Path of the key: `run.steps`.
    pub key: String,
    /// The value as text: `0`, `S1`, `[1, 2]` or `1,2`.
    pub value: String,
}

impl Override {
    /// The change that `--set key=value` asks for.
    pub fn set(assignment: &str) -> Result<Self, ConfigError> {
        let flag = format!("--set {}", short(assignment));
        match assignment.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self { flag, key: key.trim().into(), value: value.trim().into() })
            }
            _ => {
                let expected = "a path, = and a value, as run.steps=100".into();
                let problem = Problem::WrongType { key: "--set".into(), expected, found: short(assignment) };
                Err(ConfigError { problem: Box::new(problem), at: Location::Flag(flag) })
            }
        }
    }

    fn fail(&self, problem: Problem) -> ConfigError {
        ConfigError { problem: Box::new(problem), at: Location::Flag(self.flag.clone()) }
    }
}

/// Applies `overrides` to `tree`: kinds first (a new kind drops the keys of the old one and takes its own defaults),
/// then everything else, in the order given.
pub(super) fn apply(tree: &mut Table, overrides: &[Override]) -> Result<(), ConfigError> {
    let (kinds, others): (Vec<_>, Vec<_>) = overrides.iter().partition(|change| is_tag(&change.key));
    for change in kinds {
        set(tree, change)?;
    }
    // Fill the defaults of new kinds; one that lacks a required key waits for the changes that follow.
    if let Ok(config) = tree.clone().try_into::<RunConfig>() {
        *tree = table_of(&config);
    }
    others.into_iter().try_for_each(|change| set(tree, change))
}

/// The configuration as a TOML table. Every seed and size that validation lets through fits TOML's numbers.
pub(super) fn table_of(config: &RunConfig) -> Table {
    Table::try_from(config).unwrap_or_default()
}

fn is_tag(key: &str) -> bool {
    key.ends_with(".kind") && key != "optimizer.kind"
}

fn set(tree: &mut Table, change: &Override) -> Result<(), ConfigError> {
    let parts: Vec<&str> = change.key.split('.').collect();
    descend(tree, "", &parts, ROOT.iter().collect(), change)
}

fn descend(
    table: &mut Table,
    path: &str,
    parts: &[&str],
    fields: Vec<&Field>,
    change: &Override,
) -> Result<(), ConfigError> {
    let (key, rest) = (parts[0], &parts[1..]);
    let Some(field) = fields.iter().find(|field| field.key == key) else {
        return Err(change.fail(unknown_key(path, key, fields.iter().map(|field| field.key))));
    };
    let path = join(path, key);
    match (&field.kind, rest) {
        (Kind::Table(fields), [_, ..]) => {
            descend(child(table, key), &path, rest, fields.iter().collect(), change)
        }
        (Kind::Tagged(variants), ["kind"]) => {
            let names: Vec<&'static str> = variants.iter().map(|variant| variant.name).collect();
            if !names.contains(&change.value.as_str()) {
                return Err(change.fail(unknown_choice(&join(&path, "kind"), &change.value, names)));
            }
            let kind = Value::from(change.value.as_str());
            let inner = child(table, key);
            if inner.get("kind") != Some(&kind) {
                inner.clear();
                inner.insert("kind".into(), kind);
            }
            Ok(())
        }
        (Kind::Tagged(variants), [inner_key, ..]) => {
            let inner = child(table, key);
            let kind = inner.get("kind").and_then(Value::as_str).map(str::to_string);
            let fields: Vec<&Field> = variant_fields(variants, kind.as_deref()).collect();
            if !fields.iter().any(|field| field.key == *inner_key) {
                return Err(change.fail(unknown_variant_key(&path, inner_key, kind.as_deref(), variants)));
            }
            descend(inner, &path, rest, fields, change)
        }
        (Kind::Table(_) | Kind::Tagged(_), []) => {
            Err(change.fail(wrong_type(&path, &field.kind, "one value")))
        }
        (_, []) => {
            let value = parse(&path, &change.value, &field.kind).map_err(|problem| change.fail(problem))?;
            table.insert(key.into(), value);
            Ok(())
        }
        (_, [extra, ..]) => Err(change.fail(unknown_key(&path, extra, std::iter::empty()))),
    }
}

fn child<'a>(table: &'a mut Table, key: &str) -> &'a mut Table {
    let slot = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
    if !slot.is_table() {
        *slot = Value::Table(Table::new());
    }
    slot.as_table_mut().expect("made a table just above")
}

fn parse(key: &str, text: &str, kind: &Kind) -> Result<Value, Problem> {
    let wrong = || wrong_type(key, kind, format!("`{}`", short(text)));
    let plain = text.trim().trim_matches('"');
    match kind {
        Kind::Text => Ok(plain.into()),
        Kind::Bool => plain.parse().map(Value::Boolean).map_err(|_| wrong()),
        Kind::Count => match plain.replace('_', "").parse::<i64>() {
            Ok(count @ 0..) => Ok(count.into()),
            _ => Err(wrong()),
        },
        Kind::Number => plain.parse().map(Value::Float).map_err(|_| wrong()),
        Kind::Rates if !plain.starts_with('[') && plain.parse::<f64>().is_err() && !plain.contains(',') => {
            Ok(plain.into())
        }
        Kind::Numbers | Kind::Rates => {
            let items = plain.trim_start_matches('[').trim_end_matches(']').trim_end_matches(',').split(',');
            let numbers: Result<Vec<Value>, _> =
                items.map(|item| item.trim().parse::<f64>().map(Value::Float)).collect();
            numbers.map(Value::Array).map_err(|_| wrong())
        }
        Kind::Texts => {
            // Only a pair of brackets is a list's: an IPv6 address begins with one, too.
            let inner = text.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']'));
            let items = inner.unwrap_or(text.trim()).trim_end_matches(',').split(',');
            Ok(items.map(|item| item.trim().trim_matches('"').into()).collect::<Vec<Value>>().into())
        }
        Kind::Choice(choices) if choices.contains(&plain) => Ok(plain.into()),
        Kind::Choice(choices) => Err(unknown_choice(key, plain, choices.to_vec())),
        Kind::Table(_) | Kind::Tagged(_) => Err(wrong()),
    }
}
