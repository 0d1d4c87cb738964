//! Streams: framed however their source gives its bytes, and never made to look whole when they are not.

mod support;

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use server::answer::{Answer, BodySink, Output, Pulled, StreamSource, Work};
use server::http::{Request, Response};
use support::{Gate, Serve, Server, Setup, get, post, until};

/// Gives what a list says, one entry a pull.
struct Script {
    steps: std::vec::IntoIter<Give>,
}

#[derive(Clone)]
enum Give {
    Bytes(usize),
    FromJob(usize),
    At,
    /// In an hour.
    Late,
    End,
    Broken,
}

impl StreamSource for Script {
    fn pull(&mut self, output: &mut Output<'_>, now: Instant) -> Pulled {
        match self.steps.next() {
            Some(Give::Bytes(bytes)) => {
                assert_eq!(output.write(&vec![b'x'; bytes]), bytes);
                Pulled::More
            }
            Some(Give::FromJob(bytes)) => Pulled::Job(Work::fast(move |_| vec![b'x'; bytes])),
            Some(Give::At) => Pulled::At(now + std::time::Duration::from_millis(1)),
            Some(Give::Late) => Pulled::At(now + Duration::from_secs(3600)),
            Some(Give::Broken) => Pulled::Broken,
            Some(Give::End) | None => Pulled::End,
        }
    }
}

fn stream(length_bytes: Option<u64>, steps: &[Give]) -> Answer {
    let steps = steps.to_vec();
    let source = Box::new(Script { steps: steps.into_iter() });
    Answer::Stream { head: Response::bytes("").into_stream(length_bytes), source }
}

fn serve(length_bytes: Option<u64>, steps: Vec<Give>) -> Server {
    Server::start(
        Serve(move |request: &Request<'_>, _| match request.path {
            "/" => Answer::Now(Response::text("fine")),
            _ => stream(length_bytes, &steps),
        }),
        Setup::default(),
    )
}

#[test]
fn a_stream_has_the_bytes_of_its_source_however_they_come() {
    use Give::{At, Bytes, End, FromJob};
    let single_bytes = vec![Bytes(1); 1_000];
    for (steps, total) in [
        (single_bytes, 1_000),
        (vec![FromJob(200_000), FromJob(1), Bytes(3), FromJob(70_000), End], 270_004),
        (vec![At, Bytes(1), At, At, FromJob(65_536), At], 65_537),
        (vec![FromJob(0), Bytes(2), FromJob(0)], 2),
        (vec![End], 0),
    ] {
        for length in [None, Some(total as u64)] {
            let server = serve(length, steps.clone());
            let mut client = server.connect();
            for _ in 0..3 {
                client.send([get("/stream"), get("/")].concat());
                assert_eq!(client.response().body.len(), total);
                assert_eq!(client.response().text(), "fine");
            }
            client.send([get("/stream").replace("GET", "HEAD"), get("/")].concat());
            assert_eq!(client.response_to_head().status, 200);
            assert_eq!(client.response().text(), "fine");
            // A 1.0 client knows no chunks: bytes until the close.
            let mut old = server.connect();
            old.send("GET /stream HTTP/1.0\r\n\r\n");
            old.head();
            assert_eq!(old.rest().len(), total);
            drop((client, old));
            server.is_at_rest();
        }
    }
}

#[test]
fn chunks_are_framed_whatever_room_is_left() {
    let server = serve(None, vec![Give::FromJob(500), Give::Bytes(200), Give::End]);
    // Responses in front, of every length that leaves little room.
    for n in (64_000..65_536).step_by(16) {
        let server = &server;
        let mut client = server.connect();
        client.send([get("/stream"), get("/stream")].concat().repeat(n % 7 + 1));
        for _ in 0..2 * (n % 7 + 1) {
            assert_eq!(client.response().body.len(), 700);
        }
    }
    let routes = Server::routes();
    for n in (64_000..65_536).step_by(16) {
        let mut client = routes.connect();
        let echo = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n".to_owned();
        client.send(get(&format!("/bytes?n={n}")) + &echo + &"e".repeat(1_000) + "\r\n0\r\n\r\n" + &get("/"));
        assert_eq!(client.response().body.len(), n);
        assert_eq!(client.response().body.len(), 1_000);
        assert_eq!(client.response().text(), "Hello, World!");
    }
}

