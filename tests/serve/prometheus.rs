//! A strict reader of the Prometheus text format 0.0.4: panics at the first line that breaks a rule.

use std::collections::{BTreeMap, BTreeSet};

type Labels = Vec<(String, String)>;

/// The samples of one page.
pub struct Metrics {
    samples: BTreeMap<(String, Labels), f64>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut samples, mut kinds, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        // Names whose samples have begun; those of one name stand together.
        let mut begun: Vec<String> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_string()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(["counter", "gauge"].contains(&kind), "{line}");
                assert!(helped.contains(name) && !begun.contains(&name.to_string()), "{line}");
                assert!(kinds.insert(name.to_string(), kind.to_string()).is_none(), "twice: {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let (name, labels, value) = sample(line);
                let kind = kinds.get(&name).unwrap_or_else(|| panic!("no type before {line}"));
                assert!(kind != "counter" || value >= 0.0, "{line}");
                if begun.last() != Some(&name) {
                    assert!(!begun.contains(&name), "scattered: {line}");
                    begun.push(name.clone());
                }
                assert!(samples.insert((name, labels), value).is_none(), "twice: {line}");
            }
        }
        Self { samples }
    }

    /// The value of the sample with exactly these labels, which are in alphabetical order.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let found = self.samples.get(&(name.to_string(), labels.clone()));
        *found.unwrap_or_else(|| panic!("no {name} with {labels:?}"))
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label value: {line}"));
            assert!(is_name(label) && !label.contains(':') && !label.starts_with("__"), "{line}");
            let (value, after) = quoted(after, line);
            labels.push((label.into(), value));
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("labels do not end: {line}"));
                    break;
                }
            }
        }
    }
    labels.sort();
    assert!(labels.windows(2).all(|pair| pair[0].0 != pair[1].0), "a label twice: {line}");
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no blank before the value: {line}"));
    let value = match value {
        "NaN" => f64::NAN,
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => {
            assert!(number.bytes().all(|byte| b"0123456789.eE+-".contains(&byte)), "{line}");
            number.parse().unwrap_or_else(|_| panic!("no number: {line}"))
        }
    };
    (name.into(), labels, value)
}

/// The text before the closing quote, its escapes read, and what follows.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                _ => panic!("an unknown escape: {line}"),
            }),
            _ => value.push(character),
        }
    }
    panic!("a label value does not end: {line}")
}

fn is_name(name: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    name.bytes().next().is_some_and(is_first)
        && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
}

#[test]
fn the_reader_is_strict() {
    let head = "# HELP a_total help\n# TYPE a_total counter\n";
    let valid = format!("{head}a_total{{x=\"1\\\"\\\\\\n\"}} 2e3\n");
    assert_eq!(Metrics::parse(&valid).value("a_total", &[("x", "1\"\\\n")]), 2000.0);
    for broken in [
        "a_total 1",
        "a_total 1\n",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a_total help\n# TYPE a_total gauge\na_total 1\n",
        &format!("{head}a_total  1\n"),
        &format!("{head}a_total -1\n"),
        &format!("{head}a_total one\n"),
        &format!("{head}a_total{{x=\"1}} 1\n"),
        &format!("{head}a_total{{x=\"1\"}}1\n"),
        &format!("{head}a_total 1\na_total 1\n"),
        &format!("{head}\na_total 1\n"),
        &format!("{head}{head}"),
    ] {
        let broken = broken.to_string();
        assert!(std::panic::catch_unwind(|| drop(Metrics::parse(&broken))).is_err(), "{broken}");
    }
}
