//! A real server in this process, on a port of its own, and raw clients for it: no library between the test and the bytes.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reactor::listen::socket::{ListenOptions, listen};
use reactor::{EventLoop, Handle, LinuxListener, ListenerWakes};
use server::answer::{Answer, Work};
use server::connection::{HttpHandler, HttpSettings};
use server::dispatch::RequestJob;
use server::http::Request;
use server::http_stats::HttpStats;
use server::ledger::Ledger;
use server::routes::Routes;
use server::service::Service;
use worker_pool::Pool;

/// So long a test waits for what must happen before it calls it a hang. No test waits for this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a server is made of.
#[derive(Clone)]
pub struct Setup {
    pub reactor: reactor::Config,
    pub http: HttpSettings,
    pub pool: worker_pool::Config,
    pub listen: ListenOptions,
}

impl Default for Setup {
    fn default() -> Setup {
        let pool = worker_pool::Config::with(|config| config.threads = 2);
        let http = HttpSettings { job_deadline: PATIENCE, ..HttpSettings::default() };
        Setup { reactor: reactor::Config::default(), http, pool, listen: ListenOptions::default() }
    }
}

/// One loop and one pool, for as long as the value lives.
pub struct Server {
    pub address: SocketAddr,
    pub stats: Arc<reactor::Stats>,
    pub http: Arc<HttpStats>,
    pub ledger: Arc<Ledger>,
    pub pool: Pool<RequestJob>,
    pub handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn routes() -> Server {
        Server::start(server::demo::routes(None), Setup::default())
    }

    pub fn start(service: impl Service + Send + 'static, setup: Setup) -> Server {
        let pool = Pool::<RequestJob>::start(setup.pool).expect("the pool starts");
        let http = Arc::new(HttpStats::default());
        let (submitter, stats_of_http) = (pool.submitter(), Arc::clone(&http));
        let ledger = Arc::new(Ledger::new(setup.http.memory, Vec::new()));
        let shared_ledger = Arc::clone(&ledger);
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let mut handler = HttpHandler::new(service, setup.http, submitter, stats_of_http);
            handler.share_ledger(shared_ledger);
            let mut event_loop = EventLoop::new(setup.reactor, handler).expect("the loop starts");
            let mailer = event_loop.mailer();
            event_loop.handler_mut().set_mailer(mailer);
            let socket = listen("127.0.0.1:0".parse().expect("an address"), setup.listen).expect("a port");
            let address = socket.local_addr().expect("bound");
            let listener = LinuxListener::new(socket).expect("a listener");
            event_loop.listen_on(listener, ListenerWakes::All).expect("registered");
            tell.send((address, event_loop.stats(), event_loop.handle())).expect("the test waits");
            event_loop.run().map(drop).expect("the loop runs");
        });
        let (address, stats, handle) = told.recv().expect("the loop has started");
        Server { address, stats, http, ledger, pool, handle, thread: Some(thread) }
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Client { stream, received: Vec::new() }
    }

    /// Everything that comes back for these bytes until the server closes; the sending side stays open.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.send(request);
        String::from_utf8_lossy(&client.rest()).into_owned()
    }

    /// Waits until no connection is left, and checks that nothing is counted as under way.
    pub fn is_at_rest(&self) {
        until("all connections are closed", || self.stats.connections_open.get() == 0);
        // The loop sets its gauges at different points of the turn that closes the last one.
        until("requests counted in are counted out", || self.http.in_flight.get() == 0);
        until("nobody lingers", || self.stats.connections_lingering.get() == 0);
        until("all leases are given back", || self.stats.leased_bytes.get() == 0);
        until("all memory is given back", || self.ledger.budgets().all(|budget| budget.held_bytes() == 0));
    }

    /// The server still serves, on a new connection.
    pub fn serves(&self) {
        let mut client = self.connect();
        client.send(get("/healthz"));
        let response = client.response();
        assert_eq!((response.status, &*response.body), (200, &b"ok\n"[..]));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the loop ended well");
            }
        }
    }
}

