//! Whole responses: written at once if they fit the output space, otherwise in pieces. Also the end of every exchange.
//!
//! Read next: `streaming.rs`.

use std::time::{Duration, Instant};

use reactor::Context;
use reactor::counter::Histogram;

use crate::connection::{Conn, HttpHandler};
use crate::exchange::{Exchange, State};
use crate::exchange_limits::Times;
use crate::http::Response;
use crate::ledger::Charge;
use crate::rejection_log::{Requested, log_rejection};
use crate::service::Service;

/// A whole response that is written in pieces.
pub(crate) struct Sending {
    response: Response,
    /// The charge for the memory of the response, until it is written.
    _charge: Option<Charge>,
    head_sent: bool,
    sent_bytes: usize,
}

/// Requests whose answers ended in the current turn. Their durations are recorded at the end of the turn. The turn's clock is read only at its
/// beginning. By that clock, a request that is read and answered in one callback would take no time, even if the callback stalls. All requests count
/// as answered at the end of the turn, which also saves a clock reading for each.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Number of requests that also began in this turn.
    at_once: u64,
    /// Start times of the other requests.
    earlier: Vec<Instant>,
}

impl Ended {
    #[inline]
    pub(crate) fn record(&mut self, into: &Histogram, turn_took: Duration, turn_ended: Instant) {
        if self.at_once > 0 {
            into.record_all(turn_took, self.at_once);
            self.at_once = 0;
        }
        // With `pop`, a turn without entries does not pay for setting up a `drain`.
        while let Some(began) = self.earlier.pop() {
            into.record(turn_ended.saturating_duration_since(began));
        }
    }
}

/// If a response head does not fit this much output space, it is longer than clients accept, and waiting for more space would not help.
pub(crate) const RESPONSE_HEAD_BYTES_MAX: usize = 16 << 10;

impl Sending {
    pub(crate) fn has_begun(&self) -> bool {
        self.head_sent
    }
}

impl<S: Service> HttpHandler<S> {
    /// 503 for a job that the pool rejected.
    pub(crate) fn busy(&mut self, retry_after: Duration, requested: Requested<'_>, cx: &Context<'_>) -> Response {
        self.stats.jobs_refused.add(1);
        let response = self.retry_later("busy\n", retry_after);
        log_rejection(&response, requested, cx);
        response
    }

    /// 503 with a random Retry-After, so that clients that were rejected together do not all retry together.
    pub(crate) fn retry_later(&mut self, text: &'static str, retry_after: Duration) -> Response {
        // xorshift32 (Marsaglia 2003): jitter, not secrecy.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let seconds = retry_after.as_secs().saturating_add(1 + u64::from(self.random % 3));
        let response = Response::text(text).status(503);
        response.header("Retry-After", seconds.to_string()).unwrap_or_else(|_| Response::empty(503))
    }

    /// Writes a whole response: at once if it fits the output space, otherwise in pieces.
    #[inline]
    pub(crate) fn respond(&mut self, conn: &mut Conn, response: Response, started: Instant, cx: &mut Context<'_>) {
        if !self.respond_at_once(conn, &response, started, cx) {
            self.respond_in_pieces(conn, response, None, started, cx);
        }
    }

    /// Writes a whole response of an exchange with these limits.
    pub(crate) fn respond_within(&mut self, conn: &mut Conn, response: Response, times: Times, cx: &mut Context<'_>) {
        if !self.respond_at_once(conn, &response, times.started, cx) {
            self.respond_in_pieces(conn, response, Some(times), times.started, cx);
        }
    }

    /// Writes a whole response if it fits the output space, otherwise nothing. By reference: a response is ten words.
    fn respond_at_once(&mut self, conn: &mut Conn, response: &Response, started: Instant, cx: &mut Context<'_>) -> bool {
        if response.closes() {
            conn.machine.close_after_response();
        }
        let plan = conn.machine.response_plan();
        let date = self.date.bytes(cx.now());
        let mut output = cx.output();
        let body = response.body_to_send(&plan);
        // Writes the head only if the body fits after it.
        if !output.encode(|cursor| response.encode_head(&plan, date, cursor).filter(|rest| body.len() <= rest.space())) {
            return false;
        }
        output.write(body);
        self.complete(conn, response.status_code(), started, cx);
        true
    }

    #[cold]
    fn respond_in_pieces(&mut self, conn: &mut Conn, response: Response, times: Option<Times>, started: Instant, cx: &mut Context<'_>) {
        let (response, charge) = match self.charge_response(&response, Requested::Unknown, cx) {
            Ok(charge) => (response, charge),
            Err(instead) => (instead, None),
        };
        self.count_in(conn);
        cx.pause();
        let times = times.unwrap_or_else(|| Times::new(&self.settings, started, false));
        cx.deadline(times.deadline);
        cx.essential();
        let state = State::Sending(Sending { response, _charge: charge, head_sent: false, sent_bytes: 0 });
        conn.exchange = Some(Box::new(Exchange { times, state }));
        self.send_more(conn, cx);
    }

    pub(crate) fn send_more(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let plan = conn.machine.response_plan();
        let Some(exchange) = conn.exchange.as_mut() else { return };
        let started = exchange.times.started;
        let State::Sending(sending) = &mut exchange.state else { return };
        let date = self.date.bytes(cx.now());
        let mut output = cx.output();
        if !sending.head_sent {
            if !output.encode(|cursor| sending.response.encode_head(&plan, date, cursor)) {
                assert!(output.space() < RESPONSE_HEAD_BYTES_MAX, "a response head does not fit {} bytes", output.space());
                return cx.want_writable();
            }
            sending.head_sent = true;
        }
        let body = sending.response.body_to_send(&plan);
        sending.sent_bytes += output.write(&body[sending.sent_bytes..]);
        if sending.sent_bytes < body.len() {
            return cx.want_writable();
        }
        let status = sending.response.status_code();
        self.complete(conn, status, started, cx);
    }

    /// Ends the exchange of a complete streamed response.
    pub(crate) fn stream_complete(&mut self, conn: &mut Conn, status: u16, cx: &mut Context<'_>) {
        let Some(started) = conn.exchange.as_ref().map(|exchange| exchange.times.started) else { return };
        self.complete(conn, status, started, cx);
    }

    /// Ends a request: the last byte of its response is written. The request was read to its end or given up.
    #[inline(always)] // nearly every response ends in `respond_at_once`; the two other callers send in pieces
    fn complete(&mut self, conn: &mut Conn, status: u16, started: Instant, cx: &mut Context<'_>) {
        self.stats.responded(status);
        if conn.in_flight {
            self.ended.earlier.push(started);
            conn.exchange = None;
            cx.reset_output_rate_min();
            self.count_out(conn);
        } else {
            self.ended.at_once += 1;
        }
        conn.machine.answered();
        if conn.machine.persists() {
            cx.resume();
            self.rest(conn, cx);
        } else {
            cx.deadline(None);
            cx.close();
        }
    }

    pub(crate) fn count_in(&mut self, conn: &mut Conn) {
        if !conn.in_flight {
            conn.in_flight = true;
            self.stats.in_flight.add(1);
        }
    }

    pub(crate) fn count_out(&mut self, conn: &mut Conn) {
        if conn.in_flight {
            conn.in_flight = false;
            self.stats.in_flight.sub(1);
        }
    }
}
