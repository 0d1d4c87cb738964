//! A response that is made while it is sent: head, then pieces, framed by length or as chunks. Pieces are pulled when there is output space, from a
//! worker if they need one.
//!
//! Read next: `demo/bytes.rs` and `demo/echo.rs`, which use it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::Context;
use worker_pool::Outcome;

use crate::answer::{Pulled, StreamSource, Work};
use crate::connection::{Conn, HttpHandler};
use crate::dispatch::{Admitted, Dispatched, JobOutput, Origin};
use crate::exchange::{Exchange, State};
use crate::http::{CHUNK_END, CHUNK_HEADER_BYTES, LAST_CHUNK, StreamFraming, StreamHead, chunk_header};
use crate::ledger::Charge;
use crate::memory::PIECE_BYTES;
use crate::sending::RESPONSE_HEAD_BYTES_MAX;
use crate::service::Service;

/// A streamed response under way.
pub(crate) struct Streaming {
    head: StreamHead,
    source: Box<dyn StreamSource>,
    /// The memory that the source may hold.
    _charge: Option<Charge>,
    /// None until the head is written.
    framing: Option<StreamFraming>,
    /// Bytes from a worker, of which the first `brought_sent` are written.
    brought: Vec<u8>,
    brought_sent: usize,
    /// The charge for the memory of `brought`.
    brought_charge: Option<Charge>,
    /// The job for the next bytes, if one is in flight.
    job: Option<Admitted>,
    /// What the source wants instead of a job that was given up. It replaces the next pull.
    instead: Option<Pulled>,
    /// When the source wants the next pull.
    pull_at: Option<Instant>,
    /// The source is not pulled any more: it returned [`Pulled::End`], or its length is complete.
    ended: bool,
    /// The source takes the request's body, and none of it has arrived. While the source has space for it, nothing is written.
    awaits_body: bool,
    /// Bytes of the response that were written to the output, sent or not.
    written_bytes: usize,
}

/// The smallest output space worth a pull: framing, and enough bytes that a chunk is not mostly framing.
const PULL_SPACE_MIN: usize = CHUNK_HEADER_BYTES + CHUNK_END.len() + LAST_CHUNK.len() + 256;

impl Streaming {
    /// `takes_body`: the source takes the request's body, and the body is not complete.
    pub(crate) fn new(head: StreamHead, source: Box<dyn StreamSource>, takes_body: bool, charge: Option<Charge>) -> Streaming {
        Streaming {
            head,
            source,
            _charge: charge,
            framing: None,
            brought: Vec::new(),
            brought_sent: 0,
            brought_charge: None,
            job: None,
            instead: None,
            pull_at: None,
            ended: false,
            awaits_body: takes_body,
            written_bytes: 0,
        }
    }

    /// How many bytes of the response were written to the output, sent or not.
    pub(crate) fn written_bytes(&self) -> usize {
        self.written_bytes
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.framing.is_some()
    }

    /// The status, if nothing of the response is missing.
    pub(crate) fn answered(&self) -> Option<u16> {
        let written = self.ended && self.brought_sent == self.brought.len();
        (written && matches!(self.framing, Some(StreamFraming::None | StreamFraming::Length(0)))).then(|| self.head.status_code())
    }

    /// Whether its framing tells the client that a part is missing.
    pub(crate) fn cut_shows(&self) -> bool {
        match self.framing {
            Some(StreamFraming::None | StreamFraming::Length(_) | StreamFraming::Chunked) => true,
            Some(StreamFraming::UntilClose) | None => false,
        }
    }

    pub(crate) fn pull_at(&self) -> Option<Instant> {
        self.pull_at
    }

    /// Forgets the time of the next pull if it has come.
    pub(crate) fn pull_is_due(&mut self, now: Instant) {
        self.pull_at = self.pull_at.filter(|at| *at > now);
    }

    pub(crate) fn waits_for_job(&self) -> bool {
        self.job.is_some()
    }

