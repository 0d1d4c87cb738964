//! A connection whose socket has failed: a write error ends output, not what was already received.
//!
//! A server that answers 413 and closes with input unread sends its response and then a reset. The response is still in the receive queue
//! then: `tcp_reset` (net/ipv4/tcp_input.c) drops what is to be sent and nothing else. So an *outbound* connection that fails is read until
//! nothing more has arrived, and closes after its handler has taken that. Until then its output is discarded.
//!
//! An *accepted* connection closes at once. A request that came before the reset does not reach the service, since its response could not be
//! delivered.
//!
//! The kernel reports an error once, to a write, to a read or to `SO_ERROR`, and after that a read behind the last byte returns 0, as at a
//! FIN. Only the error itself tells the two apart: EPIPE when the FIN came first, anything else when it did not. A response that ends with the
//! connection would otherwise look complete when it was cut off. Test:
//! `an_outbound_connection_delivers_what_its_peer_sent_before_it_failed`. Read next: `closing.rs`.

use std::io;

use crate::connection::drain_read::Drained;
use crate::connection::flags::Flags;
use crate::connection::visit::Visit;
use crate::handler::{CloseReason, Handler};
use crate::os::Os;

impl<H: Handler, O: Os> Visit<'_, H, O> {
    /// Notes that the socket has failed. True if the connection stays open to deliver what has arrived; if not, the caller closes it.
    #[cold]
    pub(crate) fn stays_to_deliver(&mut self, error: &io::Error) -> bool {
        let flags = &mut self.entry.control.flags;
        if !flags.has(Flags::OUTBOUND) || flags.has(Flags::NO_MORE_MESSAGES) {
            return false;
        }
        // The first error counts: the kernel answers EPIPE to every later write.
        if !flags.has(Flags::FAILED) && error.raw_os_error() == Some(libc::EPIPE) {
            flags.set(Flags::FIN_BEFORE_FAILURE);
        }
        flags.set(Flags::FAILED.or(Flags::WRITABLE).or(Flags::READ_TO_THE_END));
        if !flags.has(Flags::INPUT_ENDED) {
            flags.set(Flags::READABLE);
        }
        // There is no pending output any more, so nothing waits for it.
        flags.clear(Flags::OUTPUT_FULL.or(Flags::INPUT_WAITS));
        self.entry.stall_at = None;
        self.shared.drop_output(self.token.slot);
        self.output.truncate(0);
        self.output_before = 0;
        true
    }

    /// A read has failed, perhaps behind bytes that it did return.
    #[cold]
    pub(super) fn read_failed(&mut self, error: &io::Error) {
        if self.stays_to_deliver(error) {
            self.input_is_cut_off();
        } else {
            self.die(CloseReason::Reset);
        }
    }

    /// What the end of a read means after a failure: no event will come, so whatever has not arrived by now is lost.
    #[cold]
    pub(super) fn read_after_failure(&mut self, drained: Drained) {
        match drained {
            Drained::PeerClosed if self.entry.control.flags.has(Flags::FIN_BEFORE_FAILURE) => {
                self.flags().clear(Flags::READABLE);
                self.flags().set(Flags::INPUT_ENDED);
            }
            Drained::PeerClosed | Drained::Empty | Drained::Failed(_) => self.input_is_cut_off(),
            Drained::BudgetSpent | Drained::BufferFull => {}
        }
    }

    /// Nothing more can be read, and the handler is not to take that for the peer's end.
    fn input_is_cut_off(&mut self) {
        self.flags().clear(Flags::READABLE);
        self.flags().set(Flags::INPUT_ENDED.or(Flags::END_TOLD));
    }

    /// Closes a failed connection when its handler has taken what had arrived, or does not want it.
    #[cold]
    pub(super) fn settle_failed(&mut self) {
        let flags = self.entry.control.flags;
        let delivered = flags.has(Flags::END_TOLD) && !flags.has(Flags::UNPARSED);
        // It waits for output space, which never comes, before it wants input.
        let blocked = flags.has(Flags::PAUSED) && flags.has(Flags::WANTS_ROOM);
        if delivered || blocked || flags.has(Flags::CLOSE) {
            let reason = match self.entry.reason {
                CloseReason::Finished => CloseReason::Reset,
                reason => reason,
            };
            self.die(reason);
        }
    }
}
