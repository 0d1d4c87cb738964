//! The event loop: [`EventLoop`], one turn of it ([`EventLoop::turn`]), and the stages of a turn in the order in which they run.
//!
//! 1. Poll sleeps until an event or the timer. It returns at once while carried work can make progress (`poll_timeout`).
//! 2. Runnable connections are visited: connections with events, then the rest of the new list, then the old list (`ready_list.rs`).
//! 3. Listeners accept (`listen/accept.rs`).
//! 4. Mail from other threads is delivered (`mailbox.rs`).
//! 5. Deadlines expire (`notify.rs`).
//! 6. Outbound connections begin (`connect.rs`).
//! 7. Connections to evict are picked when the connection limit nears (`eviction.rs`).
//! 8. Closed connections are freed with close(2) (`close.rs`).
//! 9. Orders of other threads are obeyed, and a graceful shutdown continues (`shutdown.rs`).
//!
//! Stages 2 to 8 are bounded in count; all but the seventh are bounded in time as well. Work that exceeds a bound waits for the next turn.
//! Input comes before deadlines, so that a late loop does not time out a client whose bytes have arrived. Test:
//! `input_comes_before_deadlines`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use slab::Slab;

use crate::context::LoopContext;
use crate::errors::CloseReason;
use crate::handle::{Handle, Order, Orders, Shutdown};
use crate::handler::Handler;
use crate::io::InputScratch;
use crate::limits::{CLOCK_INTERVAL_VISITS, Config};
use crate::listen::slots_taken::SlotsTaken;
use crate::listen::{Adoption, HandOffTarget, Listener};
use crate::loop_state::LoopState;
use crate::mailbox::{Envelope, Inbox, Mailer, Sender, mailbox};
use crate::os::{Event, Linux, Os, Ready, Wake};
use crate::output::OutputScratch;
use crate::ready_list::Queued;
use crate::slot::{Bits, Entry, Phase, Slot};
use crate::stats::{Callback, Stats};
use crate::timers;
use crate::token::Token;
use crate::visit::{Cause, Visit};

/// One event loop with its connections. It runs on one thread.
pub struct EventLoop<H: Handler, O: Os = Linux> {
    pub(crate) os: O,
    pub(crate) handler: H,
    pub(crate) shared: LoopState,
    pub(crate) entries: Slab<Entry<H::Conn, O::Stream>>,
    pub(crate) listeners: Vec<Listener<O::Listener>>,
    /// Index of the listener that accepts first in the next turn.
    pub(crate) first_to_accept: usize,
    /// The progress of a graceful shutdown, once it has begun.
    pub(crate) shutdown: Option<Shutdown>,
    /// Loops to which this one hands connections.
    pub(crate) receivers: Vec<HandOffTarget<H::Mail, O::Handover>>,
    /// Number of loops that may still hand connections to this one.
    pub(crate) givers: u32,
    /// Open connections, and those that other loops have handed over and this loop has not adopted.
    pub(crate) slots_taken: SlotsTaken,
    pub(crate) scratch: InputScratch,
    pub(crate) output: OutputScratch,
    pub(crate) events: Vec<Event>,
    pub(crate) sender: Sender<Envelope<H::Mail, O::Handover>>,
    pub(crate) inbox: Inbox<Envelope<H::Mail, O::Handover>>,
    /// The inbox may hold mail, or a connection that was handed over can be adopted.
    pub(crate) mail_waits: bool,
    /// Accepted connections that wait for a slot or for the next turn's accepts (`listen/hand_off.rs`).
    pub(crate) adoptions_waiting: VecDeque<Adoption<O::Handover>>,
    /// Number of connections that this turn may still accept or adopt, or begin while closed ones wait for close(2).
    pub(crate) accepts_left: u32,
    /// Number of connections that the last turn closed.
    pub(crate) closed_last_turn: u32,
    pub(crate) orders: Arc<Orders>,
    wake: Arc<dyn Wake>,
    /// When the timer will end the poll. None while it is not armed.
    pub(crate) timer_at: Option<Instant>,
    /// When buffers that were not used since the last trim are next returned to the allocator.
    pub(crate) trim_at: Instant,
    finished: Receiver<Infallible>,
    /// Disconnects the handles' `finished`. The last field, because fields are dropped in their order.
    _alive: crossbeam_channel::Sender<Infallible>,
}

