//! Accepting: adding listeners, the accept stage of a turn, errors of accept(2), and admitting a connection.
//!
//! Listening sockets are edge-triggered, so the loop must remember why it stopped accepting. Each reason has its way to resume:
//! - the queue is empty: an event;
//! - the budget is spent: the listener stays `ready`, and the next poll returns at once;
//! - the connection limit is reached: a close;
//! - descriptors or memory are short: a close, or the end of a pause (`fd-exhaustion`, docs/failures/fd-exhaustion.md);
//! - the listener has another error: the end of a pause.
//!
//! Tests: `clients_that_arrive_together_are_all_accepted_from_one_edge`, `at_the_connection_limit_clients_get_503_or_wait`,
//! `without_descriptors_clients_are_served_or_get_503`, `a_listeners_own_error_is_retried_after_a_pause`.

use std::io;
use std::time::Instant;

use crate::address::Address;
use crate::errors::{AcceptError, CloseReason, is_of_the_connection};
use crate::event_loop::EventLoop;
use crate::handler::{Handler, Origin, Pressure};
use crate::listen::slots_taken::Reservation;
use crate::listen::{Listener, Pause};
use crate::os::{ListenerWakes, Os};
use crate::policy::{AcceptPressure, AtConnectionsMax};
use crate::slot::{Bits, Phase};
use crate::timers;
use crate::token::Token;
use crate::visit::Cause;

/// Cost of accept(2), epoll_ctl(2) and the first callback, in small visits: about 10 µs (docs/numbers.md).
const ACCEPT_COST: u32 = 4;

impl<H: Handler, O: Os> EventLoop<H, O> {
    /// Adds a listening socket. Returns its index, 0 for the first, which [`Origin::Accepted`] names. Sets the bound on the kernel's part
    /// of the accepted connections' output ([`crate::Limits::kernel_unsent_bytes_max`]) on the socket.
    ///
    /// # Errors
    /// setsockopt(2), epoll_ctl(2); `InvalidInput` beyond 63 listeners. The socket is closed then.
    pub fn listen_on(&mut self, socket: O::Listener, wakes: ListenerWakes) -> io::Result<usize> {
        self.add_listener(socket, wakes, false)
    }

    /// Adds a listening socket that another process holds too ([`adopt`](crate::listen::socket::adopt)). A drain accepts the connections
    /// that are in its queue when the drain begins, up to [`LISTEN_BACKLOG`](crate::listen::socket::LISTEN_BACKLOG), and leaves later ones
    /// to the next server.
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

    /// Whether accept(2) may be called now. False at the connection limit: clients in the queue must not keep the loop from sleeping, and a
    /// close resumes accepting. Test: `a_full_house_with_clients_at_the_door_keeps_no_loop_awake`.
    pub(crate) fn may_accept(&self, index: usize) -> bool {
        let listener = &self.listeners[index];
        listener.ready && listener.pause.is_none_or(|pause| pause.is_over(self.shared.now)) && self.has_capacity(listener)
    }

    /// When the pause of a listener ends. None if accept(2) may not be called then either, as at the connection limit: the loop would wake
    /// up for nothing.
    pub(crate) fn pause_ends(&self, index: usize) -> Option<Instant> {
        let listener = &self.listeners[index];
        listener.pause.filter(|_| listener.ready && self.has_capacity(listener))?.until
    }

    /// Whether a slot is free for a client in the queue of a listener, here or in another loop. Not inlined: few turns call it, and its
    /// loads would be made in the others too.
    #[cold]
    fn has_capacity(&self, listener: &Listener<O::Listener>) -> bool {
        let slot_is_coming = self.shared.evictions_pending > 0 || !self.shared.closes.is_empty();
        listener.socket.is_some() && (self.has_slot(slot_is_coming) || self.can_hand_off())
    }

