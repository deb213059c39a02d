//! The live page of a run over HTTP: endpoints, who may look, clients that misbehave.

mod client;
mod page;
mod prometheus;

use client::{Answer, Client, get, get_with, raw};
use prometheus::Metrics;
use scadles::metrics::record::{DriftKind, DriftRecord, EndReason, EvalRecord, Event, StepRecord};
use scadles::metrics::serve::{LiveServer, ServeOptions};
use scadles::metrics::sink::Sink;
use scadles::train::config::RunConfig;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const TOKEN: &str = "correct-horse-battery";

const DRIFT: DriftRecord = DriftRecord { device: 1, kind: DriftKind::Labels, value: 0.7, threshold: 0.25 };

fn server_at(address: &str, token: Option<&str>, stall_limit_s: f64) -> LiveServer {
    let mut run = RunConfig::default().run;
    (run.serve, run.stall_limit_s) = (Some(address.into()), stall_limit_s);
    let options = ServeOptions::from_config(&run, token.map(Into::into)).unwrap().unwrap();
    LiveServer::start(options).unwrap()
}

fn server() -> LiveServer {
    server_at("127.0.0.1:0", None, 60.0)
}

fn start(server: &mut LiveServer) {
    let config = RunConfig { name: "a \"quoted\" \\ name".into(), ..RunConfig::default() };
    let event =
        Event::Start { config: &config, parameters: 272_474, data_set: "embedded", computed_on: "CPU, f32" };
    server.event(&event).unwrap();
}

fn step(number: u64) -> StepRecord {
    StepRecord {
        step: number,
        time_s: 1.5 * number as f64,
        step_s: 1.5,
        compute_s: 1.0,
        comm_s: 0.25,
        loss: 2.0,
        lr: 0.125,
        global_batch: 30,
        compressed: number.is_multiple_of(2),
        gate_value: f64::NAN,
        sent_bytes: 100,
        received_bytes: 200,
        dense_bytes: 1000,
        local_batch: vec![10, 20],
        occupancy_samples: vec![3, 4],
        occupancy_bytes: vec![9216, 12_288],
        dropped_samples: vec![5, 0],
        arrived_samples: vec![18, 24],
        taken_samples: vec![10, 20],
        dead_lettered_samples: vec![2, 0],
        lag_samples: vec![7, 8],
        oldest_age_s: vec![0.5, 0.0],
        device_loss: vec![1.0, f64::NAN],
        drift: if number == 3 { vec![DRIFT] } else { Vec::new() },
        ..StepRecord::default()
    }
}

fn steps(server: &mut LiveServer, numbers: std::ops::RangeInclusive<u64>) {
    numbers.for_each(|number| server.event(&Event::Step(&step(number))).unwrap());
}

/// Asks for `path` until the answer satisfies `is_there`: events take a moment to their readers.
fn eventually(address: SocketAddr, path: &str, is_there: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = get(address, path);
        if is_there(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} still answers {} {}", answer.status, answer.body);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn metrics_are_valid_and_add_up() {
    let mut server = server();
    let empty = Metrics::parse(&get(server.address(), "/metrics").body);
    assert_eq!(empty.value("scadles_steps_total", &[]), 0.0);
    start(&mut server);
    steps(&mut server, 1..=4);
    server.event(&Event::Warning { text: "it is late" }).unwrap();
    server.event(&Event::Eval(&EvalRecord { step: 4, top1: 0.5, ..EvalRecord::default() })).unwrap();
    let has_all = |answer: &Answer| answer.body.contains("scadles_test_top1 0.5");
    let answer = eventually(server.address(), "/metrics", has_all);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let metrics = Metrics::parse(&answer.body);
    for (name, value) in [
        ("scadles_steps_total", 4.0),
        ("scadles_compressed_steps_total", 2.0),
        ("scadles_trained_samples_total", 120.0),
        ("scadles_sent_bytes_total", 400.0),
        ("scadles_received_bytes_total", 800.0),
        ("scadles_dense_bytes_total", 4000.0),
        ("scadles_step_seconds_total", 6.0),
        ("scadles_step_seconds", 1.5),
        ("scadles_compute_seconds", 1.0),
        ("scadles_comm_seconds", 0.25),
        ("scadles_loss", 2.0),
        ("scadles_learning_rate", 0.125),
        ("scadles_parameters", 272_474.0),
        ("scadles_warnings_total", 1.0),
        ("scadles_running", 1.0),
        ("scadles_live_missed_events_total", 0.0),
    ] {
        assert_eq!(metrics.value(name, &[]), value, "{name}");
    }
    assert!(metrics.value("scadles_gate_value", &[]).is_nan());
    for (name, values) in [
        ("scadles_batch_samples", [10.0, 20.0]),
        ("scadles_held_samples", [3.0, 4.0]),
        ("scadles_held_bytes", [9216.0, 12_288.0]),
        ("scadles_dropped_samples_total", [5.0, 0.0]),
        ("scadles_arrived_samples_total", [18.0, 24.0]),
        ("scadles_taken_samples_total", [10.0, 20.0]),
        ("scadles_dead_lettered_samples_total", [2.0, 0.0]),
        ("scadles_lag_samples", [7.0, 8.0]),
        ("scadles_oldest_sample_age_seconds", [0.5, 0.0]),
    ] {
        let shown = ["0", "1"].map(|device| metrics.value(name, &[("device", device)]));
        assert_eq!(shown, values, "{name}");
    }
    assert_eq!(metrics.value("scadles_drifts_total", &[("changed", "labels")]), 1.0);
    assert_eq!(metrics.value("scadles_drifts_total", &[("changed", "loss")]), 0.0);
    assert!(metrics.value("scadles_device_loss", &[("device", "1")]).is_nan());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(metrics.value("scadles_build_info", &[("version", version)]), 1.0);
    let labels = [
        ("computed_on", "CPU, f32"),
        ("data_set", "embedded"),
        ("model", "resnet20"),
        ("name", "a \"quoted\" \\ name"),
    ];
    assert_eq!(metrics.value("scadles_run_info", &labels), 1.0);
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let server = server();
    let answer = get(server.address(), "/");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    let local = answer.body.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!local.contains(outside), "{outside}");
    }
    assert!(answer.body.contains("prefers-color-scheme:dark") && answer.body.contains("new EventSource"));
    let head = raw(server.address(), b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), answer.header("content-length"));
    assert_eq!(get(server.address(), "/nothing").status, 404);
}

