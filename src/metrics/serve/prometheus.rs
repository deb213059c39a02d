//! The newest state -> Prometheus text format, version 0.0.4.

use super::board::Snapshot;
use std::fmt::{Display, Write};

/// Media type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics; those of a step appear with the first one.
pub(super) fn text(state: &Snapshot) -> String {
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.labelled("scadles_build_info", "gauge", "Version of the program.", &[("version", version)]);
    if let Some(run) = &state.run {
        let labels = [
            ("name", run.name.as_str()),
            ("model", &run.model),
            ("data_set", &run.data_set),
            ("computed_on", &run.computed_on),
        ];
        page.labelled("scadles_run_info", "gauge", "What is run.", &labels);
        page.gauge("scadles_parameters", "Trainable parameters.", run.parameters);
    }
    run_state(&mut page, state);
    let totals = &state.totals;
    let steps = state.step.as_ref().map_or(0, |step| step.step);
    page.counter("scadles_steps_total", "Steps done.", steps);
    page.counter(
        "scadles_compressed_steps_total",
        "Steps that sent compressed payloads.",
        totals.total_compressed_steps,
    );
    page.counter("scadles_trained_samples_total", "Samples trained on.", totals.total_trained_samples);
    page.counter("scadles_sent_bytes_total", "Gradient bytes sent by all devices.", totals.total_sent_bytes);
    page.counter(
        "scadles_received_bytes_total",
        "Bytes received by all devices.",
        totals.total_received_bytes,
    );
    page.counter(
        "scadles_dense_bytes_total",
        "Bytes that dense aggregation would have sent.",
        totals.total_dense_bytes,
    );
    page.counter(
        "scadles_injected_bytes_total",
        "Bytes of samples shared between devices.",
        totals.total_injected_bytes,
    );
    let drifts = [("loss", totals.total_loss_drifts), ("labels", totals.total_label_drifts)];
    page.by_label("scadles_drifts_total", "counter", "Changes found in the streams.", "changed", &drifts);
    let times = [
        ("step", "Cluster time of all steps.", totals.total_step_s),
        ("wait", "Longest waits for samples of all steps.", totals.total_wait_s),
        ("compute", "Longest forward and backward of all steps.", totals.total_compute_s),
        ("comm", "Communication of all steps.", totals.total_comm_s),
    ];
    for (name, help, total_s) in times {
        page.counter(&format!("scadles_{name}_seconds_total"), help, total_s);
    }
    last_step(&mut page, state);
    if let Some(eval) = &state.eval {
        page.gauge("scadles_test_loss", "Mean cross-entropy on the test set, nats.", eval.loss);
        page.gauge("scadles_test_top1", "Top-1 accuracy on the test set, 0 to 1.", eval.top1);
        page.gauge("scadles_test_top5", "Top-5 accuracy on the test set, 0 to 1.", eval.top5);
    }
    page.text
}

/// The program rather than the training.
fn run_state(page: &mut Page, state: &Snapshot) {
    let idle_s = state.since_progress.as_secs_f64();
    page.gauge("scadles_idle_seconds", "Time since the last step or evaluation.", idle_s);
    page.gauge("scadles_running", "1 until the run ends.", u8::from(state.end.is_none() && !state.closed));
    page.counter("scadles_warnings_total", "Warnings of the run.", state.warnings);
    page.gauge("scadles_live_clients", "Clients that follow the live page.", state.clients);
    page.counter(
        "scadles_live_slow_clients_total",
        "Clients let go because they read too slowly.",
        state.slow_clients,
    );
    page.counter(
        "scadles_live_missed_events_total",
        "Events that did not reach the live page.",
        state.missed,
    );
}

fn last_step(page: &mut Page, state: &Snapshot) {
    let Some(step) = &state.step else { return };
    page.gauge("scadles_loss", "Mean cross-entropy of the last step, nats.", step.loss);
    page.gauge("scadles_train_top1", "Share of the last step's samples classified right.", step.train_top1);
    page.gauge("scadles_learning_rate", "Learning rate of the last step.", step.lr);
    page.gauge("scadles_gradient_norm", "Euclidean norm of the aggregated gradient.", step.grad_norm);
    page.gauge("scadles_gate_value", "What the compression gate compares with delta.", step.gate_value);
    page.gauge("scadles_cluster_time_seconds", "Cluster time at the end of the last step.", step.time_s);
    page.gauge("scadles_step_seconds", "Cluster time of the last step.", step.step_s);
    page.gauge("scadles_wait_seconds", "Longest wait for samples in the last step.", step.wait_s);
    page.gauge("scadles_compute_seconds", "Longest forward and backward in the last step.", step.compute_s);
    page.gauge("scadles_comm_seconds", "Communication in the last step.", step.comm_s);
    page.per_device(
        "scadles_device_loss",
        "gauge",
        "Mean cross-entropy of each device in the last step, nats.",
        &step.device_loss,
    );
    let help = "Age of the oldest waiting sample.";
    page.per_device("scadles_oldest_sample_age_seconds", "gauge", help, &step.oldest_age_s);
    let counters = [
        ("scadles_arrived_samples_total", "Samples that have arrived.", &step.arrived_samples),
        ("scadles_dropped_samples_total", "Samples dropped by the buffer policy.", &step.dropped_samples),
        ("scadles_taken_samples_total", "Samples of the own stream trained on.", &step.taken_samples),
        (
            "scadles_dead_lettered_samples_total",
            "Messages that were no samples.",
            &step.dead_lettered_samples,
        ),
    ];
    for (name, help, values) in counters {
        page.per_device(name, "counter", help, values);
    }
    let gauges = [
        ("scadles_batch_samples", "Samples trained on in the last step.", &step.local_batch),
        ("scadles_held_samples", "Samples waiting.", &step.occupancy_samples),
        ("scadles_lag_samples", "Samples that wait outside, in a broker.", &step.lag_samples),
        ("scadles_held_bytes", "Bytes of the waiting samples.", &step.occupancy_bytes),
    ];
    for (name, help, values) in gauges {
        page.per_device(name, "gauge", help, values);
    }
}

/// The text in the making.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Value) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.text, "{name} {}", value.shown());
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Value) {
        self.head(name, "counter", help);
        let _ = writeln!(self.text, "{name} {}", value.shown());
    }

    fn labelled(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)]) {
        self.head(name, kind, help);
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let _ = writeln!(self.text, "{name}{{{}}} 1", labels.join(","));
    }

    fn by_label(&mut self, name: &str, kind: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(name, kind, help);
        for (of, value) in values {
            let _ = writeln!(self.text, "{name}{{{label}=\"{}\"}} {value}", escaped(of));
        }
    }

    fn per_device<V: Value + Copy>(&mut self, name: &str, kind: &str, help: &str, values: &[V]) {
        self.head(name, kind, help);
        for (device, value) in values.iter().enumerate() {
            let _ = writeln!(self.text, "{name}{{device=\"{device}\"}} {}", value.shown());
        }
    }
}

/// A value as the format writes it.
trait Value {
    fn shown(self) -> String;
}

macro_rules! whole_values {
    ($($whole:ty),*) => {$(
        impl Value for $whole {
            fn shown(self) -> String {
                let whole: &dyn Display = &self;
                whole.to_string()
            }
        }
    )*};
}
whole_values!(u8, u64, usize);

impl Value for f64 {
    fn shown(self) -> String {
        match self {
            _ if self.is_nan() => "NaN".into(),
            f64::INFINITY => "+Inf".into(),
            f64::NEG_INFINITY => "-Inf".into(),
            _ => self.to_string(),
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