/// Interval between two trims of the buffer pool: after a peak, unused buffers are freed after one to two intervals.
/// Test: `after_a_peak_the_memory_goes_back`.
pub(crate) const TRIM_EVERY: Duration = Duration::from_secs(1);

impl<H: Handler> EventLoop<H> {
    /// Creates a loop on Linux.
    ///
    /// # Errors
    /// `InvalidInput` with the [`ConfigError`](crate::ConfigError) when the limits contradict each other; epoll_create1(2), timerfd_create(2), eventfd(2).
    pub fn new(config: Config, handler: H) -> io::Result<EventLoop<H>> {
        config.check()?;
        let mut linux = Linux::new(config.limits.events_per_poll_max)?;
        linux.reserve_descriptors(config.limits.connections_max + config.limits.refusals_max);
        EventLoop::with_os(config, linux, handler)
    }
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Creates a loop on the given system: Linux or the simulator.
    ///
    /// # Errors
    /// As [`EventLoop::new`].
    pub fn with_os(config: Config, mut os: O, handler: H) -> io::Result<EventLoop<H, O>> {
        config.check()?;
        let now = os.now();
        let wake = os.waker()?;
        os.hold_spare();
        let limits = &config.limits;
        let slots_max = limits.connections_max + limits.refusals_max;
        let stats = Arc::new(Stats::new(now));
        stats.connections_max.set(u64::from(limits.connections_max));
        let (sender, mut inbox) = mailbox(limits.mail_max, Arc::clone(&wake));
        inbox.set_order(config.policy.mailbox_order);
        let (alive, finished) = bounded(0);
        let buffer_bytes = limits.buffer_bytes_max as usize;
        Ok(EventLoop {
            shared: LoopState::new(&config, slots_max, now, stats),
            // Address space only: a page becomes resident with its first connection, and the slab does not move when it grows.
            // Test: `four_thousand_idle_connections_allocate_nothing_beyond_the_slots`.
            entries: Slab::with_capacity(slots_max as usize),
            listeners: Vec::new(),
            first_to_accept: 0,
            shutdown: None,
            receivers: Vec::new(),
            givers: 0,
            slots_taken: SlotsTaken::new(),
            scratch: InputScratch::new(buffer_bytes),
            output: OutputScratch::new(buffer_bytes),
            events: Vec::with_capacity(limits.events_per_poll_max),
            sender,
            inbox,
            mail_waits: false,
            adoptions_waiting: VecDeque::new(),
            accepts_left: 0,
            closed_last_turn: 0,
            orders: Arc::new(Orders::default()),
            wake,
            timer_at: None,
            trim_at: now + TRIM_EVERY,
            finished,
            _alive: alive,
            os,
            handler,
        })
    }

    /// A sender of mail to connections of this loop, for any thread.
    #[must_use]
    pub fn mailer(&self) -> Mailer<H::Mail, O::Handover> {
        Mailer { sender: self.sender.clone() }
    }

