//! What the live page knows of the run: totals, the newest records, and a thinned history for those who come later.
//!
//! One thread writes it, those of the connections read it; the training thread never waits for its lock.

use super::note::Note;
use crate::metrics::record::{DriftKind, EndReason, EvalRecord, Event, StepRecord};
use crate::metrics::sink::end_words;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most steps kept for replay; beyond, every second one goes.
const MAX_HISTORY_STEPS: usize = 4096;
/// Most bytes kept for replay.
const MAX_HISTORY_BYTES: usize = 16 << 20;
/// Messages that wait for one client before it is let go.
const CLIENT_QUEUE: usize = 512;

/// One server-sent event as sent.
pub(super) type Message = Arc<str>;

/// Sums over the run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Totals {
    pub total_trained_samples: u64,
    pub total_sent_bytes: u64,
    pub total_received_bytes: u64,
    pub total_dense_bytes: u64,
    pub total_injected_bytes: u64,
    pub total_compressed_steps: u64,
    pub total_loss_drifts: u64,
    pub total_label_drifts: u64,
    pub total_step_s: f64,
    pub total_wait_s: f64,
    pub total_compute_s: f64,
    pub total_comm_s: f64,
}

impl Totals {
    fn add(&mut self, step: &StepRecord) {
        self.total_trained_samples = self.total_trained_samples.saturating_add(step.global_batch);
        self.total_sent_bytes = self.total_sent_bytes.saturating_add(step.sent_bytes);
        self.total_received_bytes = self.total_received_bytes.saturating_add(step.received_bytes);
        self.total_dense_bytes = self.total_dense_bytes.saturating_add(step.dense_bytes);
        self.total_injected_bytes = self.total_injected_bytes.saturating_add(step.injected_bytes);
        self.total_compressed_steps += u64::from(step.compressed);
        let drifts = |kind| step.drift.iter().filter(|drift| drift.kind == kind).count() as u64;
        self.total_loss_drifts += drifts(DriftKind::Loss);
        self.total_label_drifts += drifts(DriftKind::Labels);
        self.total_step_s += step.step_s;
        self.total_wait_s += step.wait_s;
        self.total_compute_s += step.compute_s;
        self.total_comm_s += step.comm_s;
    }
}

/// What does not change during a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunFacts {
    pub name: String,
    pub model: String,
    pub data_set: String,
    pub computed_on: String,
    pub parameters: u64,
}

/// The newest state, as `/metrics` shows it.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub run: Option<RunFacts>,
    pub totals: Totals,
    pub step: Option<StepRecord>,
    pub eval: Option<EvalRecord>,
    pub end: Option<EndReason>,
    /// The program stopped telling.
    pub closed: bool,
    pub since_progress: Duration,
    pub warnings: u64,
    /// Clients of `/events` now.
    pub clients: usize,
    /// Clients let go because they read too slowly.
    pub slow_clients: u64,
    /// Events that did not reach the page.
    pub missed: u64,
}

/// See the module.
pub(super) struct Board {
    inner: Mutex<Inner>,
    /// Events that the training thread could not hand over.
    pub missed: AtomicU64,
    /// Tells the events of this program run from those of an earlier one at the same address.
    run_id: u64,
}

struct Inner {
    state: Snapshot,
    last_progress: Instant,
    history: VecDeque<Entry>,
    history_bytes: usize,
    /// Steps in `history`.
    history_steps: usize,
    /// Only steps with a multiple of this number stay.
    stride: u64,
    next_id: u64,
    clients: Vec<SyncSender<Message>>,
}

struct Entry {
    id: u64,
    /// Number of the step, of an event that may be left out.
    step: Option<u64>,
    message: Message,
}

/// What `/events` sends: the record with the sums up to it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    event: &'a Event<'a>,
    #[serde(flatten)]
    totals: Option<Totals>,
}

