//! One class of requests on one thread: its arrivals, those that wait, its connections, and what is recorded of each request.
//!
//! No socket and no clock in here: the client (`client.rs`) says what happened and when. The rule of the open loop is
//! [`ClassLoad::handle_due`]: an arrival is handled when it is due, whether or not a connection is free, and keeps the time it was due.
//! The queue of waiting arrivals is bounded by rate × timeout: a request that can no longer be answered in time is taken off it.
//! Read next: `client.rs`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use server::clock::later;

use crate::connection_pool::ConnectionPool;
use crate::errors::{Kind, Phase};
use crate::histogram::record;
use crate::measure::account::{Account, End};
use crate::plan::{Class, Plan};
use crate::response::Response;
use crate::schedule::{Arrivals, Due, Schedule};
use crate::truth::limits::{Expected, Limit};
use crate::truth::stamps::{Arrival, Exchange};

/// After a connect(2) that failed for want of a descriptor or a port, no other one is tried for this long: it would fail as well.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// One class on one thread.
#[derive(Debug)]
pub struct ClassLoad {
    /// Which class of the plan this is.
    pub index: usize,
    /// What is sent and how.
    pub class: Class,
    /// The connections.
    pub pool: ConnectionPool,
    /// Connections on their way, and how many there may be in all on this thread.
    pub connecting: usize,
    /// This thread's part of `connections`: opened before the start.
    pub connections: usize,
    /// This thread's part of `connections_max`.
    pub connections_max: usize,
    /// What became of each request.
    pub account: Account,
    due: Due,
    next_due: Option<Duration>,
    last_due: Duration,
    waiting: VecDeque<Arrival>,
    started: Option<Instant>,
    warmup: Duration,
    /// Arrivals made when a connection was free ([`Arrivals::WhenFree`] only).
    made: u64,
    expected: Expected,
    /// The limit that the last failed connect(2) named, if none has succeeded since.
    connect_limit: Option<Limit>,
    /// Until when no other one is tried.
    connect_after: Option<Instant>,
}

impl ClassLoad {
    /// Class `index` of the plan, as far as thread `share` of `shares` runs it.
    #[must_use]
    pub fn new(plan: &Plan, index: usize, share: u32, shares: u32) -> ClassLoad {
        let class = plan.classes[index].clone();
        let part = |whole: u32| (whole / shares + u32::from(share < whole % shares)) as usize;
        // Each class has its own stream of random numbers, whatever other classes do.
        let mut due = class.schedule.share(u64::from(share), u64::from(shares), plan.seed.wrapping_add(index as u64 * 1009));
        let next_due = due.next();
        ClassLoad {
            index,
            pool: ConnectionPool::default(),
            connecting: 0,
            connections: part(class.connections),
            connections_max: part(class.connections_max),
            account: Account::new(index, plan.warmup, class.schedule.length),
            due,
            next_due,
            last_due: Duration::ZERO,
            waiting: VecDeque::new(),
            started: None,
            warmup: plan.warmup,
            made: 0,
            expected: Expected::default(),
            connect_limit: None,
            connect_after: None,
            class,
        }
    }

    /// The schedule begins.
    pub fn start(&mut self, at: Instant) {
        self.started = Some(at);
        self.account.start(at);
    }

    /// Handles every arrival that is due: none is skipped for being late, and none is delayed by an answer that has not come.
    pub fn handle_due(&mut self, now: Instant) {
        let Some(started) = self.started else { return };
        while let Some(due) = self.next_due.filter(|due| later(started, *due) <= now) {
            self.next_due = self.due.next();
            self.last_due = due;
            self.account.ends_after = self.schedule_ran();
            let found_idle = self.pool.idle() + self.pool.summoned() > self.waiting.len();
            let measured = due >= self.warmup;
            if !found_idle && !self.class.schedule.when_busy.keeps() {
                self.account.record.totals.skipped += u64::from(measured);
                continue;
            }
            let arrival = self.account.scheduled(later(started, due), due, now, found_idle);
            self.account.record.totals.found_full += u64::from(measured && !found_idle && self.is_full());
            self.waiting.push_back(arrival);
        }
    }

    /// Whether all connections that there may be are open.
    fn is_full(&self) -> bool {
        self.pool.open() >= self.connections_max
    }

    /// The arrival that a free connection has to send now. Those that can no longer be answered in time are taken off the queue.
    pub fn take(&mut self, now: Instant) -> Option<Arrival> {
        while let Some(arrival) = self.waiting.pop_front() {
            let left = later(arrival.due, self.class.timeout).saturating_duration_since(now);
            if self.expected.fits(left, self.class.timeout) {
                self.account.in_flight += 1;
                return Some(arrival);
            }
            self.gave_up(arrival, now);
        }
        let arrival = self.make_when_free(now)?;
        self.account.in_flight += 1;
        Some(arrival)
    }

    /// A closed loop without a rate: the next request starts because a connection is free.
    fn make_when_free(&mut self, now: Instant) -> Option<Arrival> {
        let since_start = now.checked_duration_since(self.started?)?;
        if !self.makes_when_free() || since_start >= self.class.schedule.length {
            return None;
        }
        self.made += 1;
        Some(self.account.scheduled(now, since_start, now, true))
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
        if self.connect_after.is_some_and(|at| now < at) {
            return 0;
        }
        let wanted =
            if self.started.is_none() { self.connections } else { self.pool.open() + self.wanted(now).saturating_sub(self.pool.idle()) };
        wanted.min(self.connections_max).saturating_sub(self.pool.open() + self.connecting)
    }

