//! The simulated side of the door: system calls that cost time, take or give a part, fail, and are written down.

use std::cell::{RefCell, RefMut};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faults::Call;
use super::kernel::{Kernel, Nanos, SocketId};
use super::socket::Phase;
use super::world::{Act, World};
use crate::address::{Address, Connect};
use crate::limits::Limits;
use crate::os::{Event, ListenerWakes, Os, Stream, Wake};
use crate::token::Token;

/// The port of peer 0; the next has the next. So a service knows from the address who is there.
pub(crate) const FIRST_PEER_PORT: u16 = 10_000;

/// The port of the loop's own end of a connection.
const SERVER_PORT: u16 = 80;

/// A simulated system.
#[derive(Debug)]
pub struct SimOs {
    world: Rc<RefCell<World>>,
    base: Instant,
    /// The loop's number.
    of_loop: usize,
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
        SimOs::on(Rc::new(RefCell::new(World::new(kernel, Limits::default()))), 0, Instant::now())
    }

    /// The system as the loop with a number sees it. Loops in one world have the same `base`.
    pub(crate) fn on(world: Rc<RefCell<World>>, of_loop: usize, base: Instant) -> SimOs {
        SimOs { world, base, of_loop }
    }

    /// The world, in which this loop runs now.
    fn here(&self) -> RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        world.kernel.at = self.of_loop;
        world
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

impl Stream for SimStream {
    /// The loop's end, which has the same address in every run.
    fn local_addr(&self) -> io::Result<Address> {
        Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), SERVER_PORT).into())
    }

    fn peer_addr(&self) -> io::Result<Address> {
        self.world.borrow().peer_addr(self.id)
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
        // Whoever still waits in the queue is reset (`ungraceful-shutdown`).
        for id in std::mem::take(&mut listener.queue) {
            world.came_too_late(id);
            world.kernel.peer_resets(id);
            world.socket_is_gone(id, true);
        }
    }
}

impl Os for SimOs {
    type Stream = SimStream;
    type Listener = SimListener;
    type Handover = SimStream;

    fn now(&mut self) -> Instant {
        self.base + Duration::from_nanos(self.world.borrow().kernel.now)
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let mut world = self.here();
        if let Some(e) = world.faults.count(Call::Poll) {
            return Err(e);
        }
        world.poll(timeout, events);
        Ok(())
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Wake>> {
        Ok(Arc::clone(&self.here().kernel.epoll().waker) as Arc<dyn Wake>)
    }

    fn set_timer(&mut self, after: Duration) -> io::Result<()> {
        let mut world = self.here();
        world.enter();
        if let Some(e) = world.faults.count(Call::SetTimer) {
            return Err(e);
        }
        world.kernel.set_timer(after.as_nanos() as Nanos);
        Ok(())
    }

    fn register(&mut self, stream: &mut SimStream, token: Token) -> io::Result<()> {
        let mut world = self.here();
        world.enter();
        if let Some(e) = world.faults.count(Call::Register) {
            world.kernel.socket(stream.id).faulted = true;
            return Err(e);
        }
        world.kernel.register(stream.id, token);
        Ok(())
    }

    fn deregister(&mut self, stream: &mut SimStream) -> io::Result<()> {
        let mut world = self.here();
        if world.kernel.socket(stream.id).registered.is_none() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        world.kernel.deregister(stream.id);
        Ok(())
    }

    fn register_listener(&mut self, listener: &mut SimListener, token: Token, _wakes: ListenerWakes) -> io::Result<()> {
        self.here().kernel.register_listener(listener.index, token);
        Ok(())
    }

    fn deregister_listener(&mut self, listener: &mut SimListener) -> io::Result<()> {
        self.here().kernel.deregister_listener(listener.index);
        Ok(())
    }

    fn bound_unsent(&mut self, listener: &mut SimListener, bytes_max: u32) -> io::Result<()> {
        self.here().kernel.listeners[listener.index].unsent_bytes_max = Some(bytes_max as usize);
        Ok(())
    }

    fn accept(&mut self, listener: &mut SimListener) -> io::Result<(SimStream, Address)> {
        let (id, peer) = self.here().accept(listener.index)?;
        Ok((SimStream { world: Rc::clone(&self.world), id }, peer.into()))
    }

    /// The upstream with the number of the port, less `FIRST_PEER_PORT`.
    fn connect(&mut self, connect: &Connect, unsent_bytes_max: Option<u32>) -> io::Result<SimStream> {
        let mut world = self.here();
        world.enter();
        if let Some(e) = world.faults.count(Call::Connect) {
            return Err(e);
        }
        if world.kernel.descriptors >= world.kernel.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let id = world.kernel.new_socket(Phase::Connecting, unsent_bytes_max.map(|bytes| bytes as usize));
        world.open_descriptor(id);
        world.turn_log.admitted += 1;
        let upstream = u32::from(connect.to.port().saturating_sub(FIRST_PEER_PORT));
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
        Ok(self.here().kernel.socket(stream.id).error.take().map(io::Error::from_raw_os_error))
    }

    fn unacknowledged_bytes(&mut self, stream: &mut SimStream) -> io::Result<u64> {
        let mut world = self.here();
        let turn_started = world.kernel.turn_started;
        let socket = world.kernel.socket(stream.id);
        let unsent_bytes = socket.unsent.len() as u64;
        let taken_bytes = socket.log.written_bytes - unsent_bytes;
        socket.log.looks = [socket.log.looks[1], Some((turn_started, taken_bytes))];
        Ok(unsent_bytes)
    }

    fn is_connected(&mut self, stream: &mut SimStream) -> bool {
        self.here().kernel.socket(stream.id).phase == Phase::Open
    }

    fn shutdown_write(&mut self, stream: &mut SimStream) -> io::Result<()> {
        let mut world = self.here();
        world.enter();
        if let Some(e) = world.faults.count(Call::Shutdown) {
            world.break_connection(stream.id);
            return Err(e);
        }
        let turn_started = world.kernel.turn_started;
        let is_crowded = world.kernel.descriptors - world.descriptors_elsewhere > world.limits.connections_before_eviction_max();
        let socket = world.kernel.socket(stream.id);
        if socket.phase == Phase::Reset {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        socket.ended = true;
        if !socket.log.is_half_closing {
            socket.log.ended_at = Some(turn_started);
            socket.log.lingers_briefly |= is_crowded;
        }
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

    fn reset_at_close(&mut self, stream: &mut SimStream) -> io::Result<()> {
        self.here().kernel.socket(stream.id).resets_at_close = true;
        Ok(())
    }

    fn adopt(&mut self, stream: SimStream) -> io::Result<SimStream> {
        self.here().adopt(stream.id)?;
        Ok(stream)
    }

    fn release(&mut self, stream: SimStream) -> io::Result<SimStream> {
        self.here().release(stream.id);
        Ok(stream)
    }

    fn hold_spare(&mut self) -> bool {
        let kernel = &mut self.here().kernel;
        if !kernel.epoll().spare && kernel.descriptors < kernel.descriptors_max {
            kernel.epoll().spare = true;
            kernel.descriptors += 1;
        }
        kernel.epoll().spare
    }

    fn release_spare(&mut self) -> bool {
        let mut world = self.here();
        if !std::mem::take(&mut world.kernel.epoll().spare) {
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
        let kernel = &mut self.here().kernel;
        if std::mem::take(&mut kernel.epoll().spare) {
            kernel.descriptors -= 1;
        }
    }
}
