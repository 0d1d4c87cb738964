//! Everything outside the loop, in one value: the kernel, the peers, the workers, the time, and what is known to be promised.
//!
//! Time moves only here. It moves while the loop waits in poll, and by the cost of each system call and callback while it works; what
//! is due then happens then, so peers and workers act in the middle of a turn as real ones do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use super::expendable::{Expendable, Wait};
use super::faults::Faults;
use super::kernel::{Kernel, Nanos, SocketId};
use super::peer::Peer;
use super::upstream::Upstream;
use super::workers::Job;
use crate::limits::Limits;

/// What somebody outside does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    PeerConnects(u32),
    PeerSends(u32),
    PeerReads(u32),
    /// The peer's last act: FIN, close or reset, as planned.
    PeerEnds(u32),
    PeerResets(u32),
    /// What the loop's close or reset means arrives at the peer.
    PeerSeesReset(u32),
    /// A reset comes back, since the loop wrote to a peer that has closed.
    ResetArrives(SocketId),
    UpstreamDecides(u32),
    UpstreamReads(u32),
    UpstreamSends(u32),
    JobEnds(u32),
    /// Another part of the process gives a descriptor back.
    DescriptorReturns,
    /// The order with this number is given: a loop, or all of them, drain or stop; see the run.
    OrderIsGiven(u32),
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Peer(u32),
    Upstream(u32),
}

/// A connection as the service knows it, for the checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conn {
    pub(crate) socket: SocketId,
    pub(crate) of_loop: usize,
    /// The deadline that the service set last and that has not run.
    pub(crate) deadline: Option<Nanos>,
    /// The service's `closed` has not been called.
    pub(crate) open: bool,
    /// In which turn a callback ran last that got somewhere: any but an input that was not taken.
    pub(crate) called_in_turn: u64,
    /// When the turn began in which it was opened.
    pub(crate) opened_at: Nanos,
    /// In which turn input was offered last.
    pub(crate) offered_in_turn: u64,
    /// `pause` is in force.
    pub(crate) paused: bool,
    /// It may make room for others.
    pub(crate) wait: Option<Wait>,
}

/// What happened in one turn, to be held against the limits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TurnLog {
    pub(crate) accepts: u32,
    pub(crate) closes: u32,
    /// New connections: accepted, adopted or begun.
    pub(crate) admitted: u32,
    /// Those among them that another loop had accepted.
    pub(crate) adopted: u32,
    pub(crate) mail: u32,
    pub(crate) deadlines: u32,
    /// Anything that changed something.
    pub(crate) progress: bool,
    /// The poll was asked not to wait, and reported nothing.
    pub(crate) idle_poll: bool,
}

/// Connections that have ended and wait for their close(2).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dead {
    /// After the turn before.
    pub(crate) sockets: u32,
    /// New connections less closes, since such sockets have waited without a break.
    pub(crate) balance: i64,
}

