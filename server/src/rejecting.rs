//! Rejections that the handler makes without the service: a connection that is evicted for a newcomer, and a request that is no valid one.

use reactor::Context;

use crate::connection::{Conn, HttpHandler};
use crate::http::{AtEnd, Refusal, Response};
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

    /// Answers what the machine refuses. Returns false if there is not enough output space yet: the machine will refuse again.
    #[cold]
    pub(crate) fn refuse(&mut self, conn: &mut Conn, refusal: Refusal, cx: &mut Context<'_>) -> bool {
        if self.withdraw(conn, cx) && cx.output_space() < REFUSAL_BYTES_MAX {
            cx.want_writable();
            return false;
        }
        self.stats.refusals(refusal).add(1);
        log::debug!("refused reason={} status={}", refusal.label(), refusal.status());
        self.fail(conn, Response::text(refusal.label()).status(refusal.status()), cx);
        true
    }
}
