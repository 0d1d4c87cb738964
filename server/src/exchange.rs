//! One request and its answer, from the head to the last byte: its state and its steps.
//!
//! An answer that is ready at once and fits the output space needs no `Exchange`. Read next: `sending.rs`, whole responses; `streaming.rs`, responses
//! made while they are sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::Context;
use worker_pool::Outcome;

use crate::answer::{Answer, BodySink, too_long};
use crate::body_rate::Judgement;
use crate::connection::{Conn, HttpHandler};
use crate::dispatch::{Admitted, Dispatched, JobOutput, Origin};
use crate::exchange_limits::{Times, earlier, unwrap_limits};
use crate::http::{CONTINUE, Response};
use crate::ledger::Charge;
use crate::memory::grow;
use crate::rejection_log::{Requested, log_rejection};
use crate::sending::Sending;
use crate::service::Service;
use crate::streaming::Streaming;

/// A request whose answer is in progress.
pub(crate) struct Exchange {
    pub(crate) times: Times,
    pub(crate) state: State,
}

/// What an exchange waits for.
pub(crate) enum State {
    /// The time to respond. Holds the charge for the memory of the response.
    Later { at: Instant, response: Response, _charge: Option<Charge> },
    /// The result of a worker.
    Working(Admitted),
    /// The request's body. Holds the charge for its memory.
    Reading(Box<dyn BodySink>, Option<Charge>),
    /// Output space for a whole response.
    Sending(Sending),
    /// Output space, or an event that the source waits for.
    Streaming(Streaming),
}

impl Exchange {
    /// Whether a part of the response may have been sent. Then no other response can be sent.
    pub(crate) fn has_begun_to_answer(&self) -> bool {
        match &self.state {
            State::Later { .. } | State::Working(_) | State::Reading(..) => false,
            State::Sending(sending) => sending.has_begun(),
            State::Streaming(streaming) => streaming.has_begun(),
        }
    }

    /// How many bytes of the response were written to the output, sent or not. Unknown for a whole response: its request has been read to the end or
    /// given up, so no error in the request can replace the response.
    pub(crate) fn written_bytes(&self) -> Option<usize> {
        match &self.state {
            State::Streaming(streaming) => Some(streaming.written_bytes()),
            State::Later { .. } | State::Working(_) | State::Reading(..) | State::Sending(_) => None,
        }
    }

    /// The status, if the last byte of the response is written and only the request's body is still being read.
    pub(crate) fn answered(&self) -> Option<u16> {
        match &self.state {
            State::Streaming(streaming) => streaming.answered(),
            State::Later { .. } | State::Working(_) | State::Reading(..) | State::Sending(_) => None,
        }
    }

    /// Whether the client can detect from the bytes received that a part is missing, because it knows the length or waits for the last chunk (RFC
    /// 9112 section 8). If the end of the connection is the end of the response, only a reset shows it.
    fn cut_shows(&self) -> bool {
        match &self.state {
            State::Streaming(streaming) => streaming.cut_shows(),
            State::Later { .. } | State::Working(_) | State::Reading(..) | State::Sending(_) => true,
        }
    }

    /// Whether it waits for the result of a job.
    pub(crate) fn waits_for_job(&self) -> bool {
        match &self.state {
            State::Working(_) => true,
            State::Streaming(streaming) => streaming.waits_for_job(),
            State::Later { .. } | State::Reading(..) | State::Sending(_) => false,
        }
    }

    /// Whether it waits for the request's body.
    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading(..))
    }

    /// The next timer: the time that it waits for, the end of the body's window, or its deadline.
    pub(crate) fn due(&self, is_in_body: bool) -> Option<Instant> {
        let own = match &self.state {
            State::Later { at, .. } => Some(*at),
            State::Working(job) => Some(job.deadline),
            State::Streaming(streaming) => streaming.pull_at(),
            State::Reading(..) | State::Sending(_) => None,
        };
        let window = self.times.body.ends().filter(|_| is_in_body);
        earlier(earlier(own, window), self.times.deadline)
    }

    /// Cancels the job, if any: no client waits for its result.
    pub(crate) fn call_off(&self) {
        match &self.state {
            State::Working(job) => job.cancel.cancel(),
            State::Streaming(streaming) => streaming.call_off(),
            State::Later { .. } | State::Reading(..) | State::Sending(_) => {}
        }
    }
}

