//! What the handler charges to the ledger, and the 503 when a budget is spent.

use std::sync::Arc;
use std::time::Duration;

use reactor::Context;

use crate::answer::{Answer, StreamSource};
use crate::connection::{Conn, HttpHandler};
use crate::http::{BodyKind, Response};
use crate::ledger::{Charge, Ledger, MemoryBudget, Spent};
use crate::rejection_log::{Requested, log_rejection};
use crate::service::Service;

/// What a job of a stream may return: one buffer, unless the service asks for more. Charged before the job is offered, and corrected when it returns.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// Makes a charge to `budget` at least `bytes`.
pub(crate) fn grow(charge: &mut Option<Charge>, budget: &Arc<MemoryBudget>, bytes: usize) -> Result<(), Spent> {
    match charge {
        Some(charge) => charge.grow_to(bytes),
        None if bytes == 0 => Ok(()),
        None => {
            *charge = Some(budget.charge(bytes)?);
            Ok(())
        }
    }
}

impl<S: Service> HttpHandler<S> {
    /// Charges memory to a ledger that other loops share.
    pub fn share_ledger(&mut self, ledger: Arc<Ledger>) {
        self.ledger = ledger;
    }

    /// 503: a budget of memory is spent.
    pub(crate) fn out_of_memory(&mut self, requested: Requested<'_>, cx: &Context<'_>) -> Response {
        self.stats.memory_refusals.add(1);
        let response = self.retry_later("out of memory\n", Duration::ZERO);
        log_rejection(&response, requested, cx);
        response
    }

    /// Tells a sink the length of the body, and answers 503 instead of reading a body that there is no memory for. Nothing is charged yet, since a length is
    /// only a promise: the charge grows with what arrives.
    pub(crate) fn admit_body(&mut self, mut answer: Answer, body: BodyKind, requested: Requested<'_>, cx: &Context<'_>) -> Answer {
        if let (Answer::Read(sink), BodyKind::Length(bytes)) = (&mut answer, body) {
            sink.expect(bytes);
            let bytes = sink.memory_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
            if bytes > 0 && !self.ledger.bodies.has_left(bytes) {
                return self.out_of_memory(requested, cx).into();
            }
        }
        answer
    }

    /// Answers 503 in the middle of a body that there is no memory for.
    #[cold]
    pub(crate) fn reject_body(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let Some(exchange) = conn.exchange.take() else { return };
        conn.machine.give_up_body();
        cx.essential();
        let response = self.out_of_memory(Requested::Unknown, cx);
        self.respond_within(conn, response, exchange.times, cx);
    }

    /// Charges a response that has to wait.
    ///
    /// # Errors
    /// The response to send instead.
    pub(crate) fn charge_response(
        &mut self,
        response: &Response,
        requested: Requested<'_>,
        cx: &Context<'_>,
    ) -> Result<Option<Charge>, Response> {
        match response.owned_bytes() {
            0 => Ok(None),
            bytes => self.ledger.responses.charge(bytes).map(Some).map_err(|Spent| self.out_of_memory(requested, cx)),
        }
    }

    /// Charges what an answer holds that waits until a body has ended. If the budget is spent, the answer is another one.
    pub(crate) fn charge_answer(&mut self, answer: Answer, requested: Requested<'_>, cx: &Context<'_>) -> (Answer, Option<Charge>) {
        let charged = match &answer {
            Answer::Now(response) | Answer::At(_, response) => self.charge_response(response, requested, cx),
            Answer::Stream { source, .. } => self.charge_stream(&**source, None, requested, cx),
            Answer::Job(_) | Answer::Read(_) | Answer::Limited(_) => Ok(None),
        };
        match charged {
            Ok(charge) => (answer, charge),
            Err(instead) => (instead.into(), None),
        }
    }

    /// Charges what a stream may hold, on top of what the exchange holds for it already.
    ///
    /// # Errors
    /// The response to send instead.
    pub(crate) fn charge_stream(
        &mut self,
        source: &dyn StreamSource,
        mut charge: Option<Charge>,
        requested: Requested<'_>,
        cx: &Context<'_>,
    ) -> Result<Option<Charge>, Response> {
        let bytes = source.memory_bytes_max();
        let held = charge.as_ref().map_or(0, Charge::bytes);
        match grow(&mut charge, &self.ledger.bodies, held.saturating_add(bytes)) {
            Ok(()) => Ok(charge),
            Err(Spent) => Err(self.out_of_memory(requested, cx)),
        }
    }
}
