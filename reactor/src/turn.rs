//! The stages of a turn, in their order.
//!
//! Each is bounded by a budget, and what is left makes the next poll return at once. Read next: `connection/visit.rs` for what a visit
//! does, `listen/accept.rs`, `connect.rs`, `drain.rs`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::callback::Callback;
use crate::connection::flags::Flags;
use crate::connection::visit::{Cause, Visit};
use crate::context::LoopContext;
use crate::event_loop::{EventLoop, TRIM_EVERY};
use crate::handler::{CloseReason, Handler};
use crate::limits::CLOCK_INTERVAL_VISITS;
use crate::mail::{Envelope, Order};
use crate::os::{Os, Ready};
use crate::policy::HalfClose;
use crate::ready_list::Queued;
use crate::stats::Stats;
use crate::token::Token;

/// The time of one stage of a turn: when it is up, and how much may be done before the clock is read again.
pub(crate) struct StageTime {
    began: Instant,
    time_max: Duration,
    /// Cost that may be spent before the next reading.
    interval_left: u32,
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Begins a stage. Its time counts from the clock's last reading, so a short stage reads no clock.
    #[inline]
    pub(crate) fn stage(&self, time_max: Duration) -> StageTime {
        StageTime { began: self.shared.clock, time_max, interval_left: CLOCK_INTERVAL_VISITS }
    }

    /// Spends some of a stage's time, in units of a small visit, and returns whether it is up.
    /// `a_stage_ends_within_its_time_and_one_interval_of_the_clock` fails without the reading.
    #[inline]
    pub(crate) fn time_is_up(&mut self, stage: &mut StageTime, cost: u32) -> bool {
        stage.interval_left = stage.interval_left.saturating_sub(cost);
        stage.interval_left == 0 && self.read_clock(stage)
    }

    #[cold]
    fn read_clock(&mut self, stage: &mut StageTime) -> bool {
        stage.interval_left = CLOCK_INTERVAL_VISITS;
        self.shared.clock = self.os.now();
        self.shared.clock.saturating_duration_since(stage.began) >= stage.time_max
    }

    /// A visit to a runnable connection, with a quantum of messages. Returns its cost.
    #[inline(always)]
    fn visit(&mut self, slot: u32, messages_max: u32) -> u32 {
        let Some(mut visit) = self.visit_to(slot, messages_max) else { return 1 };
        visit.run(Visit::see_to_socket);
        visit.cost()
    }

    /// A visit for another reason, and its cost. Apart from the above because a reason can be long, and would be copied with each event.
    pub(crate) fn visit_because(&mut self, slot: u32, cause: Cause<H::Mail>) -> u32 {
        let messages_max = self.shared.limits.first_visit_messages_max;
        if let Some(mut visit) = self.visit_to(slot, messages_max) {
            visit.run(|visit| visit.call_back(cause));
            return visit.cost();
        }
        if let Cause::Mail(mail) = cause {
            self.give_mail_back(mail);
        }
        1
    }

