//! Time limits measure the client: a transfer may take as long as it is large, if the client keeps the least rate. A whole exchange has a deadline only
//! where the service or the operator asks for one. On a simulated system, in virtual time.

#[path = "data/driver.rs"]
#[allow(dead_code, reason = "scripted_connection.rs uses it")]
mod driver;
#[path = "data/scripted_connection.rs"]
#[allow(dead_code, reason = "this test uses its system only")]
mod scripted_connection;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::sim::{Hostility, Kernel, Rng, SimOs, SocketId};
use reactor::{CloseReason, Config, EventLoop, ListenerWakes, Stats};
use scripted_connection::{Scripted, nobody_works};
use server::answer::{Answer, AnswerLimits, Output, Pulled, StreamSource};
use server::body_rate::BodyRateMin;
use server::connection::{HttpHandler, HttpSettings};
use server::http::{Request, Response};
use server::http_stats::HttpStats;
use server::service::Service;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A service that answers each request like this.
struct Like(fn(Instant) -> Answer);

impl Service for Like {
    fn call(&mut self, _request: &Request<'_>, now: Instant) -> Answer {
        (self.0)(now)
    }
}

/// A client on a simulated system. Its clock moves only when the test says so.
struct Client {
    event_loop: EventLoop<HttpHandler<Like>, Scripted>,
    peer: SocketId,
    stats: Arc<Stats>,
    http: Arc<HttpStats>,
    received: Vec<u8>,
}

impl Client {
    /// Connects and sends this.
    fn new(http: HttpSettings, answer: fn(Instant) -> Answer, request: &str) -> Client {
        let mut kernel = Kernel::new(Rng::new(1), Hostility::default(), 64 << 10, 64 << 10);
        let listener = kernel.listen();
        let peer = kernel.peer_connects(listener).expect("somebody listens");
        let os = SimOs::new(kernel);
        let listener = os.listener(listener);
        let http_stats = Arc::new(HttpStats::default());
        let handler = HttpHandler::new(Like(answer), http, nobody_works(), Arc::clone(&http_stats));
        let scripted = Scripted { os, now: Instant::now(), sleeps: false };
        let mut event_loop = EventLoop::with_os(Config::default(), scripted, handler).expect("the limits fit");
        event_loop.listen_on(listener, ListenerWakes::All).expect("registered");
        let stats = event_loop.stats();
        let mut client = Client { event_loop, peer, stats, http: http_stats, received: Vec::new() };
        client.send(request.as_bytes());
        client
    }

    fn run_until_it_sleeps(&mut self) {
        let mut asleep = 0;
        for _ in 0..10_000 {
            assert!(self.event_loop.turn().expect("no system call fails here"), "the loop runs");
            asleep = if self.event_loop.os_mut().sleeps { asleep + 1 } else { 0 };
            if asleep == 2 {
                return;
            }
        }
        panic!("the loop never sleeps");
    }

    fn send(&mut self, bytes: &[u8]) {
        assert_eq!(self.event_loop.os_mut().os.kernel().peer_sends(self.peer, bytes), bytes.len());
        self.run_until_it_sleeps();
    }

    fn read(&mut self, bytes_max: usize) {
        self.event_loop.os_mut().os.kernel().peer_reads(self.peer, bytes_max, &mut self.received);
        self.run_until_it_sleeps();
    }

    fn pass(&mut self, time: Duration) {
        self.event_loop.os_mut().now += time;
        self.run_until_it_sleeps();
    }

    /// Lets seconds pass, and does this after each. Returns the seconds for which the connection was open.
    fn seconds_open(&mut self, seconds_max: u64, mut each: impl FnMut(&mut Client)) -> u64 {
        for second in 0..seconds_max {
            self.pass(SECOND);
            if self.stats.connections_open.get() == 0 {
                return second;
            }
            each(self);
        }
        seconds_max
    }

    fn status(&self) -> Option<&str> {
        std::str::from_utf8(self.received.get(9..12)?).ok()
    }
}

struct Zeros(u64);

impl StreamSource for Zeros {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        let bytes = usize::try_from(self.0).unwrap_or(usize::MAX).min(output.space());
        self.0 -= output.write(&vec![b'0'; bytes]) as u64;
        if self.0 == 0 { Pulled::End } else { Pulled::More }
    }
}

/// An event now and then, without an end.
struct Events(Instant);

impl StreamSource for Events {
    fn pull(&mut self, output: &mut Output<'_>, now: Instant) -> Pulled {
        if now >= self.0 {
            output.write(b"data: tick\n\n");
            self.0 = now + HOUR;
        }
        Pulled::At(self.0)
    }
}

const DOWNLOAD_BYTES: u64 = 1_000_000;

fn download() -> Answer {
    Answer::stream(Response::bytes(""), Some(DOWNLOAD_BYTES), Zeros(DOWNLOAD_BYTES))
}

