//! `scadles doctor`: what this machine offers -> a list, and the first thing to fix.

mod machine;
mod software;

pub(super) use machine::cpu_name;

use super::{CliError, say};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `scadles doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Check this data folder too (reads it whole)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder that runs will be written to
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// What was looked at.
    topic: &'static str,
    /// What was found.
    text: String,
    /// What to do, if something should be done.
    fix: Option<String>,
}

impl Finding {
    fn fine(topic: &'static str, text: impl Into<String>) -> Self {
        Self { topic, text: text.into(), fix: None }
    }

    fn fix(topic: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { topic, text: text.into(), fix: Some(fix.into()) }
    }
}

/// Runs the command.
pub(super) fn doctor(arguments: &DoctorArgs) -> Result<(), CliError> {
    // In the order of repair: without a place to write or data to read, nothing else matters.
    let mut findings = vec![software::version(), software::output(&arguments.out)];
    findings.extend(software::data(arguments.data.as_deref()));
    findings.extend([machine::processor(), machine::threads(), machine::memory()]);
    findings.extend([machine::cuda(), machine::kernels(), software::nccl(), software::mpi()]);
    say(&advice(&findings));
    Ok(())
}

fn advice(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    let mark = |finding: &Finding| if finding.fix.is_some() { "!" } else { " " };
    let line = |finding: &Finding| format!("{} {:<width$}  {}", mark(finding), finding.topic, finding.text);
    let mut lines: Vec<String> = findings.iter().map(line).collect();
    let fixes: Vec<&String> = findings.iter().filter_map(|finding| finding.fix.as_ref()).collect();
    lines.push(String::new());
    match fixes.as_slice() {
        [] => lines.push("nothing to fix".into()),
        [first, rest @ ..] => {
            lines.push(format!("fix first: {first}"));
            lines.extend(rest.iter().map(|fix| format!("then: {fix}")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fix_is_named_first() {
        let fine = Finding::fine("memory", "8 GiB");
        assert!(advice(std::slice::from_ref(&fine)).ends_with("\n\nnothing to fix"));
        let findings =
            [fine, Finding::fix("output", "no", "make it"), Finding::fix("data", "no", "fetch it")];
        let text = advice(&findings);
        assert!(
            text.contains("! output  no") && text.ends_with("fix first: make it\nthen: fetch it"),
            "{text}"
        );
    }
}