#[test]
fn health_follows_the_run() {
    let mut stalls = server_at("127.0.0.1:0", None, 0.5);
    assert!(get(stalls.address(), "/healthz").body.contains("\"status\":\"starting\""));
    start(&mut stalls);
    steps(&mut stalls, 1..=3);
    let training = eventually(stalls.address(), "/healthz", |answer| answer.body.contains("\"step\":3"));
    let parsed: serde_json::Value = serde_json::from_str(&training.body).unwrap();
    assert_eq!((training.status, &parsed["status"]), (200, &"training".into()));
    let stalled = eventually(stalls.address(), "/healthz", |answer| answer.status == 503);
    let parsed: serde_json::Value = serde_json::from_str(&stalled.body).unwrap();
    assert_eq!(parsed["status"], "stalled");
    assert!(parsed["reason"].as_str().unwrap().contains("since step 3; the limit is 0.5 s"), "{parsed}");
    steps(&mut stalls, 4..=4);
    eventually(stalls.address(), "/healthz", |answer| answer.status == 200);
    stalls.event(&Event::End { end: EndReason::Diverged, best_top1: 0.0 }).unwrap();
    let failed = eventually(stalls.address(), "/healthz", |answer| answer.body.contains("failed"));
    assert_eq!(failed.status, 503);
}

#[test]
fn events_are_replayed_to_every_new_client_and_go_on() {
    let mut server = server();
    start(&mut server);
    steps(&mut server, 1..=3);
    let mut first = Client::events(server.address(), "");
    assert_eq!(first.next().unwrap()["event"], "start");
    let third = first.by_ref().nth(2).unwrap();
    assert_eq!(
        (&third["step"], &third["total_sent_bytes"], &third["loss"]),
        (&3.into(), &300.into(), &2.0.into())
    );
    assert_eq!(
        (&third["gate_value"], &third["total_trained_samples"]),
        (&serde_json::Value::Null, &90.into())
    );
    steps(&mut server, 4..=4);
    assert_eq!(first.next().unwrap()["step"], 4);
    let seen = first.last_id.clone();
    drop(first);
    steps(&mut server, 5..=6);
    let late: Vec<_> =
        Client::events(server.address(), "").take(7).map(|event| event["step"].clone()).collect();
    assert_eq!(late[1..], [1, 2, 3, 4, 5, 6].map(serde_json::Value::from));
    let mut back = Client::events(server.address(), &format!("Last-Event-ID: {seen}\r\n"));
    assert_eq!([back.next().unwrap()["step"].clone(), back.next().unwrap()["step"].clone()], [5, 6]);
    server.event(&Event::End { end: EndReason::Steps, best_top1: 0.5 }).unwrap();
    drop(server);
    // Everything is delivered before the stream ends.
    let rest: Vec<_> = back.collect();
    assert_eq!((rest.len(), &rest[0]["event"], &rest[0]["end"]), (1, &"end".into(), &"steps".into()));
}

#[test]
fn a_token_is_asked_for_where_one_is_set() {
    let server = server_at("127.0.0.1:0", Some(TOKEN), 60.0);
    let address = server.address();
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/events",
        "/nothing",
        "/metrics?token=",
        "/?token=correct-horse-batterx",
    ] {
        let answer = get(address, path);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{path}");
        assert!(!answer.body.contains("correct"), "{path}");
    }
    for wrong in
        ["Basic correct-horse-battery", "Bearer correct-horse", "Bearer", "Bearer correct-horse-battery2"]
    {
        assert_eq!(
            get_with(address, "/metrics", &format!("Authorization: {wrong}\r\n")).status,
            401,
            "{wrong}"
        );
    }
    assert_eq!(get_with(address, "/metrics", &format!("Authorization: Bearer {TOKEN}\r\n")).status, 200);
    assert_eq!(get(address, &format!("/healthz?token={TOKEN}")).status, 200);
    assert_eq!(get(address, "/?token=%63orrect-horse-battery").status, 200);
    // With a token the server may have any name.
    let named = format!("GET /healthz?token={TOKEN} HTTP/1.1\r\nHost: edge.example\r\n\r\n");
    assert_eq!(raw(address, named.as_bytes()).status, 200);
}

