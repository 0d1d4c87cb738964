//! One connection from its first byte to its close: the loop, the handler, the machine and a service on a simulated system, as a script says.
//!
//! The script is the fuzz target's input, and that of the test that replays its corpus: when bytes arrive and in which pieces, when the peer
//! reads, when time passes, and the bytes. What must come out is not asked of the connection but worked out beside it, by reading the whole
//! input at once and the whole output at once.

use std::io;

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use reactor::os::{Event, Wake};
use reactor::sim::{Hostility, Kernel, Rng, SimListener, SimOs, SimStream, SocketId};
use reactor::{Config, Connect, EventLoop, ListenerWakes, Os, Stats, Token};
use server::answer::{Answer, Output, Pulled, StreamSource};
use server::connection::{HttpHandler, HttpSettings};
use server::dispatch::RequestJob;
use server::http::{AtEnd, BodyKind, HttpLimits, Request, Response};
use server::http_stats::HttpStats;
use server::service::Service;
use worker_pool::{Pool, Submitter};

use crate::driver::{self, small_limits};

/// The simulated system, with a clock of its own that nobody but the script moves: a loop that sleeps is seen to sleep.
pub(crate) struct Scripted {
    pub(crate) os: SimOs,
    pub(crate) now: Instant,
    pub(crate) sleeps: bool,
}

impl Os for Scripted {
    type Stream = SimStream;
    type Listener = SimListener;
    type Handover = OwnedFd;

    fn now(&mut self) -> Instant {
        self.now
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.os.poll(Some(Duration::ZERO), events)?;
        self.sleeps = events.is_empty() && timeout != Some(Duration::ZERO);
        Ok(())
    }

    fn set_timer(&mut self, _after: Duration) -> io::Result<()> {
        Ok(())
    }

    fn waker(&mut self) -> io::Result<Arc<dyn Wake>> {
        self.os.waker()
    }

    fn register(&mut self, stream: &mut SimStream, token: Token) -> io::Result<()> {
        self.os.register(stream, token)
    }

    fn deregister(&mut self, stream: &mut SimStream) -> io::Result<()> {
        self.os.deregister(stream)
    }

    fn register_listener(&mut self, listener: &mut SimListener, token: Token, wakes: ListenerWakes) -> io::Result<()> {
        self.os.register_listener(listener, token, wakes)
    }

    fn deregister_listener(&mut self, listener: &mut SimListener) -> io::Result<()> {
        self.os.deregister_listener(listener)
    }

    fn accept(&mut self, from: &mut SimListener) -> io::Result<(SimStream, reactor::Address)> {
        self.os.accept(from)
    }

    fn connect(&mut self, connect: &Connect, unsent_bytes_max: Option<u32>) -> io::Result<SimStream> {
        self.os.connect(connect, unsent_bytes_max)
    }

    fn bound_unsent(&mut self, listener: &mut SimListener, bytes: u32) -> io::Result<()> {
        self.os.bound_unsent(listener, bytes)
    }

    fn reset_at_close(&mut self, stream: &mut SimStream) -> io::Result<()> {
        self.os.reset_at_close(stream)
    }

    fn take_error(&mut self, stream: &mut SimStream) -> io::Result<Option<io::Error>> {
        self.os.take_error(stream)
    }

    fn unacknowledged_bytes(&mut self, stream: &mut SimStream) -> io::Result<u64> {
        self.os.unacknowledged_bytes(stream)
    }

    fn is_connected(&mut self, stream: &mut SimStream) -> bool {
        self.os.is_connected(stream)
    }

    fn shutdown_write(&mut self, stream: &mut SimStream) -> io::Result<()> {
        self.os.shutdown_write(stream)
    }

    fn adopt(&mut self, descriptor: OwnedFd) -> io::Result<SimStream> {
        drop(descriptor);
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&mut self, stream: SimStream) -> io::Result<OwnedFd> {
        drop(stream);
        Err(io::ErrorKind::Unsupported.into())
    }

    fn hold_spare(&mut self) -> bool {
        self.os.hold_spare()
    }

    fn release_spare(&mut self) -> bool {
        self.os.release_spare()
    }
}

/// Answers that tell which request they are for, in every way but by a worker: threads would make a run differ from its replay.
pub(crate) struct Fixed;

impl Service for Fixed {
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        let response = Response::text(expected_text(request.path));
        match request.path.as_bytes().get(1) {
            Some(b'l') => Answer::At(now + Duration::from_millis(50), response),
            Some(b'b') => Answer::body(1 << 20, |body| Response::bytes(body).into()),
            Some(b's') => Answer::stream(response, None, Repeat { text: expected_text(request.path), sent: 0 }),
            Some(b'e') => Answer::stream(response, None, Echo { held: Vec::new(), complete: request.body == BodyKind::None }),
            Some(b'c') => response.close().into(),
            _ => response.into(),
        }
    }
}

