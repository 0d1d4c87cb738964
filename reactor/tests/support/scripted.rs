//! A simulated system that also does what a test's script says: it preempts the thread, fails a call, or reports an event of its own.
//!
//! The sockets, the events and the time are the simulator's. Only what is in the script is added.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::os::{Event, Wake};
use reactor::sim::{Hostility, Kernel, Rng, SimListener, SimOs, SimStream, SocketId};
use reactor::{Address, Config, Connect, EventLoop, Handler, ListenerWakes, Os, Token};

/// What happens between the return of poll and the next read of the clock, and for how long the thread does not run.
pub type Preemption = Box<dyn FnOnce(&mut Kernel) -> Duration>;

/// The system. The fields are the script.
pub struct Scripted {
    sim: SimOs,
    /// Runs once, after the next poll.
    pub preemption: Option<Preemption>,
    /// How far the clock is ahead of the simulator's.
    pub ahead: Duration,
    /// The next poll fails with this.
    pub poll_error: Option<io::Error>,
    /// The next poll reports these as well.
    pub events: Vec<Event>,
    /// The next calls of accept(2) fail with these numbers.
    pub accept_errors: VecDeque<i32>,
    /// The next registrations of a connection fail with these numbers.
    pub register_errors: VecDeque<i32>,
    /// Each timer that was set, and when.
    pub timers: Vec<(Instant, Duration)>,
    /// The last poll would have waited for an event, and there was none.
    pub sleeps: bool,
    /// Each socket that began to connect.
    pub connecting: Vec<SocketId>,
    /// Calls of accept(2).
    pub accepts: u32,
}

impl Scripted {
    /// A system without peers.
    pub fn new(kernel: Kernel) -> Scripted {
        Scripted {
            sim: SimOs::new(kernel),
            preemption: None,
            ahead: Duration::ZERO,
            poll_error: None,
            events: Vec::new(),
            accept_errors: VecDeque::new(),
            register_errors: VecDeque::new(),
            timers: Vec::new(),
            sleeps: false,
            connecting: Vec::new(),
            accepts: 0,
        }
    }

    /// The kernel, to act as the peers.
    pub fn kernel(&mut self) -> std::cell::RefMut<'_, Kernel> {
        self.sim.kernel()
    }

    /// The event of the loop's timer.
    pub fn timer_event() -> Event {
        // As in `Token::TIMER`.
        Event { token: Token::from_bits(u64::from(u32::MAX - 1)), ready: reactor::os::Ready::READABLE }
    }
}

/// Where a simulated socket connects to: a peer that does what the test does with the kernel.
pub fn sim_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10_000))
}

/// A kernel that does only what it is told.
pub fn calm_kernel() -> Kernel {
    Kernel::new(Rng::new(1), Hostility::default(), 1 << 16, 1 << 16)
}

/// A loop with one listener on such a system.
pub fn scripted<H: Handler>(config: Config, handler: H) -> (EventLoop<H, Scripted>, usize) {
    let mut kernel = calm_kernel();
    let index = kernel.listen();
    let os = Scripted::new(kernel);
    let listener = os.sim.listener(index);
    let mut event_loop = EventLoop::with_os(config, os, handler).unwrap();
    event_loop.listen_on(listener, ListenerWakes::All).unwrap();
    (event_loop, index)
}

impl Os for Scripted {
    type Stream = SimStream;
    type Listener = SimListener;
    type Handover = OwnedFd;

    fn now(&mut self) -> Instant {
        self.sim.now() + self.ahead
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        if let Some(e) = self.poll_error.take() {
            return Err(e);
        }
        let may_wait = timeout != Some(Duration::ZERO);
        let timeout = if self.events.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.sim.poll(timeout, events)?;
        events.append(&mut self.events);
        self.sleeps = may_wait && events.is_empty();
        if let Some(preemption) = self.preemption.take() {
            self.ahead += preemption(&mut self.sim.kernel());
        }
        Ok(())
    }

    fn set_timer(&mut self, after: Duration) -> io::Result<()> {
        let now = self.now();
        self.timers.push((now, after));
        // The simulator's time is 64 bits of nanoseconds.
        self.sim.set_timer(after.min(Duration::from_secs(1 << 30)))
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Wake>> {
        self.sim.waker()
    }

    fn register(&mut self, stream: &mut SimStream, token: Token) -> io::Result<()> {
        match self.register_errors.pop_front() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => self.sim.register(stream, token),
        }
    }

    fn deregister(&mut self, stream: &mut SimStream) -> io::Result<()> {
        self.sim.deregister(stream)
    }

    fn register_listener(&mut self, listener: &mut SimListener, token: Token, wakes: ListenerWakes) -> io::Result<()> {
        self.sim.register_listener(listener, token, wakes)
    }

    fn deregister_listener(&mut self, listener: &mut SimListener) -> io::Result<()> {
        self.sim.deregister_listener(listener)
    }

    fn bound_unsent(&mut self, listener: &mut SimListener, bytes_max: u32) -> io::Result<()> {
        self.sim.bound_unsent(listener, bytes_max)
    }

    fn accept(&mut self, listener: &mut SimListener) -> io::Result<(SimStream, Address)> {
        self.accepts += 1;
        match self.accept_errors.pop_front() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => self.sim.accept(listener),
        }
    }

    fn connect(&mut self, connect: &Connect, unsent_bytes_max: Option<u32>) -> io::Result<SimStream> {
        let stream = self.sim.connect(connect, unsent_bytes_max)?;
        self.connecting.push(stream.id());
        Ok(stream)
    }

    fn take_error(&mut self, stream: &mut SimStream) -> io::Result<Option<io::Error>> {
        self.sim.take_error(stream)
    }

    fn unacknowledged_bytes(&mut self, stream: &mut SimStream) -> io::Result<u64> {
        self.sim.unacknowledged_bytes(stream)
    }

    fn is_connected(&mut self, stream: &mut SimStream) -> bool {
        self.sim.is_connected(stream)
    }

    fn shutdown_write(&mut self, stream: &mut SimStream) -> io::Result<()> {
        self.sim.shutdown_write(stream)
    }

    fn reset_at_close(&mut self, stream: &mut SimStream) -> io::Result<()> {
        self.sim.reset_at_close(stream)
    }

    fn adopt(&mut self, descriptor: OwnedFd) -> io::Result<SimStream> {
        drop(descriptor);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A descriptor of something else, which no simulated loop can adopt.
    fn release(&mut self, stream: SimStream) -> io::Result<OwnedFd> {
        drop(stream);
        Ok(std::fs::File::open("/dev/null")?.into())
    }

    fn hold_spare(&mut self) -> bool {
        self.sim.hold_spare()
    }

    fn release_spare(&mut self) -> bool {
        self.sim.release_spare()
    }
}
