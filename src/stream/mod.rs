//! Live streams of samples: from a source, through a buffer, to a device's training step.
//!
//! ```text
//! VirtualStream:  ReplaySource --references--> PolicyBuffer --> take            (computed time, no threads)
//! LiveStream:     Source --feeder thread--> ring (--> PolicyBuffer when full) --> take     (wall clock)
//! ```
//!
//! Both are a [`DeviceStream`], which is all that the trainer sees.

mod device;
mod error;
mod live;
pub mod policy;
pub mod publish;
pub mod rates;
pub mod record;
pub mod ring;
pub mod source;
pub(crate) mod sync;
mod virtual_stream;

pub use device::{DeviceStream, SampleView, StreamCounters};
pub use error::StreamError;
pub use live::{LiveOptions, LiveStream};
pub use virtual_stream::VirtualStream;