    /// Whether a slot is free for a new client, be it to reject it. `slot_is_coming`: a slot for serving is about to be free. Then the client
    /// waits for it; else it would be rejected although it could be served.
    pub(crate) fn has_slot(&self, slot_is_coming: bool) -> bool {
        let limits = &self.shared.limits;
        let open_max = match self.shared.policy.at_connections_max {
            AtConnectionsMax::Refuse if !slot_is_coming => limits.connections_max + limits.refusals_max,
            AtConnectionsMax::Refuse | AtConnectionsMax::Wait => limits.connections_max,
        };
        self.entries.len() < open_max as usize
    }

    /// Number of connections that this turn may accept or adopt. While dead sockets wait for close(2), it is at most the number that the
    /// last turn closed. Without this, clients that connect and disconnect would fill the table with dead sockets, because a turn closes
    /// fewer connections than it accepts. Test: `churn_does_not_fill_the_table_with_dead_sockets`.
    pub(crate) fn accepts_allowed(&self) -> u32 {
        let accepts_max = self.shared.limits.accepts_per_turn_max;
        if self.shared.closes.is_empty() { accepts_max } else { accepts_max.min(self.closed_last_turn) }
    }

    /// Number of outbound connections that this turn may begin. While dead sockets wait for close(2), connects share the turn's budget of
    /// accepts.
    pub(crate) fn connects_allowed(&self) -> u32 {
        if self.shared.closes.is_empty() { u32::MAX } else { self.accepts_left }
    }

    /// The accept stage of a turn: accepts from the listeners, within the stage's count and time, and closes emptied listeners while
    /// draining.
    pub(crate) fn accept_waiting(&mut self) {
        if self.shutdown.is_none() && !self.listeners.iter().any(|listener| listener.ready || listener.pause.is_some()) {
            return;
        }
        let mut stage = self.stage(self.shared.limits.accepts_time_max);
        let mut is_up = self.accepts_left == 0;
        let (first, listeners) = (self.first_to_accept, self.listeners.len());
        for index in (first..listeners).chain(0..first) {
            if self.listeners[index].pause.is_some_and(|pause| pause.is_over(self.shared.now)) {
                self.listeners[index].pause = None;
                // Another thread may have taken the spare descriptor, and freed it since.
                self.os.hold_spare();
            }
            while !is_up && self.may_accept(index) {
                self.accepts_left -= 1;
                self.accept_one(index);
                is_up = self.time_is_up(&mut stage, ACCEPT_COST) || self.accepts_left == 0;
            }
            if self.shutdown.is_some() && !self.listeners[index].ready {
                // At once: a client that connects between the last accept(2) and the close is reset.
                self.stop_listening(index);
            }
        }
        if is_up && listeners > 0 {
            // A queue that does not run empty spends the whole budget, so another listener is first in the next turn. Test:
            // `a_queue_that_never_runs_empty_leaves_the_other_listeners_their_turn`.
            self.first_to_accept = (first + 1) % listeners;
        }
    }

    /// Calls accept(2) once.
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

    /// Handles an error of accept(2) other than `WouldBlock`. The loop continues.
    #[cold]
    fn accept_failed(&mut self, index: usize, error: &io::Error) {
        let kind = AcceptError::of(error);
        self.shared.stats.accept_errors(kind).add(1);
        match kind {
            AcceptError::Emfile | AcceptError::Enfile | AcceptError::Enobufs | AcceptError::Enomem => self.under_pressure(index),
            // The connection failed in the queue or in the network. The loop accepts the next one.
            _ if is_of_the_connection(error) => {}
            // The listener failed: another process has shut an inherited socket down (EINVAL), or a security module denies accept(2)
            // (EACCES). The queue is unchanged, so a retry at once would keep the loop from sleeping (`hot-loop`). Test:
            // `a_listener_that_fails_for_good_keeps_no_loop_awake`.
            _ => {
                self.pause_accepting(index, false);
                self.shared.logs.accept.warn(self.shared.now, format_args!("accept(2) failed and is retried after a pause: {error}"));
            }
        }
    }

