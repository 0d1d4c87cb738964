//! Graceful shutdown (drain): accept the queued clients, stop listening, notify the connections, and wait for them within a grace time.
//!
//! When a listener is closed, the kernel resets the clients in its queue, so the queue is emptied first (`listen/accept.rs`). Test:
//! `a_drain_loses_nobody`. If another process holds the socket too, closing does not reset its queue. Then the loop accepts the clients
//! that were queued when the shutdown began, and leaves later ones to the next server. Test: `an_inherited_queue_is_left_to_the_next_loop`.

use std::time::Duration;

use crate::clock;
use crate::event_loop::{EventLoop, sooner};
use crate::handle::Drain;
use crate::handler::{Handler, Pressure};
use crate::listen::socket::LISTEN_BACKLOG;
use crate::os::Os;
use crate::visit::Cause;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Begins a drain. If one is in progress, the loop ends at the earlier of the two times. Test:
    /// `of_several_drains_the_one_that_ends_first_holds`.
    pub(crate) fn start_drain(&mut self, grace: Duration) {
        let until = clock::after(self.shared.now, grace);
        if let Some(drain) = &mut self.drain {
            drain.until = sooner(drain.until, until);
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
        let to_tell = self.entries.iter().next_back().map_or(0, |(slot, _)| slot as u32 + 1);
        self.drain = Some(Drain { until, told: 0, to_tell });
    }

    /// Whether connections are still to be notified, so that the poll must not sleep.
    pub(crate) fn drain_can_progress(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.told < drain.to_tell)
    }

    /// Continues a drain: notifies at most as many connections as a turn may close, and ends the loop when none is left or the grace is
    /// over.
    pub(crate) fn go_on_draining(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let from = drain.told;
        let to = drain.to_tell.min(from.saturating_add(self.shared.limits.closes_per_turn_max));
        drain.told = to;
        let until = drain.until;
        for slot in from..to {
            self.visit_because(slot, Cause::Pressed(Pressure::Draining));
        }
        let listening = self.listeners.iter().any(|listener| listener.socket.is_some());
        if (!listening && self.givers == 0 && self.entries.is_empty() && !self.mail_waits)
            || until.is_some_and(|until| until <= self.shared.now)
        {
            self.shared.stop = true;
        }
    }
}
