//! What became of each request, counted once in every table: totals, clocks, errors, series, silences.
//!
//! No socket and no clock. Read next: `../class_load.rs`, which says what happened.

use std::time::{Duration, Instant};

use server::clock::later;

use crate::errors::{Kind, Phase};
use crate::histogram::{Record, record};
use crate::response::Response;
use crate::series::Interval;
use crate::truth::limits::Limit;
use crate::truth::outstanding::Outstanding;
use crate::truth::silence::Watch;
use crate::truth::stamps::{Arrival, Exchange};

/// Lateness at the very end of a schedule that is still on time: a timer is never exact.
const END_GRACE: Duration = Duration::from_millis(1);

/// A time-out of which this part or more was the generator's own delay might have been an answer.
const LATE_PART: u32 = 10;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// By a complete answer, as it should be.
    Good,
    /// In that phase, for that reason; [`Kind::Timeout`] is one of them.
    Failed(Phase, Kind),
    /// Not before the run did.
    Unfinished,
    /// Not sent, because of that limit of the generator.
    NotSent(Limit),
}

/// The books of one class on one thread.
#[derive(Debug)]
pub struct Account {
    /// Everything known so far.
    pub record: Record,
    /// How long input may have lain in the socket before it was read: the thread was busy for so long in its last turn.
    pub read_lag: Duration,
    /// Requests on a connection.
    pub in_flight: u64,
    /// When the last request ended.
    pub last_end: Option<Instant>,
    started: Option<Instant>,
    warmup: Duration,
    /// The planned length of the schedule, warm-up included.
    length: Duration,
    /// When it ends: as planned, or earlier once a count of requests has ended it. An answer after that is not throughput.
    pub ends_after: Duration,
    outstanding: Outstanding,
    watch: Watch,
    interval: Interval,
}

impl Account {
    /// Empty books of class `index`, for a schedule of that length with that warm-up in it.
    #[must_use]
    pub fn new(index: usize, warmup: Duration, length: Duration) -> Account {
        Account {
            record: Record::default(),
            read_lag: Duration::ZERO,
            in_flight: 0,
            last_end: None,
            started: None,
            warmup,
            length,
            ends_after: length,
            outstanding: Outstanding::default(),
            watch: Watch::default(),
            interval: Interval::new(index, 0),
        }
    }

    /// The schedule begins.
    pub fn start(&mut self, at: Instant) {
        self.started = Some(at);
    }

    /// A request that was due at `due`, `since_start` after the start of the schedule, has been handled. `found_idle`: whether a connection
    /// was idle.
    pub fn scheduled(&mut self, due: Instant, since_start: Duration, handled: Instant, found_idle: bool) -> Arrival {
        let measured = since_start >= self.warmup;
        let second = u32::try_from(since_start.as_secs()).unwrap_or(u32::MAX);
        let arrival = Arrival { due, handled, found_idle, measured, second, number: self.outstanding.begin(due) };
        self.interval.scheduled += 1;
        self.sample(handled);
        self.watch.due(due, handled.saturating_duration_since(due));
        if measured {
            self.record.totals.scheduled += 1;
            let end = self.started.map(|at| later(later(at, self.length), END_GRACE));
            self.record.totals.handled += u64::from(end.is_some_and(|end| handled <= end));
        }
        if !found_idle {
            self.delayed(&arrival, None);
        }
        arrival
    }

    /// Notes the requests under way and the age of the oldest one, for the series: at a second's end a stall inside it has passed.
    fn sample(&mut self, now: Instant) {
        let oldest = self.outstanding.oldest().map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        self.interval.in_flight_max = self.interval.in_flight_max.max(self.outstanding.len());
        self.interval.oldest = self.interval.oldest.max(oldest);
    }

    /// Records the generator's own delay, once for each request.
    fn delayed(&mut self, arrival: &Arrival, sent: Option<Instant>) {
        let delay = arrival.send_delay(sent);
        record(&mut self.interval.send_delay, delay);
        if arrival.measured {
            record(&mut self.record.clocks.send_delay, delay);
        }
    }

    /// A request is being written.
    pub fn sent(&mut self, exchange: &Exchange) {
        let Exchange { arrival, sent, .. } = exchange;
        if arrival.found_idle {
            self.delayed(arrival, Some(*sent));
        }
        if arrival.measured {
            self.record.totals.sent += 1;
            record(&mut self.record.clocks.wait, arrival.wait(*sent));
        }
    }

    /// Bytes moved for a request.
    pub fn moved(&mut self, exchange: &Exchange, in_bytes: usize, out_bytes: usize) {
        if exchange.arrival.measured {
            self.record.totals.bytes_in += in_bytes as u64;
            self.record.totals.bytes_out += out_bytes as u64;
        }
    }