fn takes_body(path: &str) -> bool {
    matches!(path.as_bytes().get(1), Some(b'b' | b'e'))
}

fn expected_text(path: &str) -> String {
    // Longer than the smallest room, so that it goes out in pieces.
    format!("{path}\n").repeat(if path.starts_with("/s") { 400 } else { 1 })
}

struct Repeat {
    text: String,
    sent: usize,
}

impl StreamSource for Repeat {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        self.sent += output.write(&self.text.as_bytes()[self.sent..]);
        if self.sent == self.text.len() { Pulled::End } else { Pulled::More }
    }
}

struct Echo {
    held: Vec<u8>,
    complete: bool,
}

impl StreamSource for Echo {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        let bytes = output.write(&self.held);
        self.held.drain(..bytes);
        match (self.held.is_empty(), self.complete) {
            (false, _) => Pulled::More,
            (true, true) => Pulled::End,
            (true, false) => Pulled::Wait,
        }
    }

    fn wants_body(&self) -> bool {
        true
    }

    fn body(&mut self, piece: &[u8], last: bool) -> usize {
        let taken = piece.len().min(self.body_room_bytes());
        self.held.extend_from_slice(&piece[..taken]);
        self.complete = last && taken == piece.len();
        taken
    }

    fn body_room_bytes(&self) -> usize {
        100 - self.held.len().min(100)
    }
}

/// What is owed for one request.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) is_head: bool,
    /// Its body goes to the service, and has not come to its end.
    open: bool,
    /// Something was wrong with a request that may have been half answered by then. What can still be said is nothing: the connection is
    /// reset, and what the peer had not read is lost.
    pub(crate) breaks: bool,
}

/// What the whole input deserves, read at once: an answer for each request, and one for what is refused or cut short.
pub(crate) fn owed(limits: &HttpLimits, sent: &[u8]) -> Vec<Owed> {
    let error = |status, breaks| Owed { status, body: Vec::new(), is_head: false, open: false, breaks };
    let (events, _, at_end) = driver::events(limits, &[sent]);
    let mut owed: Vec<Owed> = Vec::new();
    let mut in_body = false;
    for event in events {
        match event {
            driver::Event::Request(text, kind) => {
                let path = text.split(" path=").nth(1).and_then(|rest| rest.split(" query=").next()).unwrap_or_default();
                let open = takes_body(path);
                let body = if open { Vec::new() } else { expected_text(path).into_bytes() };
                in_body = kind != BodyKind::None;
                owed.push(Owed { status: 200, body, is_head: text.starts_with("Head "), open: open && in_body, breaks: false });
            }
            driver::Event::Body(bytes) => {
                if let Some(last) = owed.last_mut().filter(|last| last.open) {
                    last.body.extend(bytes);
                }
            }
            driver::Event::BodyEnd => {
                in_body = false;
                owed.iter_mut().for_each(|owed| owed.open = false);
            }
            driver::Event::Refused(refusal) => {
                if in_body {
                    owed.pop();
                }
                owed.push(error(refusal.status(), in_body));
                return owed;
            }
        }
    }
    match at_end {
        AtEnd::InsideHead => owed.push(error(400, false)),
        AtEnd::InsideBody => {
            owed.pop();
            owed.push(error(400, true));
        }
        AtEnd::Clean | AtEnd::Closed | AtEnd::Answering => {}
    }
    owed
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) closes: bool,
    pub(crate) whole: bool,
}

/// Reads all that the connection said, knowing only which requests were HEAD.
pub(crate) fn got(mut output: &[u8], owed: &[Owed]) -> Vec<Got> {
    let mut all: Vec<Got> = Vec::new();
    while !output.is_empty() {
        let Some(end) = output.windows(4).position(|four| four == b"\r\n\r\n") else {
            all.push(Got { status: 0, body: output.to_vec(), closes: true, whole: false });
            break;
        };
        let head = std::str::from_utf8(&output[..end]).expect("a head is ASCII");
        output = &output[end + 4..];
        let status: u16 = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).expect("a status line");
        if status == 100 {
            continue;
        }
        let header = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let mut closes = header("Connection") == Some("close");
        // What is said of a head that never came to its end (408, 400) is said with its text.
        let is_head = owed.get(all.len()).is_some_and(|owed| owed.is_head) && !(400..500).contains(&status);
        let mut body = Vec::new();
        let mut whole = true;
        if is_head || status == 204 {
        } else if let Some(length) = header("Content-Length") {
            let length: usize = length.parse().expect("a length");
            whole = length <= output.len();
            body.extend_from_slice(&output[..length.min(output.len())]);
            output = &output[body.len()..];
        } else if header("Transfer-Encoding") == Some("chunked") {
            whole = chunks(&mut output, &mut body);
        } else {
            closes = true;
            body.extend_from_slice(output);
            output = b"";
        }
        all.push(Got { status, body, closes, whole });
    }
    all
}

