//! Clients of a Unix listener: served, handed over, drained, read to the end; and the addresses that a handler sees, of Unix and of TCP.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use reactor::listen::unix::{UnixListenOptions, listen_unix};
use reactor::{Address, Config, Context, EventLoop, Handle, Handler, LinuxListener, ListenerWakes, Origin, Pressure};
use socket2::{MsgHdr, SockRef};
use support::{PATIENCE, connect, listener, until};

/// What the handler saw when a connection was opened.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    from: Address,
    peer: Address,
    local: Address,
    listener: usize,
}

/// Echoes, and ends after the client has. Takes nothing before the first `message_bytes` have arrived.
struct Echo {
    opened: Sender<Opened>,
    message_bytes: usize,
}

impl Handler for Echo {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) {
        let Origin::Accepted { peer: from, listener } = origin else { panic!("it does not connect") };
        let (peer, local) = (cx.peer_addr().unwrap(), cx.local_addr().unwrap());
        let _ = self.opened.send(Opened { from, peer, local, listener });
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        if input.len() < self.message_bytes {
            return 0;
        }
        let taken = cx.write(input);
        if taken == 0 {
            cx.want_writable();
        }
        taken
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn pressed(&mut self, (): &mut (), pressure: Pressure, _cx: &mut Context<'_>) {
        assert_eq!(pressure, Pressure::ShuttingDown, "the connection closes after the client's end");
    }
}

/// A path of a test. It is removed at the end.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> SocketPath {
        SocketPath(std::env::temp_dir().join(format!("reactor-{name}-{}", std::process::id())))
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(&self.0).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn echo() -> (EventLoop<Echo>, Receiver<Opened>) {
    let (opened, seen) = channel();
    (EventLoop::new(Config::default(), Echo { opened, message_bytes: 1 }).unwrap(), seen)
}

fn listen_at(event_loop: &mut EventLoop<Echo>, path: &SocketPath) {
    let socket = listen_unix(&path.0, UnixListenOptions::default()).unwrap();
    event_loop.listen_on(LinuxListener::new(socket).unwrap(), ListenerWakes::All).unwrap();
}

/// A loop on a thread of its own. Dropping it stops it.
struct Running(Handle, Option<JoinHandle<io::Result<Echo>>>);

fn run(event_loop: EventLoop<Echo>) -> Running {
    let handle = event_loop.handle();
    Running(handle, Some(std::thread::spawn(move || event_loop.run())))
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

fn read_whole(client: &mut impl Read) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    all
}

const UNIX: Opened = Opened { from: Address::Unix, peer: Address::Unix, local: Address::Unix, listener: 0 };

#[test]
fn a_client_of_a_unix_listener_is_served_and_a_half_close_gets_its_response() {
    let path = SocketPath::new("served");
    let (mut event_loop, seen) = echo();
    listen_at(&mut event_loop, &path);
    let _running = run(event_loop);
    let mut client = path.connect();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), UNIX);
    // More than the socket's buffers hold together, so that both sides wait for space.
    let bytes = "0123456789abcdef".repeat(1 << 16);
    std::thread::scope(|scope| {
        let mut writer = client.try_clone().unwrap();
        scope.spawn({
            let bytes = &bytes;
            move || {
                writer.write_all(bytes.as_bytes()).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            }
        });
        assert_eq!(read_whole(&mut client), bytes);
    });
}

#[test]
fn a_client_of_a_unix_listener_is_handed_to_another_loop() {
    let path = SocketPath::new("handed");
    let ((mut accepts, seen_there), (mut receives, seen_here)) = (echo(), echo());
    listen_at(&mut accepts, &path);
    accepts.hand_off_to(vec![receives.receiver().unwrap()]);
    let stats = receives.stats();
    let (_accepts, _receives) = (run(accepts), run(receives));
    let mut clients = [path.connect(), path.connect()];
    for seen in [seen_there, seen_here] {
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), UNIX, "one client for each loop");
    }
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_whole(client), "hello");
    }
    assert_eq!(stats.adoptions.get(), 1);
}

#[test]
fn a_drain_serves_the_clients_in_the_queue_of_a_unix_listener() {
    let path = SocketPath::new("drained");
    let (mut event_loop, _seen) = echo();
    listen_at(&mut event_loop, &path);
    let mut client = path.connect();
    client.write_all(b"last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    event_loop.handle().shut_down(PATIENCE);
    let mut running = run(event_loop);
    assert_eq!(read_whole(&mut client), "last");
    let thread = running.1.take().unwrap();
    until("the loop's end", || thread.is_finished());
    thread.join().unwrap().unwrap();
}

/// A control message with one descriptor (SCM_RIGHTS, cmsg(3), unix(7)).
fn rights(descriptor: i32) -> Vec<u8> {
    let length = size_of::<libc::cmsghdr>() + size_of::<i32>();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend([libc::SOL_SOCKET, libc::SCM_RIGHTS, descriptor, 0].map(i32::to_ne_bytes).as_flattened());
    message
}

#[test]
fn bytes_behind_a_passed_descriptor_are_read() {
    let path = SocketPath::new("rights");
    let (mut event_loop, _seen) = echo();
    // An echo of the first part would be read by the client, and that makes an edge, which reports the second part as well.
    event_loop.handler_mut().message_bytes = 12;
    listen_at(&mut event_loop, &path);
    let mut client = path.connect();
    let control = rights(client.as_raw_fd());
    SockRef::from(&client).sendmsg(&MsgHdr::new().with_buffers(&[IoSlice::new(b"first ")]).with_control(&control), 0).unwrap();
    client.write_all(b"second").unwrap();
    // Both are in the socket before the loop accepts it, so one event reports them.
    let _running = run(event_loop);
    let mut echoed = [0; 12];
    client.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"first second");
}

#[test]
fn a_handler_sees_both_addresses_of_a_tcp_connection_and_of_two_listeners_each_its_own() {
    let path = SocketPath::new("both");
    let (mut event_loop, seen) = echo();
    let tcp = listener();
    let address = tcp.local_addr().unwrap();
    event_loop.listen_on(LinuxListener::new(tcp).unwrap(), ListenerWakes::All).unwrap();
    listen_at(&mut event_loop, &path);
    let _running = run(event_loop);
    let client: TcpStream = connect(address);
    let from = Address::Ip(client.local_addr().unwrap());
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Opened { from, peer: from, local: address.into(), listener: 0 });
    assert_eq!(from.ip(), Some(address.ip()));
    let _unix = path.connect();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Opened { listener: 1, ..UNIX });
    assert_eq!((Address::Unix.ip(), Address::Unix.to_string()), (None, "unix".to_owned()));
}
