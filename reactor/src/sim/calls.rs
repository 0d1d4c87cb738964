//! The system calls of the simulated process: what each costs, what the kernel answers, what is injected, and what is written down.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::faults::Call;
use super::kernel::{Hostility, Nanos, SocketId, Source};
use super::os::FIRST_PEER_PORT;
use super::socket::{LastRead, Phase, Socket};
use super::trace::{errno_name, outcome, trace_poll};
use super::world::{LoopNotes, TurnLog, Who, World};
use crate::address::Address;
use crate::os::{Event, Ready};

impl World {
    /// A system call begins. While it runs, others act.
    pub(crate) fn enter(&mut self) {
        self.spend(self.kernel.hostility.call_nanos);
    }

    fn is_interrupted(&mut self) -> bool {
        let one_in = self.kernel.hostility.interrupted_one_in;
        one_in > 0 && self.kernel.rng.one_in(one_in)
    }

    /// A new turn begins with its poll.
    fn begin_turn(&mut self) {
        self.kernel.turn += 1;
        self.turn_log = TurnLog::default();
        self.here().is_asleep = false;
        self.here().turns += 1;
        for socket in self.kernel.sockets.iter_mut().filter(|socket| socket.log.turn != 0) {
            let log = &mut socket.log;
            (log.turn, log.reads, log.bytes_read, log.bytes_written) = (0, 0, 0, 0);
            (log.reported, log.moved, log.last_read) = (false, false, None);
        }
    }

