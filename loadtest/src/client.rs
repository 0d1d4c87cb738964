//! The clients of one generator thread, on the reactor: what happens on their connections becomes facts about requests.
//!
//! The loop's [`Handler::next_wake`] drives the schedule, to a fraction of a millisecond; connections only carry what is due. All times
//! of input are the loop's own, read once a turn when poll returns. The time of a write is read for each request (`truth/stamps.rs`).
//! Read next: `generator.rs`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use reactor::{CloseReason, Context, Handler, LoopContext, Origin, Token};
use server::clock::later;

use crate::class_load::ClassLoad;
use crate::errors::{Kind, Phase};
use crate::histogram::Record;
use crate::plan::Plan;
use crate::response::{ResponseReader, Step};
use crate::series::Interval;
use crate::start::StartGate;
use crate::truth::stamps::Exchange;

mod course;
mod supply;

/// How often a thread that is ready checks whether all threads are. The start is set a little ahead, so that all of them see it in time.
const START_POLL: Duration = Duration::from_millis(1);

/// One connection.
#[derive(Debug)]
pub struct Conn {
    load: usize,
    token: Token,
    exchange: Option<Exchange>,
    reader: ResponseReader,
    /// Nothing more is to be sent: it closes at the end of the turn.
    closing: bool,
}

/// All clients of one thread: the reactor's handler.
#[derive(Debug)]
pub struct Client {
    /// The classes that run on this thread.
    pub loads: Vec<ClassLoad>,
    /// The part of a core that this thread used while the schedule ran; known at the end.
    pub cpu_share: Option<f64>,
    /// How long the schedule ran after the warm-up; known at the end.
    pub measured: Duration,
    warmup: Duration,
    to: std::net::SocketAddr,
    gate: Arc<StartGate>,
    at_gate: bool,
    started: Option<Instant>,
    length: Duration,
    drain: Duration,
    /// Connections on their way, by tag: the index of their class load, and when they began.
    connecting: HashMap<u64, (usize, Instant)>,
    next_tag: u64,
    next_interval: Option<Instant>,
    /// Given up at the end: the main thread waits until no thread has one.
    intervals: Option<Sender<Interval>>,
    cpu_at_start: Option<Duration>,
    /// Something changed that [`Client::woke`] has to look at: it is called at once.
    attention: bool,
    now: Instant,
}

impl Client {
    /// The clients of thread `thread` of the plan's threads.
    #[must_use]
    pub fn new(plan: &Plan, thread: u32, gate: Arc<StartGate>, intervals: Sender<Interval>, now: Instant) -> Client {
        let loads = plan.classes.iter().enumerate().filter_map(|(index, class)| {
            let shares = class.shares(plan.threads);
            // Classes of one connection do not all go to the first thread.
            let share = (thread + index as u32) % plan.threads;
            (share < shares).then(|| ClassLoad::new(plan, index, share, shares))
        });
        Client {
            loads: loads.collect(),
            cpu_share: None,
            measured: Duration::ZERO,
            warmup: plan.warmup,
            to: plan.to,
            gate,
            at_gate: false,
            started: None,
            length: plan.length(),
            drain: plan.drain(),
            connecting: HashMap::new(),
            next_tag: 0,
            next_interval: None,
            intervals: Some(intervals),
            cpu_at_start: None,
            attention: true,
            now,
        }
    }

    /// Descriptors that this thread's connections may need.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.loads.iter().map(|load| load.connections_max).sum()
    }

    /// Adds what this thread recorded to the records of the plan's classes.
    pub fn merge_into(&self, records: &mut [Record]) {
        for load in &self.loads {
            records[load.index].merge(&load.account.record);
        }
    }

    /// The connection is free: the next request, or rest.
    fn next_request(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let load = &mut self.loads[conn.load];
        let now = Instant::now(); // The write is a few instructions away: the loop does it when this callback returns.
        match load.take(now) {
            Some(arrival) => {
                cx.deadline(Some(later(arrival.due, load.class.timeout)));
                let exchange = Exchange { arrival, sent: now, written_bytes: 0, first_byte: None };
                load.account.sent(&exchange);
                conn.exchange = Some(exchange);
                self.write(conn, cx);
            }
            None => {
                cx.deadline(None);
                load.pool.rest(conn.token);
                self.attention = true; // The last answer may be the end of the run.
            }
        }
    }

    /// Writes what fits of the current request.
    fn write(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let load = &mut self.loads[conn.load];
        let Some(exchange) = &mut conn.exchange else { return };
        let written = cx.write(&load.class.request[exchange.written_bytes..]);
        exchange.written_bytes += written;
        let exchange = *exchange;
        load.account.moved(&exchange, 0, written);
        if exchange.written_bytes < load.class.request.len() {
            cx.want_writable();
        }
    }

    /// The connection takes no further request; an arrival that waits gets another one.
    fn retire(&mut self, conn: &mut Conn) {
        conn.closing = true;
        self.loads[conn.load].pool.closed(conn.token);
        self.attention = true;
    }

    /// The request on the connection has failed, if there is one; else it is a failure of the connection.
    fn fail(&mut self, conn: &mut Conn, kind: Kind) {
        let load = &mut self.loads[conn.load];
        match conn.exchange.take() {
            Some(exchange) => {
                let phase = exchange.phase(load.class.request.len(), conn.reader.in_body());
                let kind = if kind == Kind::Closed && phase == Phase::Body { Kind::ShortBody } else { kind };
                load.failed(&exchange, phase, kind, self.now);
            }
            None => load.account.note(Phase::Idle, kind, self.now),
        }
        self.retire(conn);
    }
}