    /// Handles a lack of descriptors or memory. accept(2) took no connection, so the client is still in the queue, and no event will come
    /// for it (`fd-exhaustion`).
    fn under_pressure(&mut self, index: usize) {
        match self.shared.policy.accept_pressure {
            AcceptPressure::PauseAndResume => {}
            AcceptPressure::NextEvent => {
                self.listeners[index].ready = false; // MISTAKE(fd-exhaustion): clients in the accept queue cause no further edge; they hang until another client connects.
                return;
            }
        }
        self.shared.stats.accept_pauses.add(1);
        self.pause_accepting(index, true);
        // The spare descriptor is used to accept one client and to reject it with a response. Its close frees the descriptor for the next
        // one. Another thread may take the descriptor in between; then the pause alone must do. If there is no free slot (this loop accepts
        // for other loops and is full itself), the client stays in the queue.
        let slots_max = (self.shared.limits.connections_max + self.shared.limits.refusals_max) as usize;
        if self.entries.len() < slots_max && self.os.release_spare() {
            let listener = &mut self.listeners[index];
            let Some(socket) = listener.socket.as_mut() else { return };
            match self.os.accept(socket) {
                Ok((stream, peer)) => self.admit(stream, Origin::Accepted { peer, listener: index }, true, None),
                Err(e) => {
                    if e.kind() == io::ErrorKind::WouldBlock {
                        // accept(2) allocates a descriptor before it looks into the queue, so EMFILE came although the queue is empty.
                        listener.ready = false;
                        listener.pause = None;
                    }
                    // Taken back, else it would serve the next client, and later clients would get no response.
                    self.os.hold_spare();
                }
            }
        }
    }

    /// Pauses accept(2) on a listener for `accept_pause`.
    fn pause_accepting(&mut self, index: usize, ends_at_close: bool) {
        let until = timers::after(self.shared.now, self.shared.limits.accept_pause);
        self.listeners[index].pause = Some(Pause { until, ends_at_close });
    }

    /// Resumes accepting after a close has freed a descriptor and a slot. The spare descriptor is taken back first. A listener that pauses
    /// for another reason waits for the end of its pause.
    pub(crate) fn resume_accepting(&mut self) {
        for listener in &mut self.listeners {
            if listener.pause.take_if(|pause| pause.ends_at_close).is_some() {
                self.os.hold_spare();
            }
        }
    }

    /// Gives a new connection its slot, its registration and its first callback. If `refuse`, it is then rejected: the handler may write a
    /// response, and the connection closes.
    pub(crate) fn admit(&mut self, stream: O::Stream, origin: Origin, refuse: bool, reservation: Option<Reservation>) {
        self.shared.progress = true;
        let limits = &self.shared.limits;
        if self.entries.len() >= (limits.connections_max + limits.refusals_max) as usize {
            // No slot is free, not even to reject it in. It was accepted for another loop, which cannot have it.
            return self.wait_for_slot(stream, origin);
        }
        self.shared.stats.accepts.add(1);
        let token = self.shared.slots.insert(&mut self.entries, stream, Phase::Open);
        if let Origin::Accepted { peer: Address::Unix, .. } = origin {
            // A read stops after bytes that came together with a descriptor (SCM_RIGHTS, unix(7)), and no event reports the bytes behind
            // them. Test: `bytes_behind_a_passed_descriptor_are_read`.
            self.shared.slots.get_mut(token.slot).bits.insert(Bits::READ_TO_THE_END);
        }
        self.slots_taken.opened(reservation);
        self.shared.stats.connections_open.set(self.entries.len() as u64);
        let entry = &mut self.entries[token.slot as usize];
        if let Err(e) = self.os.register(&mut entry.stream, token) {
            self.shared.logs.register.warn(self.shared.now, format_args!("cannot register a connection: {e}"));
            return self.kill(token.slot, CloseReason::RegisterFailed);
        }
        self.visit_because(token.slot, Cause::Opened(origin));
        if refuse {
            self.visit_because(token.slot, Cause::Pressed(Pressure::ConnectionsMax));
        } else if self.shutdown.is_some() {
            self.visit_because(token.slot, Cause::Pressed(Pressure::ShuttingDown));
        }
    }

    /// Removes a listener from epoll and closes it. The kernel resets the clients that are in its queue, unless another process holds the
    /// socket too.
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
