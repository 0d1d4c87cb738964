//! Graceful shutdown: accept the queued clients, stop listening, notify the connections, and wait for them within a grace time.
//!
//! When a listener is closed, the kernel resets the clients in its queue, so the queue is emptied first (`listen/accept.rs`). Test:
//! `a_graceful_shutdown_loses_no_client`. If another process holds the socket too, closing does not reset its queue. Then the loop accepts the clients
//! that were queued when the shutdown began, and leaves later ones to the next server. Test: `an_inherited_queue_is_left_to_the_next_loop`.

use std::time::Duration;

use crate::event_loop::{EventLoop, sooner};
use crate::handle::Shutdown;
use crate::handler::{Handler, Pressure};
use crate::listen::socket::LISTEN_BACKLOG;
use crate::os::Os;
use crate::timers;
use crate::visit::Cause;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Begins a graceful shutdown. If one is in progress, the loop ends at the earlier of the two times. Test:
    /// `of_several_shutdowns_the_one_that_ends_first_counts`.
    pub(crate) fn start_shutdown(&mut self, grace: Duration) {
        let until = timers::after(self.shared.now, grace);
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.until = sooner(shutdown.until, until);
            return;
        }
        for listener in &mut self.listeners {
            // The loop calls accept(2) once more before it closes the listener, whatever the last event reported.
            listener.ready = true;
            if listener.inherited {
                // The clients that were queued when the order came are at the head of the queue, and a queue of the default length holds no
                // more than this. The rest of a longer queue waits for the next server. Without this bound, clients that connect faster
                // than the loop accepts would keep it from closing the socket. Test: `a_queue_that_never_empties_does_not_keep_it`.
                listener.accepts_left = Some(LISTEN_BACKLOG.unsigned_abs());
            }
        }
        // From now on this loop serves new clients itself. The other loops may end when they have adopted the connections in flight.
        self.receivers.clear();
        let to_notify = self.entries.iter().next_back().map_or(0, |(slot, _)| slot as u32 + 1);
        self.shutdown = Some(Shutdown { until, notified: 0, to_notify });
    }

    /// Whether connections are still to be notified, so that the poll must not sleep.
    pub(crate) fn shutdown_can_progress(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.notified < shutdown.to_notify)
    }

    /// Continues a graceful shutdown: notifies at most as many connections as a turn may close, and ends the loop when none is left or the grace is
    /// over.
    pub(crate) fn continue_shutdown(&mut self) {
        let Some(shutdown) = &mut self.shutdown else { return };
        let from = shutdown.notified;
        let to = shutdown.to_notify.min(from.saturating_add(self.shared.limits.closes_per_turn_max));
        shutdown.notified = to;
        let until = shutdown.until;
        for slot in from..to {
            self.visit_because(slot, Cause::Pressed(Pressure::ShuttingDown));
        }
        let listening = self.listeners.iter().any(|listener| listener.socket.is_some());
        if (!listening && self.givers == 0 && self.entries.is_empty() && !self.mail_waits && self.adoptions_waiting.is_empty())
            || until.is_some_and(|until| until <= self.shared.now)
        {
            self.shared.stop = true;
        }
    }
}
