//! Events -> one JSON object per line (`metrics.jsonl`, `--json`).

use super::Sink;
use crate::metrics::MetricsError;
use crate::metrics::record::Event;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes each event as one line of JSON with an `event` field, and flushes it. Values that are not finite become
/// `null`.
pub struct JsonLines<W: Write> {
    out: Option<W>,
    path: PathBuf,
}

impl JsonLines<File> {
    /// Creates (or empties) the file at `path`.
    pub fn create(path: &Path) -> Result<Self, MetricsError> {
        let out = File::create(path).map_err(MetricsError::io("create", path))?;
        Ok(Self { out: Some(out), path: path.to_path_buf() })
    }
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`, which error messages call `name`.
    pub fn new(out: W, name: &str) -> Self {
        Self { out: Some(out), path: PathBuf::from(name) }
    }
}

impl<W: Write + Send> Sink for JsonLines<W> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let mut line = serde_json::to_vec(event)
            .map_err(|source| MetricsError::Json { path: self.path.clone(), source })?;
        line.push(b'\n');
        match out.write_all(&line).and_then(|()| out.flush()) {
            // The reader went away (`| head`): the run goes on and still writes its files.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.out = None;
                Ok(())
            }
            other => other.map_err(MetricsError::io("write", &self.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::record::{EndReason, StepRecord};

    #[test]
    fn every_event_is_one_line_that_names_its_kind() {
        let mut bytes = Vec::new();
        let mut sink = JsonLines::new(&mut bytes, "memory");
        let step = StepRecord { step: 3, loss: f64::NAN, local_batch: vec![8, 9], ..StepRecord::default() };
        sink.event(&Event::Step(&step)).unwrap();
        sink.event(&Event::End { end: EndReason::Diverged, best_top1: 0.5 }).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["event"], &lines[0]["step"]), (&"step".into(), &3.into()));
        assert!(lines[0]["loss"].is_null() && lines[0]["local_batch"][1] == 9);
        assert_eq!((&lines[1]["event"], &lines[1]["end"]), (&"end".into(), &"diverged".into()));
        let read: StepRecord = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(read.loss.is_nan() && read.local_batch == [8, 9]);
    }

    #[test]
    fn a_closed_pipe_silences_the_sink_and_other_errors_are_reported() {
        struct Refuses(io::ErrorKind);
        impl Write for Refuses {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let end = Event::End { end: EndReason::Steps, best_top1: 0.0 };
        let mut closed = JsonLines::new(Refuses(io::ErrorKind::BrokenPipe), "standard output");
        assert!(closed.event(&end).is_ok() && closed.event(&end).is_ok());
        let mut full = JsonLines::new(Refuses(io::ErrorKind::StorageFull), "metrics.jsonl");
        assert!(full.event(&end).unwrap_err().to_string().contains("metrics.jsonl"));
    }
}
