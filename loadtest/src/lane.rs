//! One class of requests on one thread: its arrivals, those that wait, its connections, and what is recorded of each request.
//!
//! No socket and no clock in here: the client (`client.rs`) says what happened and when. The rule of the open loop is
//! [`Lane::handle_due`]: an arrival is handled when it is due, whether or not a connection is free, and keeps the time it was due.
//! The queue of waiting arrivals is bounded by rate × timeout: who waits longer than the timeout has failed.
//! Read next: `client.rs`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use server::clock::later;

use crate::errors::{Kind, Phase};
use crate::histogram::{Record, record};
use crate::plan::{Class, Plan};
use crate::pool::Pool;
use crate::response::Response;
use crate::schedule::{Arrivals, Due};
use crate::series::Interval;

/// Lateness at the very end of a schedule that is still on time: a timer is never exact.
const END_GRACE: Duration = Duration::from_millis(1);

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it should have left.
    pub due: Instant,
    /// When the generator saw that it was due.
    pub handled: Instant,
    /// False during the warm-up.
    pub measured: bool,
}

/// A request on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The arrival it came from.
    pub arrival: Arrival,
    /// When its first byte was written.
    pub sent: Instant,
    /// How many bytes of it have been written.
    pub written_bytes: usize,
    /// When the first byte of the answer was read.
    pub first_byte: Option<Instant>,
}

impl Exchange {
    /// How far it has come, for a request of so many bytes.
    #[must_use]
    pub fn phase(&self, request_bytes: usize, head_read: bool) -> Phase {
        if head_read {
            Phase::Body
        } else if self.written_bytes < request_bytes {
            Phase::Write
        } else {
            Phase::FirstByte
        }
    }
}

/// One class on one thread.
#[derive(Debug)]
pub struct Lane {
    /// Which class of the plan this is.
    pub index: usize,
    /// What is sent and how.
    pub class: Class,
    /// The connections.
    pub pool: Pool,
    /// Connections on their way, and how many there may be in all on this thread.
    pub connecting: usize,
    /// This thread's part of `connections`: opened before the start.
    pub connections: usize,
    /// This thread's part of `connections_max`.
    pub connections_max: usize,
    /// Everything known so far.
    pub record: Record,
    due: Due,
    next_due: Option<Duration>,
    waiting: VecDeque<Arrival>,
    in_flight: u64,
    started: Option<Instant>,
    warmup: Duration,
    /// Arrivals made when a connection was free ([`Arrivals::WhenFree`] only).
    made: u64,
    interval: Interval,
}

impl Lane {
    /// Class `index` of the plan, as far as thread `share` of `shares` runs it.
    #[must_use]
    pub fn new(plan: &Plan, index: usize, share: u32, shares: u32) -> Lane {
        let class = plan.classes[index].clone();
        let part = |whole: u32| (whole / shares + u32::from(share < whole % shares)) as usize;
        // Each class has its own stream of random numbers, whatever the others do.
        let mut due = class.schedule.share(u64::from(share), u64::from(shares), plan.seed.wrapping_add(index as u64 * 1009));
        let next_due = due.next();
        Lane {
            index,
            pool: Pool::default(),
            connecting: 0,
            connections: part(class.connections),
            connections_max: part(class.connections_max),
            record: Record::default(),
            due,
            next_due,
            waiting: VecDeque::new(),
            in_flight: 0,
            started: None,
            warmup: plan.warmup,
            made: 0,
            interval: Interval::new(index, 0),
            class,
        }
    }

    /// The schedule begins.
    pub fn start(&mut self, at: Instant) {
        self.started = Some(at);
    }

    /// Handles every arrival that is due: none is skipped for being late, and none is delayed by an answer that has not come.
    pub fn handle_due(&mut self, now: Instant) {
        let Some(started) = self.started else { return };
        while let Some(due) = self.next_due.filter(|due| later(started, *due) <= now) {
            self.next_due = self.due.next();
            let arrival = Arrival { due: later(started, due), handled: now, measured: due >= self.warmup };
            let busy = self.pool.idle() + self.pool.summoned() <= self.waiting.len();
            if busy && !self.class.schedule.when_busy.keeps() {
                self.record.totals.skipped += u64::from(arrival.measured);
                continue;
            }
            self.schedule(arrival);
            self.waiting.push_back(arrival);
        }
    }

