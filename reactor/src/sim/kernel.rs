//! The simulated kernel: sockets, listeners, one epoll, one timer, descriptors, and the time.
//!
//! Edge triggering is Linux's (`fs/eventpoll.c`), rule by rule:
//! - A change that wakes the socket's wait queue puts it on epoll's ready list, once (`ep_poll_callback`): arrived data
//!   (sock_def_readable), FIN (tcp_fin, sk_state_change), a reset (sk_error_report), freed room after a write that lacked it
//!   (sk_stream_write_space), the end of a connect.
//! - What `epoll_wait` reports is asked then, not remembered (`ep_item_poll` in `ep_send_events`): all bits that are true now. Several
//!   changes before that are one event; a change that was consumed meanwhile is none, or one with the other bits.
//! - An edge-triggered entry leaves the list when it is reported, whatever the program does with it.
//! - Registration reports what is true at once (`ep_insert`).
//! - A connection arrives at a listener: an edge. accept(2) makes none.
//!
//! Peers act by the methods that begin with `peer_`.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::epoll::Epoll;
use super::rng::Rng;
use super::socket::{Phase, Socket, ready_of};
use crate::os::{Event, Ready};
use crate::token::Token;

/// Virtual time since the start, in nanoseconds.
pub type Nanos = u64;

/// The number of a simulated socket. Never used again in a run, so that the simulator itself cannot mix two up.
pub type SocketId = u32;

/// How unkind the kernel is, within what it may do. All zero: an idle machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hostility {
    /// Every how many edges one comes late: the bytes are there before epoll is told, as when another CPU's softirq is between the two.
    pub late_edge_one_in: u64,
    /// By how much at most.
    pub late_edge_nanos_max: Nanos,
    /// Every how many polls one reports something that is not so.
    pub spurious_one_in: u64,
    /// Every how many reads and writes one is interrupted by a signal (EINTR).
    pub interrupted_one_in: u64,
    /// Every how many writes one takes only a part though there is room (a signal, or memory short in the middle).
    pub short_write_one_in: u64,
    /// Every how many writes one takes nothing, for want of kernel memory; the edge follows (`tcp_sendmsg_locked`, "make sure we wake any
    /// epoll edge trigger waiter").
    pub no_memory_one_in: u64,
    /// Every how many reads one gives only a part. Only for a loop that reads until `WouldBlock`: the kernel gives all that has arrived.
    pub short_read_one_in: u64,
    /// Events that one poll reports at most; 0 is no limit.
    pub events_max: usize,
    /// Every how many polls the thread is preempted between `epoll_wait` returning and the program reading the clock. What arrives meanwhile is in the
    /// sockets and not among the events.
    pub preempted_one_in: u64,
    /// For how long at most.
    pub preempted_nanos_max: Nanos,
    /// Every how many polls that have something else to report, or do not wait, return before the write to the eventfd: the mail is in the mailbox
    /// for the whole turn, and the next poll reports it.
    pub late_mail_one_in: u64,
    /// Every how many times the timer is set it fires before its time.
    pub early_timer_one_in: u64,
    /// Which write to the eventfd fails, counted from 1; 0: none.
    pub failing_wake: u32,
    /// What each system call costs.
    pub call_nanos: Nanos,
}

/// What epoll watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Socket(SocketId),
    Listener(usize),
    /// Of the loop with this number.
    Timer(usize),
}

/// A listening socket and its accept queue.
#[derive(Debug, Default)]
pub(crate) struct ListenSocket {
    pub(crate) queue: VecDeque<SocketId>,
    pub(crate) open: bool,
    pub(crate) registered: Option<Token>,
    /// Whose epoll that is.
    pub(crate) of_loop: usize,
    pub(crate) on_ready_list: bool,
    pub(crate) late_edges: u32,
    /// What a connection inherits.
    pub(crate) unsent_bytes_max: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) rng: Rng,
    pub(crate) hostility: Hostility,
    pub(crate) now: Nanos,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) listeners: Vec<ListenSocket>,
    /// By the number of the loop.
    pub(crate) epolls: Vec<Epoll>,
    /// The loop that runs.
    pub(crate) at: usize,
    late: Vec<(Nanos, Source)>,
    /// Descriptors of streams, and the spare ones.
    pub(crate) descriptors: u32,
    pub(crate) descriptors_max: u32,
    /// Connections that one loop has released and none has adopted.
    pub(crate) in_transit: u32,
    received_bytes_max: usize,
    unsent_bytes_max: usize,
    /// Counts turns: one poll each.
    pub(crate) turn: u64,
    pub(crate) turn_started: Nanos,
}

impl Kernel {
    /// A kernel with an empty process. Each socket buffers as many bytes in each direction.
    #[must_use]
    pub fn new(rng: Rng, hostility: Hostility, received_bytes_max: usize, unsent_bytes_max: usize) -> Kernel {
        Kernel {
            rng,
            hostility,
            now: 0,
            sockets: Vec::new(),
            listeners: Vec::new(),
            epolls: vec![Epoll::new(hostility.failing_wake)],
            at: 0,
            late: Vec::new(),
            descriptors: 0,
            descriptors_max: u32::MAX,
            in_transit: 0,
            received_bytes_max,
            unsent_bytes_max,
            turn: 0,
            turn_started: 0,
        }
    }

