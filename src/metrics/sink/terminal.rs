//! Events -> progress for a person: a bar on a terminal, plain lines everywhere else.

use super::Sink;
use crate::metrics::MetricsError;
use crate::metrics::format::{count, percent, seconds};
use crate::metrics::record::{EndReason, EvalRecord, Event, StepRecord};
use crate::train::config::RunConfig;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write, stderr};

/// Progress on standard error: a bar with ETA if it is a terminal, else a line per evaluation and per 5 % of the run.
pub fn progress() -> Box<dyn Sink> {
    if stderr().is_terminal() { Box::new(ProgressLine::default()) } else { Box::new(Plain::new(stderr())) }
}

/// A progress bar with ETA, loss, accuracy, samples/s and cluster time; evaluations stay above it as lines.
#[derive(Default)]
pub struct ProgressLine {
    bar: Option<ProgressBar>,
    state: State,
}

impl Sink for ProgressLine {
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        match event {
            Event::Start { config, parameters, data_set, computed_on } => {
                let bar = ProgressBar::new(config.run.steps as u64);
                let style = "{bar:24.cyan/dim} {pos}/{len}  {msg}  ETA {eta}";
                let style = ProgressStyle::with_template(style).expect("the template is valid");
                bar.set_style(style.progress_chars("━━╌"));
                bar.println(start_line(config, *parameters, data_set, computed_on));
                self.bar = Some(bar);
            }
            Event::Warning { text } => {
                if let Some(bar) = &self.bar {
                    bar.println(format!("warning: {text}"));
                }
            }
            Event::Step(step) => {
                self.state.step(step);
                if let Some(bar) = &self.bar {
                    bar.set_message(self.state.line());
                    bar.set_position(step.step);
                }
            }
            Event::Eval(eval) => {
                self.state.eval(eval);
                if let Some(bar) = &self.bar {
                    bar.println(eval_line(eval));
                    bar.set_message(self.state.line());
                }
            }
            Event::End { end, .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.abandon_with_message(format!("{}  {}", self.state.line(), end_words(*end)));
                }
            }
        }
        Ok(())
    }
}

/// Plain lines: one per evaluation and one per 5 % of the run.
pub struct Plain<W: Write> {
    out: W,
    total: u64,
    state: State,
}

impl<W: Write> Plain<W> {
    /// Writes the lines to `out`. A line that cannot be written is dropped: progress is not worth ending a run for.
    pub fn new(out: W) -> Self {
        Self { out, total: 1, state: State::default() }
    }

    fn say(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

impl<W: Write + Send> Sink for Plain<W> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        match event {
            Event::Start { config, parameters, data_set, computed_on } => {
                self.total = (config.run.steps as u64).max(1);
                self.say(&start_line(config, *parameters, data_set, computed_on));
            }
            Event::Warning { text } => self.say(&format!("warning: {text}")),
            Event::Step(step) => {
                self.state.step(step);
                let part = |step: u64| step.saturating_mul(20) / self.total;
                if part(step.step) > part(step.step.saturating_sub(1)) || step.step == 1 {
                    let eta_s =
                        step.wall_s / step.step.max(1) as f64 * self.total.saturating_sub(step.step) as f64;
                    let line = self.state.line();
                    let eta = if eta_s > 0.0 { format!("  ETA {}", seconds(eta_s)) } else { String::new() };
                    self.say(&format!("step {}/{}  {line}{eta}", step.step, self.total));
                }
            }
            Event::Eval(eval) => {
                self.state.eval(eval);
                self.say(&eval_line(eval));
            }
            Event::End { end, .. } => self.say(end_words(*end)),
        }
        Ok(())
    }
}

/// What a progress line shows.
#[derive(Default)]
struct State {
    loss: f64,
    time_s: f64,
    samples_per_s: f64,
    wall_s: f64,
    top1: Option<f64>,
}

impl State {
    fn step(&mut self, step: &StepRecord) {
        // Both are smoothed over about 10 steps; single steps of a heterogeneous cluster jump.
        let share = if step.step <= 1 { 1.0 } else { 0.1 };
        let rate = step.global_batch as f64 / (step.wall_s - self.wall_s).max(1e-9);
        self.loss += share * (step.loss - self.loss);
        self.samples_per_s += share * (rate - self.samples_per_s);
        self.time_s = step.time_s;
        self.wall_s = step.wall_s;
    }

    fn eval(&mut self, eval: &EvalRecord) {
        self.top1 = Some(eval.top1);
    }

    fn line(&self) -> String {
        let accuracy = self.top1.map_or_else(String::new, |top1| format!("  top-1 {}", percent(top1)));
        let (rate, time) = (count(self.samples_per_s.round()), seconds(self.time_s));
        format!("loss {:.3}{accuracy}  {rate} samples/s  cluster {time}", self.loss)
    }
}

fn start_line(config: &RunConfig, parameters: u64, data_set: &str, computed_on: &str) -> String {
    let (name, model, devices) = (&config.name, &config.model.name, config.cluster.devices);
    let plural = if devices == 1 { "" } else { "s" };
    format!(
        "{name}: {model} ({} parameters) on {data_set}, {devices} device{plural}, computed on {computed_on}",
        count(parameters as f64)
    )
}

fn eval_line(eval: &EvalRecord) -> String {
    let EvalRecord { step, time_s, loss, top1, top5, .. } = eval;
    let (top1, top5, time) = (percent(*top1), percent(*top5), seconds(*time_s));
    format!("test after step {step}: top-1 {top1}, top-5 {top5}, loss {loss:.3}, cluster time {time}")
}

/// Why a run ended, in plain words.
pub(crate) fn end_words(end: EndReason) -> &'static str {
    match end {
        EndReason::Steps => "all steps done",
        EndReason::Time => "time limit reached",
        EndReason::Target => "target accuracy reached",
        EndReason::Interrupted => "interrupted",
        EndReason::Diverged => "diverged: the loss is no longer finite; try a lower learning rate (--lr)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_every_twentieth_and_at_each_evaluation() {
        let mut out = Vec::new();
        let mut config = RunConfig::default();
        config.run.steps = 200;
        let mut sink = Plain::new(&mut out);
        sink.event(&Event::Start {
            config: &config,
            parameters: 272_474,
            data_set: "embedded",
            computed_on: "CPU",
        })
        .unwrap();
        sink.event(&Event::Warning { text: "it is late" }).unwrap();
        for step in 1..=200 {
            let record = StepRecord { step, wall_s: step as f64, global_batch: 300, ..StepRecord::default() };
            sink.event(&Event::Step(&record)).unwrap();
        }
        sink.event(&Event::Eval(&EvalRecord { step: 200, top1: 0.912, ..EvalRecord::default() })).unwrap();
        sink.event(&Event::End { end: EndReason::Steps, best_top1: 0.912 }).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("step ")).count(), 21, "{text}");
        assert!(text.lines().nth(1) == Some("warning: it is late"), "{text}");
        assert!(text.starts_with("scadles: resnet20 (272 k parameters) on embedded, 8 devices"), "{text}");
        assert!(
            text.contains("step 100/200  loss 0.000  300 samples/s") && text.contains("ETA 1 min 40 s"),
            "{text}"
        );
        assert!(text.contains("top-1 91.2 %") && text.ends_with("all steps done\n"), "{text}");
    }
}
