//! The turn: wait, dispatch, deliver, expire, close. Each stage is bounded, and the order is a promise.
//!
//! poll → clock → socket events → accept → own ready list → mail → deadlines → connects → closes. Input comes before deadlines, so that a
//! late loop does not kill clients that have already spoken (failure mode P6). Read next: `connection/visit.rs` for what a visit does,
//! `listen/accept.rs`, `connect.rs`, `drain.rs`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::connection::Entry;
use crate::connection::flags::Flags;
use crate::connection::output::OutputScratch;
use crate::connection::visit::{Cause, Visit};
use crate::context::LoopContext;
use crate::drain::Drain;
use crate::handler::{CloseReason, Handler};
use crate::limits::Config;
use crate::listen::Listener;
use crate::mail::{Envelope, Handle, Mailer, Order, Orders};
use crate::mailbox::{Inbox, Sender, mailbox};
use crate::os::{Event, Linux, Os, Ready, Wake};
use crate::shared::Shared;
use crate::stats::{Callback, Stats};
use crate::token::Token;

/// One loop, for one thread, with all its connections.
pub struct EventLoop<H: Handler, O: Os = Linux> {
    pub(crate) os: O,
    pub(crate) handler: H,
    pub(crate) shared: Shared,
    pub(crate) entries: Slab<Entry<H::Conn, O::Stream>>,
    pub(crate) listeners: Vec<Listener<O::Listener>>,
    pub(crate) drain: Option<Drain>,
    scratch: Box<[u8]>,
    output: OutputScratch,
    events: Vec<Event>,
    sender: Sender<Envelope<H::Mail>>,
    inbox: Inbox<Envelope<H::Mail>>,
    /// Mail may be waiting.
    mail_waits: bool,
    orders: Arc<Orders>,
    wake: Arc<dyn Wake>,
    /// When the system's timer will end a poll.
    timer_at: Option<Instant>,
    /// When memory that was not needed since is given back to the allocator.
    trim_at: Instant,
}

/// Buffers that a peak left behind are freed after one to two of these.
const TRIM_EVERY: Duration = Duration::from_secs(1);

