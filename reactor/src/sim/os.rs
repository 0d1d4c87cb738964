//! The simulated side of the door: system calls that cost time, take or give a part, fail, and are written down.
//!
//! Read next: `service.rs`, the program that runs on it; `check.rs`, what must hold.

use std::cell::{RefCell, RefMut};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faults::Call;
use super::kernel::{Kernel, Nanos, SocketId};
use super::socket::{LastRead, Phase};
use super::world::{Act, Time, TurnLog, Who, World};
use crate::limits::Limits;
use crate::os::{Event, ListenerWakes, Os, Ready, Wake};
use crate::token::Token;

/// The port of peer 0; the next has the next. So a service knows from the address who is there.
pub(crate) const FIRST_PEER_PORT: u16 = 10_000;

/// A simulated system.
#[derive(Debug)]
pub struct SimOs {
    world: Rc<RefCell<World>>,
    base: Instant,
}

/// A simulated connection. Dropping it closes the descriptor, as with a real one.
#[derive(Debug)]
pub struct SimStream {
    world: Rc<RefCell<World>>,
    pub(crate) id: SocketId,
}

/// A simulated listening socket.
#[derive(Debug)]
pub struct SimListener {
    world: Rc<RefCell<World>>,
    index: usize,
}

impl SimOs {
    /// A system with a kernel and nobody else: what happens is what the caller does with [`SimOs::kernel`].
    #[must_use]
    pub fn new(kernel: Kernel) -> SimOs {
        SimOs::on(Rc::new(RefCell::new(World::new(kernel, Limits::default()))))
    }

    pub(crate) fn on(world: Rc<RefCell<World>>) -> SimOs {
        SimOs { world, base: Instant::now() }
    }

    /// The kernel, to act as the peers.
    #[must_use]
    pub fn kernel(&self) -> RefMut<'_, Kernel> {
        RefMut::map(self.world.borrow_mut(), |world| &mut world.kernel)
    }

    /// A listener of [`Kernel::listen`], to be registered by the loop.
    #[must_use]
    pub fn listener(&self, index: usize) -> SimListener {
        SimListener { world: Rc::clone(&self.world), index }
    }

    pub(crate) fn base(&self) -> Instant {
        self.base
    }
}

impl World {
    /// A system call begins. While it runs, others act.
    fn enter(&mut self) {
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
        for socket in self.kernel.sockets.iter_mut().filter(|socket| socket.log.turn != 0) {
            let log = &mut socket.log;
            (log.turn, log.reads, log.bytes_read, log.bytes_written) = (0, 0, 0, 0);
            (log.reported, log.moved, log.last_read) = (false, false, None);
        }
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) {
        self.begin_turn();
        self.enter();
        let start = self.kernel.now;
        if timeout == Some(Duration::ZERO) {
            self.kernel.run_due();
            self.kernel.collect(events);
            self.turn_log.idle_poll = events.is_empty();
        } else {
            if self.mail_sent > self.mail_taken && !self.kernel.is_woken() {
                self.violated(format!("the loop sleeps while {} pieces of mail wait", self.mail_sent - self.mail_taken));
            }
            // epoll_wait(2) takes whole milliseconds, and mio rounds up (`src/sys/unix/selector/epoll.rs`).
            let until = timeout.map(|timeout| start + (timeout.as_nanos() as Nanos).div_ceil(1_000_000) * 1_000_000);
            self.kernel.run_due();
            self.kernel.collect(events);
            while events.is_empty() && until.is_none_or(|until| self.kernel.now < until) {
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
                self.kernel.collect(events);
            }
            if self.kernel.now > start {
                self.check_sleep(self.kernel.now);
            }
        }
        self.lie(events);
        self.kernel.turn_started = self.kernel.now;
        for event in events.iter() {
            let live = |socket: &&mut super::socket::Socket| socket.registered == Some(event.token);
            if let Some(socket) = self.kernel.sockets.iter_mut().find(live) {
                (socket.log.turn, socket.log.reported) = (self.kernel.turn, true);
            }
        }
        self.note(|line, world| trace_poll(line, world, timeout, start, events));
    }

