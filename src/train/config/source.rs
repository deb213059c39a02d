//! Where a run's samples come from.

use super::error::Problem;
use super::validate::{conflict, out_of_range, per_device};
use super::{ClockKind, RunConfig};
use serde::{Deserialize, Serialize};

/// Source of the devices' streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum SourceConfig {
    /// The data set, split over the devices and replayed at their rates.
    #[default]
    Replay,
    /// Publishers that are connected to, as `scadles publish` is; needs the real clock. Rates are measured, those of
    /// the configuration hold until then.
    Tcp {
        /// `host:port` of each device's publisher, one per device.
        addresses: Vec<String>,
    },
}

impl SourceConfig {
    pub(super) fn check(&self, config: &RunConfig) -> Result<(), Problem> {
        let Self::Tcp { addresses } = self else { return Ok(()) };
        per_device("source.addresses", addresses.len(), config.cluster.devices, false)?;
        for (device, address) in addresses.iter().enumerate() {
            if split_address(address).is_none() {
                let found = format!("\"{}\"", super::check::short(address));
                let expected = "host:port with a port from 1 to 65535, as \"127.0.0.1:7001\"";
                return Err(out_of_range(&format!("source.addresses[{device}]"), found, expected));
            }
        }
        if config.cluster.clock != ClockKind::Real {
            return Err(conflict(
                &["cluster.clock", "source.kind"],
                "samples from outside arrive in real time, and the clock is virtual",
                "set cluster.clock to \"real\" (--clock real), or source.kind to \"replay\"",
            ));
        }
        Ok(())
    }
}

/// Host and port of `host:port`; the host may be an IPv6 address in brackets.
pub(crate) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    let bracketed = bare.len() != host.len();
    let fits = !bare.is_empty()
        && !bare.contains(|c: char| c.is_whitespace() || c.is_control() || "[]/".contains(c))
        && (bracketed || !bare.contains(':'));
    let port = port.parse().ok().filter(|port| *port > 0)?;
    fits.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        assert_eq!(split_address("edge-1.local:7001"), Some(("edge-1.local", 7001)));
        assert_eq!(split_address("[::1]:80"), Some(("[::1]", 80)));
        for bad in
            ["", ":1", "host", "host:", "host:0", "host:70000", "a b:1", "::1:80", "[::1:80", "[]:1", "a/b:1"]
        {
            assert_eq!(split_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tcp_source_needs_the_real_clock_and_an_address_per_device() {
        let run = |clock, addresses: &[&str]| {
            let mut config = RunConfig::default();
            (config.cluster.devices, config.cluster.clock) = (2, clock);
            config.source =
                SourceConfig::Tcp { addresses: addresses.iter().map(ToString::to_string).collect() };
            config.validate().map_err(|error| error.to_string())
        };
        assert_eq!(run(ClockKind::Real, &["a:1", "b:2"]), Ok(()));
        assert!(run(ClockKind::Virtual, &["a:1", "b:2"]).unwrap_err().contains("--clock real"));
        assert!(run(ClockKind::Real, &["a:1"]).unwrap_err().contains("source.addresses"));
        assert!(run(ClockKind::Real, &["a:1", "b"]).unwrap_err().contains("source.addresses[1]"));
    }
}