#[test]
fn a_stream_that_is_too_short_or_broken_or_too_long_ends_short() {
    use Give::{Broken, Bytes, End, FromJob};
    for (length, steps) in [
        (Some(1_000), vec![Bytes(999), End]),
        (Some(1_000), vec![FromJob(999), End]),
        (Some(1_000), vec![Bytes(999), Broken]),
        (Some(1_000), vec![Bytes(500), FromJob(501), End]),
        (None, vec![Bytes(999), Broken]),
        (None, vec![FromJob(999), Broken]),
    ] {
        let server = serve(length, steps);
        let mut client = server.connect();
        client.send([get("/stream"), get("/")].concat());
        let received = client.until_gone();
        let body = received.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| received.len() - at - 4);
        assert!(!received.ends_with(b"0\r\n\r\n"), "not the end of a chunked body");
        assert!(length.is_none_or(|length| (body as u64) < length), "{body} bytes of body");
        assert!(!received.ends_with(b"fine"), "nothing may follow a broken response");
        server.is_at_rest();
        server_serves(&server);
    }
}

/// What came, and whether a reset ended it.
fn to_its_end(client: &mut support::Client) -> (usize, bool) {
    let (mut piece, mut bytes) = ([0; 64 << 10], 0);
    loop {
        match client.stream.read(&mut piece) {
            Ok(0) => return (bytes, false),
            Ok(n) => bytes += n,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return (bytes, true),
            Err(e) => panic!("neither an end nor a reset: {e}"),
        }
    }
}

#[test]
fn to_a_client_for_whom_the_end_is_the_length_a_broken_stream_ends_with_a_reset() {
    use Give::{At, Broken, Bytes, End, FromJob};
    for (steps, is_whole) in [
        (vec![Bytes(999), Broken], false),
        (vec![FromJob(999), Broken], false),
        (vec![Bytes(999), At, Broken], false),
        (vec![FromJob(300_000), Broken], false),
        (vec![Bytes(999), End], true),
        (vec![FromJob(300_000), At, End], true),
    ] {
        let server = serve(None, steps);
        let mut client = server.connect();
        client.send("GET /stream HTTP/1.0\r\n\r\n");
        let (bytes, was_reset) = to_its_end(&mut client);
        assert_eq!(was_reset, !is_whole, "{bytes} bytes came");
        drop(client);
        server.is_at_rest();
        assert_eq!(server.stats.resets.get(), u64::from(!is_whole));
    }
}

#[test]
fn who_stops_reading_is_reset_and_does_not_take_what_it_has_for_all() {
    let mut setup = Setup::default();
    setup.reactor.limits.output_rate_window = Duration::from_millis(300);
    let server = Server::start(Serve(|_: &Request<'_>, _| stream(None, &[Give::FromJob(50_000_000), Give::End])), setup);
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    until("it is closed as stalled", || server.stats.closes(reactor::CloseReason::WriteStalled).get() == 1);
    let (bytes, was_reset) = to_its_end(&mut client);
    assert!(was_reset && bytes < 50_000_000, "{bytes} bytes, and an end in order");
    server.is_at_rest();
}

#[test]
fn a_loop_that_ends_resets_who_is_in_the_middle_of_an_answer_and_nobody_else() {
    let server = serve(None, vec![Give::Bytes(999), Give::Late, Give::End]);
    let (mut idle, mut reading) = (server.connect(), server.connect());
    idle.send(get("/"));
    assert_eq!(idle.response().text(), "fine");
    reading.send("GET /stream HTTP/1.0\r\n\r\n");
    reading.head();
    let stats = Arc::clone(&server.stats);
    drop(server);
    assert!(to_its_end(&mut reading).1, "it looks complete");
    idle.is_closed();
    assert_eq!(stats.resets.get(), 1);
}

/// Has said all before the request's body has come.
struct SaysFirst;

impl StreamSource for SaysFirst {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        output.write(b"said");
        Pulled::End
    }

    fn wants_body(&self) -> bool {
        true
    }

    fn body_room_bytes(&self) -> usize {
        1
    }

    fn body(&mut self, piece: &[u8], _last: bool) -> usize {
        piece.len()
    }
}

#[test]
fn a_body_that_breaks_after_its_answer_was_whole_breaks_no_answer() {
    let service = |_: &Request<'_>, _| Answer::Stream { head: Response::bytes("").into_stream(None), source: Box::new(SaysFirst) };
    let server = Server::start(Serve(service), Setup::default());
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n");
    assert_eq!(client.response().text(), "said");
    client.send("x");
    client.is_closed();
    assert_eq!((server.http.broken_streams.get(), server.http.responses(2).get(), server.stats.resets.get()), (0, 1, 0));
    drop(client);
    server.is_at_rest();
}

/// Writes something and panics when it is asked for its room afterwards.
struct PanicsAfterwards {
    has_written: bool,
}

impl StreamSource for PanicsAfterwards {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        self.has_written = true;
        output.write(b"half a response");
        Pulled::Wait
    }

    fn wants_body(&self) -> bool {
        true
    }

    fn body_room_bytes(&self) -> usize {
        assert!(!self.has_written, "as the test wants");
        1
    }
}

