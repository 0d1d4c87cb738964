//! Rejections that the handler makes without the service: a connection that is evicted for a newcomer, and a request that is not valid.

use reactor::Context;

use crate::connection::{Conn, HttpHandler};
use crate::http::{AtEnd, Refusal, Response};
use crate::rejection_log::{Requested, log_rejection};
use crate::service::Service;

/// A refusal fits this: about 150 bytes of head, and its reason.
const REFUSAL_BYTES_MAX: usize = 512;

impl<S: Service> HttpHandler<S> {
    /// The connection limit nears, and this one has waited for its peer for the longest. An idle one goes without a word, as at its timeout.
    pub(crate) fn make_room(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let (counter, text) = match conn.exchange {
            Some(_) => (&self.stats.body_evictions, "request body too slow for a busy server\n"),
            None if conn.in_head => (&self.stats.header_evictions, "request head too slow for a busy server\n"),
            None => (&self.stats.idle_evictions, ""),
        };
        counter.add(1);
        if conn.machine.ended() != AtEnd::Clean {
            self.fail(conn, Response::text(text).status(408), cx);
        }
    }

    /// Answers what the machine refuses at the beginning of `input`. Returns false if there is not enough output space yet: the machine will refuse
    /// again.
    #[cold]
    pub(crate) fn refuse(&mut self, conn: &mut Conn, refusal: Refusal, input: &[u8], cx: &mut Context<'_>) -> bool {
        if self.withdraw(conn, cx) && cx.output_space() < REFUSAL_BYTES_MAX {
            cx.want_writable();
            return false;
        }
        self.stats.refusals(refusal).add(1);
        // Within a body the head has been taken: what is there is not a request line.
        let requested = if conn.in_flight { Requested::Unknown } else { Requested::Head(input) };
        let response = Response::text(refusal.label()).status(refusal.status()).close();
        if self.end_with(conn, &response, cx) {
            log_rejection(&response, requested, cx);
        }
        true
    }
}