/// What is known of one loop and its service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoopNotes {
    pub(crate) expendable: Expendable,
    pub(crate) dead: Dead,
    /// One of several loops: its last poll found nothing, and it runs again when its epoll has something.
    pub(crate) is_asleep: bool,
    /// It has got its order, and that was to stop.
    pub(crate) is_ordered: bool,
    pub(crate) is_stopped: bool,
    /// The grace it was given, until the turn that learns of it has begun; and when it is over.
    pub(crate) grace: Option<Nanos>,
    pub(crate) shutdown_until: Option<Nanos>,
    /// When the service's `woke` wants to run.
    pub(crate) next_wake: Option<Nanos>,
    pub(crate) published: u32,
    pub(crate) mail_sent: u32,
    pub(crate) mail_taken: u32,
    pub(crate) turns: u64,
    /// Turns in a row that did nothing and did not wait.
    pub(crate) idle_turns: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    agenda: BinaryHeap<Reverse<(Nanos, u32, Act)>>,
    serial: u32,
    pub(crate) peers: Vec<Peer>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) faults: Faults,
    pub(crate) limits: Limits,
    pub(crate) turn_log: TurnLog,
    /// By the number of the loop.
    pub(crate) loops: Vec<LoopNotes>,
    /// The first thing that went wrong.
    pub(crate) violation: Option<String>,
    /// The loop waits, and nothing will ever happen.
    pub(crate) is_quiescent: bool,
    pub(crate) orders_given: Vec<u32>,
    /// The loop was stopped, or its time to drain is over: those who are not served then are excused.
    pub(crate) is_ending: bool,
    /// When the loop that accepts was told to drain.
    pub(crate) drains_since: Option<Nanos>,
    /// A loop is taken apart that was stopped or had no time left to drain: what is on its way to it is lost.
    pub(crate) is_cut_off: bool,
    /// Descriptors that another part of the process has for a while.
    pub(crate) descriptors_elsewhere: u32,
    /// How much later than asked a poll may return.
    pub(crate) wake_latency_nanos_max: Nanos,
    pub(crate) trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(kernel: Kernel, limits: Limits) -> World {
        World {
            kernel,
            agenda: BinaryHeap::new(),
            serial: 0,
            peers: Vec::new(),
            upstreams: Vec::new(),
            jobs: Vec::new(),
            conns: Vec::new(),
            faults: Faults::default(),
            limits,
            turn_log: TurnLog::default(),
            loops: vec![LoopNotes::default()],
            violation: None,
            is_quiescent: false,
            orders_given: Vec::new(),
            is_ending: false,
            drains_since: None,
            is_cut_off: false,
            descriptors_elsewhere: 0,
            wake_latency_nanos_max: 0,
            trace: None,
        }
    }

    /// What is known of the loop that runs.
    pub(crate) fn here(&mut self) -> &mut LoopNotes {
        &mut self.loops[self.kernel.at]
    }

    /// Writes a line of the trace, if one is kept.
    #[inline]
    pub(crate) fn note(&mut self, line: impl FnOnce(&mut String, &World)) {
        if self.trace.is_some() {
            let mut text = String::new();
            line(&mut text, self);
            if let Some(trace) = &mut self.trace {
                trace.push(text);
            }
        }
    }

    /// A promise was broken. Only the first counts: what follows may follow from it.
    #[cold]
    pub(crate) fn violated(&mut self, what: String) {
        self.note(|line, _| {
            let _ = write!(line, "    VIOLATION: {what}");
        });
        self.violation.get_or_insert(what);
    }

    pub(crate) fn plan(&mut self, at: Nanos, act: Act) {
        self.serial += 1;
        self.agenda.push(Reverse((at, self.serial, act)));
    }

    pub(crate) fn plan_after(&mut self, after: Nanos, act: Act) {
        self.plan(self.kernel.now + after, act);
    }

    /// The loop works for so long; meanwhile the others act.
    pub(crate) fn spend(&mut self, nanos: Nanos) {
        self.advance_to(self.kernel.now + nanos);
    }

    fn next(&self) -> Option<Nanos> {
        let planned = self.agenda.peek().map(|Reverse((at, ..))| *at);
        planned.into_iter().chain(self.kernel.next()).min()
    }

    pub(crate) fn advance_to(&mut self, until: Nanos) {
        while let Some(next) = self.next().filter(|next| *next <= until) {
            self.kernel.now = self.kernel.now.max(next);
            self.kernel.run_due();
            if self.agenda.peek().is_some_and(|Reverse((at, ..))| *at <= self.kernel.now)
                && let Some(Reverse((_, _, act))) = self.agenda.pop()
            {
                self.act(act);
            }
        }
        self.kernel.now = self.kernel.now.max(until);
    }

    /// Lets time pass to the next thing that happens, at most until `until`. False if nothing will, ever.
    pub(crate) fn wait(&mut self, until: Option<Nanos>) -> bool {
        let Some(next) = self.next().into_iter().chain(until).min() else { return false };
        self.advance_to(next);
        true
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::PeerConnects(peer) => self.peer_connects(peer),
            Act::PeerSends(peer) => self.peer_sends(peer),
            Act::PeerReads(peer) => self.peer_reads(peer),
            Act::PeerEnds(peer) => self.peer_ends(peer),
            Act::PeerResets(peer) => self.peer_resets(peer),
            Act::PeerSeesReset(peer) => self.peer_sees_end(peer, true),
            Act::ResetArrives(socket) => self.kernel.peer_resets(socket),
            Act::UpstreamDecides(upstream) => self.upstream_decides(upstream),
            Act::UpstreamReads(upstream) => self.upstream_reads(upstream),
            Act::UpstreamSends(upstream) => self.upstream_sends(upstream),
            Act::JobEnds(job) => self.job_ends(job),
            Act::DescriptorReturns => {
                self.kernel.descriptors -= 1;
                self.descriptors_elsewhere -= 1;
            }
            Act::OrderIsGiven(order) => {
                self.orders_given.push(order);
                // As Handle::drain and Handle::stop do; the run gives the order itself before the next turn.
                for epoll in &self.kernel.epolls {
                    let _ = crate::os::Wake::wake(&*epoll.waker).or_else(|_| crate::os::Wake::wake(&*epoll.waker));
                }
            }
        }
    }

    /// Whose the socket is.
    pub(crate) fn owner(&self, socket: SocketId) -> Option<Who> {
        let of_peer = self.peers.iter().position(|peer| peer.socket == Some(socket)).map(|i| Who::Peer(i as u32));
        of_peer.or_else(|| self.upstreams.iter().position(|up| up.socket == Some(socket)).map(|i| Who::Upstream(i as u32)))
    }

    /// A socket's name in the trace.
    pub(crate) fn name(&self, socket: SocketId) -> String {
        match self.owner(socket) {
            Some(Who::Peer(peer)) => format!("peer {peer}"),
            Some(Who::Upstream(upstream)) => format!("upstream {upstream}"),
            None => format!("socket {socket}"),
        }
    }

    /// A loop that slept until `end` slept past nobody's time.
    pub(crate) fn check_sleep(&mut self, of_loop: usize, end: Nanos) {
        let notes = self.loops[of_loop];
        // What is promised to the millisecond is rounded up to the next (`timers.rs`).
        let slack = self.wake_latency_nanos_max + 2 * self.kernel.hostility.call_nanos;
        let tick = 1_000_000;
        if let Some(at) = notes.next_wake.filter(|at| end > at + slack) {
            self.violated(format!("the loop slept {} past the time of next_wake", Time(end - at)));
        }
        if let Some(at) = notes.shutdown_until.filter(|at| end > at + slack) {
            self.violated(format!("the loop slept {} past the end of its drain", Time(end - at)));
        }
        if let Some(at) = self
            .upstreams
            .iter()
            .filter(|upstream| upstream.of_loop == of_loop)
            .filter_map(|upstream| upstream.connect_due)
            .find(|at| end > at + tick + slack)
        {
            self.violated(format!("the loop slept {} past the timeout of a connect", Time(end - at)));
        }
        let window = self.limits.output_rate_window.as_nanos() as Nanos;
        let linger = self.limits.linger_timeout.as_nanos() as Nanos;
        for i in 0..self.conns.len() {
            let conn = self.conns[i];
            if !conn.open || conn.of_loop != of_loop {
                continue;
            }
            let log = self.kernel.sockets[conn.socket as usize].log;
            let due = match log.ended_at {
                Some(at) => Some((at + linger, "end of lingering")),
                None => {
                    let deadline = conn.deadline.map(|at| (at, "deadline"));
                    // Output that is pending is first looked at after an eighth of a window, and then after each window.
                    let look = |since: Nanos| log.looks[1].map_or(0, |(at, _)| at + window).max(since + window / 8);
                    let stalled = log.blocked_since.map(|since| (look(since), "end of the output window"));
                    deadline.into_iter().chain(stalled).min()
                }
            };
            if self.has_stalled(conn.socket) {
                let name = self.name(conn.socket);
                self.violated(format!("the loop sleeps, and {name} has taken too little over a window"));
            }
            if let Some((at, what)) = due.filter(|(at, _)| end > at + tick + slack) {
                let name = self.name(conn.socket);
                self.violated(format!("the loop slept {} past the {what} of {name}", Time(end - at)));
            }
        }
    }
}

/// Virtual time, for people.
pub(crate) struct Time(pub(crate) Nanos);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000_000, self.0 / 1_000 % 1000)
    }
}