    /// What it takes to visit the connection in a slot, if there is one that can be visited.
    #[inline]
    fn visit_to(&mut self, slot: u32, messages_max: u32) -> Option<Visit<'_, H, O>> {
        let Self { os, handler, shared, entries, scratch, output, .. } = self;
        let entry = entries.get_mut(slot as usize)?;
        if entry.control.flags.has(Flags::DEAD.or(Flags::CONNECTING)) {
            return None;
        }
        let token = shared.slots.token(slot);
        Some(Visit::new(os, handler, shared, scratch, output, entry, token, messages_max))
    }

    /// Ends a connection without another word.
    pub(crate) fn kill(&mut self, slot: u32, reason: CloseReason) {
        let Self { os, handler, shared, entries, scratch, output, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize) else { return };
        let token = shared.slots.token(slot);
        Visit::new(os, handler, shared, scratch, output, entry, token, 0).die(reason);
    }

    /// The stage of a turn that serves runnable connections: those that events report, then the rest of the new list, then the old list. Events
    /// are always taken, since what the kernel has reported it does not report again; the visit may wait for a later turn.
    pub(crate) fn serve_runnable(&mut self) {
        let old_len = self.shared.ready.old_len();
        let time_max = self.shared.limits.visits_time_max;
        let began = self.shared.clock;
        let mut new_stage = self.stage(if old_len == 0 { time_max } else { time_max / 2 });
        let others_wait = self.shared.ready.new_len() > 0;
        self.dispatch_events(&mut new_stage, others_wait);
        if others_wait {
            // Only as many as there are now. A connection that another one wakes from here on may have spent its quantum of this turn.
            let messages_max = self.shared.limits.first_visit_messages_max;
            for _ in 0..self.shared.ready.new_len() {
                let Some(token) = self.shared.ready.pop_new() else { break };
                if self.serve_listed(token, Queued::New, messages_max).is_some_and(|cost| self.time_is_up(&mut new_stage, cost)) {
                    break;
                }
            }
        }
        if old_len == 0 {
            return;
        }
        let mut old_stage = StageTime { began, time_max, interval_left: CLOCK_INTERVAL_VISITS };
        // Once around at most: a connection that joined in this stage has spent a quantum of this turn.
        let messages_max = self.shared.limits.visit_messages_max;
        for _ in 0..old_len {
            let Some(token) = self.shared.ready.pop_old() else { break };
            if self.serve_listed(token, Queued::Old, messages_max).is_some_and(|cost| self.time_is_up(&mut old_stage, cost)) {
                break;
            }
        }
    }

    /// Visits a connection that was taken off a list, and returns the cost. The list holds generations: a slot's old tenant must not take its
    /// new one off the list. (This is not the policy's check of tokens.)
    #[inline(never)]
    fn serve_listed(&mut self, token: Token, from: Queued, messages_max: u32) -> Option<u32> {
        let beside = self.shared.slots.get_mut(token.slot);
        if !beside.open || beside.generation != token.generation || beside.queued != from {
            return None;
        }
        beside.queued = Queued::No;
        Some(self.visit(token.slot, messages_max))
    }

    /// Takes every event that poll returned. Visits the connections while the stage has time, unless others wait on the list of new ones: then, and
    /// when the time is up, they join that list.
    fn dispatch_events(&mut self, stage: &mut StageTime, others_wait: bool) {
        let mut is_up = false;
        let events = std::mem::take(&mut self.events);
        self.shared.stats.events.add(events.len() as u64);
        self.shared.stats.events_per_turn_max.raise_to(events.len() as u64);
        for event in &events {
            if self.shared.slots.is_live(event.token) {
                if !self.becomes_runnable(event.token.slot, event.ready) {
                    continue;
                }
                if is_up || others_wait {
                    self.shared.queue_new(event.token.slot);
                    continue;
                }
                let cost = self.visit(event.token.slot, self.shared.limits.first_visit_messages_max);
                is_up = self.time_is_up(stage, cost);
            } else if event.token == Token::WAKER {
                self.mail_waits = true;
                self.shared.stats.wakes.add(1);
            } else if event.token == Token::TIMER {
                // It has fired and is not armed any more, also if it came early. The next sleep sets it again.
                self.timer_at = None;
            } else if let Some(index) = event.token.listener_index() {
                if let Some(listener) = self.listeners.get_mut(index) {
                    listener.ready = true;
                }
            } else {
                self.shared.stats.stale_tokens.add(1);
            }
        }
        self.events = events;
    }

    /// Writes down what an event says of a connection. Returns whether the connection is to be visited for it: not one that has ended, nor one
    /// that is on a list, whose turn comes.
    #[inline]
    fn becomes_runnable(&mut self, slot: u32, ready: Ready) -> bool {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        let flags = &mut entry.control.flags;
        if flags.has(Flags::DEAD) {
            return false;
        }
        if flags.has(Flags::CONNECTING) {
            self.connect_event(slot, ready);
            return false;
        }
        if ready.has(Ready::READABLE.and(Ready::READ_CLOSED).and(Ready::ERROR)) {
            flags.set(Flags::READABLE);
        }
        if ready.has(Ready::WRITABLE.and(Ready::WRITE_CLOSED).and(Ready::ERROR)) {
            flags.set(Flags::WRITABLE);
        }
        if ready.has(Ready::READ_CLOSED.and(Ready::ERROR).and(Ready::PRIORITY)) {
            flags.set(Flags::READ_TO_THE_END);
        }
        let flags = *flags;
        let gone = ready.has(Ready::ERROR.and(Ready::WRITE_CLOSED)) && !flags.has(Flags::LINGERING);
        if gone && self.has_failed(slot, ready) {
            self.kill(slot, CloseReason::Reset);
            return false;
        }
        // A client that has sent its last byte may have disconnected. A server that has sent its last byte has sent its response.
        let paused = flags.has(Flags::PAUSED) && !flags.has(Flags::NO_MORE_MESSAGES.or(Flags::OUTBOUND));
        if paused && ready.has(Ready::READ_CLOSED) && self.shared.policy.half_close == HalfClose::HasLeft {
            self.kill(slot, CloseReason::PeerClosed);
            return false;
        }
        !self.shared.slots.get(slot).is_queued()
    }

    /// Whether a connection has failed and is to be closed now. While a request is being answered nothing is read, and only this event
    /// reports it. An outbound connection stays open until what has arrived is delivered.
    #[cold]
    fn has_failed(&mut self, slot: u32, ready: Ready) -> bool {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        let error = match ready.has(Ready::ERROR).then(|| self.os.take_error(&mut entry.stream)) {
            Some(Ok(Some(e)) | Err(e)) => e,
            // Shut in both directions, and not by us: an earlier call has taken the error off the socket.
            Some(Ok(None)) | None if ready.has(Ready::WRITE_CLOSED) && entry.control.flags.has(Flags::HELD) => {
                io::ErrorKind::ConnectionReset.into()
            }
            Some(Ok(None)) | None => return false,
        };
        !self.visit_to(slot, 0).is_some_and(|mut visit| visit.stays_to_deliver(&error))
    }

    pub(crate) fn deliver_mail(&mut self) {
        if !self.mail_waits {
            return;
        }
        self.inbox.start_draining();
        let mut stage = self.stage(self.shared.limits.mail_time_max);
        for _ in 0..self.shared.limits.mail_per_turn_max {
            let cost = match self.held_mail.take().or_else(|| self.inbox.take()) {
                Some(Envelope::Mail(to, mail)) => self.deliver(to, mail),
                Some(socket @ Envelope::Socket { .. }) if self.accepts_left == 0 => {
                    // A connection that another loop accepted counts as an accept of this one. The mail behind it keeps its order.
                    self.held_mail = Some(socket);
                    return;
                }
                Some(Envelope::Socket { descriptor, peer, listener }) => {
                    self.accepts_left -= 1;
                    self.adopt(descriptor, peer, listener);
                    1
                }
                Some(Envelope::NoMoreSockets) => {
                    self.givers -= 1;
                    1
                }
                None => {
                    self.mail_waits = false;
                    return;
                }
            };
            if self.time_is_up(&mut stage, cost) {
                return;
            }
        }
    }

    fn deliver(&mut self, to: Token, mail: H::Mail) -> u32 {
        self.shared.progress = true;
        if self.shared.slots.is_live(to) {
            self.visit_because(to.slot, Cause::Mail(mail))
        } else {
            self.give_mail_back(mail);
            1
        }
    }

    /// To the handler, since its connection has gone.
    pub(crate) fn give_mail_back(&mut self, mail: H::Mail) {
        self.shared.stats.mail_undelivered.add(1);
        self.shared.stats.enter(Callback::Mail, Stats::NO_SLOT);
        if catch_unwind(AssertUnwindSafe(|| self.handler.undelivered(mail))).is_err() {
            self.shared.stats.panics.add(1);
        }
        self.shared.stats.leave();
    }

    pub(crate) fn run_deadlines(&mut self) {
        if self.shared.wheel.next().is_some_and(|at| at <= self.shared.now) {
            self.expire_deadlines();
        }
        if let Some(at) = self.handler.next_wake().filter(|at| *at <= self.shared.now) {
            self.shared.stats.loop_lag.record(self.shared.now - at);
            self.shared.stats.enter(Callback::Woke, Stats::NO_SLOT);
            self.handler.woke(&mut LoopContext { shared: &mut self.shared });
            self.shared.stats.leave();
        }
        if self.trim_at <= self.shared.now {
            self.shared.buffers.trim();
            self.trim_at = self.shared.now + TRIM_EVERY;
        }
    }

    fn expire_deadlines(&mut self) {
        let mut stage = self.stage(self.shared.limits.deadlines_time_max);
        for _ in 0..self.shared.limits.deadlines_per_turn_max {
            let Some((slot, due)) = self.shared.wheel.expire(self.shared.now) else { return };
            if self.expire(slot) {
                self.shared.stats.loop_lag.record(self.shared.now.saturating_duration_since(due));
                self.shared.progress = true;
            }
            if self.time_is_up(&mut stage, 1) {
                return;
            }
        }
    }

    /// A connection's time on the wheel has come. False if its deadline has moved later since it was hung up.
    fn expire(&mut self, slot: u32) -> bool {
        let now = self.shared.now;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        if entry.stall_at.is_some_and(|at| at <= now) {
            self.stall_expires(slot);
            return true;
        }
        let is_due = entry.control.deadline.is_some_and(|at| at <= now);
        if is_due {
            entry.control.deadline = None;
        }
        // It hangs nowhere now: what it still waits for goes back, before a visit that compares with it.
        let due = entry.due();
        self.shared.wheel.set(slot, due, now);
        if !is_due {
            return false;
        }
        // Each of them looks at its socket first: poll may have had no place for its event, or the thread may not have run between the return of
        // poll and the reading of the clock.
        if entry.control.flags.has(Flags::CONNECTING) {
            self.connect_event(slot, Ready::default());
            if self.entries.get(slot as usize).is_some_and(|entry| entry.control.flags.has(Flags::CONNECTING)) {
                self.connect_ended(slot, Err(io::ErrorKind::TimedOut.into()));
            }
        } else if entry.control.flags.has(Flags::LINGERING.or(Flags::CLOSE)) {
            // Its last word is said: what the handler would add came behind it. A limit that it left standing holds for the sending too.
            let reason = entry.reason;
            if entry.control.flags.has(Flags::LINGERING) {
                // Input that is unread at the close makes it a reset, which can take the last response from the client.
                entry.control.flags.set(Flags::READABLE);
                self.visit(slot, 0);
            }
            self.kill(slot, reason);
        } else if let Some(mut visit) = self.visit_to(slot, self.shared.limits.first_visit_messages_max) {
            visit.run(|visit| visit.look_before_the_deadline(now));
        }
        true
    }

    /// The output of a connection has made no progress for `write_stall_timeout`. The kernel may take some now, and its event may be on its
    /// way: one write tells.
    fn stall_expires(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        entry.stall_at = None;
        entry.control.flags.set(Flags::WRITABLE);
        let due = entry.due();
        self.shared.wheel.set(slot, due, self.shared.now);
        if let Some(mut visit) = self.visit_to(slot, 0) {
            // Every visit begins with the pending output, and a write that gets anywhere begins a new stall.
            visit.run(|_| {});
        }
        let has_stalled = self.entries.get(slot as usize).is_some_and(|entry| entry.stall_at.is_none());
        if has_stalled && self.shared.slots.get(slot).output.is_some() {
            self.kill(slot, CloseReason::WriteStalled);
        }
    }

    pub(crate) fn close_dead(&mut self) {
        self.closed_last_turn = 0;
        if self.shared.closes.is_empty() {
            return;
        }
        let mut stage = self.stage(self.shared.limits.closes_time_max);
        for _ in 0..self.shared.limits.closes_per_turn_max {
            let Some(slot) = self.shared.closes.pop_front() else { return };
            self.close(slot);
            self.closed_last_turn += 1;
            if self.time_is_up(&mut stage, 1) {
                return;
            }
        }
    }

    /// close(2), and the end of the slot's tenancy.
    pub(crate) fn close(&mut self, slot: u32) {
        let mut entry = self.entries.remove(slot as usize);
        // First: a duplicate of the descriptor (a fork, another thread) would keep a closed socket in epoll for good (failure mode R7).
        if let Err(e) = self.os.deregister(&mut entry.stream) {
            log::debug!("deregister: {e}");
        }
        if entry.control.flags.has(Flags::RESET) {
            self.shared.stats.resets.add(1);
            if let Err(e) = self.os.reset_at_close(&mut entry.stream) {
                log::debug!("cannot reset a connection: {e}");
            }
        }
        drop(entry.stream);
        self.shared.slots.vacate(slot);
        let stats = &self.shared.stats;
        stats.closes(entry.reason).add(1);
        stats.connections_open.set(self.entries.len() as u64);
        self.shared.progress = true;
        if let Some(conn) = entry.conn {
            self.shared.stats.enter(Callback::Closed, slot);
            if catch_unwind(AssertUnwindSafe(|| self.handler.closed(conn, entry.reason))).is_err() {
                self.shared.stats.panics.add(1);
            }
            self.shared.stats.leave();
        }
        self.resume_accepting();
    }

    pub(crate) fn obey_orders(&mut self) {
        match self.orders.take() {
            Order::None => {}
            Order::Drain(grace) => self.start_drain(grace),
            Order::Stop => self.shared.stop = true,
        }
        self.go_on_draining();
    }

    pub(crate) fn end_turn(&mut self) {
        let stats = &self.shared.stats;
        stats.turns.add(1);
        if !self.shared.progress {
            stats.turns_without_progress.add(1);
        }
        stats.leased_bytes.set(self.shared.buffers.leased_bytes() as u64);
        stats.buffer_bytes.set(self.shared.buffers.held_bytes() as u64);
        let ended = self.os.now();
        let took = ended.saturating_duration_since(self.shared.now);
        stats.turn_duration.record(took);
        // Named like every other callback: who stalls here must be seen too, and not be taken for a loop that sleeps.
        stats.enter(Callback::TurnEnded, Stats::NO_SLOT);
        self.handler.turn_ended(took, ended);
        stats.leave();
        stats.turn_ends();
        #[cfg(debug_assertions)]
        self.check_invariants();
    }
}
