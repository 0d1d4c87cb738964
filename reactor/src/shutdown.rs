//! The orderly end of a loop: accept what the kernel has queued, stop listening, tell everyone, wait for the last, within a grace time.
//!
//! Closing a listener resets whoever is still in its queue (failure mode H3), so it is emptied first (`listen/accept.rs`). One that another
//! process holds too is not reset; there the queue is the next server's, but for those who were in it before.

use std::time::Duration;

use crate::clock;
use crate::event_loop::{EventLoop, sooner};
use crate::handle::Drain;
use crate::handler::{Handler, Pressure};
use crate::listen::socket::LISTEN_BACKLOG;
use crate::os::Os;
use crate::visit::Cause;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Begins to drain. A loop that drains already ends at the earlier of the two times.
    pub(crate) fn start_drain(&mut self, grace: Duration) {
        let until = clock::after(self.shared.now, grace);
        if let Some(drain) = &mut self.drain {
            drain.until = sooner(drain.until, until);
            return;
        }
        for listener in &mut self.listeners {
            // Whatever the last event said: the queue is looked at once more before it is closed.
            listener.ready = true;
            if listener.inherited {
                // Those who were in the queue when the order came are at its head; a queue of the usual length holds no more than this. The
                // rest of a longer one waits for the next server. Without a bound a loop that is slower than its clients come would never
                // let go.
                listener.accepts_left = Some(LISTEN_BACKLOG.unsigned_abs());
            }
        }
        // Whoever comes now is told by this loop; the others may end when they have taken what is on its way to them.
        self.receivers.clear();
        let to_tell = self.entries.iter().next_back().map_or(0, |(slot, _)| slot as u32 + 1);
        self.drain = Some(Drain { until, told: 0, to_tell });
    }

    /// Whether the next turn should come at once.
    pub(crate) fn drain_can_progress(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.told < drain.to_tell)
    }

    /// The drain's share of a turn: as many are told as may close in one.
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