#[test]
fn a_source_that_panics_costs_no_response_before_it_a_byte() {
    let service = |request: &Request<'_>, _| match request.path {
        "/" => Answer::Now(Response::text("fine")),
        _ => Answer::Stream { head: Response::bytes("").into_stream(None), source: Box::new(PanicsAfterwards { has_written: false }) },
    };
    let server = Server::start(Serve(service), Setup::default());
    let mut client = server.connect();
    // All in one visit: no response is sent before the panic. A source is asked for its room while its body is not complete.
    let requests = get("/").repeat(3) + &post("/stream", "Hello");
    client.send(&requests[..requests.len() - 1]);
    for _ in 0..3 {
        assert_eq!(client.response().text(), "fine");
    }
    assert_eq!(client.response().status, 500);
    client.is_closed();
    drop(client);
    server.is_at_rest();
}

fn server_serves(server: &Server) {
    let mut client = server.connect();
    client.send(get("/"));
    assert_eq!(client.response().text(), "fine");
}

#[test]
fn a_stream_whose_job_is_refused_ends_short_unless_its_source_knows_better() {
    let gate = Gate::default();
    let mut setup = Setup::default();
    setup.pool.limits.queue_jobs_max = 1;
    let held = gate.clone();
    let service = Serve(move |request: &Request<'_>, _| {
        let gate = held.clone();
        match request.path {
            "/" => Answer::Now(Response::text("fine")),
            "/hold" => Answer::Job(Work::fast(move |_| {
                gate.pass();
                Answer::Now(Response::text("held"))
            })),
            _ => stream(Some(1_000), &[Give::Bytes(10), Give::FromJob(990), Give::End]),
        }
    });
    let server = Server::start(service, setup);
    let mut holders: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for holder in &mut holders {
        holder.send(get("/hold"));
    }
    until("the pool is full", || server.pool.stats().in_flight().total() == 3);
    let mut client = server.connect();
    client.send(get("/stream"));
    assert!(client.until_gone().len() < 1_000);
    gate.open();
    for holder in &mut holders {
        assert_eq!(holder.response().text(), "held");
    }
    server_serves(&server);
}

/// Gives its bytes by one job, and asks again as long as that job is not run.
struct Insists {
    given: Arc<AtomicBool>,
    refusals: Arc<AtomicUsize>,
}

impl StreamSource for Insists {
    fn pull(&mut self, _output: &mut Output<'_>, _now: Instant) -> Pulled {
        if self.given.load(Ordering::Relaxed) {
            return Pulled::End;
        }
        let given = Arc::clone(&self.given);
        let run = move |_: &worker_pool::Checkpoint<'_>| {
            given.store(true, Ordering::Relaxed);
            b"given".to_vec()
        };
        Pulled::Job(Work::fast(run).within(Duration::from_millis(20)))
    }

    fn job_refused(&mut self, _retry_after: Duration, now: Instant) -> Pulled {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        Pulled::At(now + Duration::from_millis(1))
    }
}

#[test]
fn a_source_that_asks_again_is_served_when_the_pool_has_room_again() {
    let (gate, refusals) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (gate.clone(), Arc::clone(&refusals));
    let service = Serve(move |request: &Request<'_>, _| {
        let gate = held.clone();
        match request.path {
            "/hold" => Answer::Job(Work::fast(move |_| {
                gate.pass();
                Answer::Now(Response::text("held"))
            })),
            _ => Answer::Stream {
                head: Response::bytes("").into_stream(None),
                source: Box::new(Insists { given: Arc::default(), refusals: Arc::clone(&counted) }),
            },
        }
    });
    let server = Server::start(service, Setup::default());
    let mut holders: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for holder in &mut holders {
        holder.send(get("/hold"));
    }
    until("both workers are held", || gate.held() == 2);
    let mut client = server.connect();
    client.send(get("/stream"));
    client.head();
    // Its job waits; by the time a worker looks at it, its deadline has passed.
    std::thread::sleep(Duration::from_millis(21));
    gate.open();
    client.received.splice(..0, *b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.response().text(), "given");
    assert!(refusals.load(Ordering::Relaxed) > 0, "its first job has expired");
    assert_eq!(server.http.broken_streams.get(), 0);
}