    pub(crate) fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) {
        self.begin_turn();
        self.enter();
        let start = self.kernel.now;
        if timeout == Some(Duration::ZERO) {
            self.kernel.run_due();
            self.kernel.collect(events, false);
            self.turn_log.idle_poll = events.is_empty();
        } else {
            let LoopNotes { mail_sent, mail_taken, .. } = *self.here();
            if mail_sent > mail_taken && !self.kernel.is_woken() && !self.kernel.epoll().waker.has_failed() {
                self.violated(format!("the loop sleeps while {} pieces of mail wait", mail_sent - mail_taken));
            }
            // epoll_wait(2) takes whole milliseconds, and mio rounds up (`src/sys/unix/selector/epoll.rs`).
            let until = timeout.map(|timeout| start + (timeout.as_nanos() as Nanos).div_ceil(1_000_000) * 1_000_000);
            self.kernel.run_due();
            self.kernel.collect(events, true);
            // One of several loops that finds nothing goes on, as after a signal, and then the others run.
            let is_alone = self.loops.len() == 1;
            while is_alone && events.is_empty() && until.is_none_or(|until| self.kernel.now < until) {
                if self.kernel.rng.one_in(256) {
                    break; // A signal: Interrupted, which is reported as no events.
                }
                if !self.kernel.is_woken() && !self.wait(until) {
                    self.is_quiescent = true;
                    break;
                }
                if self.wake_latency_nanos_max > 0 {
                    let late = self.kernel.rng.below(self.wake_latency_nanos_max);
                    self.spend(late);
                }
                self.kernel.collect(events, true);
            }
            if self.kernel.now > start {
                self.check_sleep(self.kernel.at, self.kernel.now);
            }
        }
        self.lie(events);
        self.here().is_asleep = events.is_empty() && timeout != Some(Duration::ZERO) && self.loops.len() > 1;
        for event in events.iter() {
            let at = self.kernel.at;
            let live = |socket: &&mut Socket| socket.registered == Some(event.token) && socket.of_loop == at;
            if let Some(socket) = self.kernel.sockets.iter_mut().find(live) {
                let reported = event.ready.intersects(Ready::READABLE) && socket.is_readable();
                (socket.log.turn, socket.log.reported) = (self.kernel.turn, reported);
            }
        }
        let returned_at = self.kernel.now;
        self.preempt();
        self.kernel.turn_started = self.kernel.now;
        if let Some(grace) = self.here().grace.take() {
            self.here().shutdown_until = Some(self.kernel.turn_started + grace);
        }
        self.note(|line, world| trace_poll(line, world, timeout, start, returned_at, events));
    }

    /// The thread loses its processor after `epoll_wait` has returned. Peers go on; the loop reads the clock when it runs again.
    fn preempt(&mut self) {
        let Hostility { preempted_one_in, preempted_nanos_max, .. } = self.kernel.hostility;
        if preempted_one_in > 0 && self.kernel.rng.one_in(preempted_one_in) {
            let nanos = self.kernel.rng.between(1, preempted_nanos_max);
            self.spend(nanos);
        }
    }

    /// A spurious event: a hint that is not true. Never one of an end or an error, which the kernel does not invent.
    fn lie(&mut self, events: &mut Vec<Event>) {
        let one_in = self.kernel.hostility.spurious_one_in;
        if one_in == 0 || self.kernel.sockets.is_empty() || !self.kernel.rng.one_in(one_in) {
            return;
        }
        let id = self.kernel.rng.below(self.kernel.sockets.len() as u64) as usize;
        if let Some(token) = self.kernel.sockets[id].registered
            && self.kernel.sockets[id].of_loop == self.kernel.at
            && !events.iter().any(|event| event.token == token)
            && (self.kernel.hostility.events_max == 0 || events.len() < self.kernel.hostility.events_max)
        {
            let ready = self.kernel.rng.pick(&[Ready::READABLE, Ready::WRITABLE, Ready::READABLE.union(Ready::WRITABLE)]);
            events.push(Event { token, ready });
        }
    }

    pub(crate) fn accept(&mut self, index: usize) -> io::Result<(SocketId, SocketAddr)> {
        self.enter();
        self.turn_log.accepts += 1;
        let result = self.try_accept(index);
        self.note(|line, world| {
            let _ = match &result {
                Ok((id, _)) => write!(line, "  accept {}", world.name(*id)),
                Err(e) => write!(line, "  accept: {}", errno_name(e)),
            };
        });
        result
    }

    fn try_accept(&mut self, index: usize) -> io::Result<(SocketId, SocketAddr)> {
        if self.kernel.listeners[index].queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(e) = self.faults.count(Call::Accept) {
            if matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::EPROTO))
                && let Some(id) = self.kernel.listeners[index].queue.pop_front()
            {
                // It was reset while it waited.
                self.kernel.socket(id).faulted = true;
                self.kernel.peer_resets(id);
                self.socket_is_gone(id, true);
            }
            self.turn_log.progress = true;
            return Err(e);
        }
        if self.kernel.descriptors >= self.kernel.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let Some(id) = self.kernel.listeners[index].queue.pop_front() else { return Err(io::ErrorKind::WouldBlock.into()) };
        self.open_descriptor(id);
        self.turn_log.admitted += 1;
        self.turn_log.progress = true;
        let port = match self.owner(id) {
            Some(Who::Peer(index)) => {
                let now = self.kernel.now;
                let peer = &mut self.peers[index as usize];
                (peer.is_accepted, peer.progress_at) = (true, now);
                FIRST_PEER_PORT + index as u16
            }
            _ => FIRST_PEER_PORT,
        };
        Ok((id, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
    }

    /// The address of the peer, as getpeername(2) returns it.
    pub(crate) fn peer_addr(&self, id: SocketId) -> io::Result<Address> {
        if self.kernel.sockets[id as usize].phase != Phase::Open {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        let index = match self.owner(id) {
            Some(Who::Peer(index) | Who::Upstream(index)) => index as u16,
            None => 0,
        };
        Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), FIRST_PEER_PORT + index).into())
    }

    pub(crate) fn open_descriptor(&mut self, id: SocketId) {
        self.kernel.descriptors += 1;
        self.kernel.socket(id).open = true;
        if self.kernel.descriptors > self.kernel.descriptors_max {
            self.violated(format!("{} descriptors are open, and {} are allowed", self.kernel.descriptors, self.kernel.descriptors_max));
        }
    }

    pub(crate) fn read(&mut self, id: SocketId, into: &mut [u8]) -> io::Result<usize> {
        self.enter();
        let result = self.try_read(id, into);
        let turn = self.kernel.turn;
        let log = &mut self.kernel.socket(id).log;
        log.turn = turn;
        log.reads += 1;
        log.last_read = Some(match &result {
            Ok(0) => LastRead::End,
            Ok(n) if *n < into.len() => LastRead::Short,
            Ok(_) => LastRead::Full,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => LastRead::WouldBlock,
            Err(_) => LastRead::Failed,
        });
        match &result {
            Ok(n) => {
                log.bytes_read += n;
                log.moved = true;
                self.turn_log.progress = true;
                self.window_opened(id);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                log.moved = true;
                self.turn_log.progress = true;
            }
        }
        self.note(|line, world| {
            let _ = write!(line, "  read {} ({} asked): {}", world.name(id), into.len(), outcome(&result));
        });
        result
    }

    fn try_read(&mut self, id: SocketId, into: &mut [u8]) -> io::Result<usize> {
        if self.violation.is_some() {
            // The run is over; a loop that reads on and on must come to an end.
            return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
        }
        if self.is_interrupted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if let Some(e) = self.faults.count(Call::Read) {
            if e.kind() != io::ErrorKind::Interrupted {
                self.break_connection(id);
            }
            return Err(e);
        }
        let one_in = self.kernel.hostility.short_read_one_in;
        let bytes_max = if one_in > 0 && self.kernel.rng.one_in(one_in) { self.kernel.rng.between(1, 64) as usize } else { usize::MAX };
        self.kernel.socket(id).read(into, bytes_max)
    }

    pub(crate) fn write(&mut self, id: SocketId, from: &[u8]) -> io::Result<usize> {
        self.enter();
        let result = self.try_write(id, from);
        let (turn, turn_started, now) = (self.kernel.turn, self.kernel.turn_started, self.kernel.now);
        let log = &mut self.kernel.socket(id).log;
        log.turn = turn;
        match &result {
            Ok(n) => {
                log.bytes_written += n;
                log.written_bytes += *n as u64;
                log.moved = true;
                (log.progress_at, log.progress_clock) = (Some(turn_started), now);
                log.blocked_since = (*n < from.len()).then_some(turn_started);
                self.turn_log.progress = true;
                self.bytes_are_under_way(id);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => log.blocked_since = log.blocked_since.or(Some(turn_started)),
            Err(_) => {
                log.moved = true;
                self.turn_log.progress = true;
            }
        }
        self.note(|line, world| {
            let _ = write!(line, "  write {} ({} offered): {}", world.name(id), from.len(), outcome(&result));
        });
        result
    }

    fn try_write(&mut self, id: SocketId, from: &[u8]) -> io::Result<usize> {
        if self.is_interrupted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if let Some(e) = self.faults.count(Call::Write) {
            if e.kind() != io::ErrorKind::Interrupted {
                self.break_connection(id);
            }
            return Err(e);
        }
        let hostility = self.kernel.hostility;
        self.kernel.socket(id).log.lacked_memory = false;
        if hostility.no_memory_one_in > 0 && self.kernel.rng.one_in(hostility.no_memory_one_in) {
            let socket = self.kernel.socket(id);
            socket.wants_space = true;
            socket.log.lacked_memory = true;
            if socket.unsent.is_empty() && socket.space_freed() {
                self.kernel.edge(Source::Socket(id));
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let short = hostility.short_write_one_in > 0 && self.kernel.rng.one_in(hostility.short_write_one_in);
        let bytes_max = if short { self.kernel.rng.between(1, 32) as usize } else { usize::MAX };
        self.kernel.socket(id).write(from, bytes_max)
    }

    /// An injected error: the connection is dead at both ends, and nobody may complain.
    pub(crate) fn break_connection(&mut self, id: SocketId) {
        self.kernel.socket(id).faulted = true;
        self.kernel.socket(id).unsent.clear();
        self.socket_is_gone(id, true);
    }

    /// close(2), `tcp_close` in `net/ipv4/tcp.c`: with unread input (RFC 2525 section 2.17) or `SO_LINGER` of zero a reset, else FIN after what
    /// is unsent.
    pub(crate) fn close(&mut self, id: SocketId) {
        let now = self.kernel.turn_started;
        let (linger, short_linger) = (self.limits.linger_timeout, self.limits.refused_linger_timeout);
        let socket = self.kernel.socket(id);
        let linger = if socket.log.lingers_briefly { short_linger } else { linger }.as_nanos() as Nanos;
        socket.open = false;
        let registered = socket.registered.is_some();
        let with_reset = socket.resets_at_close || !socket.received.is_empty() || socket.phase == Phase::Reset;
        if with_reset {
            // The peer may lose what it has not read yet (`early-close`): the worst that a stack may do.
            socket.unsent.clear();
            socket.phase = Phase::Reset;
        }
        socket.ended = true;
        socket.lingered_out = socket.log.ended_at.is_some_and(|at| now >= at + linger);
        let was_in_transit = std::mem::take(&mut socket.in_transit);
        let faulted = socket.faulted;
        let is_opened = socket.is_opened;
        self.kernel.descriptors -= 1;
        self.turn_log.progress = true;
        if was_in_transit {
            self.kernel.in_transit -= 1;
            self.lost_in_transit(id, faulted);
        } else if let (Some(Who::Peer(peer)), false, false) = (self.owner(id), is_opened, faulted) {
            // Where every slot is taken, those for refusals too, an accepted client waits for one.
            self.violated(format!("peer {peer} was accepted and closed, and its service had not heard of it"));
        } else {
            self.turn_log.closes += 1;
        }
        self.note(|line, world| {
            let _ = write!(line, "  close {}{}", world.name(id), if with_reset { " (with a reset)" } else { "" });
        });
        if registered {
            self.violated(format!("{} was closed while it was registered: a duplicate of it would stay in epoll", self.name(id)));
            self.kernel.deregister(id);
        }
        self.socket_is_gone(id, with_reset);
    }

    /// A connection that one loop has released was closed, and no other has adopted it.
    fn lost_in_transit(&mut self, id: SocketId, faulted: bool) {
        let Some(Who::Peer(peer)) = self.owner(id) else { return };
        if self.is_cut_off {
            self.peers[peer as usize].excuse.get_or_insert("the loop that it was handed to has ended");
        } else if !faulted {
            self.violated(format!("peer {peer} was handed over, and lost on the way"));
        }
    }

    /// A loop gives a connection up.
    pub(crate) fn release(&mut self, id: SocketId) {
        let at = self.kernel.at;
        let socket = self.kernel.socket(id);
        (socket.in_transit, socket.of_loop) = (true, at);
        self.kernel.in_transit += 1;
        self.note(|line, world| {
            let _ = write!(line, "  hand over {}", world.name(id));
        });
    }

    /// A loop takes a connection that was given up.
    pub(crate) fn adopt(&mut self, id: SocketId) -> io::Result<()> {
        if let Some(e) = self.faults.count(Call::Adopt) {
            self.kernel.socket(id).faulted = true;
            return Err(e);
        }
        if !std::mem::take(&mut self.kernel.socket(id).in_transit) {
            self.violated(format!("{} was adopted, and no loop had released it", self.name(id)));
        }
        self.kernel.in_transit -= 1;
        let at = self.kernel.at;
        let is_taken_back = self.kernel.socket(id).of_loop == at;
        if !is_taken_back {
            self.turn_log.adopted += 1;
            self.turn_log.admitted += 1;
        }
        self.note(|line, world| {
            let _ = write!(line, "  adopt {}", world.name(id));
        });
        Ok(())
    }
}