impl<S: Service> HttpHandler<S> {
    /// Carries out an answer of a service, of a job or at the end of a body. `charge` is the memory that the answer may hold. This is a loop, because
    /// an answer may lead to another one. Test: `an_answer_may_lead_to_the_next_one_a_hundred_thousand_times`.
    pub(crate) fn carry_out(
        &mut self,
        conn: &mut Conn,
        mut answer: Answer,
        mut charge: Option<Charge>,
        mut times: Times,
        requested: Requested<'_>,
        cx: &mut Context<'_>,
    ) {
        let state = loop {
            answer = match unwrap_limits(answer, &mut times, conn.machine.is_in_body(), cx) {
                Answer::Now(response) => {
                    drop(charge); // `respond_in_pieces` charges the response if it does not fit the output space.
                    return self.respond_within(conn, response, times, cx);
                }
                Answer::At(at, response) => {
                    cx.pause();
                    drop(charge);
                    match self.charge_response(&response, requested, cx) {
                        Ok(charge) => break State::Later { at, response, _charge: charge },
                        Err(instead) => return self.respond_within(conn, instead, times, cx),
                    }
                }
                // The request has no body, or it was read to its end. Waiting for one would never end.
                Answer::Read(sink) if !conn.machine.is_in_body() => sink.end(),
                Answer::Read(sink) => {
                    // The connection waits for its client again, as it did for the head.
                    cx.expendable();
                    break State::Reading(sink, charge);
                }
                Answer::Job(work) => {
                    cx.pause();
                    conn.job_serial = conn.job_serial.wrapping_add(1);
                    let responses = Arc::clone(&self.ledger.responses);
                    let from = Origin { token: cx.token(), serial: conn.job_serial, charge, responses };
                    match self.dispatcher.dispatch(work, JobOutput::Answer, from, cx.now()) {
                        Dispatched::Admitted(job) => break State::Working(job),
                        Dispatched::Ran(answer, held) => {
                            charge = held;
                            answer
                        }
                        Dispatched::Refused(retry_after) => {
                            let response = self.busy(retry_after, requested, cx);
                            return self.respond_within(conn, response, times, cx);
                        }
                    }
                }
                Answer::Stream { head, source } => match self.charge_stream(&*source, charge, requested, cx) {
                    Ok(charge) => break State::Streaming(Streaming::new(head, source, conn.machine.is_in_body(), charge)),
                    Err(instead) => {
                        conn.machine.give_up_body();
                        return self.respond_within(conn, instead, times, cx);
                    }
                },
                Answer::Limited(limited) => limited.answer,
            };
        };
        let exchange = Box::new(Exchange { times, state });
        cx.deadline(exchange.due(conn.machine.is_in_body()));
        conn.exchange = Some(exchange);
        self.go_on(conn, cx);
    }

    /// Continues the exchange: there is output space, the connection was woken, or the exchange has just begun.
    pub(crate) fn go_on(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.as_mut() else { return };
        if exchange.times.continue_due {
            if cx.output_space() < CONTINUE.len() {
                return cx.want_writable();
            }
            exchange.times.continue_due = false;
            cx.write(CONTINUE);
        }
        match exchange.state {
            State::Sending(_) => self.send_more(conn, cx),
            State::Streaming(_) => self.pump(conn, cx),
            State::Later { .. } | State::Working(_) | State::Reading(..) => {}
        }
    }

    /// Handles a piece of the request's body. Returns the number of bytes taken.
    pub(crate) fn body(&mut self, conn: &mut Conn, piece: &[u8], last: bool, cx: &mut Context<'_>) -> usize {
        let Some(exchange) = conn.exchange.as_mut() else { unreachable!("a body belongs to an exchange") };
        exchange.times.continue_due = false;
        if piece.len() as u64 > exchange.times.body_left_bytes {
            return self.body_too_long(conn, cx);
        }
        match &mut exchange.state {
            State::Reading(sink, charge) => {
                if grow(charge, &self.ledger.bodies, sink.memory_bytes(piece.len())).is_err() {
                    self.reject_body(conn, cx);
                    return 0;
                }
                let taken = sink.take(piece).min(piece.len());
                conn.machine.took(taken);
                exchange.times.body_came(taken);
                if taken < piece.len() {
                    conn.machine.give_up_body();
                }
                if taken < piece.len() || last {
                    self.body_ended(conn, cx);
                }
                taken
            }
            State::Streaming(_) => self.body_while_streaming(conn, piece, last, cx),
            State::Later { .. } | State::Working(_) | State::Sending(_) => unreachable!("the body was read or given up"),
        }
    }