    /// A complete response has arrived, of any kind; [`Account::end_of`] gets which.
    pub fn answer(&mut self, exchange: &Exchange, response: &Response) {
        if exchange.arrival.measured {
            *self.record.status.entry(response.status).or_default() += 1;
            if let Some(first_byte) = exchange.first_byte {
                record(&mut self.record.clocks.first_byte, first_byte.saturating_duration_since(exchange.sent));
            }
        }
    }

    /// A request has ended: the one place where it is counted, in every table.
    pub fn end_of(&mut self, arrival: &Arrival, sent: Option<Instant>, end: End, now: Instant) {
        self.sample(now);
        let connections = self.in_flight;
        self.outstanding.end(arrival.number);
        self.in_flight -= u64::from(sent.is_some());
        self.last_end = Some(now);
        if sent.is_none() && arrival.found_idle {
            self.delayed(arrival, None);
        }
        let timed_out = matches!(end, End::Failed(_, Kind::Timeout));
        if let (Some(started), End::Good | End::Failed(..), false) = (self.started, end, timed_out) {
            self.watch.answer(now, started, connections, !self.outstanding.is_empty());
        }
        // Saturating: a timer that fires early must not give a latency of 584,000 years.
        let took = now.saturating_duration_since(arrival.due);
        let service = sent.map(|sent| now.saturating_duration_since(sent));
        self.count_in_series(arrival, end, took, now);
        if !arrival.measured {
            return;
        }
        let Record { totals, clocks, .. } = &mut self.record;
        match end {
            End::Good => {
                totals.ok += 1;
                let own = arrival.send_delay(sent) + self.read_lag;
                record(&mut clocks.response_low, took.saturating_sub(own).max(Duration::from_micros(1)));
                clocks.response.answered(took);
            }
            End::Failed(_, Kind::Timeout) => {
                totals.errors += 1;
                totals.timeouts += 1;
                totals.late_timeouts += u64::from(arrival.send_delay(sent) >= took / LATE_PART);
                clocks.response.gave_up(took);
            }
            End::Failed(..) => {
                totals.errors += 1;
                clocks.response.never += 1;
                record(&mut clocks.failed, took);
            }
            End::Unfinished => {
                totals.unfinished += 1;
                clocks.response.gave_up(took);
            }
            End::NotSent(limit) => {
                totals.not_sent.count(limit);
                clocks.response.gave_up(took);
            }
        }
        // A broken connection says nothing about how long an answer takes.
        if let (Some(service), End::Good | End::Unfinished | End::Failed(_, Kind::Timeout | Kind::Status(_) | Kind::WrongBody)) =
            (service, end)
        {
            record(&mut self.record.clocks.service, service);
        }
        if let End::Failed(phase, kind) = end {
            self.record.note(phase, kind, self.since_start(now), service);
        }
    }

    /// Throughput belongs to the second of the end, latency to the second in which the request was due.
    fn count_in_series(&mut self, arrival: &Arrival, end: End, took: Duration, now: Instant) {
        let times = self.interval.due.entry(arrival.second).or_default();
        match end {
            End::Good => times.answered(took),
            End::Failed(_, kind) if kind != Kind::Timeout => times.never += 1,
            _ => times.gave_up(took),
        }
        let at = self.since_start(now);
        let counts = matches!(end, End::Good | End::Failed(..));
        self.interval.completed += u64::from(counts);
        self.interval.errors += u64::from(matches!(end, End::Failed(..)));
        if counts && at >= self.warmup && at < self.ends_after {
            self.record.totals.ended_in_time += 1;
            self.record.totals.ok_in_time += u64::from(matches!(end, End::Good));
        }
    }

    /// A failure that hit no request.
    pub fn note(&mut self, phase: Phase, kind: Kind, now: Instant) {
        self.record.note(phase, kind, self.since_start(now), None);
    }

    fn since_start(&self, now: Instant) -> Duration {
        self.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started))
    }

    /// The generator itself was late by this much when it read an answer: so much of the silence before it is not the server's.
    pub fn own_delay(&mut self, delay: Duration) {
        self.watch.own_delay(delay);
    }

    /// The run ends.
    pub fn end(&mut self, now: Instant) {
        if let Some(started) = self.started {
            self.watch.end(now, started, self.in_flight);
        }
        self.record.quiet = Some(std::mem::take(&mut self.watch.noted));
    }

    /// The second that has passed, to be reported; the next one begins.
    pub fn next_interval(&mut self, now: Instant) -> Interval {
        self.sample(now);
        let (class, second) = (self.interval.class, self.interval.second);
        std::mem::replace(&mut self.interval, Interval::new(class, second.saturating_add(1)))
    }
}
