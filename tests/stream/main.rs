//! Streams of samples: ring, buffer policies, rates, sources and both device streams.
#![cfg(not(loom))]

mod live;
mod policy;
mod rates;
mod record;
mod ring;
mod socket;
mod spill;
mod support;
mod virtual_time;