    /// A spurious event: a hint that is not true. Never one of an end or an error, which the kernel does not invent.
    fn lie(&mut self, events: &mut Vec<Event>) {
        let one_in = self.kernel.hostility.spurious_one_in;
        if one_in == 0 || self.kernel.sockets.is_empty() || !self.kernel.rng.one_in(one_in) {
            return;
        }
        let id = self.kernel.rng.below(self.kernel.sockets.len() as u64) as usize;
        if let Some(token) = self.kernel.sockets[id].registered
            && !events.iter().any(|event| event.token == token)
            && (self.kernel.hostility.events_max == 0 || events.len() < self.kernel.hostility.events_max)
        {
            let ready = self.kernel.rng.pick(&[Ready::READABLE, Ready::WRITABLE, Ready::READABLE.and(Ready::WRITABLE)]);
            events.push(Event { token, ready });
        }
    }

    fn accept(&mut self, index: usize) -> io::Result<(SocketId, SocketAddr)> {
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

    fn open_descriptor(&mut self, id: SocketId) {
        self.kernel.descriptors += 1;
        self.kernel.socket(id).open = true;
        if self.kernel.descriptors > self.kernel.descriptors_max {
            self.violated(format!("{} descriptors are open, and {} are allowed", self.kernel.descriptors, self.kernel.descriptors_max));
        }
    }

    fn read(&mut self, id: SocketId, into: &mut [u8]) -> io::Result<usize> {
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

    fn write(&mut self, id: SocketId, from: &[u8]) -> io::Result<usize> {
        self.enter();
        let result = self.try_write(id, from);
        let (turn, turn_started, now) = (self.kernel.turn, self.kernel.turn_started, self.kernel.now);
        let log = &mut self.kernel.socket(id).log;
        log.turn = turn;
        match &result {
            Ok(n) => {
                log.bytes_written += n;
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
        if hostility.no_memory_one_in > 0 && self.kernel.rng.one_in(hostility.no_memory_one_in) {
            let socket = self.kernel.socket(id);
            socket.wants_space = true;
            if socket.unsent.is_empty() && socket.space_freed() {
                self.kernel.edge(super::kernel::Source::Socket(id));
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let short = hostility.short_write_one_in > 0 && self.kernel.rng.one_in(hostility.short_write_one_in);
        let bytes_max = if short { self.kernel.rng.between(1, 32) as usize } else { usize::MAX };
        self.kernel.socket(id).write(from, bytes_max)
    }

    /// An injected error: the connection is dead at both ends, and nobody may complain.
    fn break_connection(&mut self, id: SocketId) {
        self.kernel.socket(id).faulted = true;
        self.kernel.socket(id).unsent.clear();
        self.socket_is_gone(id, true);
    }

    /// close(2), `tcp_close` in `net/ipv4/tcp.c`: with unread input a reset (RFC 2525 section 2.17), else FIN after what is unsent.
    fn close(&mut self, id: SocketId) {
        let (now, linger) = (self.kernel.turn_started, self.limits.linger_timeout.as_nanos() as Nanos);
        let socket = self.kernel.socket(id);
        socket.open = false;
        let registered = socket.registered.is_some();
        let with_reset = !socket.received.is_empty() || socket.phase == Phase::Reset;
        if with_reset {
            // The peer may lose what it has not read yet (failure mode P4): the worst that a stack may do.
            socket.unsent.clear();
            socket.phase = Phase::Reset;
        }
        socket.ended = true;
        socket.lingered_out = socket.log.ended_at.is_some_and(|at| now >= at + linger);
        self.kernel.descriptors -= 1;
        self.turn_log.closes += 1;
        self.turn_log.progress = true;
        self.note(|line, world| {
            let _ = write!(line, "  close {}{}", world.name(id), if with_reset { " (with a reset)" } else { "" });
        });
        if registered {
            self.violated(format!("{} was closed while it was registered: a duplicate of it would stay in epoll", self.name(id)));
            self.kernel.deregister(id);
        }
        self.socket_is_gone(id, with_reset);
    }
}

fn trace_poll(line: &mut String, world: &World, timeout: Option<Duration>, start: Nanos, events: &[Event]) {
    let now = world.kernel.now;
    let how = match timeout {
        Some(Duration::ZERO) => "does not wait".to_owned(),
        _ => format!("waited {}", Time(now - start)),
    };
    let _ = write!(line, "turn {}, {}: poll {how}", world.kernel.turn, Time(now));
    for (i, event) in events.iter().enumerate() {
        let _ = write!(line, "{}", if i == 0 { "; events: " } else { ", " });
        let socket = world.kernel.sockets.iter().position(|socket| socket.registered == Some(event.token));
        let _ = match (event.token, socket) {
            (Token::WAKER, _) => write!(line, "mail"),
            (Token::TIMER, _) => write!(line, "timer"),
            (token, None) => write!(line, "listener {}", token.listener_index().unwrap_or(0)),
            (token, Some(socket)) => write!(line, "slot {} = {} {}", Slot(token), world.name(socket as SocketId), bits(event.ready)),
        };
    }
}

/// A token as slot and generation.
pub(crate) struct Slot(pub(crate) Token);

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.slot, self.0.generation)
    }
}

fn bits(ready: Ready) -> String {
    let names = [
        (Ready::READABLE, "readable"),
        (Ready::WRITABLE, "writable"),
        (Ready::READ_CLOSED, "read-closed"),
        (Ready::WRITE_CLOSED, "write-closed"),
        (Ready::ERROR, "error"),
        (Ready::PRIORITY, "priority"),
    ];
    names.iter().filter(|(bit, _)| ready.has(*bit)).map(|(_, name)| *name).collect::<Vec<_>>().join("+")
}

fn outcome(result: &io::Result<usize>) -> String {
    match result {
        Ok(n) => n.to_string(),
        Err(e) => errno_name(e),
    }
}

fn errno_name(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::WouldBlock => "would block".to_owned(),
        io::ErrorKind::Interrupted => "interrupted".to_owned(),
        _ => e.to_string(),
    }
}

impl SimStream {
    /// Its number in the kernel, for the methods that act as its peer.
    #[must_use]
    pub fn id(&self) -> SocketId {
        self.id
    }
}

impl Read for SimStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.world.borrow_mut().read(self.id, into)
    }
}

