//! The reactor's handler: bytes → machine → service → bytes.
//!
//! An idle connection is the machine and a few numbers. An answer in progress needs one more box, which is freed when the answer is complete. Read
//! next: `exchange.rs`.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reactor::policy::HalfClose;
use reactor::{CloseReason, Context, Handler, LoopContext, Mailer, Origin, Pressure};
use worker_pool::Submitter;

use crate::body_rate::BodyRateMin;
use crate::clock::later;
use crate::dispatch::{Dispatcher, Mail, Placement, RequestJob};
use crate::exchange::Exchange;
use crate::http::{AtEnd, HttpDate, HttpLimits, Machine, Response, Step};
use crate::http_stats::HttpStats;
use crate::ledger::{Ledger, MemoryLimits};
use crate::rejection_log::{Requested, log_rejection};
use crate::sending::Ended;
use crate::service::Service;
use crate::source_limit::{Seat, SourceLimit, group_of};

/// How long each part of an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head (or from the connection's start) to its blank line. Absolute: a byte every few seconds does not
    /// extend it (`slowloris`). HAProxy `timeout http-request`; hyper's default is 30 s.
    pub header: Duration,
    /// Between two requests. nginx `keepalive_timeout` is 75 s, Node's 5 s. The server does not advertise it. A service may (`Keep-Alive: timeout=N`,
    /// less than this; docs/fork.md, step 6). Clients that obey the header close first, so their requests do not arrive at a closing connection
    /// (`keep-alive-race`).
    pub idle: Duration,
    /// From the head to the last byte of the response. Absolute, so it limits the size of a transfer too. `None`, the default, is no limit: minimum
    /// rates detect slow clients. A service sets one for an answer with [`crate::answer::AnswerLimits::deadline`].
    pub request: Option<Duration>,
    /// How long an idle connection is still served after shutdown has begun. Its next request may already be on its way.
    pub drain_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { header: Duration::from_secs(10), idle: Duration::from_secs(60), request: None, drain_idle: Duration::from_millis(500) }
    }
}

/// What restarts the deadline of a request's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderDeadline {
    /// Nothing: the deadline counts from the first byte, or from the connection's start.
    #[default]
    Absolute,
    /// Each byte. This makes it an idle timeout and not a limit.
    MovedByProgress,
}

/// All choices and limits of the HTTP side.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Sizes.
    pub limits: HttpLimits,
    /// Times.
    pub timeouts: Timeouts,
    /// What restarts the deadline of a head.
    pub header_deadline: HeaderDeadline,
    /// Minimum rate of a body.
    pub body_rate_min: BodyRateMin,
    /// Memory for bodies and waiting responses, of all loops together; see `ledger.rs`.
    pub memory: MemoryLimits,
    /// Connections of one source address, of all loops together; see `source_limit.rs`.
    pub connections_per_source_max: Option<u32>,
    /// How long the result of a job is of use to the client, unless the job sets its own deadline.
    pub job_deadline: Duration,
    /// Where jobs run.
    pub placement: Placement,
    /// What a FIN means while an answer is streamed. While the connection waits for an answer, the loop applies the same policy.
    pub half_close: HalfClose,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            limits: HttpLimits::default(),
            timeouts: Timeouts::default(),
            header_deadline: HeaderDeadline::default(),
            body_rate_min: BodyRateMin::default(),
            memory: MemoryLimits::default(),
            connections_per_source_max: None,
            job_deadline: JOB_DEADLINE_DEFAULT,
            placement: Placement::default(),
            half_close: HalfClose::default(),
        }
    }
}

/// Far longer than the pool lets a job wait, and shorter than most clients wait (curl without limit, browsers minutes, proxies 30 to 60 s).
const JOB_DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// HTTP on one loop: a service and everything that its connections share.
pub struct HttpHandler<S> {
    service: S,
    pub(crate) settings: HttpSettings,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) stats: Arc<HttpStats>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) date: HttpDate,
    /// The idle timeouts of eight groups of connections. They differ, so that connections that became idle together do not expire together.
    idle_spread: [Duration; 8],
    draining: bool,
    sources: Option<Arc<SourceLimit>>,
    /// The key of [`group_of`].
    group_key: RandomState,
    /// For the jitter of Retry-After.
    pub(crate) random: u32,
    pub(crate) ended: Ended,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    pub(crate) machine: Machine,
    /// A head is expected or has begun, and its deadline runs.
    pub(crate) in_head: bool,
    /// Whether it is counted in [`HttpStats::in_flight`]. Each end of an exchange, a panic included, subtracts it once.
    pub(crate) in_flight: bool,
    /// Its place in the table of sources.
    seat: Option<Seat>,
    /// Serial number of the last job. The result of an earlier job is late.
    pub(crate) job_serial: u32,
    pub(crate) exchange: Option<Box<Exchange>>,
}

// What an idle connection costs in all, without spare slots of the slab and the kernel's memory. Measured: docs/numbers.md. (In a debug build mio
// adds 8 bytes for its own check.)
const _: () = assert!(cfg!(debug_assertions) || reactor::state_bytes::<Conn>() <= 192);

