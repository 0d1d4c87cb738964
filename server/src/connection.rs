//! The reactor's handler: bytes → machine → service → bytes.
//!
//! A connection at rest is the machine and a few numbers; what an answer needs while it is under way is one box, gone when it is over.
//! Read next: `exchange.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reactor::{CloseReason, Context, Handler, Mailer, Origin, Pressure};
use worker_pool::Submitter;

use crate::dispatch::{Dispatcher, Mail, Placement, RequestJob};
use crate::exchange::{Exchange, State};
use crate::http::{AtEnd, HttpDate, HttpLimits, Machine, Response, Step};
use crate::http_stats::HttpStats;
use crate::service::Service;

/// How long each part of an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head (or from the connection's start) to its blank line. Absolute: a byte every few seconds does not
    /// extend it (failure mode P3). HAProxy `timeout http-request`; hyper's default is 30 s.
    pub header: Duration,
    /// Between two requests. nginx `keepalive_timeout` is 75 s, Node's 5 s.
    pub idle: Duration,
    /// From the head to the last byte of the response. Absolute.
    pub request: Duration,
    /// How long an idle connection is still served after shutdown has begun: its next request may be on the way already.
    pub drain_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            request: Duration::from_secs(60),
            drain_idle: Duration::from_millis(500),
        }
    }
}

/// All choices and limits of the HTTP side.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// Sizes.
    pub limits: HttpLimits,
    /// Times.
    pub timeouts: Timeouts,
    /// How long a client has use for a job's result, unless the job says otherwise.
    pub job_deadline: Duration,
    /// Where jobs run.
    pub placement: Placement,
}

/// HTTP on one loop: a service and everything that its connections share.
pub struct HttpHandler<S> {
    service: S,
    pub(crate) settings: HttpSettings,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) stats: Arc<HttpStats>,
    pub(crate) date: HttpDate,
    /// The idle timeout, lengthened differently for eight groups of connections: those that went idle together must not expire together.
    idle_spread: [Duration; 8],
    draining: bool,
    /// For the jitter of Retry-After.
    pub(crate) random: u32,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    pub(crate) machine: Machine,
    /// A head has begun and its deadline runs.
    in_head: bool,
    /// Counts the exchanges: a result that names another one is late.
    pub(crate) serial: u32,
    pub(crate) exchange: Option<Box<Exchange>>,
}

// What an idle connection costs in all, but for the slab's spare room and the kernel's part. Measured: docs/numbers.md. (In a debug build
// mio adds 8 bytes for a check of its own.)
const _: () = assert!(cfg!(debug_assertions) || reactor::state_bytes::<Conn>() <= 192);

impl<S: Service> HttpHandler<S> {
    /// A handler for one loop. [`HttpHandler::set_mailer`] must follow, or every job is refused.
    pub fn new(service: S, settings: HttpSettings, pool: Submitter<RequestJob>, stats: Arc<HttpStats>) -> HttpHandler<S> {
        let idle = settings.timeouts.idle;
        HttpHandler {
            service,
            dispatcher: Dispatcher { placement: settings.placement, pool, mailer: None, job_deadline: settings.job_deadline },
            stats,
            date: HttpDate::new(Instant::now(), SystemTime::now()),
            idle_spread: std::array::from_fn(|group| idle + idle / 80 * group as u32),
            draining: false,
            random: std::process::id() | 1,
            settings,
        }
    }

    /// Where the results of jobs are sent: the mailer of the loop that this handler is given to.
    pub fn set_mailer(&mut self, mailer: Mailer<Mail>) {
        self.dispatcher.mailer = Some(mailer);
    }

    /// Between two requests.
    #[inline]
    pub(crate) fn rest(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.in_head = false;
        let idle = if self.draining { self.settings.timeouts.drain_idle } else { self.idle_spread[cx.token().slot() as usize % 8] };
        cx.deadline(Some(cx.now() + idle));
    }

    fn refuse(&mut self, conn: &mut Conn, refusal: crate::http::Refusal, cx: &mut Context<'_>) {
        self.stats.refusals(refusal).add(1);
        log::debug!("refused reason={} status={}", refusal.label(), refusal.status());
        if conn.exchange.take().is_some_and(|exchange| exchange.has_begun_to_answer()) {
            // The body turned out to be broken while its answer was already on the way: the answer must not look complete.
            self.stats.broken_streams.add(1);
            self.stats.in_flight.sub(1);
            return cx.abort();
        }
        self.say_and_close(conn, Response::text(refusal.label()).status(refusal.status()), cx);
    }

    /// A last response, outside of any exchange.
    pub(crate) fn say_and_close(&mut self, conn: &mut Conn, response: Response, cx: &mut Context<'_>) {
        if conn.exchange.take().is_some() {
            self.stats.in_flight.sub(1);
        }
        conn.machine.close_after_response();
        let response = response.close();
        let plan = conn.machine.response_plan();
        let date = self.date.bytes(cx.now());
        let mut output = cx.output();
        if let Some(n) = response.encode_head(&plan, date, output.spare_mut()) {
            output.advance(n);
            // If it does not fit, the head tells the length, and the peer sees that the rest is missing.
            output.write(response.body_to_send(&plan));
            self.stats.responded(response.status_code());
        }
        cx.deadline(None);
        cx.close();
    }
}

