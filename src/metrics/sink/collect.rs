//! Events -> a [`RunRecord`] in memory.

use super::Sink;
use crate::metrics::MetricsError;
use crate::metrics::record::{EndReason, EvalRecord, Event, RunRecord, StepRecord};
use crate::train::config::RunConfig;

/// Keeps every event of a run; [`Collector::into_record`] makes the run's record of them.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    start: Option<(RunConfig, u64, String, String)>,
    steps: Vec<StepRecord>,
    evals: Vec<EvalRecord>,
    end: Option<EndReason>,
}

impl Collector {
    /// The run as collected, with what no event tells: the data set's classes, the mean stream rate of each device
    /// (samples/s) and the CRC-32 of the final parameters. None if no run has started; a run without an end counts
    /// as interrupted.
    pub fn into_record(self, classes: usize, rates: Vec<f64>, parameters_crc32: u32) -> Option<RunRecord> {
        let (config, parameters, data_set, computed_on) = self.start?;
        Some(RunRecord {
            version: env!("CARGO_PKG_VERSION").into(),
            config,
            data_set,
            classes,
            parameters,
            computed_on,
            rates,
            end: self.end.unwrap_or(EndReason::Interrupted),
            steps: self.steps,
            evals: self.evals,
            parameters_crc32,
        })
    }

    /// The evaluations so far.
    pub fn evals(&self) -> &[EvalRecord] {
        &self.evals
    }

    /// The steps so far.
    pub fn steps(&self) -> &[StepRecord] {
        &self.steps
    }
}

impl Sink for Collector {
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        match event {
            Event::Start { config, parameters, data_set, computed_on } => {
                let (data_set, computed_on) = ((*data_set).to_string(), (*computed_on).to_string());
                self.start = Some(((*config).clone(), *parameters, data_set, computed_on));
            }
            Event::Warning { .. } => {}
            Event::Step(step) => self.steps.push((*step).clone()),
            Event::Eval(eval) => self.evals.push((*eval).clone()),
            Event::End { end, .. } => self.end = Some(*end),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_started_becomes_a_record() {
        let mut collector = Collector::default();
        assert!(collector.clone().into_record(10, vec![], 0).is_none());
        let config = RunConfig::default();
        collector
            .event(&Event::Start { config: &config, parameters: 7, data_set: "embedded", computed_on: "CPU" })
            .unwrap();
        collector.event(&Event::Step(&StepRecord { step: 1, ..StepRecord::default() })).unwrap();
        let cut = collector.clone().into_record(10, vec![1.0], 9).unwrap();
        assert_eq!((cut.end, cut.steps.len(), cut.parameters_crc32), (EndReason::Interrupted, 1, 9));
        collector.event(&Event::End { end: EndReason::Steps, best_top1: 0.1 }).unwrap();
        assert_eq!(collector.into_record(10, vec![1.0], 9).unwrap().end, EndReason::Steps);
    }
}
