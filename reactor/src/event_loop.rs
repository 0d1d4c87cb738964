//! The turn: wait, dispatch, deliver, expire, close. Each stage is bounded, and the order is a promise.
//!
//! poll → clock → socket events → new list → old list → accept → mail → deadlines → connects → leavers → closes. Input comes before deadlines, so that a
//! late loop does not time out clients whose bytes have arrived; and a connection whose deadline has come is read once before it is closed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::callback::Callback;
use crate::clock;
use crate::close_reason::CloseReason;
use crate::handle::{Drain, Handle, Order, Orders};
use crate::handler::Handler;
use crate::io::{InputScratch, OutputScratch};
use crate::limits::{CLOCK_INTERVAL_VISITS, Config};
use crate::listen::{HandOffTarget, Listener};
use crate::mail::{Envelope, Mailer};
use crate::mailbox::{Inbox, Sender, mailbox};
use crate::os::{Event, Linux, Os, Ready, Wake};
use crate::policy::HalfClose;
use crate::ready_list::Queued;
use crate::shared::Shared;
use crate::slot::{Entry, Flags};
use crate::stats::Stats;
use crate::token::Token;
use crate::visit::{Cause, Visit};

/// One loop, for one thread, with all its connections.
pub struct EventLoop<H: Handler, O: Os = Linux> {
    pub(crate) os: O,
    pub(crate) handler: H,
    pub(crate) shared: Shared,
    pub(crate) entries: Slab<Entry<H::Conn, O::Stream>>,
    pub(crate) listeners: Vec<Listener<O::Listener>>,
    /// Which of them accepts first in the next turn.
    pub(crate) first_to_accept: usize,
    pub(crate) drain: Option<Drain>,
    /// Loops that take connections from this one.
    pub(crate) receivers: Vec<HandOffTarget<H::Mail, O::Handover>>,
    /// Loops that may still hand connections to this one.
    pub(crate) givers: u32,
    pub(crate) scratch: InputScratch,
    pub(crate) output: OutputScratch,
    pub(crate) events: Vec<Event>,
    pub(crate) sender: Sender<Envelope<H::Mail, O::Handover>>,
    pub(crate) inbox: Inbox<Envelope<H::Mail, O::Handover>>,
    /// Mail may be waiting.
    pub(crate) mail_waits: bool,
    /// Mail taken from the inbox that found the accept budget spent: a connection that another loop accepted. It is first in the next turn.
    pub(crate) held_mail: Option<Envelope<H::Mail, O::Handover>>,
    /// How many connections this turn may still accept, adopt or begin.
    pub(crate) accepts_left: u32,
    /// How many connections the last turn closed.
    pub(crate) closed_last_turn: u32,
    pub(crate) orders: Arc<Orders>,
    wake: Arc<dyn Wake>,
    /// When the system's timer will end a poll.
    pub(crate) timer_at: Option<Instant>,
    /// When memory that was not needed since is given back to the allocator.
    pub(crate) trim_at: Instant,
}

/// Buffers that a peak left behind are freed after one to two of these.
pub(crate) const TRIM_EVERY: Duration = Duration::from_secs(1);

impl<H: Handler> EventLoop<H> {
    /// A loop on the real system.
    ///
    /// # Errors
    /// `InvalidInput` with a sentence when the limits do not fit together; epoll_create1(2), timerfd_create(2), eventfd(2).
    pub fn new(config: Config, handler: H) -> io::Result<EventLoop<H>> {
        config.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let mut linux = Linux::new(config.limits.events_per_poll_max)?;
        linux.make_room_for(config.limits.connections_max + config.limits.refusals_max);
        EventLoop::with_os(config, linux, handler)
    }
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// A loop on the given system.
    ///
    /// # Errors
    /// As [`EventLoop::new`].
    pub fn with_os(config: Config, mut os: O, handler: H) -> io::Result<EventLoop<H, O>> {
        config.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let now = os.now();
        let wake = os.waker()?;
        os.hold_spare();
        let limits = &config.limits;
        let slots_max = limits.connections_max + limits.refusals_max;
        let stats = Arc::new(Stats::new(now));
        stats.connections_max.set(u64::from(limits.connections_max));
        let (sender, mut inbox) = mailbox(limits.mail_max, Arc::clone(&wake));
        inbox.set_drain_order(config.policy.drain_order);
        let buffer_bytes = limits.buffer_bytes_max as usize;
        Ok(EventLoop {
            shared: Shared::new(&config, slots_max, now, stats),
            // Address space only: a page becomes resident with its first connection, and growing never copies.
            entries: Slab::with_capacity(slots_max as usize),
            listeners: Vec::new(),
            first_to_accept: 0,
            drain: None,
            receivers: Vec::new(),
            givers: 0,
            scratch: InputScratch::new(buffer_bytes),
            output: OutputScratch::new(buffer_bytes),
            events: Vec::with_capacity(limits.events_per_poll_max),
            sender,
            inbox,
            mail_waits: false,
            held_mail: None,
            accepts_left: 0,
            closed_last_turn: 0,
            orders: Arc::new(Orders::default()),
            wake,
            timer_at: None,
            trim_at: now + TRIM_EVERY,
            os,
            handler,
        })
    }

