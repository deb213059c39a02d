//! `scadles fetch`: a published data set -> a folder that `--data` takes.

use super::{CliError, say};
use crate::data::fetch::{FetchEvent, FetchKind, FetchOptions, fetch as fetch_data};
use crate::units::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;

/// Arguments of `scadles fetch`.
#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// Data set
    set: Set,
    /// Another address of the same archive, http:// or https://
    #[arg(long)]
    url: Option<String>,
    /// SHA-256 of that archive, if it is not the published one
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Folder that the data set's own folder is put in
    #[arg(long, value_name = "DIR", default_value = "data")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Set {
    Cifar10,
    Cifar100,
}

/// Runs the command.
pub(super) fn fetch(arguments: &FetchArgs) -> Result<(), CliError> {
    let kind = match arguments.set {
        Set::Cifar10 => FetchKind::Cifar10,
        Set::Cifar100 => FetchKind::Cifar100,
    };
    let (url, sha256) = (arguments.url.clone(), arguments.sha256.clone());
    let options = FetchOptions { url, sha256, ..FetchOptions::default() };
    let mut progress = Progress::default();
    let folder = fetch_data(kind, &arguments.dir, &options, &mut |event| progress.show(event))?;
    progress.bar.finish_and_clear();
    say(&format!("{0} is ready; train on it with: scadles run --data {0}", folder.display()));
    Ok(())
}

/// A bar on a terminal, a line per tenth elsewhere.
struct Progress {
    bar: ProgressBar,
    last_tenth: u64,
}

impl Default for Progress {
    fn default() -> Self {
        let bar = if stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = "{bar:24.cyan/dim} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}";
        bar.set_style(
            ProgressStyle::with_template(style).expect("the template is valid").progress_chars("━━╌"),
        );
        Self { bar, last_tenth: 0 }
    }
}

impl Progress {
    fn show(&mut self, event: FetchEvent) {
        match event {
            FetchEvent::Downloading { received_bytes, total_bytes } => {
                let total = total_bytes.unwrap_or(received_bytes).max(1);
                self.bar.set_length(total);
                self.bar.set_position(received_bytes);
                let tenth = received_bytes.saturating_mul(10) / total;
                if self.bar.is_hidden() && total_bytes.is_some() && tenth > self.last_tenth {
                    self.last_tenth = tenth;
                    self.line(&format!("received {} of {}", Bytes(received_bytes), Bytes(total)));
                }
            }
            FetchEvent::AlreadyThere { dir } => self.line(&format!("{} is already there", dir.display())),
            FetchEvent::Retrying { attempt, wait, reason } => {
                self.line(&format!("{reason}; attempt {attempt} in {:.0} s", wait.as_secs_f64()));
            }
            FetchEvent::Verifying => self.line("checking the SHA-256"),
            FetchEvent::Unpacking { file } => self.line(&format!("unpacking {file}")),
        }
    }

    fn line(&self, line: &str) {
        self.bar.suspend(|| drop(writeln!(stderr(), "{line}")));
    }
}
