//! A write error ends output, not what was already received: an early response reaches a client that is still uploading.
//!
//! A server that answers 413 and closes with input unread sends its response and then a reset. The response stays in the receive queue
//! (`tcp_reset`, net/ipv4/tcp_input.c, drops what is to be sent and nothing else), and the client must read it before it closes.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use reactor::policy::HalfClose;
use reactor::{CloseReason, Config, Connect, Context, EventLoop, Handle, Handler, LoopContext, Mailer, Origin, Stats, Token};
use support::lines::{self, Lines};
use support::{PATIENCE, patient, until};

const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n";

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Opened(Token),
    Input(Vec<u8>),
    Ended,
    Closed(CloseReason),
}

/// What the client does with its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Sends so many bytes as there is output space, and takes all input.
    Upload(usize),
    /// The same, and takes no input as long as it has something to send.
    UploadFirst(usize),
    /// Pauses its input until it gets mail.
    Pause,
}

/// Connects once and reports what it gets.
struct Client {
    connect: Option<Connect>,
    started: Instant,
    plan: Plan,
    told: Sender<Told>,
}

/// Bytes still to be sent.
struct Upload {
    left_bytes: usize,
}

impl Client {
    fn upload(upload: &mut Upload, cx: &mut Context<'_>) {
        let bytes = [b'u'; 8192];
        while upload.left_bytes > 0 {
            let n = cx.write(&bytes[..bytes.len().min(upload.left_bytes)]);
            if n == 0 {
                return cx.want_writable();
            }
            upload.left_bytes -= n;
        }
    }
}

impl Handler for Client {
    type Conn = Upload;
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> Upload {
        self.told.send(Told::Opened(cx.token())).unwrap();
        let mut upload = Upload { left_bytes: 0 };
        match self.plan {
            Plan::Upload(bytes) | Plan::UploadFirst(bytes) => {
                upload.left_bytes = bytes;
                Client::upload(&mut upload, cx);
            }
            Plan::Pause => cx.pause(),
        }
        upload
    }

    fn input(&mut self, upload: &mut Upload, input: &[u8], cx: &mut Context<'_>) -> usize {
        if upload.left_bytes > 0 && matches!(self.plan, Plan::UploadFirst(_)) {
            cx.want_writable();
            return 0;
        }
        self.told.send(Told::Input(input.to_vec())).unwrap();
        input.len()
    }

    fn ended(&mut self, _upload: &mut Upload, _rest_bytes: usize, cx: &mut Context<'_>) {
        self.told.send(Told::Ended).unwrap();
        cx.close();
    }

    fn writable(&mut self, upload: &mut Upload, cx: &mut Context<'_>) {
        Client::upload(upload, cx);
    }

    fn mail(&mut self, _upload: &mut Upload, (): (), cx: &mut Context<'_>) {
        cx.resume();
    }

    fn closed(&mut self, _upload: Upload, reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.told.send(Told::Closed(reason)).unwrap();
    }

    fn next_wake(&self) -> Option<Instant> {
        self.connect.as_ref().map(|_| self.started)
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        if let Some(connect) = self.connect.take() {
            cx.connect(connect).unwrap();
        }
    }
}

/// A client's loop on a thread of its own.
struct Running {
    told: Receiver<Told>,
    mailer: Mailer<()>,
    stats: Arc<Stats>,
    handle: Handle,
    thread: std::thread::JoinHandle<()>,
}

fn start(to: SocketAddr, plan: Plan, config: Config) -> Running {
    let (told, heard) = channel();
    let connect = Connect::new(to, 0, PATIENCE);
    let event_loop = EventLoop::new(config, Client { connect: Some(connect), started: Instant::now(), plan, told }).unwrap();
    let (mailer, stats, handle) = (event_loop.mailer(), event_loop.stats(), event_loop.handle());
    let thread = std::thread::spawn(move || drop(event_loop.run().unwrap()));
    Running { told: heard, mailer, stats, handle, thread }
}

impl Running {
    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("the connection gets somewhere")
    }

    fn opened(&self) -> Token {
        match self.next() {
            Told::Opened(token) => token,
            told => panic!("{told:?} before it was opened"),
        }
    }

    /// All input, whether the end of it was reported, and why the connection closed.
    fn outcome(self) -> (Vec<u8>, bool, CloseReason) {
        let (mut input, mut ended) = (Vec::new(), false);
        let reason = loop {
            match self.next() {
                Told::Opened(_) => {}
                Told::Input(bytes) => input.extend(bytes),
                Told::Ended => ended = true,
                Told::Closed(reason) => break reason,
            }
        };
        self.handle.stop();
        self.thread.join().unwrap();
        (input, ended, reason)
    }
}

fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    patient(&stream);
    stream
}

/// Waits until bytes are in the socket's receive queue: a close then sends a reset.
fn wait_for_unread_input(stream: &TcpStream) {
    until("unread input", || stream.peek(&mut [0; 1]).is_ok_and(|n| n == 1));
}