impl<S: Service> HttpHandler<S> {
    /// A handler for one loop. Call [`HttpHandler::set_mailer`] next: without it each job is rejected.
    pub fn new(service: S, settings: HttpSettings, pool: Submitter<RequestJob>, stats: Arc<HttpStats>) -> HttpHandler<S> {
        let idle = settings.timeouts.idle;
        HttpHandler {
            service,
            dispatcher: Dispatcher { placement: settings.placement, pool, mailer: None, job_deadline: settings.job_deadline },
            stats,
            ledger: Arc::new(Ledger::new(settings.memory, Vec::new())),
            date: HttpDate::new(Instant::now(), SystemTime::now),
            idle_spread: std::array::from_fn(|group| idle.saturating_add(idle / 80 * group as u32)),
            draining: false,
            sources: settings.connections_per_source_max.map(|max| Arc::new(SourceLimit::new(max))),
            group_key: RandomState::new(),
            random: std::process::id() | 1,
            ended: Ended::default(),
            settings,
        }
    }

    /// Where the results of jobs are sent: the mailer of the loop that this handler is given to.
    pub fn set_mailer(&mut self, mailer: Mailer<Mail>) {
        self.dispatcher.mailer = Some(mailer);
    }

    /// Shares the count of connections by source with other loops.
    pub fn share_sources(&mut self, sources: Option<Arc<SourceLimit>>) {
        self.sources = sources;
    }

    /// Starts the idle time between two requests.
    #[inline]
    pub(crate) fn rest(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        conn.in_head = false;
        cx.expendable();
        cx.deadline(Some(later(cx.now(), self.idle_spread[cx.token().slot() as usize % 8])));
    }

    /// A part of a head has arrived, without its end.
    fn head_goes_on(&self, conn: &mut Conn, cx: &mut Context<'_>) {
        let has_begun = !std::mem::replace(&mut conn.in_head, true);
        let starts_anew = match self.settings.header_deadline {
            HeaderDeadline::Absolute => has_begun,
            HeaderDeadline::MovedByProgress => true, // MISTAKE(slowloris): a byte every few seconds keeps the connection for ever, and a few thousand such clients keep all of them.
        };
        if starts_anew {
            cx.expendable();
            cx.deadline(Some(later(cx.now(), self.settings.timeouts.header)));
        }
    }

    /// Ends the exchange without its response. Returns false, and changes nothing, if a part of the response may have been sent.
    pub(crate) fn withdraw(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> bool {
        let Some(exchange) = &conn.exchange else { return true };
        if exchange.has_begun_to_answer() && !exchange.written_bytes().is_some_and(|bytes| cx.discard_unsent(bytes)) {
            return false;
        }
        exchange.call_off();
        conn.exchange = None;
        true
    }

    /// Ends the connection with `response`. If bytes of another response to the same request were sent, that response is cut short instead.
    /// If they were written and not sent, they are discarded.
    pub(crate) fn fail(&mut self, conn: &mut Conn, response: Response, cx: &mut Context<'_>) {
        let is_in_head = !conn.in_flight;
        let response = response.close();
        if self.end_with(conn, &response, cx) {
            log_rejection(&response, if is_in_head { Requested::Head(cx.partial_input()) } else { Requested::Unknown }, cx);
        }
    }

    /// Does the same without a log line. `response` must announce that the connection closes. Returns whether it was written.
    pub(crate) fn end_with(&mut self, conn: &mut Conn, response: &Response, cx: &mut Context<'_>) -> bool {
        if !self.withdraw(conn, cx) {
            self.cut(conn, cx);
            return false;
        }
        self.count_out(conn);
        cx.reset_output_rate_min();
        conn.machine.close_after_response();
        let plan = conn.machine.response_plan();
        let date = self.date.bytes(cx.now());
        let mut output = cx.output();
        let fits = output.encode(|cursor| response.encode_head(&plan, date, cursor));
        if fits {
            // If the body does not fit, the client sees by the length in the head that a part is missing.
            output.write(response.body_to_send(&plan));
            self.stats.responded(response.status_code());
        }
        cx.deadline(None);
        cx.close();
        fits
    }
}

impl<S: Service> Handler for HttpHandler<S> {
    type Conn = Conn;
    type Mail = Mail;

    fn opened(&mut self, origin: Origin, cx: &mut Context<'_>) -> Conn {
        // Absolute from the start: a client that sends nothing is as slow as one that sends a byte at a time.
        cx.expendable();
        cx.deadline(Some(later(cx.now(), cx.spread(self.settings.timeouts.header))));
        if let Origin::Accepted { peer, .. } = origin {
            // The clients of a Unix socket have no address, and so no group of their own.
            cx.set_group(peer.ip().map_or(0, |address| group_of(&self.group_key, address)));
        }
        let mut conn = Conn { machine: Machine::new(), in_head: true, in_flight: false, seat: None, job_serial: 0, exchange: None };
        if let (Some(sources), Origin::Accepted { peer, .. }) = (&self.sources, origin)
            && let Some(address) = peer.ip()
        {
            conn.seat = sources.enter(address);
            if conn.seat.is_none() {
                self.stats.source_refusals.add(1);
                let many = Response::text("too many connections from your address\n").status(429).with_header("Retry-After", "1");
                self.fail(&mut conn, many, cx);
                cx.refuse();
            }
        }
        conn
    }