impl<H: Handler> EventLoop<H> {
    /// A loop on the real system.
    ///
    /// # Errors
    /// `InvalidInput` with a sentence when the limits do not fit together; epoll_create1(2), timerfd_create(2), eventfd(2).
    pub fn new(config: Config, handler: H) -> io::Result<EventLoop<H>> {
        config.check().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let linux = Linux::new(config.limits.events_per_poll_max)?;
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
            drain: None,
            scratch: vec![0; buffer_bytes].into_boxed_slice(),
            output: OutputScratch::new(buffer_bytes),
            events: Vec::with_capacity(limits.events_per_poll_max),
            sender,
            inbox,
            mail_waits: false,
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
    pub fn mailer(&self) -> Mailer<H::Mail> {
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

    /// Runs until [`Handle::stop`], the end of a drain or [`LoopContext::stop`], and gives the handler back. A panic of the loop itself
    /// (not of a callback: that closes one connection) ends the process: a dead loop must never keep a listening socket.
    ///
    /// # Errors
    /// epoll_wait(2), timerfd_settime(2): faults of the program, not of a peer.
    pub fn run(mut self) -> io::Result<H> {
        let _guard = AbortOnPanic;
        while self.turn()? {}
        Ok(self.finish())
    }

    /// One turn. False when the loop should end; [`EventLoop::finish`] then closes what is open.
    ///
    /// # Errors
    /// As [`EventLoop::run`].
    pub fn turn(&mut self) -> io::Result<bool> {
        let timeout = self.poll_timeout()?;
        self.os.poll(timeout, &mut self.events)?;
        self.shared.now = self.os.now();
        if self.timer_at.is_some_and(|at| at <= self.shared.now) {
            self.timer_at = None;
        }
        self.shared.stats.turn_begins(self.shared.now);
        self.shared.progress = false;
        // As long as it is now: who joins the list in this turn has had a visit, and gets the next one in the next turn.
        let ready_len = self.shared.ready.len();

        self.dispatch_events();
        self.accept_waiting();
        self.visit_ready(ready_len);
        self.deliver_mail();
        self.run_deadlines();
        self.start_connects();
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
        let paused = self.listeners.iter().filter(|listener| listener.ready).filter_map(|listener| listener.paused_until);
        let earliest = [self.shared.wheel.next(), self.handler.next_wake(), self.drain.as_ref().map(|drain| drain.until)]
            .into_iter()
            .flatten()
            .chain(paused)
            .min();
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

    /// One visit to the connection in a slot, if there is one that can be visited.
    #[inline]
    fn visit(&mut self, slot: u32, cause: Cause<H::Mail>) {
        let Self { os, handler, shared, entries, scratch, output, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize) else { return };
        if entry.control.flags.has(Flags::DEAD.or(Flags::CONNECTING)) {
            if let Cause::Mail(mail) = cause {
                handler.undelivered(mail);
            }
            return;
        }
        let token = shared.slots.token(slot);
        Visit::new(os, handler, shared, scratch, output, entry, token).run(cause);
    }

    /// As [`EventLoop::visit`], from the other files.
    pub(crate) fn visit_for(&mut self, slot: u32, cause: Cause<H::Mail>) {
        self.visit(slot, cause);
    }

    /// Ends a connection without another word.
    pub(crate) fn kill(&mut self, slot: u32, reason: CloseReason) {
        let Self { os, handler, shared, entries, scratch, output, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize) else { return };
        let token = shared.slots.token(slot);
        Visit::new(os, handler, shared, scratch, output, entry, token).die(reason);
    }

    fn dispatch_events(&mut self) {
        let events = std::mem::take(&mut self.events);
        self.shared.stats.events.add(events.len() as u64);
        self.shared.stats.events_per_turn_max.raise_to(events.len() as u64);
        for event in &events {
            if self.shared.slots.is_live(event.token) {
                self.connection_event(event.token.slot, event.ready);
            } else if event.token == Token::WAKER {
                self.mail_waits = true;
                self.shared.stats.wakes.add(1);
            } else if event.token == Token::TIMER {
                // It has done its work by ending the poll.
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

    #[inline]
    fn connection_event(&mut self, slot: u32, ready: Ready) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        let flags = &mut entry.control.flags;
        if flags.has(Flags::DEAD) {
            return;
        }
        if flags.has(Flags::CONNECTING) {
            return self.connect_event(slot);
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
        let gone = ready.has(Ready::ERROR.and(Ready::WRITE_CLOSED)) && !flags.has(Flags::LINGERING);
        if gone && self.has_failed(slot, ready) {
            return self.kill(slot, CloseReason::Reset);
        }
        // On the list already: its turn comes in this very turn, and nobody gets two budgets.
        if !self.shared.slots.get(slot).queued {
            self.visit(slot, Cause::Ready);
        }
    }

    /// Whether the peer of a connection has gone: while a request is being answered nothing is read, and only this tells.
    #[cold]
    fn has_failed(&mut self, slot: u32, ready: Ready) -> bool {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        if ready.has(Ready::ERROR) && matches!(self.os.take_error(&mut entry.stream), Ok(Some(_)) | Err(_)) {
            return true;
        }
        // Shut in both directions without our doing: what we would still say, nobody can hear.
        ready.has(Ready::WRITE_CLOSED) && entry.control.flags.has(Flags::HELD)
    }

    fn visit_ready(&mut self, ready_len: usize) {
        for _ in 0..ready_len {
            let Some(token) = self.shared.ready.pop() else { return };
            // The list holds generations: a slot's old tenant must not take its new one off the list. (Not the policy's check: it is ours.)
            let beside = self.shared.slots.get_mut(token.slot);
            if beside.open && beside.generation == token.generation {
                beside.queued = false;
                self.visit(token.slot, Cause::Ready);
            }
        }
    }

    fn deliver_mail(&mut self) {
        if !self.mail_waits {
            return;
        }
        self.inbox.start_draining();
        for _ in 0..self.shared.limits.mail_per_turn_max {
            match self.inbox.take() {
                Some(Envelope::Mail(to, mail)) => self.deliver(to, mail),
                Some(Envelope::Socket { descriptor, peer, listener }) => self.adopt(descriptor, peer, listener),
                None => {
                    self.mail_waits = false;
                    return;
                }
            }
        }
    }

    fn deliver(&mut self, to: Token, mail: H::Mail) {
        self.shared.progress = true;
        if self.shared.slots.is_live(to) {
            self.shared.stats.mail_delivered.add(1);
            self.visit(to.slot, Cause::Mail(mail));
        } else {
            self.shared.stats.mail_undelivered.add(1);
            self.handler.undelivered(mail);
        }
    }

    fn run_deadlines(&mut self) {
        for _ in 0..self.shared.limits.deadlines_per_turn_max {
            let Some((slot, due)) = self.shared.wheel.expire(self.shared.now) else { break };
            self.shared.stats.loop_lag.record(self.shared.now.saturating_duration_since(due));
            self.shared.progress = true;
            self.expire(slot);
        }
        if let Some(at) = self.handler.next_wake().filter(|at| *at <= self.shared.now) {
            self.shared.stats.loop_lag.record(self.shared.now - at);
            self.shared.stats.enter(Callback::Woke, Stats::NO_SLOT);
            self.handler.woke(&mut LoopContext { shared: &mut self.shared });
            self.shared.stats.leave();
        }
        if self.trim_at <= self.shared.now {
            // In passing, never a reason to wake up.
            self.shared.buffers.trim();
            self.trim_at = self.shared.now + TRIM_EVERY;
        }
    }

    fn expire(&mut self, slot: u32) {
        let now = self.shared.now;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        if entry.stall_at.is_some_and(|at| at <= now) {
            return self.kill(slot, CloseReason::WriteStalled);
        }
        if entry.control.deadline.is_none_or(|at| at > now) {
            // Moved later since it was hung up.
            let due = entry.due();
            return self.shared.wheel.set(slot, due);
        }
        entry.control.deadline = None;
        if entry.control.flags.has(Flags::CONNECTING) {
            self.connect_ended(slot, Err(io::ErrorKind::TimedOut.into()));
        } else if entry.control.flags.has(Flags::LINGERING) {
            let reason = entry.reason;
            self.kill(slot, reason);
        } else {
            self.visit(slot, Cause::Deadline);
        }
    }

    fn close_dead(&mut self) {
        for _ in 0..self.shared.limits.closes_per_turn_max {
            let Some(slot) = self.shared.closes.pop_front() else { return };
            self.close(slot);
        }
    }

    /// close(2), and the end of the slot's tenancy.
    fn close(&mut self, slot: u32) {
        let mut entry = self.entries.remove(slot as usize);
        // First: a duplicate of the descriptor (a fork, another thread) would keep a closed socket in epoll for good (failure mode R7).
        if let Err(e) = self.os.deregister(&mut entry.stream) {
            log::debug!("deregister: {e}");
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

    fn obey_orders(&mut self) {
        match self.orders.read() {
            Order::None => {}
            Order::Drain(grace) => self.start_drain(grace),
            Order::Stop => self.shared.stop = true,
        }
        self.go_on_draining();
    }

    fn end_turn(&mut self) {
        let stats = &self.shared.stats;
        stats.turns.add(1);
        if !self.shared.progress {
            stats.turns_without_progress.add(1);
        }
        stats.leased_bytes.set(self.shared.buffers.leased_bytes() as u64);
        stats.buffer_bytes.set(self.shared.buffers.held_bytes() as u64);
        stats.turn_duration.record(self.os.now().saturating_duration_since(self.shared.now));
        stats.turn_ends();
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    /// Closes everything that is open, gives undelivered mail back, and returns the handler.
    pub fn finish(mut self) -> H {
        for index in 0..self.listeners.len() {
            self.stop_listening(index);
        }
        let slots: Vec<u32> = self.entries.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.kill(slot, CloseReason::LoopEnded);
        }
        while let Some(slot) = self.shared.closes.pop_front() {
            self.close(slot);
        }
        while let Some(envelope) = self.inbox.take() {
            if let Envelope::Mail(_, mail) = envelope {
                self.handler.undelivered(mail);
            }
        }
        self.handler
    }
}

/// Ends the process when a loop unwinds.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("an event loop has panicked; the process ends, since its connections would never be served again");
            std::process::abort();
        }
    }
}

impl<H: Handler, O: Os> std::fmt::Debug for EventLoop<H, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("connections", &self.entries.len()).finish_non_exhaustive()
    }
}