    fn schedule(&mut self, arrival: Arrival) {
        let delay = arrival.handled.saturating_duration_since(arrival.due);
        self.interval.scheduled += 1;
        record(&mut self.interval.send_delay, delay);
        if arrival.measured {
            self.record.totals.scheduled += 1;
            record(&mut self.record.clocks.send_delay, delay);
            let end = self.started.map(|at| later(later(at, self.class.schedule.length), END_GRACE));
            self.record.totals.handled += u64::from(end.is_some_and(|end| arrival.handled <= end));
        }
    }

    /// The arrival that a free connection has to send now.
    pub fn take(&mut self, now: Instant) -> Option<Arrival> {
        let arrival = self.waiting.pop_front().or_else(|| self.make_when_free(now))?;
        self.in_flight += 1;
        Some(arrival)
    }

    /// A closed loop without a rate: the next request starts because a connection is free.
    fn make_when_free(&mut self, now: Instant) -> Option<Arrival> {
        let since_start = now.checked_duration_since(self.started?)?;
        if !self.makes_when_free() || since_start >= self.class.schedule.length {
            return None;
        }
        self.made += 1;
        let arrival = Arrival { due: now, handled: now, measured: since_start >= self.warmup };
        self.schedule(arrival);
        Some(arrival)
    }

    fn makes_when_free(&self) -> bool {
        self.class.schedule.arrivals == Arrivals::WhenFree && self.class.schedule.count_max.is_none_or(|max| self.made < max)
    }

    /// How many connections are needed beyond those already woken.
    #[must_use]
    pub fn wanted(&self, now: Instant) -> usize {
        let running = self.started.is_some_and(|at| at <= now && now < later(at, self.class.schedule.length));
        if running && self.makes_when_free() {
            return self.connections_max;
        }
        self.waiting.len().saturating_sub(self.pool.summoned())
    }

    /// How many connections to open now: before the start all that were asked for, later one for each arrival that has none.
    #[must_use]
    pub fn to_open(&self, now: Instant) -> usize {
        let wanted =
            if self.started.is_none() { self.connections } else { self.pool.open() + self.wanted(now).saturating_sub(self.pool.idle()) };
        wanted.min(self.connections_max).saturating_sub(self.pool.open() + self.connecting)
    }

    /// Gives up on arrivals that found no connection within the timeout.
    pub fn expire_waiting(&mut self, now: Instant) {
        while let Some(arrival) = self.waiting.front().copied().filter(|arrival| later(arrival.due, self.class.timeout) <= now) {
            self.waiting.pop_front();
            self.count_failure(arrival, None, Phase::Wait, Kind::Timeout, now);
        }
    }