    /// A body without a length has become longer than the answer's limits allow. The handler reads no more of it.
    #[cold]
    fn body_too_long(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> usize {
        if conn.exchange.as_ref().is_some_and(|exchange| !exchange.is_reading()) {
            self.fail(conn, too_long(), cx);
            return 0;
        }
        conn.machine.give_up_body();
        let Some(exchange) = conn.exchange.take() else { return 0 };
        cx.essential();
        let Exchange { times, state } = *exchange;
        if let State::Reading(sink, charge) = state {
            log_rejection(&too_long(), Requested::Unknown, cx);
            self.carry_out(conn, sink.too_long(), charge, times, Requested::Unknown, cx);
        }
        0
    }

    fn body_ended(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.take() else { return };
        let Exchange { times, state } = *exchange;
        cx.essential();
        if let State::Reading(sink, charge) = state {
            let answer = sink.end();
            self.carry_out(conn, answer, charge, times, Requested::Unknown, cx);
        }
    }

    /// Handles the result of a job.
    pub(crate) fn job_ended(&mut self, conn: &mut Conn, outcome: Outcome<JobOutput>, charge: Option<Charge>, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.as_ref() else { return };
        if matches!(exchange.state, State::Streaming(_)) {
            return self.stream_job_ended(conn, outcome, charge, cx);
        }
        let times = exchange.times;
        let response = match outcome {
            Outcome::Done(JobOutput::Answer(answer)) => {
                conn.exchange = None;
                return self.carry_out(conn, answer, charge, times, Requested::Unknown, cx);
            }
            Outcome::Done(JobOutput::Dropped) => self.out_of_memory(Requested::Unknown, cx),
            Outcome::Done(JobOutput::Bytes(_)) => unreachable!("asked for an answer"),
            Outcome::Panicked => Response::text("internal error\n").status(500), // The log has the panic.
            Outcome::Expired => deadline_passed(cx),
            Outcome::Shed | Outcome::Dropped => self.busy(Duration::ZERO, Requested::Unknown, cx),
            // Only this crate cancels a job, and only if no client waits for the response.
            Outcome::Cancelled => return cx.abort(),
        };
        self.respond_within(conn, response, times, cx);
    }

    /// Cuts a response that has begun and cannot be completed, and closes its connection.
    ///
    /// It closes with FIN where possible: a reset could destroy earlier, complete responses (RFC 9112 section 9.6; nginx `lingering_close`). It
    /// resets where FIN would make the response look complete. It also resets once the deadline of the exchange has passed, and does not wait longer
    /// for a peer that does not read.
    #[cold]
    pub(crate) fn cut(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.take() else { return };
        self.count_out(conn);
        exchange.call_off();
        match exchange.answered() {
            Some(status) => self.stats.responded(status),
            None => self.stats.broken_streams.add(1),
        }
        cx.reset_output_rate_min();
        if exchange.cut_shows() && !exchange.times.is_over(cx.now()) {
            cx.deadline(exchange.times.deadline);
            cx.close();
        } else {
            cx.abort();
        }
    }

    /// Handles the exchange's only timer: see [`Exchange::due`].
    pub(crate) fn exchange_deadline(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let now = cx.now();
        let is_in_body = conn.machine.is_in_body();
        let Some(exchange) = conn.exchange.as_mut() else { return };
        let times = exchange.times;
        if is_in_body {
            match exchange.times.body.judge(cx.input_is_held(), now) {
                Judgement::NotYet => {}
                Judgement::Next if exchange.is_reading() => cx.expendable(),
                Judgement::Next => {}
                Judgement::TooSlow => {
                    self.stats.body_timeouts.add(1);
                    return self.fail(conn, Response::text("request body too slow\n").status(408), cx);
                }
            }
        }
        if let State::Streaming(streaming) = &mut exchange.state {
            streaming.pull_is_due(now);
        }
        match &exchange.state {
            State::Later { at, .. } if *at <= now || times.is_over(now) => {
                let Some(exchange) = conn.exchange.take() else { return };
                if let State::Later { response, _charge, .. } = exchange.state {
                    drop(_charge); // As in `carry_out`: `respond_in_pieces` charges the response.
                    self.respond_within(conn, response, times, cx);
                }
            }
            // The pool drops the job, or the job ends at its next checkpoint. A call that cannot be interrupted (getaddrinfo) continues, and its
            // result arrives too late. The client gets its response now.
            State::Working(job) if job.deadline <= now => self.respond_within(conn, deadline_passed(cx), times, cx),
            _ if !times.is_over(now) => {
                cx.deadline(exchange.due(is_in_body));
                self.go_on(conn, cx);
            }
            state => {
                self.stats.request_timeouts.add(1);
                let (status, text) = match state {
                    State::Reading(..) => (408, "request body too slow\n"),
                    _ => (503, "request timeout\n"),
                };
                self.fail(conn, Response::text(text).status(status), cx);
            }
        }
    }
}

fn deadline_passed(cx: &Context<'_>) -> Response {
    let response = Response::text("deadline passed\n").status(504);
    log_rejection(&response, Requested::Unknown, cx);
    response
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Later { .. } => "later",
            State::Working(_) => "working",
            State::Reading(..) => "reading",
            State::Sending(_) => "sending",
            State::Streaming(_) => "streaming",
        };
        f.debug_struct("Exchange").field("state", &state).finish_non_exhaustive()
    }
}
