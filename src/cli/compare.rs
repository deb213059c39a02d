//! `scadles compare`: presets, configurations and finished runs -> one page, one picture, one table.

use super::presets::{PRESETS, preset};
use super::run::{OutputArgs, execute};
use super::{CliError, ConfigFlags, Runner, interrupt};
use crate::metrics::MetricsError;
use crate::metrics::folder::RunFolder;
use crate::metrics::record::RunRecord;
use crate::metrics::report::{compare_html, compare_markdown, compare_raster};
use crate::metrics::summary::Comparison;
use crate::train::config::{RunConfig, nearest};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Arguments of `scadles compare`.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Presets (ddl, scadles, fedavg, dgc), configuration files, folders of finished runs; the first is the one the
    /// others are measured against. A single configuration file is the base of ddl and scadles [default: ddl scadles]
    what: Vec<String>,
    /// Configuration that presets start from [default: the default configuration]
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Folder for the comparison and its runs [default: runs/compare, numbered if taken]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// One side of a comparison.
enum Side {
    Train(Box<RunConfig>),
    Finished(Box<RunRecord>),
}

/// Runs the command.
pub(super) fn compare(arguments: &CompareArgs, runner: &Runner<'_>) -> Result<(), CliError> {
    let sides = sides(arguments)?;
    let default = || RunFolder::unused(&Path::new("runs").join("compare"), "compare.json");
    let out = arguments.out.clone().unwrap_or_else(default);
    let stop = interrupt::stop_flag();
    let mut runs: Vec<RunRecord> = Vec::new();
    for side in sides {
        match side {
            Side::Finished(record) => runs.push(*record),
            // Relaxed: see the handler.
            Side::Train(_) if stop.load(Ordering::Relaxed) => {}
            Side::Train(mut config) => {
                let path = out.join(&config.name);
                config.run.out = Some(path.clone());
                runs.push(execute(&config, &path, arguments.output, runner, stop)?.0);
            }
        }
    }
    if runs.len() < 2 {
        return Err(CliError::Interrupted { out });
    }
    let page = write(&out, &runs)?;
    arguments.output.say(&compare_markdown(&runs));
    arguments.output.say(&format!("comparison: {}", page.display()));
    Ok(())
}

/// Writes the comparison's page, picture, JSON and Markdown; returns the page's path.
fn write(out: &Path, runs: &[RunRecord]) -> Result<PathBuf, CliError> {
    fs::create_dir_all(out)
        .map_err(MetricsError::io("create", out))
        .map_err(|source| CliError::Output { source })?;
    let folder = RunFolder::at(out);
    folder.write("compare.md", compare_markdown(runs).as_bytes())?;
    folder.write("compare.png", &compare_raster(runs).png(&out.join("compare.png"))?)?;
    let json = serde_json::to_vec_pretty(&Comparison::new(runs));
    let json = json.map_err(|source| MetricsError::Json { path: out.join("compare.json"), source })?;
    folder.write("compare.json", &json)?;
    Ok(folder.write("compare.html", compare_html(runs).as_bytes())?)
}

fn sides(arguments: &CompareArgs) -> Result<Vec<Side>, CliError> {
    let overrides = arguments.flags.overrides()?;
    let (mut what, mut base_path) = (arguments.what.clone(), arguments.base.clone());
    if let [only] = what.as_slice() {
        if !is_configuration(only) || base_path.is_some() {
            // Refuse what is wrong with it first, then that it is alone.
            side(only, &RunConfig::load(base_path.as_deref(), &overrides)?, &overrides)?;
            return Err(CliError::OnlyOne { given: only.clone() });
        }
        base_path = Some(PathBuf::from(only));
        what.clear();
    }
    if what.is_empty() {
        what = vec!["ddl".into(), "scadles".into()];
    }
    let base = RunConfig::load(base_path.as_deref(), &overrides)?;
    let mut sides = what.iter().map(|given| side(given, &base, &overrides)).collect::<Result<Vec<_>, _>>()?;
    number_names(&mut sides);
    Ok(sides)
}

fn side(
    given: &str,
    base: &RunConfig,
    overrides: &[crate::train::config::Override],
) -> Result<Side, CliError> {
    if let Some(config) = preset(base, given) {
        config.validate()?;
        return Ok(Side::Train(Box::new(config)));
    }
    let path = Path::new(given);
    if path.is_dir() {
        return Ok(Side::Finished(Box::new(RunFolder::read(path)?)));
    }
    if is_configuration(given) {
        return Ok(Side::Train(Box::new(RunConfig::load(Some(path), overrides)?)));
    }
    let near = nearest(given, PRESETS).map(str::to_string);
    Err(CliError::NotComparable { given: given.into(), presets: PRESETS.to_vec(), near })
}

fn is_configuration(given: &str) -> bool {
    given.ends_with(".toml") || Path::new(given).is_file()
}

/// Gives runs of the same name the suffixes -2, -3, ..., so that legends and folders tell them apart.
fn number_names(sides: &mut [Side]) {
    let mut taken: Vec<String> = Vec::new();
    for side in sides {
        let name = match side {
            Side::Train(config) => &mut config.name,
            Side::Finished(record) => &mut record.config.name,
        };
        let first = name.clone();
        let mut number = 1;
        while taken.contains(name) {
            number += 1;
            *name = format!("{first}-{number}");
        }
        taken.push(name.clone());
    }
}