    /// A handle that stops this loop or shuts it down gracefully, and says when it has finished, for any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { orders: Arc::clone(&self.orders), wake: Arc::clone(&self.wake), finished: self.finished.clone() }
    }

    /// The counters of this loop, readable from any thread.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// The protocol's handler.
    #[must_use]
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The protocol's handler, to configure it before the loop runs.
    #[must_use]
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    /// The system under the loop: sockets, poll, clock and timer.
    #[must_use]
    pub fn os_mut(&mut self) -> &mut O {
        &mut self.os
    }

    /// Runs turns until [`Handle::stop`], the end of a graceful shutdown or [`crate::LoopContext::stop`], and returns the handler. Blocks the thread.
    ///
    /// A panic in the loop itself aborts the process, because a loop that has ended would leave clients in the queue of its listening
    /// socket. Test: `a_loop_that_panics_takes_the_process_along`. A panic in a callback of a connection closes that connection only. Test:
    /// `a_panic_closes_one_connection`.
    ///
    /// # Errors
    /// epoll_wait(2), timerfd_settime(2): bugs in the program, not errors of a peer. The handler gets its final callbacks
    /// ([`EventLoop::finish`]) and is dropped. Test: `after_a_failed_poll_everything_that_was_admitted_gets_its_last_callback`.
    pub fn run(mut self) -> io::Result<H> {
        let _guard = AbortOnPanic;
        let result = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        // Also after an error: admitted connections, connects and mail get their final callback.
        let handler = self.finish();
        result.map(|()| handler)
    }

    /// Runs one turn. Returns false when the loop should end; [`EventLoop::finish`] then closes the open connections.
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
        self.pick_evictions();
        self.close_dead();
        self.obey_orders();

        self.end_turn();
        Ok(!self.shared.stop)
    }

    /// The timeout of the next poll: zero while carried work can make progress or a deadline has passed, else none, with the timer set to
    /// the earliest deadline. Work that cannot make progress must not count here, or the loop would not sleep. Test:
    /// `a_loop_with_nothing_to_do_sleeps`.
    fn poll_timeout(&mut self) -> io::Result<Option<Duration>> {
        let carried = !self.shared.ready.is_empty()
            || !self.shared.closes.is_empty()
            || !self.shared.connects.is_empty()
            || self.mail_waits
            || self.shutdown_can_progress()
            || (0..self.listeners.len()).any(|index| self.may_accept(index));
        if carried {
            return Ok(Some(Duration::ZERO));
        }
        let mut earliest = sooner(self.shared.wheel.next(), self.handler.next_wake());
        if let Some(shutdown) = &self.shutdown {
            earliest = sooner(earliest, shutdown.until);
        }
        for index in 0..self.listeners.len() {
            earliest = sooner(earliest, self.pause_ends(index));
        }
        // A close in another loop frees a slot for a hand-over and does not wake this loop.
        if !self.receivers.is_empty() && self.listeners.iter().any(|listener| listener.ready) {
            earliest = sooner(earliest, timers::after(self.shared.now, self.shared.limits.accept_pause));
        }
        // Unused buffers are also freed when no event follows a peak. This costs at most two wake-ups.
        if self.shared.buffers.held_bytes() > self.shared.buffers.leased_bytes() {
            earliest = sooner(earliest, Some(self.trim_at));
        }
        let Some(earliest) = earliest else { return Ok(None) };
        // mio rounds its own timeout up to whole milliseconds, so a timer ends the wait. The timer is set only if it is not armed or the
        // earliest deadline is before its time. A deadline that moves later makes no system call.
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

    /// Closes the listeners and connections, fails the connects, returns undelivered mail to the handler, and returns the handler.
    pub fn finish(mut self) -> H {
        self.shared.finishing = true;
        for index in 0..self.listeners.len() {
            self.stop_listening(index);
        }
        let slots: Vec<u32> = self.entries.iter().map(|(slot, _)| slot as u32).collect();
        let loop_ended = || io::Error::other("the loop has ended");
        for slot in slots {
            if self.shared.slots.get(slot).is_connecting() {
                self.connect_ended(slot, Err(loop_ended()));
            } else {
                self.kill(slot, CloseReason::LoopEnded);
            }
        }
        // Each queued connect gets one callback. A connect that a callback requests from here on is rejected, so this loop is finite.
        // Test: `the_queue_of_connects_is_bounded_and_ends_with_the_loop`.
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

/// The earlier of two optional times. None is later than any time.
#[inline]
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Aborts the process when a panic unwinds the loop.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("an event loop has panicked; aborting the process, because its connections would not be served again");
            // A logger with a queue must write this line before the abort.
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

// The time limit of a stage, the visits, and the stages that no other file holds.

/// The time limit of one stage of a turn, and the work until the clock is read again.
pub(crate) struct StageTime {
    began: Instant,
    time_max: Duration,
    /// Cost that may be spent before the clock is read again, in small visits.
    interval_left: u32,
}

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Begins a stage. Its time counts from the last clock reading, so a stage of fewer than `CLOCK_INTERVAL_VISITS` does not read the
    /// clock.
    #[inline]
    pub(crate) fn stage(&self, time_max: Duration) -> StageTime {
        StageTime { began: self.shared.clock, time_max, interval_left: CLOCK_INTERVAL_VISITS }
    }

    /// Adds `cost`, in small visits, to the work of a stage. Returns whether the stage's time is up.
    /// Test: `a_stage_ends_within_its_time_and_one_interval_of_the_clock`.
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

    /// Visits a runnable connection with a quantum of `messages_max` messages. Returns the cost in small visits.
    #[inline(always)]
    pub(crate) fn visit(&mut self, slot: u32, messages_max: u32) -> u32 {
        let Some(mut visit) = self.visit_to(slot, messages_max) else { return 1 };
        visit.run(Visit::see_to_socket);
        visit.cost()
    }

    /// Visits a connection for another reason than its socket. Returns the cost. This is not part of `visit` because a `Cause` can be large
    /// and would be copied with each event.
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

    /// A visit to the connection in a slot. None if the slot is empty, or its connection is still connecting or already closed.
    #[inline]
    pub(crate) fn visit_to(&mut self, slot: u32, messages_max: u32) -> Option<Visit<'_, H, O>> {
        let Self { os, handler, shared, entries, scratch, output, .. } = self;
        let state = shared.slots.get(slot);
        if matches!(state.phase, Phase::Vacant | Phase::Connecting { .. } | Phase::Dead { .. }) {
            return None;
        }
        let token = Token { slot, generation: state.generation };
        let entry = entries.get_mut(slot as usize)?;
        Some(Visit::new(os, handler, shared, scratch, output, entry, token, messages_max))
    }

    /// Closes a connection without sending anything more.
    pub(crate) fn kill(&mut self, slot: u32, reason: CloseReason) {
        let Self { os, handler, shared, entries, scratch, output, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize) else { return };
        let token = shared.slots.token(slot);
        Visit::new(os, handler, shared, scratch, output, entry, token, 0).die(reason);
    }

    /// Serves runnable connections: connections with events, then the rest of the new list, then the old list. The bits of every event
    /// are noted at once, because the kernel does not report an edge again. The visit may wait for a later turn.
    pub(crate) fn serve_runnable(&mut self) {
        let old_len = self.shared.ready.old_len();
        let time_max = self.shared.limits.visits_time_max;
        let began = self.shared.clock;
        let mut new_stage = self.stage(if old_len == 0 { time_max } else { time_max / 2 });
        let others_wait = self.shared.ready.new_len() > 0;
        self.dispatch_events(&mut new_stage, others_wait);
        if others_wait {
            // Only the connections that are listed now: one that another connection wakes from here on may have spent its quantum of this
            // turn.
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
        // At most one round: a connection that joined the list in this stage has spent its quantum of this turn.
        let messages_max = self.shared.limits.visit_messages_max;
        for _ in 0..old_len {
            let Some(token) = self.shared.ready.pop_old() else { break };
            if self.serve_listed(token, Queued::Old, messages_max).is_some_and(|cost| self.time_is_up(&mut old_stage, cost)) {
                break;
            }
        }
    }

    /// Visits a connection that was taken off a list. Returns the cost, or None for a stale entry. An entry holds the generation: without it, the
    /// entry of a closed connection would take the slot's next connection off its list. This check stays on under `TokenCheck::SlotOnly`.
    #[inline(never)]
    fn serve_listed(&mut self, token: Token, from: Queued, messages_max: u32) -> Option<u32> {
        let state = self.shared.slots.get_mut(token.slot);
        if state.generation != token.generation || state.queued != from {
            return None;
        }
        state.queued = Queued::No;
        Some(self.visit(token.slot, messages_max))
    }

    /// Handles each event that poll returned. Visits its connection while the stage has time and no connection waits on the new list; else
    /// the connection joins the new list.
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
                // The timer has fired, perhaps early, and is not armed now. The next sleep sets it again. Test:
                // `a_timer_that_fires_early_is_armed_again`.
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

    /// Notes an event in the bits of its connection. Returns whether to visit the connection for it: not if it is closed, and not if it is
    /// on a list, which will serve it.
    #[inline]
    fn becomes_runnable(&mut self, slot: u32, ready: Ready) -> bool {
        let state = self.shared.slots.get_mut(slot);
        match state.phase {
            Phase::Vacant | Phase::Dead { .. } => return false,
            Phase::Connecting { .. } => {
                self.connect_event(slot, ready);
                return false;
            }
            Phase::Open | Phase::Flushing | Phase::Aborting | Phase::Lingering { .. } => {}
        }
        if ready.intersects(Ready::READABLE) {
            state.bits.insert(Bits::READABLE);
        }
        if ready.intersects(Ready::WRITABLE) {
            state.bits.insert(Bits::WRITABLE);
        }
        let is_queued = state.is_queued();
        const END: Ready = Ready::READ_CLOSED.union(Ready::WRITE_CLOSED).union(Ready::ERROR).union(Ready::PRIORITY);
        if ready.intersects(END) && self.is_closed_for(slot, ready) {
            return false;
        }
        !is_queued
    }

    /// Delivers mail and adopts handed-over connections, within the stage's count and time.
    pub(crate) fn deliver_mail(&mut self) {
        if !self.mail_waits {
            return;
        }
        self.inbox.start_emptying();
        let mut stage = self.stage(self.shared.limits.mail_time_max);
        if self.adopt_waiting(&mut stage) {
            return;
        }
        for _ in 0..self.shared.limits.mail_per_turn_max {
            let cost = match self.inbox.take() {
                Some(Envelope::Mail(to, mail)) => self.deliver(to, mail),
                Some(Envelope::Socket { descriptor, peer, listener, reservation }) => {
                    self.adoptions_waiting.push_back(Adoption { descriptor, peer, listener, reservation: Some(reservation) });
                    if self.adopt_waiting(&mut stage) {
                        return;
                    }
                    0
                }
                Some(Envelope::NoMoreSockets) => {
                    self.givers -= 1;
                    1
                }
                None => {
                    self.mail_waits = self.can_adopt();
                    return;
                }
            };
            if self.time_is_up(&mut stage, cost) {
                return;
            }
        }
    }

    /// Delivers one piece of mail, or returns it to the handler if the connection has closed. Returns the cost.
    /// Test: `late_mail_never_reaches_the_next_tenant`.
    fn deliver(&mut self, to: Token, mail: H::Mail) -> u32 {
        self.shared.progress = true;
        if self.shared.slots.is_live(to) {
            self.visit_because(to.slot, Cause::Mail(mail))
        } else {
            self.give_mail_back(mail);
            1
        }
    }

    /// Returns mail to the handler, because its connection has closed or the loop ends.
    pub(crate) fn give_mail_back(&mut self, mail: H::Mail) {
        self.shared.stats.mail_undelivered.add(1);
        self.shared.stats.enter(Callback::Mail, Stats::NO_SLOT);
        let Self { handler, shared, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| handler.undelivered(mail, &mut LoopContext { shared }))).is_err() {
            self.shared.stats.panics.add(1);
        }
        self.shared.stats.leave();
    }

    /// Takes the order of another thread, if there is one, and continues a graceful shutdown.
    pub(crate) fn obey_orders(&mut self) {
        match self.orders.take() {
            Order::None => {}
            Order::ShutDown(grace) => self.start_shutdown(grace),
            Order::Stop => self.shared.stop = true,
        }
        self.continue_shutdown();
    }

    /// Updates the counters and calls `turn_ended`.
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
        // Named like the other callbacks, so that the watchdog can report a handler that blocks here. Test:
        // `the_end_of_a_turn_is_a_callback_that_the_watchdog_can_name`.
        stats.enter(Callback::TurnEnded, Stats::NO_SLOT);
        self.handler.turn_ended(took, ended);
        stats.leave();
        stats.turn_ends();
        #[cfg(debug_assertions)]
        self.check_invariants();
    }
}

/// Bytes of state that the loop holds for one connection whose handler's state is a `C`: the slab's entry, the slot, and the link of the
/// timer wheel. An idle connection has no buffer besides. For a compile-time assertion next to `C`.
#[must_use]
pub const fn state_bytes<C>() -> usize {
    // slab::Slab keeps `enum { Vacant(usize), Occupied(T) }`; the same shape here has the same size.
    enum SlabEntry<T> {
        #[expect(dead_code, reason = "only its size matters")]
        Vacant(usize),
        #[expect(dead_code, reason = "only its size matters")]
        Occupied(T),
    }
    size_of::<SlabEntry<Entry<C, crate::os::LinuxStream>>>() + size_of::<Slot>() + crate::timers::LINK_BYTES
}
