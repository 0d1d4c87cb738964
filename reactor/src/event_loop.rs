//! The turn: wait, dispatch, deliver, expire, close. Each stage is bounded, and the order is a promise.
//!
//! poll → clock → socket events → new list → old list → accept → mail → deadlines → connects → leavers → closes. Input comes before deadlines, so that a
//! late loop does not time out clients whose bytes have arrived; and a connection whose deadline has come is read once before it is closed. Read next: `turn.rs`, the stages.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::clock;
use crate::connection::Entry;
use crate::connection::flags::Flags;
use crate::connection::input::InputScratch;
use crate::connection::output::OutputScratch;
use crate::drain::Drain;
use crate::handler::{CloseReason, Handler};
use crate::limits::Config;
use crate::listen::Listener;
use crate::listen::hand_off::Receiver;
use crate::mail::{Envelope, Handle, Mailer, Orders};
use crate::mailbox::{Inbox, Sender, mailbox};
use crate::os::{Event, Linux, Os, Wake};
use crate::shared::Shared;
use crate::stats::Stats;

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
    pub(crate) receivers: Vec<Receiver<H::Mail, O::Handover>>,
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
            if self.entries.get(slot as usize).is_some_and(|entry| entry.control.flags.has(Flags::CONNECTING)) {
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
