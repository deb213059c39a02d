//! An event of a run as it travels to another thread.

use crate::metrics::record::{EndReason, EvalRecord, Event, StepRecord};
use crate::train::config::RunConfig;

/// An [`Event`] that owns what it tells.
#[derive(Clone, Debug)]
pub(super) enum Note {
    Start { config: Box<RunConfig>, parameters: u64, data_set: String, computed_on: String },
    Warning(String),
    Step(Box<StepRecord>),
    Eval(EvalRecord),
    End { end: EndReason, best_top1: f64 },
}

impl Note {
    pub fn new(event: &Event<'_>) -> Self {
        match event {
            Event::Start { config, parameters, data_set, computed_on } => Self::Start {
                config: Box::new((*config).clone()),
                parameters: *parameters,
                data_set: (*data_set).into(),
                computed_on: (*computed_on).into(),
            },
            Event::Warning { text } => Self::Warning((*text).into()),
            Event::Step(step) => Self::Step(Box::new((*step).clone())),
            Event::Eval(eval) => Self::Eval((*eval).clone()),
            Event::End { end, best_top1 } => Self::End { end: *end, best_top1: *best_top1 },
        }
    }

    /// The event that was noted.
    pub fn event(&self) -> Event<'_> {
        match self {
            Self::Start { config, parameters, data_set, computed_on } => {
                Event::Start { config, parameters: *parameters, data_set, computed_on }
            }
            Self::Warning(text) => Event::Warning { text },
            Self::Step(step) => Event::Step(step),
            Self::Eval(eval) => Event::Eval(eval),
            Self::End { end, best_top1 } => Event::End { end: *end, best_top1: *best_top1 },
        }
    }
}
