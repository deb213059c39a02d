//! Launches recorded once and queued again as one.

use super::device::CudaDevice;
use super::error::CudaError;
use cudarc::driver::{CudaGraph, sys};

/// Recorded launches. They hold the addresses and numbers they were recorded with.
pub(crate) struct Graph(CudaGraph);

// SAFETY: the driver allows a graph to be used from any thread, one at a time; `&mut` makes sure of that.
unsafe impl Send for Graph {}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}

impl CudaDevice {
    /// Records what `launches` queues on the compute stream; none of it runs.
    ///
    /// # Errors
    /// What `launches` or the driver says.
    pub(crate) fn capture(
        &self,
        launches: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        let stream = self.stream();
        let refused = |error| self.refused("record a graph", error);
        stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(refused)?;
        let launched = launches();
        // Ends the capture whatever happened, so that the stream can be used again.
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        launched?;
        match graph.map_err(refused)? {
            Some(graph) => Ok(Graph(graph)),
            None => Err(CudaError::EmptyGraph),
        }
    }

    /// Queues what `graph` holds on the compute stream.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn replay(&self, graph: &mut Graph) -> Result<(), CudaError> {
        graph.0.launch().map_err(|error| self.refused("launch a graph", error))
    }
}