impl<S: Service> Handler for HttpHandler<S> {
    type Conn = Conn;
    type Mail = Mail;

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> Conn {
        // Absolute from the start: a client that connects and says nothing is as slow as one that dribbles.
        cx.deadline(Some(cx.now() + cx.spread(self.settings.timeouts.header)));
        Conn { machine: Machine::new(), in_head: true, serial: 0, exchange: None }
    }

    #[inline]
    fn input(&mut self, conn: &mut Conn, input: &[u8], cx: &mut Context<'_>) -> usize {
        let (used, step) = conn.machine.step(&self.settings.limits, input);
        match step {
            Step::Request(request) => {
                conn.in_head = false;
                let answer = self.service.call(&request, cx.now());
                self.begin(conn, answer, request.body, request.expect_continue, cx);
                used
            }
            Step::NeedBytes => {
                self.need_bytes(conn, used < input.len(), cx);
                used
            }
            Step::Body { piece, last } => used + self.body(conn, piece, last, cx),
            Step::Paused => {
                cx.pause();
                used
            }
            Step::Refuse(refusal) => {
                self.refuse(conn, refusal, cx);
                used
            }
        }
    }

    fn ended(&mut self, conn: &mut Conn, _rest_bytes: usize, cx: &mut Context<'_>) {
        match conn.machine.ended() {
            AtEnd::Clean | AtEnd::Closed => cx.close(),
            // Half-closed: it still reads, and its answer is under way.
            AtEnd::Answering => conn.machine.close_after_response(),
            AtEnd::InsideHead => self.say_and_close(conn, Response::text("incomplete request\n").status(400), cx),
            AtEnd::InsideBody => match conn.exchange.take() {
                Some(exchange) if exchange.has_begun_to_answer() => {
                    self.stats.in_flight.sub(1);
                    self.stats.broken_streams.add(1);
                    cx.abort();
                }
                exchange => {
                    conn.exchange = exchange;
                    self.say_and_close(conn, Response::text("incomplete body\n").status(400), cx);
                }
            },
        }
    }

    fn room(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.go_on(conn, cx);
    }

    fn mail(&mut self, conn: &mut Conn, mail: Mail, cx: &mut Context<'_>) {
        if conn.serial == mail.exchange && conn.exchange.is_some() {
            self.job_ended(conn, mail.outcome, cx);
        } else {
            self.stats.late_results.add(1);
        }
    }

    fn undelivered(&mut self, _mail: Mail) {
        self.stats.late_results.add(1);
    }

    fn deadline(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        if conn.exchange.is_some() {
            self.exchange_deadline(conn, cx);
        } else if conn.in_head {
            self.stats.header_timeouts.add(1);
            if conn.machine.ended() == AtEnd::Clean {
                // It never said anything: there is nothing to answer.
                cx.close();
            } else {
                self.say_and_close(conn, Response::text("request head too slow\n").status(408), cx);
            }
        } else {
            self.stats.idle_timeouts.add(1);
            cx.close();
        }
    }

    fn pressed(&mut self, conn: &mut Conn, pressure: Pressure, cx: &mut Context<'_>) {
        match pressure {
            Pressure::ConnectionsMax => {
                let busy = Response::text("too many connections\n").status(503).with_header("Retry-After", "1");
                self.say_and_close(conn, busy, cx);
            }
            Pressure::BufferMemory => self.say_and_close(conn, Response::text("request too slow\n").status(408), cx),
            Pressure::Draining => {
                self.draining = true;
                // Whatever is answered from now on says so. An idle connection is served for a little longer: its request may be under way.
                conn.machine.close_after_response();
                if conn.exchange.is_none() && !conn.in_head {
                    cx.deadline(Some(cx.now() + self.settings.timeouts.drain_idle));
                }
            }
        }
    }

    fn panicked(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        let begun = conn.exchange.as_ref().is_some_and(|exchange| exchange.has_begun_to_answer());
        if begun {
            cx.abort();
        } else {
            self.say_and_close(conn, Response::text("internal error\n").status(500), cx);
        }
    }

    fn closed(&mut self, mut conn: Conn, _reason: CloseReason) {
        if let Some(exchange) = conn.exchange.take() {
            self.stats.in_flight.sub(1);
            exchange.call_off();
        }
    }
}

impl<S: Service> HttpHandler<S> {
    #[inline]
    fn need_bytes(&mut self, conn: &mut Conn, head_begun: bool, cx: &mut Context<'_>) {
        match &conn.exchange {
            None => {
                if head_begun && !conn.in_head {
                    conn.in_head = true;
                    cx.deadline(Some(cx.now() + self.settings.timeouts.header));
                }
            }
            Some(exchange) => {
                // The service wants the body and the peer waits to be asked for it (RFC 9110 section 10.1.1).
                if matches!(exchange.state, State::Reading(_) | State::Streaming(_)) && conn.machine.take_continue() {
                    cx.write(crate::http::CONTINUE);
                }
            }
        }
    }
}
