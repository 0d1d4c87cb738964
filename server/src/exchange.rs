//! One request and its answer, from the head to the last byte: what is kept while it is under way, and every step of it.
//!
//! An answer that fits the room never gets here: it is written at once. Read next: `streaming.rs`, the answers made while they are sent.

use std::time::{Duration, Instant};

use reactor::Context;
use worker_pool::{CancelFlag, Outcome};

use crate::answer::{Answer, BodySink};
use crate::connection::{Conn, HttpHandler};
use crate::dispatch::{Dispatched, JobOutput};
use crate::http::{BodyKind, Response};
use crate::service::Service;
use crate::streaming::Streaming;

/// An answer under way.
pub(crate) struct Exchange {
    /// When the head was read.
    pub(crate) started: Instant,
    /// When it must be over: absolute, whatever progress it makes.
    pub(crate) request_by: Instant,
    pub(crate) state: State,
}

/// What it waits for.
pub(crate) enum State {
    /// A time.
    Later(Instant, Response),
    /// A worker.
    Working(CancelFlag),
    /// The request's body.
    Reading(Box<dyn BodySink>),
    /// Room for a whole response.
    Sending(Sending),
    /// Room, or whatever the source waits for.
    Streaming(Streaming),
}

/// A whole response of which a part is sent.
pub(crate) struct Sending {
    response: Response,
    head_sent: bool,
    sent_bytes: usize,
}

/// Body that an answer does not need is read and dropped if it is at most this long; beyond, the connection closes after the answer.
/// One buffer: what the peer may have sent before it could know.
const UNWANTED_BODY_BYTES_MAX: u64 = 64 << 10;

/// Drops a body and then gives the answer that was there before it.
struct Unwanted(Option<Answer>);

impl BodySink for Unwanted {
    fn take(&mut self, piece: &[u8]) -> usize {
        piece.len()
    }

    fn end(mut self: Box<Self>) -> Answer {
        self.0.take().unwrap_or_else(|| Answer::Now(Response::empty(500)))
    }
}

impl Exchange {
    /// Whether a part of the response may have been sent: then nothing else can be said any more.
    pub(crate) fn has_begun_to_answer(&self) -> bool {
        match &self.state {
            State::Later(..) | State::Working(_) | State::Reading(_) => false,
            State::Sending(sending) => sending.head_sent,
            State::Streaming(streaming) => streaming.has_begun(),
        }
    }

    /// Nobody waits for it any more.
    pub(crate) fn call_off(&self) {
        match &self.state {
            State::Working(cancel) => cancel.cancel(),
            State::Streaming(streaming) => streaming.call_off(),
            State::Later(..) | State::Reading(_) | State::Sending(_) => {}
        }
    }
}

impl<S: Service> HttpHandler<S> {
    /// The service has answered a head.
    #[inline]
    pub(crate) fn begin(&mut self, conn: &mut Conn, answer: Answer, body: BodyKind, expect_continue: bool, cx: &mut Context<'_>) {
        self.stats.in_flight.add(1);
        if body == BodyKind::None
            && let Answer::Now(response) = answer
        {
            // The common case: nothing to keep, nothing to allocate.
            return self.respond(conn, response, cx.now(), cx);
        }
        self.begin_exchange(conn, answer, body, expect_continue, cx);
    }

    fn begin_exchange(&mut self, conn: &mut Conn, answer: Answer, body: BodyKind, expect_continue: bool, cx: &mut Context<'_>) {
        let started = cx.now();
        conn.serial = conn.serial.wrapping_add(1);
        let request_by = started + self.settings.timeouts.request;
        cx.deadline(Some(request_by));
        let answer = match answer {
            answer @ (Answer::Read(_) | Answer::Stream { .. }) => answer,
            answer => match body {
                BodyKind::None => answer,
                BodyKind::Length(bytes) if bytes <= UNWANTED_BODY_BYTES_MAX && !expect_continue => {
                    Answer::Read(Box::new(Unwanted(Some(answer))))
                }
                BodyKind::Length(_) | BodyKind::Chunked => {
                    conn.machine.give_up_body();
                    answer
                }
            },
        };
        self.carry_out(conn, answer, started, request_by, cx);
    }

