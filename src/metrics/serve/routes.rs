//! A connection -> its answer.

use super::access::{Admission, ServeOptions};
use super::board::{Board, Health};
use super::http::{self, Request, respond};
use super::prometheus;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

const PLAIN: &str = "text/plain; charset=utf-8";
/// Longest wait for a client to take what is sent.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// Time between two signs of life on a quiet stream of events; how a client that went away is noticed.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the threads of connections share.
pub(super) struct Routes {
    pub options: ServeOptions,
    pub board: Arc<Board>,
    /// The server is being dropped.
    pub stop: Arc<AtomicBool>,
}

impl Routes {
    /// Answers the one request of a connection. A client that went away ends the answer, and nothing else.
    pub fn answer(&self, stream: &TcpStream) {
        let prepared = stream.set_write_timeout(Some(WRITE_TIME)).and_then(|()| stream.set_nodelay(true));
        if prepared.is_err() {
            return;
        }
        let answered = match http::read_request(stream) {
            Ok(request) => self.route(stream, &request),
            Err(refusal) => match refusal.status() {
                Some((status, reason)) => respond(stream, status, PLAIN, reason, false),
                None => return,
            },
        };
        if answered.is_ok() {
            http::close(stream);
        }
    }

    /// Answers a connection for which there is no thread.
    pub fn turn_away(&self, stream: &TcpStream) {
        // Into the socket's empty buffer, so it does not block.
        let _ = respond(stream, "503 Service Unavailable", PLAIN, "too many connections\n", false);
    }

    fn route(&self, stream: &TcpStream, request: &Request) -> io::Result<()> {
        let is_head = request.is_head;
        match self.options.admits(request) {
            Admission::Granted => {}
            Admission::Token => {
                let advice = "a token is needed: `Authorization: Bearer TOKEN` or ?token=TOKEN\n";
                return respond(stream, "401 Unauthorized", PLAIN, advice, is_head);
            }
            Admission::Name => {
                let advice = "this server answers to localhost only; another name needs a token\n";
                return respond(stream, "403 Forbidden", PLAIN, advice, is_head);
            }
        }
        match request.path.as_str() {
            "/" => respond(stream, "200 OK", "text/html; charset=utf-8", &page(), is_head),
            "/metrics" => {
                let text = prometheus::text(&self.board.snapshot());
                respond(stream, "200 OK", prometheus::CONTENT_TYPE, &text, is_head)
            }
            "/healthz" => {
                let health = Health::new(&self.board.snapshot(), self.options.stall_limit);
                let status = if health.is_well() { "200 OK" } else { "503 Service Unavailable" };
                let body = serde_json::to_string(&health).map_err(io::Error::other)? + "\n";
                respond(stream, status, "application/json", &body, is_head)
            }
            "/events" if is_head => respond(stream, "200 OK", "text/event-stream", "", true),
            "/events" => self.events(stream, request),
            _ => respond(
                stream,
                "404 Not Found",
                PLAIN,
                "there are /, /metrics, /healthz and /events\n",
                is_head,
            ),
        }
    }

    /// The run so far, then every event as it comes, until the run ends, the client goes, or it reads too slowly.
    fn events(&self, mut stream: &TcpStream, request: &Request) -> io::Result<()> {
        let (replay, queue) = self.board.join(request.header("last-event-id"));
        http::begin_events(stream)?;
        for messages in replay.chunks(64) {
            stream.write_all(messages.concat().as_bytes())?;
        }
        loop {
            match queue.recv_timeout(HEARTBEAT) {
                Ok(message) => stream.write_all(message.as_bytes())?,
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Acquire) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => stream.write_all(b": still there\n\n")?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// The live page, its style shared with the reports.
fn page() -> String {
    include_str!("page.html")
        .replace("/* style of the reports */", include_str!("../report/style.css"))
        .replace("/* script of the page */", include_str!("page.js"))
        .replace("VERSION", env!("CARGO_PKG_VERSION"))
}
