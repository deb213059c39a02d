//! Data sets from files and from the generator, and their split over devices.

mod embedded;
mod load;
mod partition;
#[path = "../support/mod.rs"]
mod support;