    pub(crate) fn call_off(&self) {
        if let Some(job) = &self.job {
            job.cancel.cancel();
        }
    }
}

/// Why pumping stopped.
enum Pumped {
    Wait,
    WantRoom,
    At(Instant),
    Broken,
    /// The response is complete, with this status.
    Complete(u16),
}

impl<S: Service> HttpHandler<S> {
    /// Writes what fits the output space, and arranges the next step.
    pub(crate) fn pump(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        // Nothing is sent while `pump_once` runs, so the output space that it has used is what it has written.
        let space_before = cx.output_space();
        let pumped = self.pump_once(conn, cx);
        let written_bytes = space_before - cx.output_space();
        match pumped {
            Pumped::Wait => self.let_body_come(conn, cx),
            Pumped::WantRoom => {
                if let Some(exchange) = conn.exchange.as_mut() {
                    // Pending output may block the request's body, even if the source has space. So its rate is not judged in this window.
                    exchange.times.body.excuse();
                }
                self.let_body_come(conn, cx);
                cx.want_writable();
            }
            Pumped::At(at) => {
                let is_in_body = conn.machine.is_in_body();
                if let Some(exchange) = conn.exchange.as_mut() {
                    if let State::Streaming(streaming) = &mut exchange.state {
                        streaming.pull_at = Some(at);
                    }
                    cx.deadline(exchange.due(is_in_body));
                }
                self.let_body_come(conn, cx);
            }
            Pumped::Broken => return self.cut(conn, cx),
            Pumped::Complete(status) => return self.stream_complete(conn, status, cx),
        }
        // Counted after the last call of the source. If the source panics, the loop discards the output of this callback. If it were counted before,
        // `fail` would discard as many bytes of earlier responses. Test: `a_source_that_panics_costs_no_response_before_it_a_byte`.
        if let Some(Exchange { state: State::Streaming(streaming), .. }) = conn.exchange.as_deref_mut() {
            streaming.written_bytes = streaming.written_bytes.saturating_add(written_bytes);
        }
    }

    /// Resumes input if the request's body is incomplete, and the source has space for it or has ended. Pauses input otherwise.
    fn let_body_come(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let Some(Exchange { state: State::Streaming(streaming), times }) = conn.exchange.as_deref_mut() else { return };
        if conn.machine.is_in_body() && (streaming.ended || streaming.source.body_room_bytes() > 0) {
            cx.resume();
        } else {
            times.body.excuse();
            cx.pause();
        }
    }