/// Waits for something that another thread brings about. Not a guess at its speed: it fails only after `PATIENCE`.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A request without a body.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A request with a body of known length.
pub fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A response, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").skip(1);
        lines.filter_map(|line| line.split_once(": ")).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The same whenever it is asked for.
    pub fn without_date(mut self) -> Response {
        let lines: Vec<&str> = self.head.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
        self.head = lines.join("\r\n");
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection, from outside.
pub struct Client {
    pub stream: TcpStream,
    /// Received and not yet taken.
    pub received: Vec<u8>,
}

impl Client {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// More bytes; false at the end.
    pub fn receive(&mut self) -> bool {
        let mut piece = [0; 64 << 10];
        let n = self.stream.read(&mut piece).expect("an answer or an end, not silence and not a reset");
        self.received.extend_from_slice(&piece[..n]);
        n > 0
    }

    /// Exactly so many bytes.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.received.len() < bytes {
            assert!(self.receive(), "the server closed after {:?}", String::from_utf8_lossy(&self.received));
        }
        self.received.drain(..bytes).collect()
    }

    /// Up to and with the next blank line.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.take(at + 4)).expect("an ASCII head");
            }
            assert!(self.receive(), "the server closed after {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(at + 2);
                return String::from_utf8_lossy(&line[..at]).into_owned();
            }
            assert!(self.receive(), "the server closed within a line");
        }
    }

    /// The next response, which is not one to HEAD.
    pub fn response(&mut self) -> Response {
        let mut response = self.response_to_head();
        if let Some(length) = response.header("Content-Length") {
            let length = length.parse().expect("a length");
            response.body = self.take(length);
        } else if response.header("Transfer-Encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).expect("a chunk size");
                let piece = self.take(size);
                response.body.extend_from_slice(&piece);
                assert_eq!(self.line(), "", "each chunk ends with CRLF, and so does the trailer section");
                if size == 0 {
                    break;
                }
            }
        }
        response
    }

    /// The head of the next response, when nothing follows it.
    pub fn response_to_head(&mut self) -> Response {
        let head = self.head();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        Response { status: status.expect("a status line"), head, body: Vec::new() }
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.receive() {}
        std::mem::take(&mut self.received)
    }

    /// The server has closed in order, with nothing more to say.
    pub fn is_closed(&mut self) {
        let rest = self.rest();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// The server closes, be it by a reset, be it within a response. What came before.
    pub fn until_gone(&mut self) -> Vec<u8> {
        let mut piece = [0; 64 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => self.received.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
                Err(e) => panic!("the connection is not gone: {e}"),
            }
        }
        std::mem::take(&mut self.received)
    }

    /// Says that it has no more to say, and listens on.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Leaves as a crashed process does: the server gets a reset, whatever is under way.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// A service in a closure.
pub struct Serve<F>(pub F);

impl<F: FnMut(&Request<'_>, Instant) -> Answer> Service for Serve<F> {
    fn call(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        (self.0)(request, now)
    }
}

/// Holds workers until it is opened: a full pool without a guess at how long anything takes.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    open: bool,
    held: usize,
}

impl Gate {
    /// Called by jobs.
    pub fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().expect("nobody panics with it");
        state.held += 1;
        while !state.open {
            state = changed.wait(state).expect("nobody panics with it");
        }
        state.held -= 1;
    }

    pub fn open(&self) {
        self.0.0.lock().expect("nobody panics with it").open = true;
        self.0.1.notify_all();
    }

    pub fn close(&self) {
        self.0.0.lock().expect("nobody panics with it").open = false;
    }

    /// How many workers it holds.
    pub fn held(&self) -> usize {
        self.0.0.lock().expect("nobody panics with it").held
    }
}

/// The demonstration routes, and `GET /hold?n=N`: N, from a worker, when the gate is open.
pub fn routes_with_gate(gate: &Gate) -> impl Service + Send + 'static {
    with_gate(server::demo::routes(None), gate)
}

/// The same with these routes.
pub fn with_gate(mut routes: Routes, gate: &Gate) -> impl Service + Send + 'static {
    let gate = gate.clone();
    Serve(move |request: &Request<'_>, now: Instant| {
        if request.path != "/hold" {
            return routes.call(request, now);
        }
        let (gate, n) = (gate.clone(), request.query_value("n").unwrap_or_default().to_owned());
        Answer::Job(Work::fast(move |_| {
            gate.pass();
            Answer::Now(server::http::Response::text(n))
        }))
    })
}
