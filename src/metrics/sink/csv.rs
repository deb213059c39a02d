//! Events -> `steps.csv` and `evals.csv`, and back.
//!
//! One column per field of the record, named like it; a vector with one entry per device is one cell, its numbers
//! separated by blanks, so that no cell ever needs quotes. What was found to drift is in `metrics.jsonl` only.

use super::Sink;
use crate::metrics::MetricsError;
use crate::metrics::record::{EvalRecord, Event, StepRecord};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes every step to `steps.csv` and every evaluation to `evals.csv` of one folder.
pub struct CsvFiles {
    steps: Table,
    evals: Table,
}

impl CsvFiles {
    /// Creates (or empties) both files in `folder` and writes their headers.
    pub fn create(folder: &Path) -> Result<Self, MetricsError> {
        let steps = Table::create(&folder.join("steps.csv"), &StepRecord::columns())?;
        let evals = Table::create(&folder.join("evals.csv"), &EvalRecord::columns())?;
        Ok(Self { steps, evals })
    }
}

impl Sink for CsvFiles {
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        match event {
            Event::Step(step) => self.steps.line(&step.cells().join(",")),
            Event::Eval(eval) => self.evals.line(&eval.cells().join(",")),
            Event::Start { .. } | Event::Warning { .. } | Event::End { .. } => Ok(()),
        }
    }
}

/// The steps in a `steps.csv`.
pub fn read_steps(path: &Path) -> Result<Vec<StepRecord>, MetricsError> {
    read(path)
}

/// The evaluations in an `evals.csv`.
pub fn read_evals(path: &Path) -> Result<Vec<EvalRecord>, MetricsError> {
    read(path)
}

struct Table {
    file: File,
    path: PathBuf,
}

impl Table {
    fn create(path: &Path, columns: &[&str]) -> Result<Self, MetricsError> {
        let file = File::create(path).map_err(MetricsError::io("create", path))?;
        let mut table = Self { file, path: path.to_path_buf() };
        table.line(&columns.join(","))?;
        Ok(table)
    }

    /// One write call a line: a killed run leaves whole lines.
    fn line(&mut self, line: &str) -> Result<(), MetricsError> {
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(MetricsError::io("write", &self.path))
    }
}

fn read<R: Record>(path: &Path) -> Result<Vec<R>, MetricsError> {
    let text = fs::read_to_string(path).map_err(MetricsError::io("read", path))?;
    let columns = R::columns();
    let mut lines = text.lines();
    if lines.next().map(|header| header.split(',').collect::<Vec<_>>()) != Some(columns.clone()) {
        return Err(MetricsError::CsvHeader { path: path.to_path_buf(), expected: columns.join(",") });
    }
    let mut records = Vec::new();
    for (row, line) in lines.enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        let mut record = R::default();
        for (i, column) in columns.iter().enumerate() {
            let cell = cells.get(i).copied().unwrap_or("(missing)");
            if !record.set(i, cell) {
                let (path, found) = (path.to_path_buf(), cell.to_string());
                return Err(MetricsError::CsvCell { path, line: row + 2, column, found });
            }
        }
        records.push(record);
    }
    Ok(records)
}

/// A record as a row of text cells.
trait Record: Default {
    fn columns() -> Vec<&'static str>;
    fn cells(&self) -> Vec<String>;
    /// Sets the field of column `i`; false if `cell` is no value of its type.
    fn set(&mut self, i: usize, cell: &str) -> bool;
}

trait Cell: Sized {
    fn write(&self) -> String;
    fn parse(cell: &str) -> Option<Self>;
}

macro_rules! scalar_cells {
    ($($scalar:ty),*) => {$(
        impl Cell for $scalar {
            fn write(&self) -> String {
                self.to_string()
            }
            fn parse(cell: &str) -> Option<Self> {
                cell.parse().ok()
            }
        }
    )*};
}
scalar_cells!(u64, f64, bool);

impl<T: Cell> Cell for Vec<T> {
    fn write(&self) -> String {
        self.iter().map(T::write).collect::<Vec<_>>().join(" ")
    }
    fn parse(cell: &str) -> Option<Self> {
        cell.split_ascii_whitespace().map(T::parse).collect()
    }
}

macro_rules! record_columns {
    ($record:ty: $($field:ident),* $(,)?) => {
        impl Record for $record {
            fn columns() -> Vec<&'static str> {
                vec![$(stringify!($field)),*]
            }
            fn cells(&self) -> Vec<String> {
                vec![$(self.$field.write()),*]
            }
            fn set(&mut self, i: usize, cell: &str) -> bool {
                let fields: &[fn(&mut Self, &str) -> bool] = &[$(|record, cell| {
                    Cell::parse(cell).map(|value| record.$field = value).is_some()
                }),*];
                fields[i](self, cell)
            }
        }
    };
}
record_columns!(StepRecord: step, time_s, wall_s, step_s, wait_s, compute_s, comm_s, loss, train_top1,
    global_batch, lr, grad_norm, compressed, votes, gate_value, sent_elements, sent_bytes, received_bytes,
    dense_bytes, injected_samples, injected_bytes, local_batch, occupancy_samples, occupancy_bytes,
    dropped_samples, arrived_samples, device_loss,
    taken_samples, dead_lettered_samples, lag_samples, oldest_age_s);
record_columns!(EvalRecord: step, time_s, wall_s, loss, top1, top5);

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a record gets a field that the CSV forgets.
    #[test]
    fn columns_are_the_fields_of_the_record() {
        let fields = |json: serde_json::Value| {
            let mut names: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let sorted = |mut columns: Vec<&'static str>| {
            columns.sort_unstable();
            columns
        };
        assert_eq!(
            sorted(StepRecord::columns()),
            fields(serde_json::to_value(StepRecord::default()).unwrap())
        );
        assert_eq!(
            sorted(EvalRecord::columns()),
            fields(serde_json::to_value(EvalRecord::default()).unwrap())
        );
    }

    #[test]
    fn files_read_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let steps: Vec<StepRecord> = (1..=3)
            .map(|step| StepRecord {
                step,
                loss: 0.1 + 1.0 / step as f64,
                compressed: step == 2,
                sent_bytes: u64::MAX - step,
                local_batch: (0..step).collect(),
                ..StepRecord::default()
            })
            .collect();
        let eval = EvalRecord { step: 3, top1: 1.0 / 3.0, loss: f64::INFINITY, ..EvalRecord::default() };
        let mut sink = CsvFiles::create(folder.path()).unwrap();
        steps.iter().for_each(|step| sink.event(&Event::Step(step)).unwrap());
        sink.event(&Event::Eval(&eval)).unwrap();
        // Not dropped yet: a killed run must have its lines on disk.
        assert_eq!(read_steps(&folder.path().join("steps.csv")).unwrap(), steps);
        assert_eq!(read_evals(&folder.path().join("evals.csv")).unwrap(), [eval]);
    }

    #[test]
    fn damage_is_named_by_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evals.csv");
        fs::write(&path, "step,time_s,wall_s,loss,top1,top5\n1,2,3,4,five,6\n").unwrap();
        let text = read_evals(&path).unwrap_err().to_string();
        assert!(text.contains("evals.csv:2") && text.contains("top1") && text.contains("five"), "{text}");
        fs::write(&path, "step,loss\n").unwrap();
        assert!(matches!(read_evals(&path), Err(MetricsError::CsvHeader { .. })));
    }
}
