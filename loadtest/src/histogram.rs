//! Three clocks for every request, and what is counted beside them.
//!
//! *Response* runs from the moment a request was due, *service* from its first byte written, *send delay* from due until the generator
//! handled the arrival: its own lateness. Response minus service is what a load generator hides that measures from sending.
//! One [`Record`] for each class and thread, merged at the end. Read next: `verdict.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::errors::{ErrorCount, Kind, Phase};
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
    /// Due to last byte read. Timed out and unfinished requests are in it at the time that had passed: they took at least that long.
    pub response: Histogram<u64>,
    /// The same for good answers alone: a fast refusal must not make a server look quick.
    pub response_ok: Histogram<u64>,
    /// First byte written to last byte read. Requests that were given up are in it likewise, once they were sent.
    pub service: Histogram<u64>,
    /// First byte written to first byte read.
    pub first_byte: Histogram<u64>,
    /// Handled to first byte written: no connection was free, which is the server's doing.
    pub wait: Histogram<u64>,
    /// Due to handled: the generator's own lateness.
    pub send_delay: Histogram<u64>,
    /// connect(2) to established.
    pub connect: Histogram<u64>,
}

impl Default for Clocks {
    fn default() -> Clocks {
        Clocks {
            response: histogram(),
            response_ok: histogram(),
            service: histogram(),
            first_byte: histogram(),
            wait: histogram(),
            send_delay: histogram(),
            connect: histogram(),
        }
    }
}

impl Clocks {
    /// Each clock with its name in JSON, in the order of the report.
    #[must_use]
    pub fn by_name(&self) -> [(&'static str, &Histogram<u64>); 7] {
        [
            ("response", &self.response),
            ("response_ok", &self.response_ok),
            ("service", &self.service),
            ("first_byte", &self.first_byte),
            ("wait", &self.wait),
            ("connect", &self.connect),
            ("send_delay", &self.send_delay),
        ]
    }

    fn add(&mut self, other: &Clocks) {
        let Clocks { response, response_ok, service, first_byte, wait, send_delay, connect } = self;
        for (mine, theirs) in [
            (response, &other.response),
            (response_ok, &other.response_ok),
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
/// `scheduled = ok + errors + unfinished`; `timeouts` are among the errors.
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
    /// Requests without an answer when the run ended.
    pub unfinished: u64,
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
        let Totals { scheduled, handled, sent, ok, errors, timeouts, unfinished, skipped, bytes_in, bytes_out } = self;
        for (mine, theirs) in [
            (scheduled, other.scheduled),
            (handled, other.handled),
            (sent, other.sent),
            (ok, other.ok),
            (errors, other.errors),
            (timeouts, other.timeouts),
            (unfinished, other.unfinished),
            (skipped, other.skipped),
            (bytes_in, other.bytes_in),
            (bytes_out, other.bytes_out),
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
}

impl Record {
    /// Adds what another thread recorded of the same class.
    pub fn merge(&mut self, other: &Record) {
        self.clocks.add(&other.clocks);
        self.totals.add(&other.totals);
        for (key, theirs) in &other.errors {
            let mine = self.errors.entry(*key).or_insert(ErrorCount { count: 0, first_at: theirs.first_at });
            mine.count += theirs.count;
            mine.first_at = mine.first_at.min(theirs.first_at);
        }
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
    }

    /// Enters a failure in the table; the request's own counts are the caller's.
    pub fn note(&mut self, phase: Phase, kind: Kind, at: Duration) {
        self.errors.entry((phase, kind)).or_insert(ErrorCount { count: 0, first_at: at }).count += 1;
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
        record(&mut a.clocks.response, Duration::from_millis(1));
        a.totals.ok = 1;
        a.status.insert(200, 1);
        let mut b = a.clone();
        a.note(Phase::Body, Kind::Timeout, Duration::from_secs(3));
        b.note(Phase::Body, Kind::Timeout, Duration::from_secs(2));
        b.note(Phase::Connect, Kind::Timeout, Duration::from_secs(1));
        a.merge(&b);
        assert_eq!((a.clocks.response.len(), a.totals.ok, a.status[&200]), (2, 2, 2));
        assert_eq!(a.errors[&(Phase::Body, Kind::Timeout)], ErrorCount { count: 2, first_at: Duration::from_secs(2) });
        assert_eq!(a.errors[&(Phase::Connect, Kind::Timeout)].count, 1);
    }

    #[test]
    fn two_thousandths_apart_are_told_apart() {
        let mut clock = histogram();
        record(&mut clock, Duration::from_millis(212));
        assert!((211_000..213_000).contains(&clock.value_at_quantile(0.5)));
    }
}