    #[inline]
    fn input(&mut self, conn: &mut Conn, input: &[u8], cx: &mut Context<'_>) -> usize {
        // Matched by reference: a match by value would move the request, which is seventeen words.
        let stepped = conn.machine.step(&self.settings.limits, input);
        let used = stepped.0;
        match &stepped.1 {
            Step::Request(request) => {
                conn.in_head = false;
                if self.draining {
                    conn.machine.close_after_response();
                }
                let answer = self.service.call(request, cx.now());
                self.begin(conn, answer, request, used == input.len(), cx);
                used
            }
            Step::NeedBytes => {
                if used < input.len() && conn.exchange.is_none() {
                    self.head_goes_on(conn, cx);
                }
                used
            }
            Step::Body { piece, last } => used + self.body(conn, piece, *last, cx),
            Step::Paused => {
                cx.pause();
                used
            }
            Step::Refuse(refusal) => {
                if self.refuse(conn, *refusal, input, cx) {
                    used
                } else {
                    0
                }
            }
        }
    }

    fn ended(&mut self, conn: &mut Conn, _rest_bytes: usize, cx: &mut Context<'_>) {
        match conn.machine.ended() {
            AtEnd::Clean | AtEnd::Closed => cx.close(),
            // The client has half-closed while its answer is in progress.
            AtEnd::Answering => match self.settings.half_close {
                HalfClose::StillListens => conn.machine.close_after_response(),
                HalfClose::HasLeft => cx.abort(),
            },
            AtEnd::InsideHead => self.fail(conn, Response::text("incomplete request\n").status(400), cx),
            AtEnd::InsideBody => self.fail(conn, Response::text("incomplete body\n").status(400), cx),
        }
    }

    fn writable(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.go_on(conn, cx);
    }

    fn mail(&mut self, conn: &mut Conn, mail: Mail, cx: &mut Context<'_>) {
        let expected = conn.exchange.as_ref().is_some_and(|exchange| exchange.waits_for_job());
        if expected && conn.job_serial == mail.serial {
            self.job_ended(conn, mail.outcome, mail.charge, cx);
        } else {
            self.stats.late_results.add(1);
        }
    }

    fn undelivered(&mut self, _mail: Mail, _cx: &mut LoopContext<'_>) {
        self.stats.late_results.add(1);
    }

    fn deadline(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        if conn.exchange.is_some() {
            self.exchange_deadline(conn, cx);
        } else if conn.in_head {
            self.stats.header_timeouts.add(1);
            if conn.machine.ended() == AtEnd::Clean {
                // The client has sent no byte of a request, so there is nothing to answer.
                cx.close();
            } else {
                self.fail(conn, Response::text("request head too slow\n").status(408), cx);
            }
        } else {
            self.stats.idle_timeouts.add(1);
            cx.close();
        }
    }

    fn pressed(&mut self, conn: &mut Conn, pressure: Pressure, cx: &mut Context<'_>) {
        match pressure {
            Pressure::ConnectionsMax => {
                let busy = self.retry_later("too many connections\n", Duration::ZERO);
                self.fail(conn, busy, cx);
            }
            // The loop evicted the connection's input: an unfinished request, or requests behind the one in progress. 503 and not 408, also for a
            // slow request: its time limit had not passed, and the server is short of memory.
            Pressure::BufferMemory => {
                let out_of_memory = self.retry_later("out of memory\n", Duration::ZERO);
                self.fail(conn, out_of_memory, cx);
            }
            Pressure::NearlyFull => self.make_room(conn, cx),
            Pressure::ShuttingDown => {
                // Each response from now on announces that its connection closes.
                self.draining = true;
                conn.machine.close_after_response();
                if conn.exchange.is_none() && conn.machine.ended() == AtEnd::Clean {
                    // An idle connection is served a little longer: its next request may already be on its way.
                    conn.in_head = false;
                    cx.deadline(Some(later(cx.now(), self.settings.timeouts.drain_idle)));
                }
            }
        }
    }

    fn panicked(&mut self, conn: &mut Conn, cx: &mut Context<'_>) {
        self.fail(conn, Response::text("internal error\n").status(500), cx);
    }

    fn is_unfinished(&self, conn: &Conn) -> bool {
        conn.exchange.as_ref().is_some_and(|exchange| exchange.has_begun_to_answer() && exchange.answered().is_none())
    }

    fn closed(&mut self, mut conn: Conn, _reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.count_out(&mut conn);
        if let (Some(sources), Some(seat)) = (&self.sources, conn.seat) {
            sources.leave(seat);
        }
        if let Some(exchange) = conn.exchange.take() {
            exchange.call_off();
        }
    }

    #[inline]
    fn turn_ended(&mut self, took: Duration, ended: Instant) {
        self.ended.record(&self.stats.duration, took, ended);
    }
}