    /// epoll_create1(2), eventfd(2), timerfd_create(2): for one more loop.
    pub(crate) fn add_loop(&mut self) {
        self.epolls.push(Epoll::new(0));
    }

    pub(crate) fn epoll(&mut self) -> &mut Epoll {
        &mut self.epolls[self.at]
    }

    /// Whether a poll of a loop would return at once.
    pub(crate) fn is_ready(&self, of_loop: usize) -> bool {
        let epoll = &self.epolls[of_loop];
        epoll.waker.is_woken.load(Ordering::Relaxed) || !epoll.ready.is_empty()
    }

    /// socket(2), bind(2), listen(2).
    pub fn listen(&mut self) -> usize {
        self.listeners.push(ListenSocket { open: true, ..ListenSocket::default() });
        self.listeners.len() - 1
    }

    /// A bound on unsent bytes is a smaller buffer here: the difference, what is sent and not acknowledged, does not exist.
    pub(crate) fn new_socket(&mut self, phase: Phase, unsent_bytes_max: Option<usize>) -> SocketId {
        self.sockets.push(Socket::new(phase, self.received_bytes_max, unsent_bytes_max.unwrap_or(self.unsent_bytes_max)));
        (self.sockets.len() - 1) as SocketId
    }

    pub(crate) fn socket(&mut self, id: SocketId) -> &mut Socket {
        &mut self.sockets[id as usize]
    }

    /// A peer connects: the handshake is done, and the connection waits to be accepted. None if nobody listens.
    pub fn peer_connects(&mut self, listener: usize) -> Option<SocketId> {
        if !self.listeners[listener].open {
            return None;
        }
        let id = self.new_socket(Phase::Open, self.listeners[listener].unsent_bytes_max);
        self.listeners[listener].queue.push_back(id);
        self.edge(Source::Listener(listener));
        Some(id)
    }

    /// A peer sends; returns how many bytes the window took.
    pub fn peer_sends(&mut self, id: SocketId, bytes: &[u8]) -> usize {
        let n = self.socket(id).window().min(bytes.len());
        if n > 0 {
            self.socket(id).received.extend(&bytes[..n]);
            self.edge(Source::Socket(id));
        }
        n
    }

    /// A peer sends an urgent byte (`MSG_OOB`).
    pub fn peer_sends_urgent(&mut self, id: SocketId) {
        if self.socket(id).window() > 0 {
            self.socket(id).mark_urgent();
            self.edge(Source::Socket(id));
        }
    }

    /// A peer sends FIN.
    pub fn peer_ends(&mut self, id: SocketId) {
        if self.socket(id).phase == Phase::Open && !self.socket(id).peer_ended {
            self.socket(id).peer_ended = true;
            self.edge(Source::Socket(id));
        }
    }

    /// A peer sends a reset, or refuses a connect.
    pub fn peer_resets(&mut self, id: SocketId) {
        if self.socket(id).phase != Phase::Reset {
            self.socket(id).reset();
            self.edge(Source::Socket(id));
        }
    }

    /// A peer accepts our connect.
    pub fn peer_accepts(&mut self, id: SocketId) {
        if self.socket(id).phase == Phase::Connecting {
            self.socket(id).phase = Phase::Open;
            self.edge(Source::Socket(id));
        }
    }

    /// A peer reads up to `bytes_max` and so acknowledges them.
    pub fn peer_reads(&mut self, id: SocketId, bytes_max: usize, into: &mut Vec<u8>) {
        let socket = self.socket(id);
        let n = bytes_max.min(socket.unsent.len());
        into.extend(socket.unsent.drain(..n));
        if n > 0 && socket.space_freed() {
            self.edge(Source::Socket(id));
        }
    }

    /// A wake-up of the wait queue: to epoll's ready list, now or a little late.
    pub(crate) fn edge(&mut self, source: Source) {
        let late_one_in = self.hostility.late_edge_one_in;
        if late_one_in > 0 && self.rng.one_in(late_one_in) {
            let at = self.now + self.rng.between(1, self.hostility.late_edge_nanos_max);
            match source {
                Source::Socket(id) => self.socket(id).late_edges += 1,
                Source::Listener(index) => self.listeners[index].late_edges += 1,
                Source::Timer(_) => {}
            }
            self.late.push((at, source));
        } else {
            self.edge_now(source);
        }
    }

    fn edge_now(&mut self, source: Source) {
        let (registered, of_loop, on_list) = match source {
            Source::Socket(id) => {
                let socket = &mut self.sockets[id as usize];
                (socket.registered.is_some(), socket.of_loop, &mut socket.on_ready_list)
            }
            Source::Listener(index) => {
                let listener = &mut self.listeners[index];
                (listener.registered.is_some(), listener.of_loop, &mut listener.on_ready_list)
            }
            Source::Timer(of_loop) => (true, of_loop, &mut self.epolls[of_loop].timer_is_listed),
        };
        if registered && !*on_list {
            *on_list = true;
            self.epolls[of_loop].ready.push_back(source);
        }
    }