    /// Any answer, of a service, of a job or at the end of a body.
    fn carry_out(&mut self, conn: &mut Conn, answer: Answer, started: Instant, request_by: Instant, cx: &mut Context<'_>) {
        let state = match answer {
            Answer::Now(response) => return self.respond(conn, response, started, cx),
            Answer::At(at, response) => {
                cx.pause();
                cx.deadline(Some(at.min(request_by)));
                State::Later(at, response)
            }
            Answer::Read(sink) => State::Reading(sink),
            Answer::Job(work) => {
                cx.pause();
                match self.dispatcher.dispatch(work, JobOutput::Answer, cx.token(), conn.serial, cx.now()) {
                    Dispatched::Admitted(cancel) => State::Working(cancel),
                    Dispatched::Ran(JobOutput::Answer(answer)) => return self.carry_out(conn, answer, started, request_by, cx),
                    Dispatched::Ran(JobOutput::Bytes(_)) => unreachable!("asked for an answer"),
                    Dispatched::Refused(retry_after) => {
                        let response = self.busy(retry_after);
                        return self.respond(conn, response, started, cx);
                    }
                }
            }
            Answer::Stream { head, source } => State::Streaming(Streaming::new(head, source)),
        };
        let streams = matches!(state, State::Streaming(_));
        conn.exchange = Some(Box::new(Exchange { started, request_by, state }));
        if streams {
            self.pump(conn, cx);
        }
    }

    /// 503, with a time to come back that differs from client to client: those refused together must not return together.
    fn busy(&mut self, retry_after: Duration) -> Response {
        self.stats.jobs_refused.add(1);
        // xorshift32 (Marsaglia 2003): jitter, not secrecy.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let seconds = retry_after.as_secs() + 1 + u64::from(self.random % 3);
        let response = Response::text("busy\n").status(503);
        response.header("Retry-After", seconds.to_string()).unwrap_or_else(|_| Response::empty(503))
    }

    /// Writes a whole response: at once if it fits, in pieces as there is room if not.
    #[inline]
    fn respond(&mut self, conn: &mut Conn, response: Response, started: Instant, cx: &mut Context<'_>) {
        if response.closes() {
            conn.machine.close_after_response();
        }
        let plan = conn.machine.response_plan();
        let date = self.date.bytes(cx.now());
        let mut output = cx.output();
        if let Some(n) = response.encode_head(&plan, date, output.spare_mut()) {
            let body = response.body_to_send(&plan);
            if n + body.len() <= output.room() {
                output.advance(n);
                output.write(body);
                return self.complete(conn, response.status_code(), started, cx);
            }
        }
        self.respond_in_pieces(conn, response, started, cx);
    }

    #[cold]
    fn respond_in_pieces(&mut self, conn: &mut Conn, response: Response, started: Instant, cx: &mut Context<'_>) {
        cx.pause();
        let request_by = conn.exchange.as_ref().map_or(started + self.settings.timeouts.request, |exchange| exchange.request_by);
        cx.deadline(Some(request_by));
        let state = State::Sending(Sending { response, head_sent: false, sent_bytes: 0 });
        conn.exchange = Some(Box::new(Exchange { started, request_by, state }));
        self.send_more(conn, cx);
    }

    fn send_more(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let plan = conn.machine.response_plan();
        let Some(exchange) = conn.exchange.as_mut() else { return };
        let started = exchange.started;
        let State::Sending(sending) = &mut exchange.state else { return };
        let mut output = cx.output();
        if !sending.head_sent {
            match sending.response.encode_head(&plan, self.date.bytes(started), output.spare_mut()) {
                Some(n) => output.advance(n),
                None => return cx.want_room(),
            }
            sending.head_sent = true;
        }
        let body = sending.response.body_to_send(&plan);
        sending.sent_bytes += output.write(&body[sending.sent_bytes..]);
        if sending.sent_bytes < body.len() {
            return cx.want_room();
        }
        let status = sending.response.status_code();
        self.complete(conn, status, started, cx);
    }

