//! Why the live page cannot be served.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The live page of a run cannot be served as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Not an address.
    #[error(
        "`run.serve` is `{given}`; it must be an address and port, as 127.0.0.1:9464, [::1]:9464 or localhost:9464"
    )]
    Address {
        /// As given.
        given: String,
    },
    /// An address that others can reach, and nothing that keeps them out.
    #[error(
        "`run.serve` is {address}, which other machines may reach, so it needs a token: set run.serve-token-file \
         (--serve-token-file FILE) or the environment variable SCADLES_TOKEN, or serve on 127.0.0.1"
    )]
    NeedsToken {
        /// The address.
        address: SocketAddr,
    },
    /// The file with the token cannot be read.
    #[error("cannot read the token in {}: {source}", path.display())]
    ReadToken {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A token that cannot be used.
    #[error(
        "the token in {} is {found}; it must be {} to {} visible ASCII characters",
        place,
        super::access::MIN_TOKEN,
        super::access::MAX_TOKEN
    )]
    Token {
        /// File or environment variable.
        place: String,
        /// What is wrong with it; never the token.
        found: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot serve on {address}: {source}; choose another address or port with --serve")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for the live page: {source}")]
    Thread {
        /// The operating system's answer.
        source: io::Error,
    },
}

impl ServeError {
    /// Whether the user's input is to blame.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Thread { .. })
    }
}
