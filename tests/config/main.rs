//! The configuration: what is accepted, what is refused, and what the messages say.

mod bad;
mod examples;
mod overrides;
