//! A short pass on one connection, after the run: what a client sees that sends its next request as soon as it has its answer.
//!
//! Many connections at a low rate rest between their requests, and a kernel that has not sent anything lately acknowledges at once. Only
//! on a busy connection does it delay acknowledgements (`inet_csk_in_pingpong_mode`, include/net/inet_connection_sock.h): an answer in two
//! writes then takes 40 ms more. Test: `one_connection_shows_the_delayed_acknowledgement_that_many_connections_hide`.
//! Read next: `../report.rs`.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::generator;
use crate::histogram::Record;
use crate::plan::{Class, Plan};
use crate::schedule::{Arrivals, Schedule, WhenBusy};
use crate::truth::bounds::is_supported;
use crate::units::{as_us, microseconds};

/// One connection differs if its median is this many times that of the run,
const DIFFERENCE_FACTOR: u64 = 3;
/// and this much longer.
const DIFFERENCE_MIN: Duration = Duration::from_millis(1);
/// A median between these is that of a delayed acknowledgement: 40 ms (`TCP_DELACK_MIN`, include/net/tcp.h) and the answer itself.
const DELAYED_ACK_US: std::ops::Range<u64> = 38_000..60_000;

/// What the pass found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneConnection {
    /// Median time from the write of a request to the end of its answer, in microseconds.
    pub p50_us: u64,
    /// Answers.
    pub answers: u64,
}

/// Runs the pass for `length` against the target of the plan. `None` if there were too few answers for a median.
///
/// # Errors
/// As [`generator::run`].
pub fn pass(plan: &Plan, length: Duration, interrupted: &AtomicBool) -> Result<Option<OneConnection>, String> {
    let class = &plan.classes[0];
    let schedule = Schedule { arrivals: Arrivals::WhenFree, when_busy: WhenBusy::Skip, ..Schedule::constant(class.schedule.rate, length) };
    let class = Class { schedule, connections: 1, connections_max: 1, ..class.clone() };
    let plan = Plan { classes: vec![class], threads: 1, warmup: Duration::ZERO, duration: length, ..plan.clone() };
    let outcome = generator::run(&plan, &mut (), interrupted)?;
    Ok(OneConnection::of(&outcome.records[0]))
}

impl OneConnection {
    fn of(record: &Record) -> Option<OneConnection> {
        let service = &record.clocks.service;
        is_supported(0.5, service.len()).then(|| OneConnection { p50_us: service.value_at_quantile(0.5), answers: service.len() })
    }

    /// What to say of it, if it differs from the run, whose median was `p50_us` over `connections` connections.
    #[must_use]
    pub fn line(&self, p50_us: u64, connections: u32) -> Option<String> {
        let differs = self.p50_us >= p50_us.saturating_mul(DIFFERENCE_FACTOR) && self.p50_us >= p50_us + as_us(DIFFERENCE_MIN);
        let why = if DELAYED_ACK_US.contains(&self.p50_us) {
            "an answer written in two pieces waits for a delayed acknowledgement (40 ms): write it at once, or set TCP_NODELAY"
        } else {
            "a request that follows an answer at once takes longer"
        };
        differs.then(|| format!("p50 {} where {connections} connections show {}: {why}", microseconds(self.p50_us), microseconds(p50_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_is_told_only_if_it_differs() {
        let one = |p50_us| OneConnection { p50_us, answers: 23 };
        let line = one(44_000).line(500, 64).unwrap();
        assert!(line.starts_with("p50 44ms where 64 connections show 500µs: an answer written in two pieces"), "{line}");
        assert!(one(20_000).line(500, 64).is_some_and(|line| !line.contains("acknowledgement")));
        assert_eq!((one(600).line(500, 64), one(900).line(100, 64)), (None, None));
    }

    #[test]
    fn a_median_needs_twenty_answers() {
        let mut record = Record::default();
        record.clocks.service.record_n(44_000, 19).unwrap();
        assert_eq!(OneConnection::of(&record), None);
        record.clocks.service.record(44_000).unwrap();
        assert_eq!(OneConnection::of(&record).map(|one| one.answers), Some(20));
    }
}