#[test]
fn without_a_token_only_this_machine_is_answered() {
    let server = server();
    let asked_as = |host: &str| {
        raw(server.address(), format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).status
    };
    assert_eq!(["localhost", "127.0.0.1:9464", "[::1]:1"].map(asked_as), [200; 3]);
    assert_eq!(["evil.example", "evil.example:9464", "10.1.2.3"].map(asked_as), [403; 3]);
}

#[test]
fn requests_that_are_none_are_refused_and_the_server_goes_on() {
    let server = server();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let cases: [(&[u8], u16); 8] = [
        (b"\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 405),
        (long.as_bytes(), 431),
    ];
    for (request, status) in cases {
        let answer = raw(server.address(), request);
        assert_eq!(answer.status, status, "{:?}", String::from_utf8_lossy(&request[..request.len().min(40)]));
    }
    for part in ["", "GET", "GET / HTTP/1.1\r\nHost: local"] {
        let mut cut = TcpStream::connect(server.address()).unwrap();
        cut.write_all(part.as_bytes()).unwrap();
    }
    assert_eq!(get(server.address(), "/healthz").status, 200);
}

#[test]
fn twenty_clients_get_every_event() {
    let mut server = server();
    let address = server.address();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            thread::spawn(move || {
                Metrics::parse(&get(address, "/metrics").body);
                let events = Client::events(address, "");
                events.filter_map(|event| event["step"].as_u64()).collect::<Vec<u64>>()
            })
        })
        .collect();
    start(&mut server);
    for number in 1..=300 {
        steps(&mut server, number..=number);
        thread::sleep(Duration::from_micros(200));
    }
    server.event(&Event::End { end: EndReason::Steps, best_top1: 0.5 }).unwrap();
    eventually(address, "/metrics", |answer| answer.body.contains("scadles_running 0"));
    // All have joined before the end: who came late got it replayed.
    eventually(address, "/metrics", |answer| answer.body.contains("scadles_live_clients 20"));
    drop(server);
    for client in clients {
        assert_eq!(client.join().unwrap(), (1..=300).collect::<Vec<u64>>());
    }
}

#[test]
fn a_client_that_does_not_read_costs_the_run_nothing() {
    let mut server = server();
    let address = server.address();
    let mut lazy = TcpStream::connect(address).unwrap();
    lazy.write_all(b"GET /events HTTP/1.1\r\n\r\n").unwrap();
    eventually(address, "/metrics", |answer| answer.body.contains("scadles_live_clients 1"));
    let mut large = step(1);
    large.local_batch = vec![1; 2000];
    let begin = Instant::now();
    for number in 1..=3000 {
        large.step = number;
        server.event(&Event::Step(&large)).unwrap();
        // As fast as the board takes them, so that none is left out.
        if number.is_multiple_of(500) {
            let line = format!("scadles_steps_total {number}\n");
            eventually(address, "/metrics", |answer| answer.body.contains(&line));
        }
    }
    let told = begin.elapsed();
    let metrics = Metrics::parse(&get(address, "/metrics").body);
    assert_eq!(metrics.value("scadles_live_slow_clients_total", &[]), 1.0);
    assert_eq!(metrics.value("scadles_live_clients", &[]), 0.0);
    assert_eq!(metrics.value("scadles_live_missed_events_total", &[]), 0.0);
    assert!(told < Duration::from_secs(20), "{told:?}");
    drop(lazy);
}

#[test]
fn more_connections_than_there_is_room_for_are_turned_away() {
    let server = server();
    let address = server.address();
    let held: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(4);
    let turned_away = loop {
        let answer = raw(address, b"");
        if answer.status == 503 {
            break true;
        }
        if Instant::now() > deadline {
            break false;
        }
    };
    assert!(turned_away);
    drop(held);
    eventually(address, "/healthz", |answer| answer.status == 200);
}

#[test]
fn dropping_the_server_frees_the_port_at_once() {
    let server = server();
    let address = server.address();
    let mut watching = Client::events(address, "");
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(watching.next().is_none());
    let again = server_at(&address.to_string(), None, 60.0);
    assert_eq!(again.address(), address);
    let mut run = RunConfig::default().run;
    run.serve = Some(address.to_string());
    let taken = LiveServer::start(ServeOptions::from_config(&run, None).unwrap().unwrap());
    let text = taken.err().expect("the port is taken").to_string();
    assert!(text.contains(&address.to_string()) && text.contains("--serve"), "{text}");
}