    /// When the kernel itself has something to do next.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.late.iter().map(|(at, _)| *at).chain(self.epolls.iter().filter_map(|epoll| epoll.timer)).min()
    }

    /// Does what is due.
    pub(crate) fn run_due(&mut self) {
        for of_loop in 0..self.epolls.len() {
            let epoll = &mut self.epolls[of_loop];
            if epoll.timer.is_some_and(|at| at <= self.now) {
                epoll.timer = None;
                epoll.timer_has_fired = true;
                self.edge_now(Source::Timer(of_loop));
            }
        }
        while let Some(index) = self.late.iter().position(|(at, _)| *at <= self.now) {
            let (_, source) = self.late.remove(index);
            match source {
                Source::Socket(id) => self.socket(id).late_edges -= 1,
                Source::Listener(index) => self.listeners[index].late_edges -= 1,
                Source::Timer(_) => {}
            }
            self.edge_now(source);
        }
    }

    /// timerfd_settime(2).
    pub(crate) fn set_timer(&mut self, after: Nanos) {
        let one_in = self.hostility.early_timer_one_in;
        let after = if one_in > 0 && self.rng.one_in(one_in) { self.rng.below(after) } else { after };
        let at = self.now + after.max(1);
        let epoll = self.epoll();
        epoll.timer = Some(at);
        epoll.timer_has_fired = false;
    }

    /// Whether mail's wake-up waits to be reported.
    pub(crate) fn is_woken(&self) -> bool {
        self.epolls[self.at].waker.is_woken.load(Ordering::Relaxed)
    }

    /// ep_send_events: what is on the list and still true.
    pub(crate) fn collect(&mut self, events: &mut Vec<Event>, waits: bool) {
        let events_max = if self.hostility.events_max == 0 { usize::MAX } else { self.hostility.events_max };
        let returns_anyway = !waits || !self.epoll().ready.is_empty();
        let one_in = self.hostility.late_mail_one_in;
        let is_late = self.is_woken() && returns_anyway && one_in > 0 && self.rng.one_in(one_in);
        if !is_late && self.epoll().waker.is_woken.swap(false, Ordering::Relaxed) {
            events.push(Event { token: Token::WAKER, ready: Ready::READABLE });
        }
        while events.len() < events_max {
            let Some(source) = self.epoll().ready.pop_front() else { break };
            match source {
                Source::Timer(of_loop) => {
                    let epoll = &mut self.epolls[of_loop];
                    epoll.timer_is_listed = false;
                    if std::mem::take(&mut epoll.timer_has_fired) {
                        events.push(Event { token: Token::TIMER, ready: Ready::READABLE });
                    }
                }
                Source::Listener(index) => {
                    let listener = &mut self.listeners[index];
                    listener.on_ready_list = false;
                    if let Some(token) = listener.registered.filter(|_| !listener.queue.is_empty()) {
                        events.push(Event { token, ready: Ready::READABLE });
                    }
                }
                Source::Socket(id) => {
                    let socket = &mut self.sockets[id as usize];
                    socket.on_ready_list = false;
                    let Some(token) = socket.registered else { continue };
                    let mask = socket.poll();
                    if mask != 0 {
                        events.push(Event { token, ready: ready_of(mask) });
                    }
                }
            }
        }
    }

    /// ep_insert.
    pub(crate) fn register(&mut self, id: SocketId, token: Token) {
        let at = self.at;
        let socket = self.socket(id);
        debug_assert!(socket.registered.is_none(), "registered twice: epoll_ctl(2) says EEXIST");
        socket.registered = Some(token);
        socket.of_loop = at;
        if socket.poll() != 0 {
            self.edge_now(Source::Socket(id));
        }
    }

    /// ep_remove.
    pub(crate) fn deregister(&mut self, id: SocketId) {
        let socket = self.socket(id);
        socket.registered = None;
        let of_loop = socket.of_loop;
        if std::mem::take(&mut socket.on_ready_list) {
            self.epolls[of_loop].ready.retain(|source| *source != Source::Socket(id));
        }
    }

    pub(crate) fn register_listener(&mut self, index: usize, token: Token) {
        self.listeners[index].registered = Some(token);
        self.listeners[index].of_loop = self.at;
        if !self.listeners[index].queue.is_empty() {
            self.edge_now(Source::Listener(index));
        }
    }

    pub(crate) fn deregister_listener(&mut self, index: usize) {
        self.listeners[index].registered = None;
        let of_loop = self.listeners[index].of_loop;
        if std::mem::take(&mut self.listeners[index].on_ready_list) {
            self.epolls[of_loop].ready.retain(|source| *source != Source::Listener(index));
        }
    }
}