impl Handler for Client {
    type Conn = Conn;
    /// No other thread has anything to say to a connection.
    type Mail = Infallible;

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) -> Conn {
        self.now = cx.now();
        self.attention = true;
        let Origin::Connected { tag } = origin else { unreachable!("a client has no listener") };
        let begun = self.connecting.remove(&tag);
        let (load, since) = begun.unwrap_or_else(|| unreachable!("the loop ends each connect once"));
        self.loads[load].connecting -= 1;
        self.loads[load].connected(self.now.saturating_duration_since(since));
        self.loads[load].pool.opened(cx.token());
        let mut conn = Conn { load, token: cx.token(), exchange: None, reader: ResponseReader::default(), closing: false };
        self.next_request(&mut conn, cx);
        conn
    }

    fn input(&mut self, conn: &mut Conn, input: &[u8], cx: &mut Context<'_>) -> usize {
        self.now = cx.now();
        let Some(exchange) = &mut conn.exchange else {
            if !conn.closing {
                self.fail(conn, Kind::NotHttp("bytes without a request"));
                cx.abort();
            }
            return input.len();
        };
        let read_at = exchange.read_at(self.now);
        exchange.first_byte.get_or_insert(read_at);
        let exchange = *exchange;
        let load = &mut self.loads[conn.load];
        let (taken, step) = conn.reader.read(input, &load.class.expect);
        load.account.moved(&exchange, taken, 0);
        match step {
            Step::NeedBytes => return taken,
            Step::Broken(why) => {
                self.fail(conn, Kind::NotHttp(why));
                cx.abort();
            }
            Step::Done(response) => {
                load.answered(&exchange, &response, read_at);
                conn.exchange = None;
                let unfinished_request = exchange.written_bytes < load.class.request.len();
                if taken < input.len() {
                    // Whatever follows would be taken for the answer to the next request.
                    self.fail(conn, Kind::NotHttp("bytes without a request"));
                    cx.abort();
                } else if response.keep_alive && !unfinished_request {
                    self.next_request(conn, cx);
                } else {
                    self.retire(conn);
                    cx.close();
                }
            }
        }
        input.len()
    }

    fn ended(&mut self, conn: &mut Conn, _rest_bytes: usize, cx: &mut Context<'_>) {
        self.now = cx.now();
        let load = &mut self.loads[conn.load];
        match (conn.exchange, conn.reader.end(&load.class.expect)) {
            (Some(exchange), Some(response)) => {
                load.answered(&exchange, &response, exchange.read_at(self.now));
                conn.exchange = None;
                self.retire(conn);
            }
            (Some(_), None) => self.fail(conn, Kind::Closed),
            // A server may close a connection at rest (RFC 9112 section 9.5): no failure.
            (None, _) => self.retire(conn),
        }
        cx.close();
    }

    fn writable(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.now = cx.now();
        if conn.closing {
            return;
        }
        if conn.exchange.is_some() {
            self.write(conn, cx);
        } else {
            self.loads[conn.load].pool.answered(conn.token);
            self.next_request(conn, cx);
        }
    }

    fn mail(&mut self, _conn: &mut Conn, mail: Infallible, _cx: &mut Context<'_>) {
        match mail {}
    }

    fn deadline(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.now = cx.now();
        if conn.exchange.is_some() {
            self.fail(conn, Kind::Timeout);
            cx.abort();
        }
    }

    fn closed(&mut self, mut conn: Conn, reason: CloseReason, _cx: &mut LoopContext<'_>) {
        if reason == CloseReason::LoopEnded {
            if let Some(exchange) = conn.exchange.take() {
                self.loads[conn.load].unfinished(&exchange, self.now);
            }
        } else if conn.exchange.is_some() || (reason == CloseReason::Reset && !conn.closing) {
            self.fail(&mut conn, Kind::of_close(reason));
        }
        self.retire(&mut conn);
    }

    fn connect_failed(&mut self, tag: u64, error: io::Error, cx: &mut LoopContext<'_>) {
        self.now = cx.now();
        self.attention = true;
        if let Some((load, _)) = self.connecting.remove(&tag) {
            let load = &mut self.loads[load];
            load.connecting -= 1;
            if self.started.is_none() {
                load.connections = load.connections.saturating_sub(1); // Tried once; needed again when an arrival finds none.
            }
            load.connect_failed(Kind::of(&error), self.now);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        if self.attention {
            return Some(self.now);
        }
        let Some(started) = self.started else { return Some(self.now + START_POLL) };
        let over = later(started, self.length);
        let boundary = if self.now < over { over } else { later(over, self.drain) };
        let events = self.loads.iter().filter_map(ClassLoad::next_event);
        events.chain(self.next_interval).chain([boundary]).min()
    }

    fn turn_ended(&mut self, took: Duration, _ended: Instant) {
        // Input that came meanwhile is read in the next turn.
        self.loads.iter_mut().for_each(|load| load.account.read_lag = took);
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        self.now = cx.now();
        self.attention = false;
        if self.start(self.now) {
            self.report();
            for load in &mut self.loads {
                load.handle_due(self.now);
                load.expire_waiting(self.now);
            }
        }
        self.supply(cx);
        if self.is_over() {
            cx.stop();
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
