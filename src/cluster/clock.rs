//! Cluster time: computed ([`Clock::Virtual`]) or the wall clock ([`Clock::Real`]).

use crate::train::config::ClockKind;
use std::time::{Duration, Instant};

/// Time since the run began.
#[derive(Clone, Debug)]
pub enum Clock {
    /// Moves only when told to: a run of hours is exact and does not depend on the machine.
    Virtual {
        /// Current time.
        now: Duration,
    },
    /// The wall clock; being told a time does nothing, it is already later.
    Real {
        /// When the run began.
        start: Instant,
    },
}

impl Clock {
    /// A clock at zero.
    pub fn new(kind: ClockKind) -> Self {
        match kind {
            ClockKind::Virtual => Self::Virtual { now: Duration::ZERO },
            ClockKind::Real => Self::Real { start: Instant::now() },
        }
    }

    /// Time since the run began.
    pub fn now(&self) -> Duration {
        match self {
            Self::Virtual { now } => *now,
            Self::Real { start } => start.elapsed(),
        }
    }

    /// Moves a virtual clock forward to `time`; a time in the past leaves it where it is.
    pub fn advance_to(&mut self, time: Duration) {
        if let Self::Virtual { now } = self {
            *now = time.max(*now);
        }
    }

    /// Whether time is computed.
    pub fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_moves_only_forward_and_only_when_told() {
        let mut clock = Clock::new(ClockKind::Virtual);
        clock.advance_to(Duration::from_secs(3));
        clock.advance_to(Duration::from_secs(2));
        assert_eq!(clock.now(), Duration::from_secs(3));
    }

    #[test]
    fn real_time_moves_by_itself() {
        let mut clock = Clock::new(ClockKind::Real);
        clock.advance_to(Duration::from_secs(1000));
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(first < Duration::from_secs(1000) && clock.now() > first);
    }
}
