//! Three clocks for every request, and the counts that belong to them.
//!
//! *Response* runs from the moment a request was due, *service* from its first byte written, *send delay* from due until the request was
//! written (or found no idle connection): the generator's own delay. Response minus service is what a load generator hides that measures
//! from sending. One [`Record`] for each class and thread, merged at the end. Read next: `truth/bounds.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::errors::{ErrorCount, Kind, Phase};
use crate::truth::bounds::Times;
use crate::truth::limits::NotSent;
use crate::truth::silence::{Quiet, intersect};
use crate::units::as_us;

/// The longest time kept apart, in microseconds; longer ones count as this. Two minutes: as long as the kernel tries to connect.
pub const LATENCY_US_MAX: u64 = 120_000_000;
/// Decimal digits that a recorded value keeps: 212 ms is never shown as 211 or 213.
const DIGITS: u8 = 3;

/// A histogram of microseconds with the one set of bounds, so that any two can be merged.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "constants: they are right or wrong for everyone")]
    Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("1 to 120,000,000 with 3 digits are valid bounds")
}

/// The clocks of one class of requests.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// Due to last byte read, of every scheduled request: those that failed rank as never, those that were given up at the time that had
    /// passed.
    pub response: Times,
    /// The same of good answers, less the delays that are the generator's own: a lower bound of each.
    pub response_low: Histogram<u64>,
    /// Due to failure, of the requests that failed.
    pub failed: Histogram<u64>,
    /// First byte written to last byte read, of complete answers. Requests that were given up after they were sent are in it at the time
    /// that had passed.
    pub service: Histogram<u64>,
    /// First byte written to first byte read.
    pub first_byte: Histogram<u64>,
    /// Handled to first byte written, of requests that found no idle connection; zero for other requests.
    pub wait: Histogram<u64>,
    /// Due to first byte written, of requests that found an idle connection; due to handled for other requests. The generator's own delay.
    pub send_delay: Histogram<u64>,
    /// connect(2) to established.
    pub connect: Histogram<u64>,
}

impl Default for Clocks {
    fn default() -> Clocks {
        Clocks {
            response: Times::default(),
            response_low: histogram(),
            failed: histogram(),
            service: histogram(),
            first_byte: histogram(),
            wait: histogram(),
            send_delay: histogram(),
            connect: histogram(),
        }
    }
}

impl Clocks {
    /// Each clock that is a plain histogram, with its name in JSON, in the order of the report. `response` is not one.
    #[must_use]
    pub fn by_name(&self) -> [(&'static str, &Histogram<u64>); 8] {
        [
            ("response_ok", &self.response.known),
            ("at_least", &self.response.at_least),
            ("failed", &self.failed),
            ("service", &self.service),
            ("first_byte", &self.first_byte),
            ("wait", &self.wait),
            ("connect", &self.connect),
            ("send_delay", &self.send_delay),
        ]
    }

    fn add(&mut self, other: &Clocks) {
        let Clocks { response, response_low, failed, service, first_byte, wait, send_delay, connect } = self;
        response.add(&other.response);
        for (mine, theirs) in [
            (response_low, &other.response_low),
            (failed, &other.failed),
            (service, &other.service),
            (first_byte, &other.first_byte),
            (wait, &other.wait),
            (send_delay, &other.send_delay),
            (connect, &other.connect),
        ] {
            #[expect(clippy::expect_used, reason = "histogram() gives all of them the same bounds")]
            mine.add(theirs).expect("equal bounds");
        }
    }
}

/// Records a duration; one beyond the bounds counts as the longest.
pub fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(as_us(duration));
}

/// Counts of one class of requests in the measured time.
///
/// `scheduled = ok + errors + unfinished + not_sent`; `timeouts` are among the errors. Test: `every_scheduled_request_ends_exactly_once`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Arrivals that were due.
    pub scheduled: u64,
    /// Of these, handled by the generator before the schedule ended.
    pub handled: u64,
    /// Requests of which at least one byte was written.
    pub sent: u64,
    /// Answers that were complete, right, and of a status below 400.
    pub ok: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Of these, those that took longer than the time-out.
    pub timeouts: u64,
    /// Of these, those for which the generator's own delay was a tenth of their time or more.
    pub late_timeouts: u64,
    /// Requests without an answer when the run ended.
    pub unfinished: u64,
    /// Requests that the generator's own limits kept from being sent in time.
    pub not_sent: NotSent,
    /// Requests that were due while `--max-connections` were open and busy.
    pub found_full: u64,
    /// Requests that ended within the measured time, whenever they were due, good or bad: the throughput.
    pub ended_in_time: u64,
    /// Of these, the good ones.
    pub ok_in_time: u64,
    /// Connections opened after the start, because a request was due and none was idle.
    pub opened_later: u64,
    /// Arrivals left out because no connection was free: a closed loop's omission, not part of `scheduled`.
    pub skipped: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