    /// The last byte of the response is written; the request was read whole or given up.
    #[inline]
    pub(crate) fn complete(&mut self, conn: &mut Conn, status: u16, started: Instant, cx: &mut Context<'_>) {
        conn.exchange = None;
        self.stats.in_flight.sub(1);
        self.stats.responded(status);
        self.stats.duration.record(cx.now().saturating_duration_since(started));
        conn.machine.answered();
        if conn.machine.persists() {
            cx.resume();
            self.rest(conn, cx);
        } else {
            cx.deadline(None);
            cx.close();
        }
    }

    /// There is room, or somebody woke the connection.
    pub(crate) fn go_on(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        match conn.exchange.as_ref().map(|exchange| &exchange.state) {
            Some(State::Sending(_)) => self.send_more(conn, cx),
            Some(State::Streaming(_)) => self.pump(conn, cx),
            _ => {}
        }
    }

    /// A piece of the request's body. Returns how much of it was taken.
    pub(crate) fn body(&mut self, conn: &mut Conn, piece: &[u8], last: bool, cx: &mut Context<'_>) -> usize {
        let Some(exchange) = conn.exchange.as_mut() else { unreachable!("a body belongs to an exchange") };
        match &mut exchange.state {
            State::Reading(sink) => {
                let taken = sink.take(piece).min(piece.len());
                conn.machine.took(taken);
                if last && taken == piece.len() {
                    self.body_ended(conn, cx);
                } else if taken == 0 {
                    cx.pause();
                }
                taken
            }
            State::Streaming(_) => self.body_while_streaming(conn, piece, last, cx),
            State::Later(..) | State::Working(_) | State::Sending(_) => unreachable!("the body was read or given up"),
        }
    }

    fn body_ended(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.take() else { return };
        let Exchange { started, request_by, state } = *exchange;
        if let State::Reading(sink) = state {
            let answer = sink.end();
            self.carry_out(conn, answer, started, request_by, cx);
        }
    }

    /// What a worker sent.
    pub(crate) fn job_ended(&mut self, conn: &mut Conn, outcome: Outcome<JobOutput>, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.as_ref() else { return };
        if matches!(exchange.state, State::Streaming(_)) {
            return self.stream_job_ended(conn, outcome, cx);
        }
        let (started, request_by) = (exchange.started, exchange.request_by);
        let response = match outcome {
            Outcome::Done(JobOutput::Answer(answer)) => {
                conn.exchange = None;
                return self.carry_out(conn, answer, started, request_by, cx);
            }
            Outcome::Done(JobOutput::Bytes(_)) => unreachable!("asked for an answer"),
            Outcome::Panicked => Response::text("internal error\n").status(500),
            Outcome::Expired => Response::text("deadline passed\n").status(504),
            Outcome::Shed | Outcome::Dropped => self.busy(Duration::ZERO),
            // Only we cancel, and then nobody is left to answer.
            Outcome::Cancelled => return cx.abort(),
        };
        self.respond(conn, response, started, cx);
    }

    /// The one deadline of an exchange: the time it waited for, or its end.
    pub(crate) fn exchange_deadline(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let now = cx.now();
        let Some(exchange) = conn.exchange.as_mut() else { return };
        let (started, request_by) = (exchange.started, exchange.request_by);
        if now < request_by || matches!(exchange.state, State::Later(at, _) if at <= now) {
            cx.deadline(Some(request_by));
            if matches!(exchange.state, State::Later(..)) {
                let Some(exchange) = conn.exchange.take() else { return };
                if let State::Later(_, response) = exchange.state {
                    self.respond(conn, response, started, cx);
                }
            } else {
                self.go_on(conn, cx);
            }
            return;
        }
        self.stats.request_timeouts.add(1);
        exchange.call_off();
        match exchange.state {
            State::Reading(_) => self.say_and_close(conn, Response::text("request body too slow\n").status(408), cx),
            State::Working(_) | State::Later(..) => {
                self.say_and_close(conn, Response::text("request timeout\n").status(503), cx);
            }
            State::Sending(_) | State::Streaming(_) => cx.abort(),
        }
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Later(..) => "later",
            State::Working(_) => "working",
            State::Reading(_) => "reading",
            State::Sending(_) => "sending",
            State::Streaming(_) => "streaming",
        };
        f.debug_struct("Exchange").field("state", &state).finish_non_exhaustive()
    }
}