impl Board {
    pub fn new() -> Self {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let state = Snapshot {
            run: None,
            totals: Totals::default(),
            step: None,
            eval: None,
            end: None,
            closed: false,
            since_progress: Duration::ZERO,
            warnings: 0,
            clients: 0,
            slow_clients: 0,
            missed: 0,
        };
        let inner = Inner {
            state,
            last_progress: Instant::now(),
            history: VecDeque::new(),
            history_bytes: 0,
            history_steps: 0,
            stride: 1,
            next_id: 1,
            clients: Vec::new(),
        };
        let run_id = since_1970.map_or(0, |time| time.as_micros() as u64);
        Self { inner: Mutex::new(inner), missed: AtomicU64::new(0), run_id }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the board whole, so a panic elsewhere takes nothing from it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up one event and passes it on to the clients.
    pub fn apply(&self, note: &Note) {
        let mut inner = self.lock();
        let event = note.event();
        let (mut step_number, mut totals) = (None, None);
        match &event {
            Event::Start { config, parameters, data_set, computed_on } => {
                inner.state.run = Some(RunFacts {
                    name: config.name.clone(),
                    model: config.model.name.clone(),
                    data_set: (*data_set).into(),
                    computed_on: (*computed_on).into(),
                    parameters: *parameters,
                });
                inner.last_progress = Instant::now();
            }
            Event::Warning { .. } => inner.state.warnings += 1,
            Event::Step(step) => {
                inner.state.totals.add(step);
                inner.state.step = Some((*step).clone());
                inner.last_progress = Instant::now();
                (step_number, totals) = (Some(step.step), Some(inner.state.totals));
            }
            Event::Eval(eval) => {
                inner.state.eval = Some((*eval).clone());
                inner.last_progress = Instant::now();
            }
            Event::End { end, .. } => inner.state.end = Some(*end),
        }
        let Ok(json) = serde_json::to_string(&Told { event: &event, totals }) else {
            // Records hold numbers and text only, which JSON always takes.
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let id = inner.next_id;
        inner.next_id += 1;
        let message: Message = format!("id: {}-{id}\ndata: {json}\n\n", self.run_id).into();
        inner.remember(Entry { id, step: step_number, message: Arc::clone(&message) });
        inner.broadcast(&message);
    }

    /// No more events will come.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.state.closed = true;
        inner.clients.clear();
    }

    /// Everything that a new client is to be sent, after the event `last_seen` if that is one of this run, and the queue
    /// of what comes next.
    pub fn join(&self, last_seen: Option<&str>) -> (Vec<Message>, Receiver<Message>) {
        let (sender, receiver) = sync_channel(CLIENT_QUEUE);
        let seen = last_seen
            .and_then(|seen| seen.split_once('-'))
            .filter(|(run, _)| run.parse() == Ok(self.run_id))
            .and_then(|(_, id)| id.parse::<u64>().ok())
            .unwrap_or(0);
        let mut inner = self.lock();
        let replay = inner
            .history
            .iter()
            .filter(|entry| entry.id > seen)
            .map(|entry| Arc::clone(&entry.message))
            .collect();
        if !inner.state.closed {
            inner.clients.push(sender);
        }
        (replay, receiver)
    }

    /// The newest state.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        Snapshot {
            since_progress: inner.last_progress.elapsed(),
            clients: inner.clients.len(),
            missed: self.missed.load(Ordering::Relaxed),
            ..inner.state.clone()
        }
    }
}

impl Inner {
    fn remember(&mut self, entry: Entry) {
        // The newest step is always kept; it goes when the next one comes, if the stride leaves it out.
        let stride = self.stride;
        if entry.step.is_some() && self.history.back().is_some_and(|last| !last.stays(stride)) {
            self.forget_last();
        }
        self.history_bytes += entry.message.len();
        self.history_steps += usize::from(entry.step.is_some());
        self.history.push_back(entry);
        while (self.history_steps > MAX_HISTORY_STEPS || self.history_bytes > MAX_HISTORY_BYTES)
            && self.history_steps > 1
        {
            self.stride = self.stride.saturating_mul(2);
            let (stride, newest) = (self.stride, self.next_id - 1);
            self.history.retain(|entry| entry.stays(stride) || entry.id == newest);
            self.history_bytes = self.history.iter().map(|entry| entry.message.len()).sum();
            self.history_steps = self.history.iter().filter(|entry| entry.step.is_some()).count();
        }
    }

    fn forget_last(&mut self) {
        if let Some(last) = self.history.pop_back() {
            self.history_bytes -= last.message.len();
            self.history_steps -= usize::from(last.step.is_some());
        }
    }

