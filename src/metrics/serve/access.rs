//! Who may look: the address to listen on, the token, and the names by which a server without one may be called.

use super::ServeError;
use super::http::Request;
use crate::train::config::LengthConfig;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Port of an address without one.
const DEFAULT_PORT: u16 = 9464;
/// Fewest and most characters of a token.
pub(super) const MIN_TOKEN: usize = 16;
pub(super) const MAX_TOKEN: usize = 512;
/// Environment variable with the token.
pub const TOKEN_VARIABLE: &str = "SCADLES_TOKEN";

/// Where and for whom the live page is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Address to listen on; port 0 takes any free one.
    pub address: SocketAddr,
    /// What a request must show; none only on loopback.
    pub token: Option<Token>,
    /// Longest time without a step or evaluation before `/healthz` says that the run has stalled.
    pub stall_limit: Duration,
}

impl ServeOptions {
    /// What `config` asks for, with `variable`, the value of [`TOKEN_VARIABLE`], where no file is named; none: no page.
    ///
    /// # Errors
    /// No address, a token that cannot be read or is too weak, or none where one is needed.
    ///
    /// # Example
    /// ```
    /// use scadles::metrics::serve::ServeOptions;
    /// use scadles::train::config::RunConfig;
    ///
    /// let mut run = RunConfig::default().run;
    /// assert!(ServeOptions::from_config(&run, None)?.is_none());
    /// run.serve = Some("127.0.0.1:9464".into());
    /// assert!(ServeOptions::from_config(&run, None)?.is_some());
    /// run.serve = Some("0.0.0.0:9464".into());
    /// assert!(ServeOptions::from_config(&run, None).is_err());
    /// # Ok::<(), scadles::metrics::serve::ServeError>(())
    /// ```
    pub fn from_config(
        config: &LengthConfig,
        variable: Option<OsString>,
    ) -> Result<Option<Self>, ServeError> {
        let Some(given) = &config.serve else { return Ok(None) };
        let address = parse_address(given).ok_or_else(|| ServeError::Address { given: given.clone() })?;
        let token = match (&config.serve_token_file, variable) {
            (Some(path), _) => Some(Token::read(path)?),
            (None, Some(text)) => {
                let text = text.into_string().unwrap_or_default();
                Some(Token::new(&text, TOKEN_VARIABLE)?)
            }
            (None, None) => None,
        };
        if token.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::NeedsToken { address });
        }
        let stall_limit = Duration::try_from_secs_f64(config.stall_limit_s).unwrap_or(Duration::MAX);
        Ok(Some(Self { address, token, stall_limit }))
    }

    /// Whether a request may be answered.
    pub(super) fn admits(&self, request: &Request) -> Admission {
        match &self.token {
            Some(token) => {
                let shown = request.bearer().map(str::to_string).or_else(|| request.query_value("token"));
                if shown.is_some_and(|shown| token.is(&shown)) {
                    Admission::Granted
                } else {
                    Admission::Token
                }
            }
            // A page on the web can have its own name resolve to 127.0.0.1; the name it was called by gives it away.
            None if request.header("host").is_none_or(is_loopback_name) => Admission::Granted,
            None => Admission::Name,
        }
    }
}

/// Answer of [`ServeOptions::admits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    /// The token is missing or another one.
    Token,
    /// The server was called by a name that is not this machine's own.
    Name,
}

/// The address in `text`: IP and port, IP alone, or `localhost` with or without port.
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("localhost") {
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return None,
        };
        return Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DEFAULT_PORT)))
}

fn is_loopback_name(host: &str) -> bool {
    parse_address(host).is_some_and(|address| address.ip().is_loopback())
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// A secret that a request must show. Only its SHA-256 is kept.
#[derive(Clone)]
pub struct Token {
    digest: [u8; 32],
}

impl Token {
    /// The token `text`, blanks at its ends left out; `place` names where it came from.
    ///
    /// # Errors
    /// [`ServeError::Token`] if it is too short, too long, or not of visible ASCII characters.
    pub fn new(text: &str, place: &str) -> Result<Self, ServeError> {
        let text = text.trim();
        let found = match text.len() {
            0 => "empty",
            length if length < MIN_TOKEN => "too short",
            length if length > MAX_TOKEN => "too long",
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => "not of such characters",
            _ => return Ok(Self { digest: Sha256::digest(text).into() }),
        };
        Err(ServeError::Token { place: place.into(), found })
    }

    fn read(path: &Path) -> Result<Self, ServeError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ServeError::ReadToken { path: path.to_path_buf(), source })?;
        Self::new(&text, &path.display().to_string())
    }

    /// Whether `shown` is this token, in a time that depends on neither's content.
    fn is(&self, shown: &str) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        let difference = self.digest.iter().zip(shown).fold(0, |all, (own, other)| all | (own ^ other));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::RunConfig;

    fn options(serve: &str, file: Option<&Path>, variable: Option<&str>) -> Result<ServeOptions, ServeError> {
        let mut run = RunConfig::default().run;
        (run.serve, run.serve_token_file) = (Some(serve.into()), file.map(Into::into));
        Ok(ServeOptions::from_config(&run, variable.map(Into::into))?.expect("an address is given"))
    }

    #[test]
    fn loopback_needs_no_token_and_everything_else_does() {
        for loopback in ["127.0.0.1:80", "127.9.9.9", "[::1]:80", "localhost", "localhost:1"] {
            assert!(options(loopback, None, None).unwrap().address.ip().is_loopback(), "{loopback}");
        }
        for open in ["0.0.0.0:80", "[::]:80", "192.168.1.4"] {
            let error = options(open, None, None).unwrap_err();
            assert!(matches!(error, ServeError::NeedsToken { .. }), "{open}");
            assert!(error.to_string().contains("SCADLES_TOKEN") && error.is_bad_input(), "{error}");
            assert!(options(open, None, Some("0123456789abcdef")).unwrap().token.is_some(), "{open}");
        }
        for wrong in ["", "here", "localhost:x", "localhoster", "127.0.0.1:70000"] {
            assert!(matches!(options(wrong, None, None), Err(ServeError::Address { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_read_from_the_file_first_and_weak_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "  from-the-file-16+\n").unwrap();
        let token = options("0.0.0.0:1", Some(&file), Some("from-the-environment")).unwrap().token.unwrap();
        assert!(token.is("from-the-file-16+") && !token.is("from-the-environment"));
        assert!(!token.is("from-the-file-16") && !token.is(""));
        assert_eq!(format!("{token:?}"), "Token(..)");
        for weak in ["", "feeble", "has blanks in between", "ümläutümläutümläut"] {
            let error = options("127.0.0.1:1", None, Some(weak)).unwrap_err().to_string();
            assert!(error.contains("SCADLES_TOKEN") && (weak.is_empty() || !error.contains(weak)), "{error}");
        }
        fs::remove_file(&file).unwrap();
        assert!(matches!(options("127.0.0.1:1", Some(&file), None), Err(ServeError::ReadToken { .. })));
    }

    #[test]
    fn names_of_this_machine_are_known() {
        for own in ["localhost:9464", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:9464"] {
            assert!(is_loopback_name(own), "{own}");
        }
        for other in ["evil.example", "localhost.evil.example", "10.0.0.1:9464", ""] {
            assert!(!is_loopback_name(other), "{other}");
        }
    }
}