impl Totals {
    /// Requests that came to an end, good or bad.
    #[must_use]
    pub const fn completed(&self) -> u64 {
        self.ok + self.errors
    }

    fn add(&mut self, other: &Totals) {
        let Totals { scheduled, handled, sent, ok, errors, timeouts, unfinished, not_sent, .. } = self;
        not_sent.add(&other.not_sent);
        for (mine, theirs) in [
            (scheduled, other.scheduled),
            (handled, other.handled),
            (sent, other.sent),
            (ok, other.ok),
            (errors, other.errors),
            (timeouts, other.timeouts),
            (unfinished, other.unfinished),
            (&mut self.late_timeouts, other.late_timeouts),
            (&mut self.found_full, other.found_full),
            (&mut self.ended_in_time, other.ended_in_time),
            (&mut self.ok_in_time, other.ok_in_time),
            (&mut self.opened_later, other.opened_later),
            (&mut self.skipped, other.skipped),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
        ] {
            *mine += theirs;
        }
    }
}

/// All that is known of one class of requests.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The times.
    pub clocks: Clocks,
    /// The counts.
    pub totals: Totals,
    /// Failures by phase and kind; those that hit no request (a connection that broke at rest) among them.
    pub errors: BTreeMap<(Phase, Kind), ErrorCount>,
    /// Complete answers by status.
    pub status: BTreeMap<u16, u64>,
    /// The times in which no answer came on any thread; `None` before a thread was added.
    pub quiet: Option<Vec<Quiet>>,
}

impl Record {
    /// Adds what another thread recorded of the same class.
    pub fn merge(&mut self, other: &Record) {
        self.clocks.add(&other.clocks);
        self.totals.add(&other.totals);
        for (key, theirs) in &other.errors {
            self.errors.entry(*key).or_insert(ErrorCount { count: 0, ..*theirs }).add(theirs);
        }
        self.quiet = match (self.quiet.take(), &other.quiet) {
            (Some(mine), Some(theirs)) => Some(intersect(&mine, theirs)),
            (mine, theirs) => mine.or_else(|| theirs.clone()),
        };
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
    }

    /// Enters a failure in the table; the request's own counts are the caller's. `out`: how long the request had been sent.
    pub fn note(&mut self, phase: Phase, kind: Kind, at: Duration, out: Option<Duration>) {
        let new = ErrorCount { count: 1, first_at: at, out: out.map(|out| (out, out)) };
        self.errors.entry((phase, kind)).or_insert(ErrorCount { count: 0, ..new }).add(&new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_bounds_counts_as_the_longest_and_is_not_lost() {
        let mut clock = histogram();
        record(&mut clock, Duration::from_secs(3600));
        record(&mut clock, Duration::ZERO);
        assert_eq!(clock.len(), 2);
        assert!(clock.max() >= LATENCY_US_MAX, "{}", clock.max());
    }

    #[test]
    fn merged_threads_are_the_sum_of_their_records() {
        let mut a = Record::default();
        a.clocks.response.answered(Duration::from_millis(1));
        a.totals.ok = 1;
        a.status.insert(200, 1);
        let mut b = a.clone();
        a.note(Phase::Body, Kind::Timeout, Duration::from_secs(3), Some(Duration::from_secs(5)));
        b.note(Phase::Body, Kind::Timeout, Duration::from_secs(2), Some(Duration::from_secs(4)));
        b.note(Phase::Connect, Kind::Timeout, Duration::from_secs(1), None);
        a.merge(&b);
        assert_eq!((a.clocks.response.len(), a.totals.ok, a.status[&200]), (2, 2, 2));
        assert_eq!(
            a.errors[&(Phase::Body, Kind::Timeout)],
            ErrorCount { count: 2, first_at: Duration::from_secs(2), out: Some((Duration::from_secs(4), Duration::from_secs(5))) }
        );
        assert_eq!(a.errors[&(Phase::Connect, Kind::Timeout)].count, 1);
    }

    #[test]
    fn two_thousandths_apart_are_told_apart() {
        let mut clock = histogram();
        record(&mut clock, Duration::from_millis(212));
        assert!((211_000..213_000).contains(&clock.value_at_quantile(0.5)));
    }
}