    fn pump_once(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Pumped {
        let plan = conn.machine.response_plan();
        let Some(exchange) = conn.exchange.as_mut() else { return Pumped::Wait };
        let State::Streaming(streaming) = &mut exchange.state else { return Pumped::Wait };
        if streaming.awaits_body && streaming.source.body_room_bytes() > 0 {
            // Until then, a request that turns out to be malformed can be answered with an error.
            return Pumped::Wait;
        }
        streaming.pull_at = None;
        if streaming.framing.is_none() {
            if streaming.head.closes() {
                conn.machine.close_after_response();
            }
            let date = self.date.bytes(cx.now());
            let mut output = cx.output();
            if !output.encode(|cursor| streaming.head.encode_head(&plan, date, cursor)) {
                assert!(output.space() < RESPONSE_HEAD_BYTES_MAX, "a response head does not fit {} bytes", output.space());
                return Pumped::WantRoom;
            }
            let framing = streaming.head.framing(&plan);
            if framing == StreamFraming::UntilClose {
                conn.machine.close_after_response();
            }
            streaming.framing = Some(framing);
        }
        loop {
            if matches!(streaming.framing, Some(StreamFraming::None | StreamFraming::Length(0))) {
                streaming.ended = true;
            }
            if !streaming.send_brought(cx) {
                return Pumped::WantRoom;
            }
            if streaming.ended {
                return streaming.finish(conn.machine.is_in_body(), cx);
            }
            if streaming.job.is_some() {
                return Pumped::Wait;
            }
            if cx.output_space() < PULL_SPACE_MIN {
                return Pumped::WantRoom;
            }
            let (bytes, pulled) = match streaming.instead.take() {
                Some(instead) => (0, instead),
                None => streaming.pull(cx),
            };
            let pulled = match pulled {
                Pulled::Job(work) => match self.ask_worker(streaming, &mut conn.job_serial, work, cx) {
                    None => continue,
                    Some(instead) => instead,
                },
                pulled => pulled,
            };
            match pulled {
                Pulled::More if bytes == 0 => return Pumped::WantRoom,
                Pulled::More => {}
                Pulled::Wait => return Pumped::Wait,
                Pulled::At(at) => return Pumped::At(at),
                Pulled::End => streaming.ended = true,
                Pulled::Broken | Pulled::Job(_) => return Pumped::Broken,
            }
        }
    }

    /// Submits a job for the next bytes. If it is rejected, returns what the source wants instead.
    fn ask_worker(&self, streaming: &mut Streaming, serial: &mut u32, work: Work<Vec<u8>>, cx: &mut Context<'_>) -> Option<Pulled> {
        let Ok(charge) = self.ledger.responses.charge(PIECE_BYTES) else {
            self.stats.memory_refusals.add(1);
            return Some(self.job_rejected(streaming, Duration::ZERO, cx));
        };
        *serial = serial.wrapping_add(1);
        let responses = Arc::clone(&self.ledger.responses);
        let from = Origin { token: cx.token(), serial: *serial, charge: Some(charge), responses };
        match self.dispatcher.dispatch(work, JobOutput::Bytes, from, cx.now()) {
            Dispatched::Admitted(job) => streaming.job = Some(job),
            Dispatched::Ran(bytes, charge) => streaming.bring(bytes, charge),
            Dispatched::Refused(retry_after) => return Some(self.job_rejected(streaming, retry_after, cx)),
        }
        None
    }

    /// Asks the source how to continue after the pool rejected its job. Only a stream that breaks counts as a rejected job: a thousand downloads that
    /// wait for one disk retry thousands of times a second. Test: `a_piece_that_is_asked_for_again_is_no_rejected_job`.
    fn job_rejected(&self, streaming: &mut Streaming, retry_after: Duration, cx: &Context<'_>) -> Pulled {
        let instead = streaming.source.job_refused(retry_after, cx.now());
        let counter = if matches!(instead, Pulled::Broken) { &self.stats.jobs_refused } else { &self.stats.stream_retries };
        counter.add(1);
        instead
    }

    /// A piece of the request's body while the response is streaming.
    pub(crate) fn body_while_streaming(&mut self, conn: &mut Conn, piece: &[u8], last: bool, cx: &mut Context<'_>) -> usize {
        let Some(exchange) = conn.exchange.as_mut() else { return 0 };
        let State::Streaming(streaming) = &mut exchange.state else { return 0 };
        // Body bytes after the end of the source are read and discarded, so that the connection can serve the next request.
        let taken = if streaming.ended { piece.len() } else { streaming.source.body(piece, last).min(piece.len()) };
        assert!(taken > 0 || piece.is_empty(), "a source that has room for a body took nothing of it");
        conn.machine.took(taken);
        exchange.times.body_came(taken);
        streaming.awaits_body = false;
        self.pump(conn, cx);
        taken
    }

    /// Handles the result of a stream's job.
    pub(crate) fn stream_job_ended(&mut self, conn: &mut Conn, outcome: Outcome<JobOutput>, charge: Option<Charge>, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.as_mut() else { return };
        let State::Streaming(streaming) = &mut exchange.state else { return };
        streaming.job = None;
        match outcome {
            Outcome::Done(JobOutput::Bytes(bytes)) => streaming.bring(bytes, charge),
            // The pool gave up the job before it ran. This is handled like a rejection.
            Outcome::Expired | Outcome::Shed => streaming.instead = Some(self.job_rejected(streaming, Duration::ZERO, cx)),
            Outcome::Done(JobOutput::Answer(_) | JobOutput::Dropped) | Outcome::Panicked | Outcome::Cancelled | Outcome::Dropped => {
                streaming.instead = Some(Pulled::Broken);
            }
        }
        self.pump(conn, cx);
    }
}

impl Streaming {
    fn bring(&mut self, bytes: Vec<u8>, charge: Option<Charge>) {
        (self.brought, self.brought_sent, self.brought_charge) = (bytes, 0, charge);
    }