/// False if the last chunk is missing.
fn chunks(output: &mut &[u8], body: &mut Vec<u8>) -> bool {
    loop {
        let Some(end) = output.windows(2).position(|two| two == b"\r\n") else {
            *output = b"";
            return false;
        };
        let size = std::str::from_utf8(&output[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok()).expect("a chunk size");
        *output = &output[end + 2..];
        if size + 2 > output.len() {
            body.extend_from_slice(output);
            *output = b"";
            return false;
        }
        body.extend_from_slice(&output[..size]);
        assert_eq!(&output[size..size + 2], b"\r\n", "a chunk ends with CRLF");
        *output = &output[size + 2..];
        if size == 0 {
            return true;
        }
    }
}

/// Far more than any script needs. A loop that never sleeps needs more than any number.
const TURNS_MAX: u32 = 200_000;
const SENT_BYTES_MAX: usize = 8 << 10;

type Loop = EventLoop<HttpHandler<Fixed>, Scripted>;

struct Play<'a> {
    event_loop: Loop,
    peer: SocketId,
    unsent: &'a [u8],
    output: Vec<u8>,
}

/// Calls `turn`, which returns whether the loop then sleeps, until it sleeps twice in a row. A deadline may have run in a turn whose poll found
/// nothing: only the next turn shows its effect.
pub(crate) fn until_it_sleeps(mut turn: impl FnMut() -> bool) {
    let mut asleep = 0;
    for _ in 0..TURNS_MAX {
        asleep = if turn() { asleep + 1 } else { 0 };
        if asleep == 2 {
            return;
        }
    }
    panic!("it still works after {TURNS_MAX} turns");
}

impl Play<'_> {
    fn turn(&mut self) {
        assert!(self.event_loop.turn().expect("no system call fails here"), "nobody has ended the loop");
    }

    fn run_until_it_sleeps(&mut self) {
        until_it_sleeps(|| {
            self.turn();
            self.event_loop.os_mut().sleeps
        });
    }

    fn send(&mut self, bytes_max: usize) -> usize {
        let bytes = self.unsent.len().min(bytes_max);
        let sent = self.event_loop.os_mut().os.kernel().peer_sends(self.peer, &self.unsent[..bytes]);
        self.unsent = &self.unsent[sent..];
        sent
    }

    fn read(&mut self, bytes_max: usize) -> usize {
        let before = self.output.len();
        self.event_loop.os_mut().os.kernel().peer_reads(self.peer, bytes_max, &mut self.output);
        self.output.len() - before
    }

    fn pass(&mut self, time: Duration) {
        self.event_loop.os_mut().now += time;
    }

    /// One byte of the script.
    fn act(&mut self, what: u8) {
        let n = usize::from(what >> 3) + 1;
        match what & 7 {
            0 => drop(self.send(n)),
            1 => drop(self.send(n * 16)),
            2 => drop(self.send(usize::MAX)),
            3 => drop(self.read(n * 32)),
            4 => drop(self.read(usize::MAX)),
            5 => self.turn(),
            6 => self.pass(Duration::from_millis(10) * n as u32),
            _ => self.run_until_it_sleeps(),
        }
    }

    /// The rest of the input, all that is answered, and the end: last of all, or right behind the last byte.
    fn finish(&mut self, ends_at_once: bool) {
        while ends_at_once && !self.unsent.is_empty() && self.send(usize::MAX) + self.read(usize::MAX) > 0 {
            self.run_until_it_sleeps();
        }
        if self.unsent.is_empty() && ends_at_once {
            self.event_loop.os_mut().os.kernel().peer_ends(self.peer);
        }
        loop {
            self.run_until_it_sleeps();
            if self.send(usize::MAX) + self.read(usize::MAX) == 0 {
                // What is due at a time.
                self.pass(Duration::from_millis(60));
                self.run_until_it_sleeps();
                if self.read(usize::MAX) == 0 {
                    break;
                }
            }
        }
        self.event_loop.os_mut().os.kernel().peer_ends(self.peer);
        self.run_until_it_sleeps();
        while self.read(usize::MAX) > 0 {
            self.run_until_it_sleeps();
        }
    }
}

