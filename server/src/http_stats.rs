//! What the HTTP side of one loop counts; one writer, read from any thread.
//!
//! Read next: `metrics.rs`, which prints it.

use reactor::counter::Histogram;
use reactor::counter::{Counter, Gauge};

use crate::http::Refusal;

/// Counters of one loop's HTTP connections.
#[derive(Debug)]
pub struct HttpStats {
    /// Responses whose last byte was handed on, by the hundreds of their status: 2xx to 5xx.
    by_class: [Counter; 4],
    refusals: [Counter; Refusal::ALL.len()],
    /// From the beginning of the turn of the loop that read the request's head to the end of the turn that wrote the last byte of the response.
    /// So a stall in a handler shows in the requests that it held up; those answered before it in the same turn are counted with it.
    pub duration: Histogram,
    /// Requests that are being answered now. What is answered within the callback that reads it is never seen here.
    pub in_flight: Gauge,
    /// Jobs that the pool rejected or gave up, so that the client got a 503 or a response cut short.
    pub jobs_refused: Counter,
    /// Jobs for the next piece of a response that the pool rejected or gave up, and that the stream asks for again. The client only waits.
    pub stream_retries: Counter,
    /// Requests, and pieces of streams, that a spent memory budget refused: 503 where it could be sent.
    pub memory_refusals: Counter,
    /// Connections closed because no request came within the idle timeout.
    pub idle_timeouts: Counter,
    /// Heads that did not arrive within the header timeout: 408.
    pub header_timeouts: Counter,
    /// Bodies that came too slowly: 408 where it could be said.
    pub body_timeouts: Counter,
    /// Connections refused because their source has too many: 429.
    pub source_refusals: Counter,
    /// Connections that made room for newcomers near the connection limit, while idle.
    pub idle_evictions: Counter,
    /// The same in the middle of a head: 408; or before the first byte.
    pub header_evictions: Counter,
    /// The same in the middle of a body that nobody had begun to answer: 408.
    pub body_evictions: Counter,
    /// Requests that were not over within the request timeout.
    pub request_timeouts: Counter,
    /// Streams that broke after their head was sent.
    pub broken_streams: Counter,
    /// Results of jobs that came after their exchange had ended.
    pub late_results: Counter,
}

impl Default for HttpStats {
    fn default() -> HttpStats {
        HttpStats {
            by_class: Default::default(),
            refusals: std::array::from_fn(|_| Counter::default()),
            duration: Histogram::default(),
            in_flight: Gauge::default(),
            jobs_refused: Counter::default(),
            stream_retries: Counter::default(),
            memory_refusals: Counter::default(),
            idle_timeouts: Counter::default(),
            header_timeouts: Counter::default(),
            body_timeouts: Counter::default(),
            source_refusals: Counter::default(),
            idle_evictions: Counter::default(),
            header_evictions: Counter::default(),
            body_evictions: Counter::default(),
            request_timeouts: Counter::default(),
            broken_streams: Counter::default(),
            late_results: Counter::default(),
        }
    }
}

impl HttpStats {
    /// Responses of a class: 2 for 2xx, to 5.
    ///
    /// # Panics
    /// If there is no such class.
    #[must_use]
    pub fn responses(&self, class: usize) -> &Counter {
        &self.by_class[class - 2]
    }

    /// Requests refused for this reason.
    #[must_use]
    pub fn refusals(&self, refusal: Refusal) -> &Counter {
        &self.refusals[refusal.index()]
    }

    #[inline]
    pub(crate) fn responded(&self, status: u16) {
        self.by_class[(usize::from(status) / 100).clamp(2, 5) - 2].add(1);
    }
}