    fn broadcast(&mut self, message: &Message) {
        let before = self.clients.len();
        let mut slow = 0;
        self.clients.retain(|client| match client.try_send(Arc::clone(message)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                slow += 1;
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
        debug_assert!(self.clients.len() <= before);
        self.state.slow_clients += slow;
    }
}

impl Entry {
    fn stays(&self, stride: u64) -> bool {
        self.step.is_none_or(|step| step.is_multiple_of(stride))
    }
}

/// What `/healthz` answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Health {
    /// `starting`, `training`, `ended`, `stalled` or `failed`.
    pub status: &'static str,
    /// Why it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Last step.
    pub step: u64,
    /// Seconds since the last step or evaluation.
    pub idle_s: f64,
}

impl Health {
    /// The run's health, with `stall_limit` between two signs of life.
    pub fn new(state: &Snapshot, stall_limit: Duration) -> Self {
        let step = state.step.as_ref().map_or(0, |step| step.step);
        let idle_s = state.since_progress.as_secs_f64();
        let (status, reason) = match state.end {
            Some(EndReason::Diverged) => ("failed", Some(end_words(EndReason::Diverged).to_string())),
            Some(_) => ("ended", None),
            None if state.closed => {
                ("failed", Some("the run stopped without an end; its error is on standard error".into()))
            }
            None if state.since_progress > stall_limit => {
                let limit_s = stall_limit.as_secs_f64();
                (
                    "stalled",
                    Some(format!(
                        "no progress for {idle_s:.1} s since step {step}; the limit is {limit_s} s"
                    )),
                )
            }
            None if step == 0 => ("starting", None),
            None => ("training", None),
        };
        Self { status, reason, step, idle_s }
    }

    /// Whether the run is as it should be.
    pub fn is_well(&self) -> bool {
        self.reason.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u64) -> Note {
        Note::Step(Box::new(StepRecord { step: number, global_batch: 10, ..StepRecord::default() }))
    }

    #[test]
    fn the_history_is_thinned_evenly_and_keeps_the_newest() {
        let board = Board::new();
        let last = 3 * MAX_HISTORY_STEPS as u64 + 1;
        (1..=last).for_each(|number| board.apply(&step(number)));
        let inner = board.lock();
        assert_eq!(inner.stride, 4);
        let steps: Vec<u64> = inner.history.iter().filter_map(|entry| entry.step).collect();
        let expected: Vec<u64> =
            (1..=last).filter(|number| number.is_multiple_of(4) || *number == last).collect();
        assert_eq!(steps, expected);
        assert_eq!(inner.state.totals.total_trained_samples, 10 * last);
        assert_eq!(inner.history_bytes, inner.history.iter().map(|entry| entry.message.len()).sum::<usize>());
    }

    #[test]
    fn a_client_that_comes_back_is_sent_the_rest_only() {
        let board = Board::new();
        (1..=3).for_each(|number| board.apply(&step(number)));
        let (all, _queue) = board.join(None);
        let id = all[1].lines().next().unwrap().strip_prefix("id: ").unwrap().to_string();
        let (rest, queue) = board.join(Some(&id));
        assert_eq!((all.len(), rest.len()), (3, 1));
        assert_eq!(rest[0], all[2]);
        assert_eq!(board.join(Some("17-2")).0.len(), 3);
        board.apply(&step(4));
        assert!(queue.recv().unwrap().contains("\"step\":4"));
        board.close();
        assert!(queue.recv().is_err());
    }

    #[test]
    fn a_client_that_does_not_read_is_let_go() {
        let board = Board::new();
        let (_, queue) = board.join(None);
        (0..CLIENT_QUEUE as u64 + 5).for_each(|number| board.apply(&step(number)));
        assert_eq!((board.snapshot().clients, board.snapshot().slow_clients), (0, 1));
        assert_eq!(queue.iter().count(), CLIENT_QUEUE);
    }

    #[test]
    fn health_tells_what_is_wrong() {
        let board = Board::new();
        let health = |limit| Health::new(&board.snapshot(), limit);
        let (long, none) = (Duration::from_secs(60), Duration::ZERO);
        assert_eq!((health(long).status, health(none).status), ("starting", "stalled"));
        board.apply(&step(7));
        assert_eq!((health(long).status, health(long).step), ("training", 7));
        assert!(health(none).reason.unwrap().contains("since step 7"));
        board.apply(&Note::End { end: EndReason::Diverged, best_top1: 0.0 });
        assert!(!health(long).is_well() && health(long).reason.unwrap().contains("diverged"));
        board.apply(&Note::End { end: EndReason::Steps, best_top1: 0.0 });
        board.close();
        assert!(health(none).is_well());
        let cut = Board::new();
        cut.close();
        assert_eq!(Health::new(&cut.snapshot(), long).status, "failed");
    }
}