/// One input of the fuzz target, and of the test that replays its corpus.
///
/// Byte 0 chooses limits, windows, timeouts and how unkind the system is; byte 1 is its seed, and an odd
/// one has the peer end behind its last byte; byte 2 is the length of the script, which follows;
/// the rest is what the peer sends.
#[allow(dead_code, reason = "not every test that includes this file uses it")]
pub(crate) fn any_script(input: &[u8]) {
    let [flags, seed, script_bytes, rest @ ..] = input else { return };
    let (script, sent) = rest.split_at(rest.len().min(usize::from(*script_bytes)));
    let sent = &sent[..sent.len().min(SENT_BYTES_MAX)];
    let flag = |bit: u8| flags & (1 << bit) != 0;

    let mut config = Config::default();
    let limits = &mut config.limits;
    (limits.connections_max, limits.refusals_max, limits.mail_max, limits.events_per_poll_max) = (2, 1, 4, 4);
    (limits.output_rate_window, limits.linger_timeout) = (HOUR, HOUR / 2);
    let mut http = HttpSettings::default();
    let short = Duration::from_millis(200);
    let timeout = if flag(0) { short } else { HOUR };
    (http.timeouts.header, http.timeouts.idle, http.timeouts.request) = (timeout, timeout, Some(timeout));
    if flag(1) {
        http.limits = small_limits();
        (limits.buffer_bytes_max, limits.output_high_water_bytes, limits.output_low_water_bytes) = (4096, 4096, 512);
    }
    if flag(2) {
        (limits.visit_messages_max, limits.visit_reads_max, limits.visit_written_bytes_max) = (1, 1, 1);
    }
    let window_bytes = if flag(3) { 64 } else { 64 << 10 };
    let one_in = |bit: u8, n: u64| if flag(bit) { n } else { 0 };
    let hostility = Hostility {
        interrupted_one_in: one_in(4, 3),
        short_write_one_in: one_in(5, 3),
        no_memory_one_in: one_in(6, 5),
        spurious_one_in: one_in(7, 5),
        call_nanos: 1,
        ..Hostility::default()
    };

    let mut kernel = Kernel::new(Rng::new(u64::from(*seed)), hostility, window_bytes, window_bytes);
    let listener = kernel.listen();
    let peer = kernel.peer_connects(listener).expect("somebody listens");
    let os = SimOs::new(kernel);
    let listener = os.listener(listener);
    let http_limits = http.limits.clone();
    let handler = HttpHandler::new(Fixed, http, nobody_works(), Arc::new(HttpStats::default()));
    let scripted = Scripted { os, now: Instant::now(), sleeps: false };
    let mut event_loop = EventLoop::with_os(config, scripted, handler).expect("the limits fit");
    event_loop.listen_on(listener, ListenerWakes::All).expect("registered");
    let stats: Arc<Stats> = event_loop.stats();

    let mut play = Play { event_loop, peer, unsent: sent, output: Vec::new() };
    script.iter().for_each(|what| play.act(*what));
    play.finish(seed % 2 == 1);
    let said = std::mem::take(&mut play.output);
    play.pass(3 * HOUR);
    play.run_until_it_sleeps();
    assert_eq!(stats.connections_open.get(), 0, "a peer that has said and read all is let go");
    assert_eq!(stats.leased_bytes.get(), 0, "what it held is given back");
    assert_eq!(stats.panics.get(), 0, "a callback has panicked");
    compare(&said, &owed(&http_limits, sent), flag(0));
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

fn compare(said: &[u8], owed: &[Owed], hurried: bool) {
    let got = got(said, owed);
    assert!(got.len() <= owed.len(), "{} answers to {} requests: {got:?}", got.len(), owed.len());
    for (index, (got_one, owed)) in got.iter().zip(owed).enumerate() {
        let is_last = index + 1 == got.len();
        assert!(is_last || (got_one.whole && !got_one.closes), "something follows what closes: {got_one:?}");
        if got_one.status == 200 && owed.status == 200 {
            assert!(got_one.whole || hurried, "cut short: {got_one:?}");
            assert!(got_one.body == owed.body || owed.is_head || !got_one.whole, "got {got_one:?} for {owed:?}");
        } else if got_one.status != owed.status {
            // An answer given before the whole request had come, or instead of it; a stream whose request broke.
            assert!(got_one.closes || !got_one.whole, "got {got_one:?} for {owed:?}");
        }
    }
    if got.len() < owed.len() && !hurried && !owed.iter().any(|owed| owed.breaks) {
        assert!(got.last().is_some_and(|last| last.closes || !last.whole), "{} answers to {owed:?}, and none of them closes", got.len());
    }
}

/// A pool that gets no job: the service has none for it.
pub(crate) fn nobody_works() -> Submitter<RequestJob> {
    static POOL: OnceLock<Pool<RequestJob>> = OnceLock::new();
    let config = worker_pool::Config::with(|config| config.threads = 2);
    POOL.get_or_init(|| Pool::start(config).expect("threads")).submitter()
}