fn upload() -> Answer {
    Answer::body(2_000_000, |body| Response::text(body.len().to_string()).into())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n";

#[test]
fn a_steady_upload_takes_as_long_as_it_is_large() {
    // The least rate is 500 bytes a second over 10 s.
    let mut client = Client::new(HttpSettings::default(), |_| upload(), POST);
    for _ in 0..200 {
        client.send(&[b'x'; 5000]);
        client.pass(10 * SECOND);
    }
    client.read(usize::MAX);
    assert!(client.received.starts_with(b"HTTP/1.1 200") && client.received.ends_with(b"\r\n\r\n1000000"));

    let mut client = Client::new(HttpSettings::default(), |_| upload(), POST);
    client.send(&[b'x'; 5000]);
    client.pass(10 * SECOND);
    client.send(&[b'x'; 4999]);
    client.pass(10 * SECOND);
    client.read(usize::MAX);
    assert_eq!((client.status(), client.http.body_timeouts.get()), (Some("408"), 1));
}

#[test]
fn a_steady_download_takes_as_long_as_it_is_large() {
    let mut client = Client::new(HttpSettings::default(), |_| download(), GET);
    let mut until_it_is_whole = 0;
    client.seconds_open(2000, |client| {
        client.read(2000);
        until_it_is_whole += u64::from((client.received.len() as u64) < DOWNLOAD_BYTES);
    });
    assert_eq!((until_it_is_whole, client.http.responses(2).get(), client.http.broken_streams.get()), (499, 1, 0));

    // Below half of the least rate it is reset.
    let mut client = Client::new(HttpSettings::default(), |_| download(), GET);
    let seconds = client.seconds_open(2000, |client| client.read(200));
    assert!((270..600).contains(&seconds), "{seconds} s");
    assert_eq!(client.stats.closes(CloseReason::WriteStalled).get(), 1);
}

#[test]
fn a_deadline_for_all_exchanges_is_the_operators_choice() {
    let mut http = HttpSettings::default();
    http.timeouts.request = Some(60 * SECOND);
    let mut client = Client::new(http, |_| download(), GET);
    assert_eq!(client.seconds_open(2000, |client| client.read(2000)), 59);
    assert_eq!((client.http.request_timeouts.get(), client.http.broken_streams.get()), (1, 1));
}

#[test]
fn an_event_stream_lasts_until_its_deadline_if_it_has_one() {
    let events = |now: Instant| Answer::stream(Response::text(""), None, Events(now));
    let mut client = Client::new(HttpSettings::default(), events, GET);
    for hour in 1..=24 {
        client.read(usize::MAX);
        assert_eq!(String::from_utf8_lossy(&client.received).matches("data: tick").count(), hour);
        client.pass(HOUR);
    }
    assert_eq!(client.stats.connections_open.get(), 1);

    let limited = |now: Instant| {
        let limits = AnswerLimits::new().deadline(Some(90 * 60 * SECOND));
        Answer::stream(Response::text(""), None, Events(now)).with_limits(limits)
    };
    let mut client = Client::new(HttpSettings::default(), limited, GET);
    client.pass(HOUR);
    assert_eq!(client.stats.connections_open.get(), 1);
    client.pass(HOUR);
    client.pass(HOUR); // Lingering.
    assert_eq!((client.stats.connections_open.get(), client.http.request_timeouts.get()), (0, 1));
}

#[test]
fn a_long_poll_is_answered_at_its_time_or_at_its_deadline() {
    for (limits, seconds) in [(AnswerLimits::new(), 3600), (AnswerLimits::new().deadline(Some(60 * SECOND)), 60)] {
        // The service is a function, so the limits are told apart by the deadline.
        let answer: fn(Instant) -> Answer = if limits == AnswerLimits::new() {
            |now| Answer::At(now + HOUR, Response::text("late"))
        } else {
            |now| Answer::At(now + HOUR, Response::text("late")).with_limits(AnswerLimits::new().deadline(Some(60 * SECOND)))
        };
        let mut client = Client::new(HttpSettings::default(), answer, GET);
        client.pass(Duration::from_secs(seconds - 1));
        client.read(usize::MAX);
        assert_eq!(client.status(), None);
        client.pass(SECOND);
        client.read(usize::MAX);
        assert_eq!(client.status(), Some("200"), "after {seconds} s");
        assert!(client.received.ends_with(b"late"));
    }
}

#[test]
fn an_answer_may_have_least_rates_of_its_own_or_none() {
    // 5,000 bytes a second, which 2,000 are less than half of.
    let fast = |_| download().with_limits(AnswerLimits::new().response_rate_min(Some(5000)));
    let mut client = Client::new(HttpSettings::default(), fast, GET);
    let seconds = client.seconds_open(2000, |client| client.read(2000));
    assert!((27..90).contains(&seconds), "{seconds} s");
    assert_eq!(client.stats.closes(CloseReason::WriteStalled).get(), 1);

    let patient = |_| download().with_limits(AnswerLimits::new().response_rate_min(None));
    let mut client = Client::new(HttpSettings::default(), patient, GET);
    (0..100).for_each(|_| client.pass(HOUR));
    assert_eq!(client.stats.connections_open.get(), 1, "a client that never reads");

    let patient = |_| upload().with_limits(AnswerLimits::new().body_rate_min(None));
    let mut client = Client::new(HttpSettings::default(), patient, POST);
    (0..100).for_each(|_| client.pass(HOUR));
    assert_eq!(client.stats.connections_open.get(), 1, "a client that never sends");

    let fast = |_| {
        let rate = BodyRateMin { bytes_per_second: 5000, window: 2 * SECOND };
        upload().with_limits(AnswerLimits::new().body_rate_min(Some(rate)))
    };
    let mut client = Client::new(HttpSettings::default(), fast, POST);
    client.send(&[b'x'; 9999]);
    client.pass(2 * SECOND);
    client.read(usize::MAX);
    assert_eq!(client.status(), Some("408"));
}