    /// Sends mail to connections of this loop, from any thread.
    #[must_use]
    pub fn mailer(&self) -> Mailer<H::Mail, O::Handover> {
        Mailer { sender: self.sender.clone() }
    }

    /// Ends this loop from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { orders: Arc::clone(&self.orders), wake: Arc::clone(&self.wake) }
    }

    /// What this loop counts, readable from any thread.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// The protocol.
    #[must_use]
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The protocol, to be set up before the loop runs.
    #[must_use]
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    /// The system.
    #[must_use]
    pub fn os_mut(&mut self) -> &mut O {
        &mut self.os
    }

    /// Runs until [`Handle::stop`], the end of a drain or [`crate::LoopContext::stop`], and gives the handler back. A panic of the loop itself
    /// (not of a callback: that closes one connection) ends the process: a dead loop must never keep a listening socket.
    ///
    /// # Errors
    /// epoll_wait(2), timerfd_settime(2): faults of the program, not of a peer. The handler has had its last callbacks all the same
    /// ([`EventLoop::finish`]) and is dropped.
    pub fn run(mut self) -> io::Result<H> {
        let _guard = AbortOnPanic;
        let result = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        // Also after an error: each connection, connect and piece of mail that was admitted is promised a last callback.
        let handler = self.finish();
        result.map(|()| handler)
    }

    /// One turn. False when the loop should end; [`EventLoop::finish`] then closes what is open.
    ///
    /// # Errors
    /// As [`EventLoop::run`].
    pub fn turn(&mut self) -> io::Result<bool> {
        let timeout = self.poll_timeout()?;
        self.os.poll(timeout, &mut self.events)?;
        self.shared.now = self.os.now();
        self.shared.clock = self.shared.now;
        if self.timer_at.is_some_and(|at| at <= self.shared.now) {
            self.timer_at = None;
        }
        self.shared.stats.turn_begins(self.shared.now);
        self.shared.progress = false;
        self.accepts_left = self.accepts_allowed();

        self.serve_runnable();
        self.accept_waiting();
        self.deliver_mail();
        self.run_deadlines();
        self.start_connects();
        self.pick_leavers();
        self.close_dead();
        self.obey_orders();

        self.end_turn();
        Ok(!self.shared.stop)
    }

    /// Zero exactly when carried work can make progress now; otherwise until an event, with the timer set for the earliest deadline.
    fn poll_timeout(&mut self) -> io::Result<Option<Duration>> {
        let carried = !self.shared.ready.is_empty()
            || !self.shared.closes.is_empty()
            || !self.shared.connects.is_empty()
            || self.mail_waits
            || self.drain_can_progress()
            || (0..self.listeners.len()).any(|index| self.may_accept(index));
        if carried {
            return Ok(Some(Duration::ZERO));
        }
        let mut earliest = sooner(self.shared.wheel.next(), self.handler.next_wake());
        if let Some(drain) = &self.drain {
            earliest = sooner(earliest, drain.until);
        }
        for index in 0..self.listeners.len() {
            earliest = sooner(earliest, self.pause_ends(index));
        }
        // A close in another loop makes room to hand over, and does not wake this one.
        if !self.receivers.is_empty() && self.listeners.iter().any(|listener| listener.ready) {
            earliest = sooner(earliest, clock::after(self.shared.now, self.shared.limits.accept_pause));
        }
        // What a peak left behind must go back also when nothing follows it: at most two wake-ups.
        if self.shared.buffers.held_bytes() > self.shared.buffers.leased_bytes() {
            earliest = sooner(earliest, Some(self.trim_at));
        }
        let Some(earliest) = earliest else { return Ok(None) };
        // mio's own timeout is in whole milliseconds, rounded up, so the timer ends the wait. It is set only when the earliest time has moved
        // earlier: not once in most turns.
        if self.timer_at.is_none_or(|at| earliest < at) {
            let now = self.os.now();
            if earliest <= now {
                return Ok(Some(Duration::ZERO));
            }
            self.os.set_timer(earliest - now)?;
            self.timer_at = Some(earliest);
        }
        Ok(None)
    }

    /// Closes everything that is open, gives undelivered mail back, and returns the handler.
    pub fn finish(mut self) -> H {
        self.shared.finishing = true;
        for index in 0..self.listeners.len() {
            self.stop_listening(index);
        }
        let slots: Vec<u32> = self.entries.iter().map(|(slot, _)| slot as u32).collect();
        let loop_ended = || io::Error::other("the loop has ended");
        for slot in slots {
            if self.entries.get(slot as usize).is_some_and(|entry| entry.control.flags.intersects(Flags::CONNECTING)) {
                self.connect_ended(slot, Err(loop_ended()));
            } else {
                self.kill(slot, CloseReason::LoopEnded);
            }
        }
        // Each attempt that was taken ends in exactly one way. Those that a callback asks for only now are given back, or this would never end.
        for connect in std::mem::take(&mut self.shared.connects) {
            self.connect_failed(connect.tag, loop_ended());
        }
        while let Some(slot) = self.shared.closes.pop_front() {
            self.close(slot);
        }
        while let Some(envelope) = self.inbox.take() {
            if let Envelope::Mail(_, mail) = envelope {
                self.give_mail_back(mail);
            }
        }
        self.handler
    }
}