    /// Counts body bytes against the promised length. A larger number is a bug in the service.
    fn count(&mut self, bytes: usize) {
        if let Some(StreamFraming::Length(left_bytes)) = &mut self.framing {
            let left = left_bytes.checked_sub(bytes as u64);
            assert!(left.is_some(), "a stream gave more bytes than its length: {bytes}, {left_bytes} were left");
            *left_bytes = left.unwrap_or(0);
        }
    }

    /// Writes the bytes from a worker. Returns false if some are left.
    fn send_brought(&mut self, cx: &mut Context<'_>) -> bool {
        while self.brought_sent < self.brought.len() {
            let overhead = self.overhead();
            if cx.output_space() < PULL_SPACE_MIN.min(overhead + self.brought.len() - self.brought_sent) || cx.output_space() <= overhead {
                return false;
            }
            let bytes = (self.brought.len() - self.brought_sent).min(cx.output_space() - overhead);
            self.count(bytes);
            let piece = &self.brought[self.brought_sent..][..bytes];
            let mut output = cx.output();
            if overhead > 0 {
                output.write(&chunk_header(bytes as u32));
                output.write(piece);
                output.write(CHUNK_END);
            } else {
                output.write(piece);
            }
            self.brought_sent += bytes;
        }
        self.brought = Vec::new();
        (self.brought_sent, self.brought_charge) = (0, None);
        true
    }

    fn overhead(&self) -> usize {
        match self.framing {
            Some(StreamFraming::Chunked) => CHUNK_HEADER_BYTES + CHUNK_END.len(),
            _ => 0,
        }
    }

    /// Pulls once, directly into the output, and reserves output space for the framing. Returns the number of bytes that the source wrote.
    fn pull(&mut self, cx: &mut Context<'_>) -> (usize, Pulled) {
        let now = cx.now();
        let chunked = self.overhead() > 0;
        let mut output = cx.output();
        if !chunked {
            let bytes_max = match self.framing {
                Some(StreamFraming::Length(left_bytes)) => usize::try_from(left_bytes).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let pulled = self.source.pull(&mut output.limited(bytes_max), now);
            let bytes = output.written_bytes();
            self.count(bytes);
            return (bytes, pulled);
        }
        // A placeholder: the size of the chunk is known only after the source has written.
        output.write(&[b'0'; CHUNK_HEADER_BYTES]);
        let bytes_max = output.space() - CHUNK_END.len();
        let pulled = self.source.pull(&mut output.limited(bytes_max), now);
        let bytes = output.written_bytes() - CHUNK_HEADER_BYTES;
        if bytes > 0 {
            output.overwrite(0, &chunk_header(bytes as u32));
            output.write(CHUNK_END);
        } else {
            output.truncate(0);
        }
        (bytes, pulled)
    }

    fn finish(&mut self, in_body: bool, cx: &mut Context<'_>) -> Pumped {
        match self.framing {
            Some(StreamFraming::Length(left_bytes)) if left_bytes > 0 => return Pumped::Broken,
            Some(StreamFraming::Chunked) => {
                if cx.output_space() < LAST_CHUNK.len() {
                    return Pumped::WantRoom;
                }
                cx.write(LAST_CHUNK);
                self.framing = Some(StreamFraming::None);
            }
            _ => {}
        }
        // The response is complete. The rest of the request's body is read first, so that the connection can serve the next request.
        if in_body { Pumped::Wait } else { Pumped::Complete(self.head.status_code()) }
    }
}
