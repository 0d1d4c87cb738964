//! Takes connections from the kernel's queue: within a budget, refusing or waiting at the limit, pausing when descriptors run out.
//!
//! Every reason to stop has its way to go on: an event, the ready bit with budget left, a close, or a time.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::accept_error::{AcceptError, is_of_the_connection};
use crate::clock;
use crate::close_reason::CloseReason;
use crate::event_loop::EventLoop;
use crate::handler::{Handler, Origin, Pressure};
use crate::listen::{Listener, Pause};
use crate::os::{ListenerWakes, Os};
use crate::policy::{AcceptPressure, AtConnectionsMax};
use crate::slot::{Entry, Flags};
use crate::token::Token;
use crate::visit::Cause;

/// What accept(2), epoll_ctl(2) and the first callback cost, in units of a small visit: about 10 µs (docs/numbers.md).
const ACCEPT_COST: u32 = 4;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Accepts connections from a listening socket. [`Origin::Accepted`] names it by its number, 0 for the first. The kernel's part of their
    /// output is bounded from now on ([`crate::Limits::kernel_unsent_bytes_max`]), wherever the socket comes from.
    ///
    /// # Errors
    /// setsockopt(2), epoll_ctl(2), with the socket lost; `InvalidInput` beyond 63 listeners.
    pub fn listen_on(&mut self, socket: O::Listener, wakes: ListenerWakes) -> io::Result<usize> {
        self.add_listener(socket, wakes, false)
    }

    /// The same for a socket that another process holds too (`socket.rs`). A drain takes what is in its queue at that time, and leaves
    /// whoever comes later to the process that listens next.
    ///
    /// # Errors
    /// As [`EventLoop::listen_on`].
    pub fn listen_on_inherited(&mut self, socket: O::Listener, wakes: ListenerWakes) -> io::Result<usize> {
        self.add_listener(socket, wakes, true)
    }

    fn add_listener(&mut self, mut socket: O::Listener, wakes: ListenerWakes, inherited: bool) -> io::Result<usize> {
        let index = self.listeners.len();
        if index == Token::LISTENERS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("one loop has at most {} listeners", Token::LISTENERS_MAX)));
        }
        if let Some(bytes_max) = self.shared.limits.kernel_unsent_bytes_max {
            self.os.bound_unsent(&mut socket, bytes_max)?;
        }
        self.os.register_listener(&mut socket, Token::listener(index as u32), wakes)?;
        self.listeners.push(Listener { socket: Some(socket), ready: false, pause: None, inherited, accepts_left: None });
        Ok(index)
    }

    /// Whether accept(2) may be called now. The queue of a listener at the connection limit is no carried work: it would keep the loop
    /// from sleeping, and a close ends it anyway.
    pub(crate) fn may_accept(&self, index: usize) -> bool {
        let listener = &self.listeners[index];
        listener.ready && listener.pause.is_none_or(|pause| pause.is_over(self.shared.now)) && self.has_a_place(listener)
    }

    /// When the pause of a listener ends, if its end lets accept(2) be called. At the connection limit it does not, and the loop would wake up
    /// for nothing.
    pub(crate) fn pause_ends(&self, index: usize) -> Option<Instant> {
        let listener = &self.listeners[index];
        listener.pause.filter(|_| listener.ready && self.has_a_place(listener))?.until
    }

    /// Whether there is a place for who waits in the queue of a listener. Few turns ask; inlined, its loads would be made in all of them.
    #[cold]
    fn has_a_place(&self, listener: &Listener<O::Listener>) -> bool {
        let limits = &self.shared.limits;
        // A place that is about to be free is worth a turn's wait: who came meanwhile would be refused for nothing.
        let room_comes = self.shared.leaving > 0 || !self.shared.closes.is_empty();
        let open_max = match self.shared.policy.at_connections_max {
            AtConnectionsMax::Refuse if !room_comes => limits.connections_max + limits.refusals_max,
            AtConnectionsMax::Refuse | AtConnectionsMax::Wait => limits.connections_max,
        };
        listener.socket.is_some() && (self.entries.len() < open_max as usize || self.can_hand_off())
    }

    /// How many connections this turn may accept or adopt. While dead sockets wait for their close(2), no more than the last turn closed: else
    /// clients that connect and leave fill the table with dead sockets, since a turn closes fewer than it accepts.
    /// `churn_leaves_no_more_dead_sockets_than_one_turn_accepts` fails without it.
    pub(crate) fn accepts_allowed(&self) -> u32 {
        let accepts_max = self.shared.limits.accepts_per_turn_max;
        if self.shared.closes.is_empty() { accepts_max } else { accepts_max.min(self.closed_last_turn) }
    }

    /// How many outbound connections this turn may begin: as [`EventLoop::accepts_allowed`], together with those accepted.
    pub(crate) fn connects_allowed(&self) -> u32 {
        if self.shared.closes.is_empty() { u32::MAX } else { self.accepts_left }
    }

    /// The accept stage of a turn.
    pub(crate) fn accept_waiting(&mut self) {
        if self.drain.is_none() && !self.listeners.iter().any(|listener| listener.ready || listener.pause.is_some()) {
            return;
        }
        let mut stage = self.stage(self.shared.limits.accepts_time_max);
        let mut is_up = self.accepts_left == 0;
        let (first, listeners) = (self.first_to_accept, self.listeners.len());
        for index in (first..listeners).chain(0..first) {
            if self.listeners[index].pause.is_some_and(|pause| pause.is_over(self.shared.now)) {
                self.listeners[index].pause = None;
                // Another thread may have had the spare, and have given it back since.
                self.os.hold_spare();
            }
            while !is_up && self.may_accept(index) {
                self.accepts_left -= 1;
                self.accept_one(index);
                is_up = self.time_is_up(&mut stage, ACCEPT_COST) || self.accepts_left == 0;
            }
            if self.drain.is_some() && !self.listeners[index].ready {
                // At once: whoever comes between the last look into the queue and the close is reset.
                self.stop_listening(index);
            }
        }
        if is_up && listeners > 0 {
            // A queue that never runs empty takes the whole budget in every turn. Another listener is first in the next one.
            self.first_to_accept = (first + 1) % listeners;
        }
    }

    fn accept_one(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        let Some(socket) = listener.socket.as_mut() else { return };
        match self.os.accept(socket) {
            Ok((stream, peer)) => {
                if let Some(left) = &mut listener.accepts_left {
                    *left = left.saturating_sub(1);
                    listener.ready = *left > 0;
                }
                let over = self.entries.len() >= self.shared.limits.connections_max as usize;
                self.place(stream, peer, index, over);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => self.accept_failed(index, &e),
        }
    }

    /// An error other than "nothing there". None of them ends the loop.
    #[cold]
    fn accept_failed(&mut self, index: usize, error: &io::Error) {
        let kind = AcceptError::of(error);
        self.shared.stats.accept_errors(kind).add(1);
        match kind {
            AcceptError::Emfile | AcceptError::Enfile | AcceptError::Enobufs | AcceptError::Enomem => self.under_pressure(index),
            // The connection died in the queue, or the network reported its own trouble: the next one.
            _ if is_of_the_connection(error) => {}
            // The listener's own trouble: whoever shares an inherited one has shut it down (EINVAL), or a security module says no (EACCES).
            // Nothing was taken from its queue, so trying again at once would keep the loop from sleeping (failure mode R4).
            _ => {
                self.pause_accepting(index, false);
                self.shared.logs.accept.warn(self.shared.now, format_args!("accept fails, and is tried again after a pause: {error}"));
            }
        }
    }

    /// accept(2) failed before it took the connection: the client still waits, and no edge will come for it (failure mode L1).
    fn under_pressure(&mut self, index: usize) {
        match self.shared.policy.accept_pressure {
            AcceptPressure::PauseAndResume => {}
            AcceptPressure::NextEvent => {
                self.listeners[index].ready = false; // MISTAKE(fd-exhaustion): those who wait in the queue make no further edge; they hang until somebody else connects.
                return;
            }
        }
        self.shared.stats.accept_pauses.add(1);
        self.pause_accepting(index, true);
        // One descriptor was kept for this: use it to tell one client, whose close brings it back and lets the next be told. Another
        // thread may snatch it in between; then the pause alone must do. Without a slot for it (this loop accepts for others and is full itself) the
        // client stays in the queue.
        let slots_max = (self.shared.limits.connections_max + self.shared.limits.refusals_max) as usize;
        if self.entries.len() < slots_max && self.os.release_spare() {
            let listener = &mut self.listeners[index];
            let Some(socket) = listener.socket.as_mut() else { return };
            match self.os.accept(socket) {
                Ok((stream, peer)) => self.admit(stream, Origin::Accepted { peer, listener: index }, true),
                Err(e) => {
                    if e.kind() == io::ErrorKind::WouldBlock {
                        // accept(2) wants a descriptor before it looks into the queue: EMFILE does not say that somebody waits.
                        listener.ready = false;
                        listener.pause = None;
                    }
                    // Not kept, it would serve the next client, and all after that one would wait in silence.
                    self.os.hold_spare();
                }
            }
        }
    }

    fn pause_accepting(&mut self, index: usize, ends_at_close: bool) {
        let until = clock::after(self.shared.now, self.shared.limits.accept_pause);
        self.listeners[index].pause = Some(Pause { until, ends_at_close });
    }

    /// A close has freed a descriptor and a slot: first the spare is taken back, then the queue goes on. A listener that paused for another
    /// reason waits for the end of its pause.
    pub(crate) fn resume_accepting(&mut self) {
        for listener in &mut self.listeners {
            if listener.pause.take_if(|pause| pause.ends_at_close).is_some() {
                self.os.hold_spare();
            }
        }
    }

    /// Gives a new connection its slot, its registration and its first callback; `refuse` it audibly if there is no room.
    pub(crate) fn admit(&mut self, stream: O::Stream, origin: Origin, refuse: bool) {
        self.shared.progress = true;
        self.shared.stats.accepts.add(1);
        let limits = &self.shared.limits;
        if self.entries.len() >= (limits.connections_max + limits.refusals_max) as usize {
            // No slot even for a refusal: a loop that was handed more than it can hold. Dropping the stream closes it.
            return self.shared.stats.closes(CloseReason::Refused).add(1);
        }
        // Writable until proved otherwise: the edge of an empty send buffer is consumed by the registration.
        let token = self.shared.slots.insert(&mut self.entries, Entry::new(stream, Flags::WRITABLE));
        self.shared.stats.connections_open.set(self.entries.len() as u64);
        let entry = &mut self.entries[token.slot as usize];
        if let Err(e) = self.os.register(&mut entry.stream, token) {
            self.shared.logs.register.warn(self.shared.now, format_args!("cannot register a connection: {e}"));
            return self.kill(token.slot, CloseReason::RegisterFailed);
        }
        self.visit_because(token.slot, Cause::Opened(origin));
        if refuse {
            self.visit_because(token.slot, Cause::Pressed(Pressure::ConnectionsMax));
        } else if self.drain.is_some() {
            self.visit_because(token.slot, Cause::Pressed(Pressure::Draining));
        }
    }

    /// A connection that another loop accepted.
    pub(crate) fn adopt(&mut self, descriptor: O::Handover, peer: SocketAddr, listener: usize) {
        match self.os.adopt(descriptor) {
            Ok(stream) => {
                self.shared.stats.adoptions.add(1);
                let over = self.entries.len() >= self.shared.limits.connections_max as usize;
                self.admit(stream, Origin::Accepted { peer, listener }, over);
            }
            Err(e) => {
                self.shared.stats.adoption_failures.add(1);
                self.shared.logs.hand_off.warn(self.shared.now, format_args!("cannot take a connection over: {e}"));
            }
        }
    }

    /// Takes a listener out of the poller and closes it. Whoever is still in its queue is reset by the kernel, unless another process holds
    /// the socket too.
    pub(crate) fn stop_listening(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        listener.ready = false;
        if let Some(mut socket) = listener.socket.take()
            && let Err(e) = self.os.deregister_listener(&mut socket)
        {
            log::debug!("deregister a listener: {e}");
        }
    }
}
