//! Just enough HTTP/1.1 for a few pages: one GET or HEAD a connection, a bounded head, a deadline.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Most bytes of request line and headers.
const MAX_HEAD: usize = 8 << 10;
/// Time for a whole head to arrive.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time for a refused client to read the answer before the connection is reset.
const LINGER: Duration = Duration::from_millis(300);

/// A request without a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub path: String,
    pub is_head: bool,
    query: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

/// Why a request is not answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not HTTP/1, or a malformed line.
    Malformed,
    /// A head beyond the limit.
    TooLarge,
    /// The head did not arrive in time.
    TooSlow,
    /// Neither GET nor HEAD.
    Method,
    /// The connection ended before the head did.
    Gone,
}

impl Refusal {
    /// Status line and reason; none if nobody is there to read it.
    pub fn status(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Malformed => Some(("400 Bad Request", "this is not an HTTP/1.1 request\n")),
            Self::TooLarge => Some(("431 Request Header Fields Too Large", "the headers are too long\n")),
            Self::TooSlow => Some(("408 Request Timeout", "the request did not arrive in time\n")),
            Self::Method => Some(("405 Method Not Allowed", "only GET and HEAD are answered\n")),
            Self::Gone => None,
        }
    }
}

/// Reads the head of a request.
pub(super) fn read_request(stream: &TcpStream) -> Result<Request, Refusal> {
    let deadline = Instant::now() + HEAD_TIME;
    let mut head = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Refusal::TooSlow);
        }
        stream.set_read_timeout(Some(left)).map_err(|_| Refusal::Gone)?;
        match (&mut &*stream).read(&mut chunk) {
            Ok(0) => return Err(Refusal::Gone),
            Ok(n) => {
                // The end may straddle two reads.
                let from = head.len().saturating_sub(3);
                head.extend_from_slice(&chunk[..n]);
                if let Some(end) = head[from..].windows(4).position(|four| four == b"\r\n\r\n") {
                    return match from + end <= MAX_HEAD {
                        true => parse(&head[..from + end]),
                        false => Err(Refusal::TooLarge),
                    };
                }
                if head.len() > MAX_HEAD {
                    return Err(Refusal::TooLarge);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Refusal::TooSlow);
            }
            Err(_) => return Err(Refusal::Gone),
        }
    }
}

/// The request in `head`, which ends before the empty line.
pub(super) fn parse(head: &[u8]) -> Result<Request, Refusal> {
    let text = std::str::from_utf8(head).map_err(|_| Refusal::Malformed)?;
    if text.bytes().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t')) {
        return Err(Refusal::Malformed);
    }
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || !target.starts_with('/') {
        return Err(Refusal::Malformed);
    }
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        _ if !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            return Err(Refusal::Method);
        }
        _ => return Err(Refusal::Malformed),
    };
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Refusal::Malformed)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) || value.contains(['\r', '\n']) {
            return Err(Refusal::Malformed);
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request { path: path.into(), is_head, query: query.into(), headers })
}

impl Request {
    /// The first header called `name`, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The token of an `Authorization: Bearer` header.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The first value of `key` in the query, decoded.
    pub fn query_value(&self, key: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(own, _)| *own == key).map(|(_, value)| decoded(value)).next()?
    }
}

/// `text` with its `%41` read as `A`; none if that gives no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            rest = tail;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        } else {
            bytes.push(if first == b'+' { b' ' } else { first });
        }
    }
    String::from_utf8(bytes).ok()
}

/// Headers of every answer: nothing is kept, embedded elsewhere, or loaded from elsewhere.
const COMMON_HEADERS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
     Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nConnection: close\r\n";

/// Writes a whole answer; without its body for HEAD.
pub(super) fn respond(
    mut stream: &TcpStream,
    status: &str,
    content_type: &str,
    body: &str,
    is_head: bool,
) -> io::Result<()> {
    let challenge = if status.starts_with("401") { "WWW-Authenticate: Bearer\r\n" } else { "" };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{challenge}{allow}{COMMON_HEADERS}\r\n",
        body.len()
    );
    if !is_head {
        answer.push_str(body);
    }
    stream.write_all(answer.as_bytes())
}

/// Writes the head of an answer that goes on until the connection ends.
pub(super) fn begin_events(mut stream: &TcpStream) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{COMMON_HEADERS}\r\nretry: 2000\n\n");
    stream.write_all(head.as_bytes())
}

/// Ends the connection so that the client gets the whole answer even if it is still sending.
pub(super) fn close(mut stream: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let mut unread = [0; 4096];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if stream.set_read_timeout(Some(left)).is_err() || !matches!(stream.read(&mut unread), Ok(1..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_apart() {
        let head = b"GET /events?token=a%2Bb&x HTTP/1.1\r\nHost: localhost\r\nAuthorization: bearer  abc";
        let request = parse(head).unwrap();
        assert_eq!((request.path.as_str(), request.is_head), ("/events", false));
        assert_eq!((request.header("host"), request.bearer()), (Some("localhost"), Some("abc")));
        assert_eq!(request.query_value("token").as_deref(), Some("a+b"));
        assert_eq!((request.query_value("x"), request.query_value("y")), (None, None));
        assert!(parse(b"HEAD / HTTP/1.0").unwrap().is_head);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let malformed: [&[u8]; 12] = [
            b"",
            b"GET /",
            b"GET / HTTP/2",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 x",
            b"GET http://x/ HTTP/1.1",
            b"get / HTTP/1.1",
            b"GET / HTTP/1.1\r\nno colon",
            b"GET / HTTP/1.1\r\na b: c",
            b"GET / HTTP/1.1\r\n: c",
            b"GET / HTTP/1.1\r\na: \0",
            b"GET /\xff HTTP/1.1",
        ];
        for head in malformed {
            assert_eq!(parse(head), Err(Refusal::Malformed), "{:?}", String::from_utf8_lossy(head));
        }
        assert_eq!(parse(b"POST / HTTP/1.1"), Err(Refusal::Method));
        assert_eq!([decoded("%4"), decoded("%zz"), decoded("%ff"), decoded("%+1")], [const { None }; 4]);
    }
}
