//! `scadles models`: the networks with their sizes.

use super::table::table;
use super::{CliError, say};
use crate::metrics::format::{bytes, count};
use crate::models::{ModelSpec, Stem, has_stem, names, plan};
use clap::Args;
use serde::Serialize;

/// Arguments of `scadles models`.
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    /// Images of one batch, for the memory column
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Classes of the head
    #[arg(long, value_name = "N", default_value_t = 10)]
    classes: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One network with one stem.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    stem: Stem,
    parameters: usize,
    macs_per_image: usize,
    memory_bytes: usize,
}

/// Runs the command.
pub(super) fn models(arguments: &ModelsArgs) -> Result<(), CliError> {
    for (flag, given, most) in
        [("--batch", arguments.batch, 65_536), ("--classes", arguments.classes, 100_000)]
    {
        if !(1..=most).contains(&given) {
            let expected = format!("a number from 1 to {most}");
            return Err(CliError::Flag { flag, given: given.to_string(), expected });
        }
    }
    let mut rows = Vec::new();
    for &name in names() {
        for stem in [Stem::Cifar, Stem::Imagenet].into_iter().filter(|&stem| has_stem(name, stem)) {
            rows.push(row(name, stem, arguments)?);
        }
    }
    if arguments.json {
        say(&serde_json::to_string_pretty(&rows).unwrap_or_default());
        return Ok(());
    }
    let cells = |row: &Row| {
        vec![
            row.name.to_string(),
            format!("{:?}", row.stem).to_lowercase(),
            count(row.parameters as f64),
            count(row.macs_per_image as f64),
            bytes(row.memory_bytes as f64),
        ]
    };
    let memory = format!("memory, batch {}", arguments.batch);
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    say(&table(&["name", "stem", "parameters", "MACs/image", &memory], &rows));
    let classes = arguments.classes;
    say(&format!(
        "\n32x32 images, {classes} classes. Memory: parameters, gradient, momentum and activations of one device's \
         training step in f32."
    ));
    Ok(())
}

fn row(name: &'static str, stem: Stem, arguments: &ModelsArgs) -> Result<Row, CliError> {
    let spec = ModelSpec { name: name.into(), stem, classes: arguments.classes, ..ModelSpec::default() };
    let plan = plan(&spec, arguments.batch)?;
    let parameters = plan.num_params();
    let memory_bytes = 3 * 4 * parameters + plan.activation_bytes();
    Ok(Row { name, stem, parameters, macs_per_image: plan.macs_per_image(), memory_bytes })
}