#[test]
fn an_early_response_reaches_a_client_that_is_uploading() {
    for _ in 0..20 {
        let (listener, address) = server();
        let client = start(address, Plan::Upload(8 << 20), Config::default());
        let mut stream = accept(&listener);
        stream.read_exact(&mut [0; 4096]).unwrap();
        wait_for_unread_input(&stream);
        stream.write_all(ANSWER).unwrap();
        drop(stream);
        let (input, _, reason) = client.outcome();
        assert_eq!(String::from_utf8_lossy(&input), String::from_utf8_lossy(ANSWER));
        assert_eq!(reason, CloseReason::Reset);
    }
}

#[test]
fn a_reset_is_not_reported_as_the_end_of_the_input() {
    // Everything is sent, so only the event of the reset tells the client.
    let (listener, address) = server();
    let client = start(address, Plan::Upload(100), Config::default());
    let mut stream = accept(&listener);
    wait_for_unread_input(&stream);
    stream.write_all(ANSWER).unwrap();
    drop(stream);
    assert_eq!(client.outcome(), (ANSWER.to_vec(), false, CloseReason::Reset));
}

#[test]
fn an_end_that_came_before_the_reset_is_reported() {
    // The response has no length: the end of the connection is the end of the response. The upload is under way, so the loop learns of the reset
    // by a write that fails with EPIPE, or by an event.
    let (listener, address) = server();
    let client = start(address, Plan::Upload(8 << 20), Config::default());
    let mut stream = accept(&listener);
    wait_for_unread_input(&stream);
    stream.write_all(ANSWER).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    drop(stream);
    let (input, ended, _) = client.outcome();
    assert_eq!((input, ended), (ANSWER.to_vec(), true));
}

#[test]
fn a_paused_connection_delivers_what_has_arrived_when_it_resumes() {
    for half_close in [HalfClose::StillListens, HalfClose::HasLeft] {
        for reset in [true, false] {
            let (listener, address) = server();
            let mut config = Config::default();
            config.policy.half_close = half_close;
            let client = start(address, Plan::Pause, config);
            let mut stream = accept(&listener);
            let token = client.opened();
            // The loop takes each event before the next thing happens, so the mail comes last.
            let events = client.stats.events.get();
            stream.write_all(ANSWER).unwrap();
            until("the event of the response", || client.stats.events.get() > events);
            let events = client.stats.events.get();
            if reset {
                support::reset(stream)
            } else {
                drop(stream)
            }
            until("the event of the end", || client.stats.events.get() > events);
            client.mailer.reserve(token).unwrap().send(()).unwrap();
            let (input, ended, reason) = client.outcome();
            assert_eq!((input, ended), (ANSWER.to_vec(), !reset), "{half_close:?}");
            assert_eq!(reason, if reset { CloseReason::Reset } else { CloseReason::PeerClosed });
        }
    }
}

#[test]
fn a_client_that_takes_no_input_before_its_upload_is_done_closes_and_does_not_spin() {
    let (listener, address) = server();
    let client = start(address, Plan::UploadFirst(64 << 20), Config::default());
    let mut stream = accept(&listener);
    wait_for_unread_input(&stream);
    stream.write_all(ANSWER).unwrap();
    drop(stream);
    assert_eq!(client.outcome(), (Vec::new(), false, CloseReason::Reset));
}

#[test]
fn a_write_after_the_reset_takes_its_error_and_leaves_the_bytes() {
    // What the rule rests on, asked of the kernel itself: after a failed write the bytes are still there, and the end behind them is a plain 0.
    for (fin_first, error) in [(false, ErrorKind::ConnectionReset), (true, ErrorKind::BrokenPipe)] {
        let (listener, address) = server();
        let mut client = support::connect(address);
        let mut stream = accept(&listener);
        client.write_all(b"unread").unwrap();
        wait_for_unread_input(&stream);
        stream.write_all(ANSWER).unwrap();
        if fin_first {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        drop(stream);
        let mut failed = None;
        until("a write that fails", || {
            failed = client.write(b"more").err().map(|e| e.kind());
            failed.is_some()
        });
        assert_eq!(failed, Some(error));
        assert_eq!(support::read_all(&mut client), ANSWER);
    }
}

#[test]
fn a_request_that_came_before_a_reset_does_not_reach_the_service() {
    // An accepted connection: the response could not be delivered. The loop does not run before the client has left.
    let (handler, heard) = Lines::new();
    let prepared = support::prepare(Config::default(), handler);
    let mut client = support::connect(prepared.address);
    client.write_all(b"pause\n").unwrap();
    support::reset(client);
    let server = prepared.run();
    let token = lines::wait_for_open(&heard);
    assert_eq!(lines::next(&heard), lines::Told::Closed(token, CloseReason::Reset));
    server.stop();
}