impl Write for SimStream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.world.borrow_mut().write(self.id, from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.world.borrow_mut().close(self.id);
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        let listener = &mut world.kernel.listeners[self.index];
        listener.open = false;
        // Whoever still waits in the queue is reset (failure mode H3).
        for id in std::mem::take(&mut listener.queue) {
            world.kernel.peer_resets(id);
            world.socket_is_gone(id, true);
        }
    }
}

impl Os for SimOs {
    type Stream = SimStream;
    type Listener = SimListener;

    fn now(&mut self) -> Instant {
        self.base + Duration::from_nanos(self.world.borrow().kernel.now)
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        self.world.borrow_mut().poll(timeout, events);
        Ok(())
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Wake>> {
        Ok(Arc::clone(&self.world.borrow().kernel.waker) as Arc<dyn Wake>)
    }

    fn set_timer(&mut self, after: Duration) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        world.enter();
        world.kernel.timer = Some(world.kernel.now + (after.as_nanos() as Nanos).max(1));
        Ok(())
    }

    fn register(&mut self, stream: &mut SimStream, token: Token) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        world.enter();
        if let Some(e) = world.faults.count(Call::Register) {
            world.kernel.socket(stream.id).faulted = true;
            return Err(e);
        }
        world.kernel.register(stream.id, token);
        Ok(())
    }

    fn deregister(&mut self, stream: &mut SimStream) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        if world.kernel.socket(stream.id).registered.is_none() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        world.kernel.deregister(stream.id);
        Ok(())
    }

    fn register_listener(&mut self, listener: &mut SimListener, token: Token, _wakes: ListenerWakes) -> io::Result<()> {
        self.world.borrow_mut().kernel.register_listener(listener.index, token);
        Ok(())
    }

    fn deregister_listener(&mut self, listener: &mut SimListener) -> io::Result<()> {
        self.world.borrow_mut().kernel.deregister_listener(listener.index);
        Ok(())
    }

    fn accept(&mut self, listener: &mut SimListener) -> io::Result<(SimStream, SocketAddr)> {
        let (id, peer) = self.world.borrow_mut().accept(listener.index)?;
        Ok((SimStream { world: Rc::clone(&self.world), id }, peer))
    }

    /// The upstream with the number of `to`'s port, less [`FIRST_PEER_PORT`].
    fn connect(&mut self, to: SocketAddr, _from: Option<IpAddr>) -> io::Result<SimStream> {
        let mut world = self.world.borrow_mut();
        world.enter();
        if let Some(e) = world.faults.count(Call::Connect) {
            return Err(e);
        }
        if world.kernel.descriptors >= world.kernel.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let id = world.kernel.new_socket(Phase::Connecting);
        world.open_descriptor(id);
        let upstream = u32::from(to.port().saturating_sub(FIRST_PEER_PORT));
        let turn_started = world.kernel.turn_started;
        if let Some(up) = world.upstreams.get_mut(upstream as usize) {
            up.socket = Some(id);
            up.connect_due = Some(turn_started + up.connect_timeout);
            let after = up.decides_after;
            world.plan_after(after, Act::UpstreamDecides(upstream));
        }
        Ok(SimStream { world: Rc::clone(&self.world), id })
    }

    fn take_error(&mut self, stream: &mut SimStream) -> io::Result<Option<io::Error>> {
        Ok(self.world.borrow_mut().kernel.socket(stream.id).error.take().map(io::Error::from_raw_os_error))
    }

    fn is_connected(&mut self, stream: &mut SimStream) -> bool {
        self.world.borrow_mut().kernel.socket(stream.id).phase == Phase::Open
    }

    fn shutdown_write(&mut self, stream: &mut SimStream) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        world.enter();
        if let Some(e) = world.faults.count(Call::Shutdown) {
            world.break_connection(stream.id);
            return Err(e);
        }
        let turn_started = world.kernel.turn_started;
        let socket = world.kernel.socket(stream.id);
        if socket.phase == Phase::Reset {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        socket.ended = true;
        socket.log.ended_at = Some(turn_started);
        socket.log.moved = true;
        world.turn_log.progress = true;
        world.note(|line, world| {
            let _ = write!(line, "  FIN to {}", world.name(stream.id));
        });
        // inet_shutdown, `net/ipv4/af_inet.c`, wakes the waiters itself: EPOLLOUT, and EPOLLHUP if the peer has ended too.
        world.kernel.edge(super::kernel::Source::Socket(stream.id));
        world.bytes_are_under_way(stream.id);
        Ok(())
    }

    fn adopt(&mut self, _descriptor: OwnedFd) -> io::Result<SimStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&mut self, _stream: SimStream) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn hold_spare(&mut self) -> bool {
        let kernel = &mut self.world.borrow_mut().kernel;
        if !kernel.spare && kernel.descriptors < kernel.descriptors_max {
            kernel.spare = true;
            kernel.descriptors += 1;
        }
        kernel.spare
    }

    fn release_spare(&mut self) -> bool {
        let mut world = self.world.borrow_mut();
        if !std::mem::take(&mut world.kernel.spare) {
            return false;
        }
        if world.faults.count(Call::ReleaseSpare).is_some() {
            // Another thread has it now, for a while.
            world.descriptors_elsewhere += 1;
            world.plan_after(20_000_000, Act::DescriptorReturns);
        } else {
            world.kernel.descriptors -= 1;
        }
        true
    }
}

impl Drop for SimOs {
    fn drop(&mut self) {
        let kernel = &mut self.world.borrow_mut().kernel;
        if std::mem::take(&mut kernel.spare) {
            kernel.descriptors -= 1;
        }
    }
}