/// Says `enough` after so many bytes.
struct Enough {
    bytes: usize,
    max: usize,
}

impl BodySink for Enough {
    fn take(&mut self, piece: &[u8]) -> usize {
        let taken = piece.len().min(self.max - self.bytes);
        self.bytes += taken;
        taken
    }

    fn end(self: Box<Self>) -> Answer {
        Answer::Now(Response::text(self.bytes.to_string()))
    }
}

#[test]
fn a_sink_that_has_enough_is_asked_at_once_and_the_rest_is_given_up() {
    let service = Serve(|_: &Request<'_>, _| Answer::Read(Box::new(Enough { bytes: 0, max: 10 })));
    let server = Server::start(service, Setup::default());
    for (length, announced, said, connection) in [(9, 9, "9", None), (10, 10, "10", None), (11, 1_000_000, "10", Some("close"))] {
        let mut client = server.connect();
        let request = post("/", &"x".repeat(length)).replace(&format!("Length: {length}"), &format!("Length: {announced}"));
        client.send(request);
        let response = client.response();
        assert_eq!((&*response.text(), response.header("Connection")), (said, connection));
    }
    server.is_at_rest();
}

#[test]
fn a_response_larger_than_the_output_is_sent_whole() {
    let body = "y".repeat(1_000_000);
    let expected = body.clone();
    let service = Serve(move |request: &Request<'_>, now| match request.path {
        "/job" => {
            let body = body.clone();
            Answer::Job(Work::fast(move |_| Answer::Now(Response::text(body))))
        }
        "/at" => Answer::At(now, Response::text(body.clone())),
        _ => Answer::Now(Response::text(body.clone())),
    });
    let server = Server::start(service, Setup::default());
    let mut client = server.connect();
    client.send([get("/"), get("/job"), get("/at"), get("/").replace("GET", "HEAD"), get("/")].concat());
    for _ in 0..3 {
        assert!(client.response().text() == expected);
    }
    assert_eq!(client.response_to_head().header("Content-Length"), Some("1000000"));
    assert!(client.response().text() == expected);
    drop(client);
    server.is_at_rest();
}

#[test]
fn a_response_head_that_can_never_fit_is_500_and_no_hang() {
    let service = Serve(|request: &Request<'_>, _| {
        let value = "v".repeat(if request.path == "/" { 10 } else { 100_000 });
        let response = Response::text("fine").header("X-Long", value).unwrap_or_else(|_| Response::empty(500));
        match request.path {
            "/stream" => Answer::Stream { head: response.into_stream(None), source: Box::new(Script { steps: vec![].into_iter() }) },
            _ => Answer::Now(response),
        }
    });
    let server = Server::start(service, Setup::default());
    for path in ["/now", "/stream"] {
        let mut client = server.connect();
        client.send(get(path));
        let response = client.response();
        assert_eq!((response.status, response.header("Connection")), (500, Some("close")));
        client.is_closed();
    }
    server_serves(&server);
    server.is_at_rest();
}

/// Writes four bytes into space that it has looked at before.
struct Short;

impl StreamSource for Short {
    fn pull(&mut self, output: &mut Output<'_>, _now: Instant) -> Pulled {
        assert!(output.space() > 4096);
        output.truncate(4096);
        output.write(b"mine");
        Pulled::End
    }
}

#[test]
fn a_stream_cannot_send_what_another_connection_left_in_the_output_buffer() {
    let service = |request: &Request<'_>, _| match request.path {
        "/secret" => Answer::Now(Response::text("secret ".repeat(1000))),
        _ => Answer::Stream { head: Response::bytes("").into_stream(None), source: Box::new(Short) },
    };
    let server = Server::start(Serve(service), Setup::default());
    let mut one = server.connect();
    one.send(get("/secret"));
    assert_eq!(one.response().body.len(), 7000);
    let mut other = server.connect();
    other.send(get("/"));
    assert_eq!(other.response().text(), "mine");
}
