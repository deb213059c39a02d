//! A Python process that does a row's work with PyTorch: `benches/peers/torch_worker.py`.

use super::super::Failure;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SCRIPT: &str = include_str!("../../../../benches/peers/torch_worker.py");

/// A started process that is ready to measure; it ends with this.
pub(super) struct Worker {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Of PyTorch.
    pub version: String,
}

/// Some calls of the work.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Window {
    calls: u64,
    seconds: f64,
    /// Most memory that the work took until now.
    pub peak_bytes: u64,
}

impl Window {
    /// Of one call.
    pub fn seconds_per_call(&self) -> f64 {
        self.seconds / self.calls.max(1) as f64
    }
}

impl Worker {
    /// Starts `work` and waits until it has run twice.
    ///
    /// # Errors
    /// Python does not start, has no PyTorch, or the work fails.
    pub fn start(python: &str, preload: Option<&Path>, work: &Value) -> Result<Self, Failure> {
        let mut command = Command::new(python);
        command.args(["-u", "-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let mut child = command.spawn().map_err(|error| format!("cannot start {python}: {error}"))?;
        let (to, from) = (child.stdin.take(), child.stdout.take().ok_or("the process has no output")?);
        let mut worker = Self { child, to, from: BufReader::new(from), version: String::new() };
        let ready = worker.ask(work)?;
        worker.version = ready["ready"].as_str().unwrap_or("unknown").into();
        Ok(worker)
    }

    /// Calls the work for `seconds`, at least once.
    ///
    /// # Errors
    /// The work failed.
    pub fn measure(&mut self, seconds: f64) -> Result<Window, Failure> {
        Ok(serde_json::from_value(self.ask(&json!({ "seconds": seconds }))?)?)
    }

    fn ask(&mut self, order: &Value) -> Result<Value, Failure> {
        if let Some(to) = &mut self.to {
            writeln!(to, "{order}")
                .and_then(|()| to.flush())
                .map_err(|error| format!("PyTorch ended: {error}"))?;
        }
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err("PyTorch ended without an answer".into());
        }
        let answer: Value = serde_json::from_str(&line).map_err(|_| format!("PyTorch said {line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.to = None; // the end of its input ends it
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