/// The earlier of the two, if there are two.
#[inline]
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Ends the process when a loop unwinds.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("an event loop has panicked; the process ends, since its connections would never be served again");
            // The last words of the process: a logger with a queue must write them before it is too late.
            log::logger().flush();
            std::process::abort();
        }
    }
}

impl<H: Handler, O: Os> std::fmt::Debug for EventLoop<H, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("connections", &self.entries.len()).finish_non_exhaustive()
    }
}

// The stages of a turn, in their order.
//
// Each is bounded by a budget, and what is left makes the next poll return at once.

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
    pub(crate) fn visit(&mut self, slot: u32, messages_max: u32) -> u32 {
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
    pub(crate) fn visit_to(&mut self, slot: u32, messages_max: u32) -> Option<Visit<'_, H, O>> {
        let Self { os, handler, shared, entries, scratch, output, .. } = self;
        let entry = entries.get_mut(slot as usize)?;
        if entry.control.flags.intersects(Flags::DEAD.union(Flags::CONNECTING)) {
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
        let state = self.shared.slots.get_mut(token.slot);
        if !state.open || state.generation != token.generation || state.queued != from {
            return None;
        }
        state.queued = Queued::No;
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
        if flags.intersects(Flags::DEAD) {
            return false;
        }
        if flags.intersects(Flags::CONNECTING) {
            self.connect_event(slot, ready);
            return false;
        }
        if ready.intersects(Ready::READABLE.union(Ready::READ_CLOSED).union(Ready::ERROR)) {
            flags.insert(Flags::READABLE);
        }
        if ready.intersects(Ready::WRITABLE.union(Ready::WRITE_CLOSED).union(Ready::ERROR)) {
            flags.insert(Flags::WRITABLE);
        }
        if ready.intersects(Ready::READ_CLOSED.union(Ready::ERROR).union(Ready::PRIORITY)) {
            flags.insert(Flags::READ_TO_THE_END);
        }
        let flags = *flags;
        let gone = ready.intersects(Ready::ERROR.union(Ready::WRITE_CLOSED)) && !flags.intersects(Flags::LINGERING);
        if gone && self.has_failed(slot, ready) {
            self.kill(slot, CloseReason::Reset);
            return false;
        }
        // A client that has sent its last byte may have disconnected. A server that has sent its last byte has sent its response.
        let paused = flags.intersects(Flags::PAUSED) && !flags.intersects(Flags::NO_MORE_MESSAGES.union(Flags::OUTBOUND));
        if paused && ready.intersects(Ready::READ_CLOSED) && self.shared.policy.half_close == HalfClose::HasLeft {
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
        let error = match ready.intersects(Ready::ERROR).then(|| self.os.take_error(&mut entry.stream)) {
            Some(Ok(Some(e)) | Err(e)) => e,
            // Shut in both directions, and not by us: an earlier call has taken the error off the socket.
            Some(Ok(None)) | None if ready.intersects(Ready::WRITE_CLOSED) && entry.control.flags.intersects(Flags::HELD) => {
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
