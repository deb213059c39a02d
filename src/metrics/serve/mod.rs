//! A run over HTTP while it goes on: a page for people, metrics for Prometheus, a health check, a stream of records.
//!
//! | Path | Answer |
//! | --- | --- |
//! | `/` | the live page: one HTML file that loads nothing but `/events` |
//! | `/metrics` | Prometheus text format 0.0.4 |
//! | `/healthz` | JSON; 200 while the run advances, 503 with the reason once it has stalled or failed |
//! | `/events` | server-sent events: every record as JSON, the run so far first |
//!
//! ```text
//! training thread --[channel, never waited for]--> live-board thread --> Board <-- threads of connections
//! ```
//!
//! Off unless asked for; on loopback no token is needed, everywhere else one is (`Authorization: Bearer` or `?token=`).
//! There is no TLS: on an open network put a proxy with TLS in front.

mod access;
mod board;
mod error;
mod http;
mod note;
mod prometheus;
mod routes;

pub use access::{ServeOptions, TOKEN_VARIABLE, Token, parse_address};
pub use error::ServeError;

use crate::metrics::MetricsError;
use crate::metrics::record::Event;
use crate::metrics::sink::Sink;
use board::Board;
use note::Note;
use routes::Routes;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Events on their way from the training thread.
const NOTES: usize = 4096;
/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Time for connections to end after the run has.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a connection that could not be accepted (no more file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the events that it takes as a [`Sink`]; stops when dropped.
///
/// # Example
/// ```
/// use scadles::metrics::serve::{LiveServer, ServeOptions};
/// use scadles::train::config::RunConfig;
/// use std::sync::atomic::AtomicBool;
///
/// let mut config = RunConfig::default();
/// config.model.width = 0.25;
/// config.cluster.devices = 2;
/// (config.data.embedded_train, config.data.embedded_test, config.run.steps) = (200, 50, 2);
/// config.run.serve = Some("127.0.0.1:0".into());
/// let options = ServeOptions::from_config(&config.run, None)?.expect("an address is set");
/// let server = LiveServer::start(options)?;
/// println!("http://{}/", server.address());
/// scadles::train::run(&config, &mut [Box::new(server)], &AtomicBool::new(false))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LiveServer {
    address: SocketAddr,
    board: Arc<Board>,
    notes: Option<SyncSender<Note>>,
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl LiveServer {
    /// Listens on the address of `options` and answers from threads of its own.
    ///
    /// # Errors
    /// [`ServeError::NeedsToken`], [`ServeError::Bind`] or [`ServeError::Thread`].
    pub fn start(options: ServeOptions) -> Result<Self, ServeError> {
        let address = options.address;
        if options.token.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::NeedsToken { address });
        }
        let bound = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|source| ServeError::Bind { address, source })?;
        let board = Arc::new(Board::new());
        let (notes, noted) = sync_channel::<Note>(NOTES);
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let named = |name: &str| thread::Builder::new().name(name.into());
        let failed = |source| ServeError::Thread { source };
        let written = Arc::clone(&board);
        let writer = named("live-board").spawn(move || {
            noted.iter().for_each(|note| written.apply(&note));
            written.close();
        });
        // Dropped on an early return, it stops what has been started.
        let mut server = Self { address, board, notes: Some(notes), stop, connections, threads: Vec::new() };
        server.threads.push(writer.map_err(failed)?);
        let routes =
            Arc::new(Routes { options, board: Arc::clone(&server.board), stop: Arc::clone(&server.stop) });
        let connections = Arc::clone(&server.connections);
        let acceptor = named("live-accept").spawn(move || accept(&listener, &routes, &connections));
        server.threads.push(acceptor.map_err(failed)?);
        Ok(server)
    }

    /// Where it listens, with the port that port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Sink for LiveServer {
    /// Hands the event over; one that finds the channel full is counted and left out, training does not wait.
    fn event(&mut self, event: &Event<'_>) -> Result<(), MetricsError> {
        if let Some(notes) = &self.notes
            && let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                notes.try_send(Note::new(event))
        {
            self.board.missed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for LiveServer {
    fn drop(&mut self) {
        // Ends the board's thread once it has passed on everything, and with it the streams of events.
        self.notes = None;
        self.stop.store(true, Ordering::Release);
        // The acceptor sleeps until somebody comes.
        let _ = TcpStream::connect_timeout(&reachable(self.address), Duration::from_secs(1));
        for thread in self.threads.drain(..) {
            // A drop must not panic, and the run's own error is the one to report.
            let _ = thread.join();
        }
        let deadline = Instant::now() + FAREWELL;
        while self.connections.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// An address at which a listener on `address` can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Gives every connection a thread, as long as there are not too many.
fn accept(listener: &TcpListener, routes: &Arc<Routes>, connections: &Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        if routes.stop.load(Ordering::Acquire) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let place = Place::take(connections);
        if connections.load(Ordering::Relaxed) > MAX_CONNECTIONS {
            routes.turn_away(&stream);
            continue;
        }
        let routes = Arc::clone(routes);
        // Without a thread the connection is dropped: the client sees it end.
        let _ = thread::Builder::new().name("live-client".into()).spawn(move || {
            let _place = place;
            routes.answer(&stream);
        });
    }
}

/// One of the counted connections.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Release: pairs with the Acquire load in the server's drop, so that a connection counted out is done.
        self.0.fetch_sub(1, Ordering::Release);
    }
}
