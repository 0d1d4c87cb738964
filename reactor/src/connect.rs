//! Outbound connections: begun with a non-blocking connect(2), and finished by an event or a deadline.
//!
//! When the socket becomes writable, `SO_ERROR` holds the result (connect(2), EINPROGRESS). An attempt ends in one callback: `opened` or
//! `connect_failed`. Test: `an_outbound_connection_begins_or_fails_exactly_once`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::address::Connect;
use crate::context::LoopContext;
use crate::errors::CloseReason;
use crate::event_loop::EventLoop;
use crate::handler::{Handler, Origin, Pressure};
use crate::os::{Os, Ready};
use crate::slot::{Bits, Phase};
use crate::stats::{Callback, Stats};
use crate::timers;
use crate::visit::Cause;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Begins the connects that are queued, within the stage's count and time. A connect that a callback requests here waits for the next
    /// turn. Test: `connections_outward_are_begun_within_a_budget_and_all_in_the_end`.
    pub(crate) fn start_connects(&mut self) {
        if self.shared.connects.is_empty() {
            return;
        }
        let budget = self.shared.limits.connects_per_turn_max.min(self.connects_allowed()) as usize;
        let mut stage = self.stage(self.shared.limits.connects_time_max);
        for _ in 0..self.shared.connects.len().min(budget) {
            let Some(connect) = self.shared.connects.pop_front() else { return };
            if let Err(e) = self.start_connect(&connect) {
                self.connect_failed(connect.tag, e);
            }
            if self.time_is_up(&mut stage, 1) {
                return;
            }
        }
    }

    /// Begins one connect: slot, socket, deadline, registration.
    fn start_connect(&mut self, connect: &Connect) -> io::Result<()> {
        if self.entries.len() >= self.shared.limits.connections_max as usize {
            return Err(io::Error::other(format!("connections_max ({}) is reached", self.shared.limits.connections_max)));
        }
        let stream = self.os.connect(connect, self.shared.limits.kernel_unsent_bytes_max)?;
        let token = self.shared.slots.insert(&mut self.entries, stream, Phase::Connecting { tag: connect.tag });
        let state = self.shared.slots.get_mut(token.slot);
        state.bits.insert(Bits::OUTBOUND);
        state.deadline = timers::after(self.shared.now, connect.timeout);
        let due = state.deadline;
        self.slots_taken.opened(None);
        self.shared.stats.connections_open.set(self.entries.len() as u64);
        self.shared.stats.connections_connecting.add(1);
        self.shared.stats.connects.add(1);
        self.shared.wheel.set(token.slot, due, self.shared.now);
        let entry = &mut self.entries[token.slot as usize];
        if let Err(e) = self.os.register(&mut entry.stream, token) {
            self.connect_ended(token.slot, Err(e));
        }
        Ok(())
    }

    /// Handles an event on a connecting socket: connected, failed, or still in progress.
    pub(crate) fn connect_event(&mut self, slot: u32, ready: Ready) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        if ready.intersects(Ready::READ_CLOSED.union(Ready::PRIORITY)) {
            // The peer has accepted, sent data and closed before this event, and no other event reports that. Without the flag a short read
            // would count as the end of the data, and the FIN would not be read. Test:
            // `a_peer_that_spoke_and_ended_before_we_looked_is_heard_to_the_end`.
            self.shared.slots.get_mut(slot).bits.insert(Bits::READ_TO_THE_END);
        }
        match self.os.take_error(&mut entry.stream) {
            Ok(None) if self.os.is_connected(&mut entry.stream) => self.connect_ended(slot, Ok(())),
            Ok(None) => {} // A spurious event: still in progress.
            Ok(Some(e)) | Err(e) => self.connect_ended(slot, Err(e)),
        }
    }

    /// Ends an attempt that has a slot, with success or an error.
    pub(crate) fn connect_ended(&mut self, slot: u32, result: io::Result<()>) {
        let state = self.shared.slots.get_mut(slot);
        let Phase::Connecting { tag } = state.phase else { return };
        self.shared.progress = true;
        self.shared.stats.connections_connecting.sub(1);
        state.deadline = None;
        match result {
            Ok(()) => {
                state.enter(Phase::Open);
                // The peer may have sent data already, and the event for it may be the one that reported the connection.
                state.bits.insert(Bits::READABLE);
                self.visit_because(slot, Cause::Opened(Origin::Connected { tag }));
                if self.shutdown.is_some() {
                    // The shutdown did not notify it, because it was not open then. Test:
                    // `a_connection_that_opens_during_a_shutdown_is_notified`.
                    self.visit_because(slot, Cause::Pressed(Pressure::ShuttingDown));
                }
            }
            Err(e) => {
                self.kill(slot, CloseReason::ConnectFailed);
                self.connect_failed(tag, e);
            }
        }
    }

    /// Calls the handler's `connect_failed`.
    pub(crate) fn connect_failed(&mut self, tag: u64, error: io::Error) {
        self.shared.stats.connect_failures.add(1);
        self.shared.stats.enter(Callback::ConnectFailed, Stats::NO_SLOT);
        let Self { handler, shared, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| handler.connect_failed(tag, error, &mut LoopContext { shared }))).is_err() {
            self.shared.stats.panics.add(1); // There is no connection to close.
        }
        self.shared.stats.leave();
    }
}
