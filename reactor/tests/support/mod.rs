//! What the tests share: a loop on a thread of its own, a small line protocol with every awkward wish, and waits that end.
//!
//! No test sleeps to get its timing right: it waits for something that happens ([`until`], a channel, a read), and [`PATIENCE`] only says
//! when to give up. Ports are always chosen by the kernel.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

pub mod child;
pub mod lines;
pub mod scripted;
pub mod sys;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reactor::listen::socket::{ListenOptions, listen};
use reactor::{Config, EventLoop, Handle, Handler, LinuxListener, ListenerWakes, Mailer, Stats};

/// When a test gives up. Nothing that works comes near it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds, and fails with `what` when it never does.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A listening socket on a port that the kernel chose.
pub fn listener() -> TcpListener {
    listener_with(ListenOptions::default())
}

/// The same, with options.
pub fn listener_with(options: ListenOptions) -> TcpListener {
    listen("127.0.0.1:0".parse().unwrap(), options).unwrap()
}

/// A loop that listens and does not run yet: what clients do now happens before accept(2).
pub struct Prepared<H: Handler> {
    /// To be set up further.
    pub event_loop: EventLoop<H>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Makes a loop with one listener.
pub fn prepare<H: Handler>(config: Config, handler: H) -> Prepared<H> {
    prepare_on(listener(), ListenerWakes::All, config, handler)
}

/// Makes a loop on a given listening socket.
pub fn prepare_on<H: Handler>(socket: TcpListener, wakes: ListenerWakes, config: Config, handler: H) -> Prepared<H> {
    let mut event_loop = EventLoop::new(config, handler).unwrap();
    let address = socket.local_addr().unwrap();
    event_loop.listen_on(LinuxListener::new(socket).unwrap(), wakes).unwrap();
    Prepared { event_loop, address }
}

impl<H: Handler + Send + 'static> Prepared<H>
where
    H::Conn: Send,
{
    /// Runs the loop on a thread, until the guard is dropped.
    pub fn run(self) -> Running<H> {
        let (handle, stats, mailer) = (self.event_loop.handle(), self.event_loop.stats(), self.event_loop.mailer());
        let event_loop = self.event_loop;
        let thread = std::thread::Builder::new().name("loop-0".into()).spawn(move || event_loop.run()).unwrap();
        Running { address: self.address, handle, stats, mailer, thread: Some(thread) }
    }
}

/// A loop that runs. Dropping it stops it and waits for its end.
pub struct Running<H: Handler> {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends it.
    pub handle: Handle,
    /// Counts.
    pub stats: Arc<Stats>,
    /// Writes to it.
    pub mailer: Mailer<H::Mail>,
    thread: Option<JoinHandle<io::Result<H>>>,
}

/// A loop with one listener, running.
pub fn start<H: Handler + Send + 'static>(config: Config, handler: H) -> Running<H>
where
    H::Conn: Send,
{
    prepare(config, handler).run()
}

impl<H: Handler> Running<H> {
    /// A client.
    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends mail; there must be room.
    pub fn mail(&self, to: reactor::Token, mail: H::Mail) -> Result<(), H::Mail> {
        self.mailer.reserve(to).expect("the mailbox has room").send(mail)
    }

    /// Stops the loop and gives its handler back.
    pub fn stop(mut self) -> H {
        self.handle.stop();
        self.thread.take().unwrap().join().expect("the loop's thread does not panic").expect("the loop ends without an error")
    }

    /// Waits for a loop that ends by itself (a drain).
    pub fn ended(mut self) -> H {
        let thread = self.thread.take().unwrap();
        until("the loop's end", || thread.is_finished());
        thread.join().expect("the loop's thread does not panic").expect("the loop ends without an error")
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<H: Handler> Drop for Running<H> {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the loop panicked");
        }
    }
}

/// A client whose reads and writes give up after [`PATIENCE`], so that a hang is a failure and not a hang.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    patient(&stream);
    stream
}

/// See [`connect`].
pub fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// Closes with RST instead of FIN (`SO_LINGER` of zero, socket(7)).
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Reads a line, its end left out. Empty at the end of input.
pub fn read_line(from: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line comes");
    line.trim_end().to_owned()
}

/// Sends a line and expects the same one back.
#[track_caller]
pub fn ask(stream: &mut TcpStream, line: &str) {
    stream.write_all(format!("{line}\n").as_bytes()).expect("the server reads");
    let mut back = vec![0; line.len() + 1];
    stream.read_exact(&mut back).expect("the server answers");
    assert_eq!(String::from_utf8_lossy(&back), format!("{line}\n"));
}

/// All that comes until the peer's end.
#[track_caller]
pub fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the server says all and ends");
    all
}

/// Bytes in which each position can be told from its neighbours, without a line end.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| b'a' + ((i ^ (i >> 7) ^ (i >> 13)) % 26) as u8).collect()
}
