//! The beginning of an exchange: what the service answered to a request head, and whether the request's body is read, dropped or given up.
//!
//! Read next: `exchange.rs`, which carries the answer out.

use reactor::Context;

use crate::answer::{Answer, BodySink, too_long};
use crate::connection::{Conn, HttpHandler};
use crate::exchange_limits::{Times, unwrap_limits};
use crate::http::{BodyKind, Request, Response};
use crate::ledger::Charge;
use crate::rejection_log::{Requested, log_rejection};
use crate::service::Service;

/// Body that an answer does not need is read and dropped if it is at most this long; beyond, the connection closes after the answer.
/// One buffer: what the peer may have sent before it could know.
const UNWANTED_BODY_BYTES_MAX: u64 = 64 << 10;

/// Drops a body and then gives the answer that was there before it.
struct Unwanted {
    answer: Option<Answer>,
    /// The memory of the answer until the body has ended. Then it is charged again, where it waits for something else.
    _charge: Option<Charge>,
}

impl BodySink for Unwanted {
    fn take(&mut self, piece: &[u8]) -> usize {
        piece.len()
    }

    fn end(mut self: Box<Self>) -> Answer {
        self.answer.take().unwrap_or_else(|| Answer::Now(Response::empty(500)))
    }
}

impl<S: Service> HttpHandler<S> {
    /// The service has answered a head. `nothing_follows`: of the body, nothing has arrived yet.
    #[inline]
    pub(crate) fn begin(&mut self, conn: &mut Conn, answer: Answer, request: &Request<'_>, nothing_follows: bool, cx: &mut Context<'_>) {
        if request.body == BodyKind::None
            && let Answer::Now(response) = answer
        {
            // The common case: nothing to keep, nothing to allocate.
            return self.respond(conn, response, cx.now(), cx);
        }
        self.begin_exchange(conn, answer, request, nothing_follows, cx);
    }

    fn begin_exchange(&mut self, conn: &mut Conn, answer: Answer, request: &Request<'_>, nothing_follows: bool, cx: &mut Context<'_>) {
        self.count_in(conn);
        let (body, requested) = (request.body, Requested::Target(request.target));
        let has_body = body != BodyKind::None;
        let mut times = Times::new(&self.settings, cx.now(), has_body);
        let answer = unwrap_limits(answer, &mut times, has_body, cx);
        cx.essential();
        // RFC 9110 section 10.1.1: only a peer that has sent nothing of the body yet waits to be asked for it.
        let waits = nothing_follows && conn.machine.take_continue();
        if let Answer::Read(sink) = &answer {
            times.body_left_bytes = times.body_left_bytes.min(sink.bytes_max());
        }
        let is_too_long = matches!(body, BodyKind::Length(bytes) if bytes > times.body_left_bytes);
        let (answer, wanted) = match answer {
            Answer::Read(sink) if is_too_long => {
                log_rejection(&too_long(), requested, cx);
                (sink.too_long(), false)
            }
            Answer::Stream { source, .. } if is_too_long && source.wants_body() => {
                let response = too_long();
                log_rejection(&response, requested, cx);
                (response.into(), false)
            }
            answer => {
                let answer = self.admit_body(answer, body, requested, cx);
                let wanted = match &answer {
                    Answer::Read(_) => true,
                    Answer::Stream { source, .. } => source.wants_body(),
                    Answer::Now(_) | Answer::At(..) | Answer::Job(_) | Answer::Limited(_) => false,
                };
                (answer, wanted)
            }
        };
        let answer = match body {
            BodyKind::None => answer,
            BodyKind::Length(_) | BodyKind::Chunked if wanted => {
                times.continue_due = waits;
                answer
            }
            BodyKind::Length(bytes) if bytes <= UNWANTED_BODY_BYTES_MAX && !waits => {
                times.body_left_bytes = bytes;
                let (answer, charge) = self.charge_answer(answer, requested, cx);
                Answer::Read(Box::new(Unwanted { answer: Some(answer), _charge: charge }))
            }
            BodyKind::Length(_) | BodyKind::Chunked => {
                conn.machine.give_up_body();
                answer
            }
        };
        self.carry_out(conn, answer, None, times, requested, cx);
    }
}