    /// Gives up on arrivals that found no connection within the timeout.
    pub fn expire_waiting(&mut self, now: Instant) {
        self.connect_after = self.connect_after.filter(|at| now < *at);
        while let Some(arrival) = self.waiting.front().copied().filter(|arrival| later(arrival.due, self.class.timeout) <= now) {
            self.waiting.pop_front();
            self.gave_up(arrival, now);
        }
    }

    /// An arrival cannot be answered in time any more. If the connections that it waited for do not come, that is the server's doing; if
    /// they are open and busy, if the system refuses another one, or if the generator itself was late, it is the generator's.
    fn gave_up(&mut self, arrival: Arrival, now: Instant) {
        let own_delay = arrival.handled.saturating_duration_since(arrival.due);
        let end = match self.connect_limit {
            _ if own_delay > now.saturating_duration_since(arrival.handled) => End::NotSent(Limit::Cpu),
            Some(limit) if !self.is_full() => End::NotSent(limit),
            _ if self.connecting > self.pool.open() => End::Failed(Phase::Connect, Kind::Timeout),
            _ => End::NotSent(Limit::Connections),
        };
        self.account.end_of(&arrival, None, end, now);
    }

    /// When [`ClassLoad::handle_due`], [`ClassLoad::expire_waiting`] or [`ClassLoad::to_open`] has something to do next.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        let due = self.started.and_then(|at| self.next_due.map(|due| later(at, due)));
        let expiry = self.waiting.front().map(|arrival| later(arrival.due, self.class.timeout));
        due.into_iter().chain(expiry).chain(self.connect_after).min()
    }

    /// Whether every arrival was handled and every request has ended.
    #[must_use]
    pub fn is_settled(&self, now: Instant) -> bool {
        let over = self.started.is_some_and(|at| now >= later(at, self.class.schedule.length));
        let none_left = self.next_due.is_none() && (!self.makes_when_free() || over);
        none_left && self.waiting.is_empty() && self.account.in_flight == 0
    }

    /// How long the schedule runs from its start: as planned, or less if a count of requests ends it. A closed loop that counts requests
    /// runs until the last one has ended.
    #[must_use]
    pub fn schedule_ran(&self) -> Duration {
        let Schedule { length, rate, arrivals, count_max, .. } = self.class.schedule;
        let ran = match (arrivals, count_max, self.started, self.account.last_end) {
            (Arrivals::WhenFree, Some(_), Some(started), Some(end)) if !self.makes_when_free() => end.saturating_duration_since(started),
            (Arrivals::WhenFree, ..) | (_, None, ..) => length,
            // N requests at a rate take N times the gap, the one after the last of them included.
            _ if self.next_due.is_none() => self.last_due.saturating_add(Duration::try_from_secs_f64(1.0 / rate).unwrap_or_default()),
            _ => length,
        };
        ran.min(length)
    }

    /// A connection is established, this long after connect(2).
    pub fn connected(&mut self, took: Duration) {
        record(&mut self.account.record.clocks.connect, took);
        self.account.record.totals.opened_later += u64::from(self.started.is_some());
        self.connect_limit = None;
    }

    /// A connection could not be made. If the server or the network refused it, a request that waits for one has failed with it. If the
    /// generator's own limits did, the request keeps waiting for another one.
    pub fn connect_failed(&mut self, kind: Kind, now: Instant) {
        let own = match kind {
            Kind::NoSlot => Some(Limit::Connections),
            kind => kind.errno().and_then(Limit::of_errno),
        };
        if let Some(limit) = own {
            self.connect_limit = Some(limit);
            self.connect_after = Some(later(now, CONNECT_PAUSE));
            return self.account.note(Phase::Connect, kind, now);
        }
        match self.waiting.pop_front() {
            Some(arrival) => self.account.end_of(&arrival, None, End::Failed(Phase::Connect, kind), now),
            None => self.account.note(Phase::Connect, kind, now),
        }
    }

    /// A complete answer.
    pub fn answered(&mut self, exchange: &Exchange, response: &Response, now: Instant) {
        self.account.answer(exchange, response);
        self.account.own_delay(self.overdue(now));
        let end = if response.status >= 400 {
            End::Failed(Phase::Body, Kind::Status(response.status))
        } else if !response.body_as_expected {
            End::Failed(Phase::Body, Kind::WrongBody)
        } else {
            self.expected.answered(now.saturating_duration_since(exchange.sent));
            End::Good
        };
        self.account.end_of(&exchange.arrival, Some(exchange.sent), end, now);
    }

    /// How late the next arrival is: the loop hands out input before it looks at the schedule, so a thread that was not running reads an
    /// answer first. Test: `a_pause_of_the_generator_is_not_a_silence_of_the_server`.
    fn overdue(&self, now: Instant) -> Duration {
        let due = self.started.zip(self.next_due).map(|(started, due)| later(started, due));
        due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due))
    }

    /// A request on a connection has failed.
    pub fn failed(&mut self, exchange: &Exchange, phase: Phase, kind: Kind, now: Instant) {
        self.account.own_delay(self.overdue(now));
        self.account.end_of(&exchange.arrival, Some(exchange.sent), End::Failed(phase, kind), now);
    }

    /// A request on a connection has no answer when the run ends.
    pub fn unfinished(&mut self, exchange: &Exchange, now: Instant) {
        self.account.end_of(&exchange.arrival, Some(exchange.sent), End::Unfinished, now);
    }

    /// The run ends: a request that still waits is unfinished.
    pub fn end(&mut self, now: Instant) {
        while let Some(arrival) = self.waiting.pop_front() {
            self.account.end_of(&arrival, None, End::Unfinished, now);
        }
        self.account.end(now);
    }
}

#[cfg(test)]
#[path = "class_load_tests.rs"]
mod tests;