    /// When [`Lane::handle_due`] or [`Lane::expire_waiting`] has something to do next.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        let due = self.started.and_then(|at| self.next_due.map(|due| later(at, due)));
        let expiry = self.waiting.front().map(|arrival| later(arrival.due, self.class.timeout));
        due.into_iter().chain(expiry).min()
    }

    /// Whether every arrival was handled and every request has ended.
    #[must_use]
    pub fn is_settled(&self, now: Instant) -> bool {
        let over = self.started.is_some_and(|at| now >= later(at, self.class.schedule.length));
        let none_left = self.next_due.is_none() && (!self.makes_when_free() || over);
        none_left && self.waiting.is_empty() && self.in_flight == 0
    }

    /// A connection is established.
    pub fn connected(&mut self, took: Duration) {
        record(&mut self.record.clocks.connect, took);
    }

    /// A connection could not be made. Someone who waits for one has failed with it.
    pub fn connect_failed(&mut self, kind: Kind, now: Instant) {
        match self.waiting.pop_front() {
            Some(arrival) => self.count_failure(arrival, None, Phase::Connect, kind, now),
            None => self.note(Phase::Connect, kind, now),
        }
    }

    /// A failure that hit no request.
    pub fn note(&mut self, phase: Phase, kind: Kind, now: Instant) {
        let at = self.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started));
        self.record.note(phase, kind, at);
    }

    /// First byte of a request written.
    pub fn sent(&mut self, exchange: &Exchange) {
        if exchange.arrival.measured {
            self.record.totals.sent += 1;
            record(&mut self.record.clocks.wait, exchange.sent.saturating_duration_since(exchange.arrival.handled));
        }
    }

    /// Bytes moved for a request.
    pub fn moved(&mut self, exchange: &Exchange, in_bytes: usize, out_bytes: usize) {
        if exchange.arrival.measured {
            self.record.totals.bytes_in += in_bytes as u64;
            self.record.totals.bytes_out += out_bytes as u64;
        }
    }

    /// A complete answer.
    pub fn answered(&mut self, exchange: &Exchange, response: &Response, now: Instant) {
        if exchange.arrival.measured {
            *self.record.status.entry(response.status).or_default() += 1;
            if let Some(first_byte) = exchange.first_byte {
                record(&mut self.record.clocks.first_byte, first_byte.saturating_duration_since(exchange.sent));
            }
        }
        self.in_flight -= 1;
        if response.status >= 400 {
            self.count_failure(exchange.arrival, Some(exchange.sent), Phase::Body, Kind::Status(response.status), now);
        } else if !response.body_as_expected {
            self.count_failure(exchange.arrival, Some(exchange.sent), Phase::Body, Kind::WrongBody, now);
        } else {
            self.interval.completed += 1;
            self.clock(exchange.arrival, Some(exchange.sent), now);
            if exchange.arrival.measured {
                self.record.totals.ok += 1;
                record(&mut self.record.clocks.response_ok, now.saturating_duration_since(exchange.arrival.due));
            }
        }
    }

    /// A request on a connection has failed.
    pub fn failed(&mut self, exchange: &Exchange, phase: Phase, kind: Kind, now: Instant) {
        self.in_flight -= 1;
        self.count_failure(exchange.arrival, Some(exchange.sent), phase, kind, now);
    }

    fn count_failure(&mut self, arrival: Arrival, sent: Option<Instant>, phase: Phase, kind: Kind, now: Instant) {
        self.interval.completed += 1;
        self.interval.errors += 1;
        // An answer, even a bad one, took its time; a timeout took at least so long. A broken connection says nothing about time.
        if matches!(kind, Kind::Timeout | Kind::Status(_) | Kind::WrongBody) {
            self.clock(arrival, sent, now);
        }
        if arrival.measured {
            self.record.totals.errors += 1;
            self.record.totals.timeouts += u64::from(kind == Kind::Timeout);
            self.note(phase, kind, now);
        }
    }

    /// A request that has no answer when the run ends: it took at least this long.
    pub fn unfinished(&mut self, arrival: Arrival, sent: Option<Instant>, now: Instant) {
        if sent.is_some() {
            self.in_flight -= 1;
        }
        if arrival.measured {
            self.record.totals.unfinished += 1;
        }
        self.clock(arrival, sent, now);
    }

    /// The run ends: who still waits is unfinished.
    pub fn end(&mut self, now: Instant) {
        while let Some(arrival) = self.waiting.pop_front() {
            self.unfinished(arrival, None, now);
        }
    }

    fn clock(&mut self, arrival: Arrival, sent: Option<Instant>, now: Instant) {
        // Saturating: a timer that fires early must not give a latency of 584,000 years.
        let response = now.saturating_duration_since(arrival.due);
        record(&mut self.interval.response, response);
        if arrival.measured {
            record(&mut self.record.clocks.response, response);
            if let Some(sent) = sent {
                record(&mut self.record.clocks.service, now.saturating_duration_since(sent));
            }
        }
    }

    /// The second that has passed, to be reported; the next one begins.
    pub fn next_interval(&mut self) -> Interval {
        let (class, second) = (self.interval.class, self.interval.second);
        let mut passed = std::mem::replace(&mut self.interval, Interval::new(class, second + 1));
        passed.in_flight = self.in_flight + self.waiting.len() as u64;
        passed
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
