//! The generator's own limits: what it could not send, and why.
//!
//! A request that waits for a connection and can no longer be answered in time is not sent: sending it would cost a connection and give a
//! time-out that the server did not cause. It counts as `not_sent`, and not as an error of the server. Tests:
//! `what_cannot_be_answered_in_time_is_not_sent`, `a_healthy_server_behind_too_few_connections_keeps_its_goodput`.
//! Read next: `class_load.rs`.

use std::time::Duration;

/// The part of the time-out that an expected time of service never exceeds: a request that is sent when it is due always has a chance.
const EXPECTED_SHARE_MAX: f64 = 0.8;
/// The weight of a new time of service in the average, and in the average deviation: as RFC 6298 section 2 smooths round-trip times.
const WEIGHT_OF_TIME: f64 = 1.0 / 8.0;
const WEIGHT_OF_DEVIATION: f64 = 1.0 / 4.0;
/// How many deviations above the average are expected: as RFC 6298 has for its time-out.
const DEVIATIONS: f64 = 4.0;

/// Which of the generator's limits kept a request from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// `--max-connections` were open and busy.
    Connections,
    /// No descriptor was left (EMFILE, ENFILE).
    Descriptors,
    /// No local port was left (EADDRNOTAVAIL).
    Ports,
    /// The generator itself was late.
    Cpu,
}

impl Limit {
    /// All of them, in the order of [`NotSent`].
    pub const ALL: [Limit; 4] = [Limit::Connections, Limit::Descriptors, Limit::Ports, Limit::Cpu];

    /// The limit that a failed connect(2) names; `None` if the failure is the server's or the network's.
    #[must_use]
    pub fn of_errno(errno: i32) -> Option<Limit> {
        match errno {
            libc::EMFILE | libc::ENFILE => Some(Limit::Descriptors),
            libc::EADDRNOTAVAIL => Some(Limit::Ports),
            _ => None,
        }
    }

    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::Descriptors => "descriptors",
            Limit::Ports => "ports",
            Limit::Cpu => "cpu",
        }
    }
}

/// Requests that were not sent, by limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotSent([u64; Limit::ALL.len()]);

impl NotSent {
    /// One more.
    pub fn count(&mut self, limit: Limit) {
        self.0[limit as usize] += 1;
    }

    /// How many because of that limit.
    #[must_use]
    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize]
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &NotSent) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The limit that kept most of them; `None` if there are none.
    #[must_use]
    pub fn worst(&self) -> Option<Limit> {
        Limit::ALL.into_iter().rev().max_by_key(|limit| self.of(*limit)).filter(|limit| self.of(*limit) > 0)
    }
}

/// How long the server is expected to take for a request, from its last answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Average and average deviation in seconds; `None` before the first answer.
    smoothed: Option<(f64, f64)>,
}

impl Expected {
    /// A good answer took this long from its first byte written.
    pub fn answered(&mut self, service: Duration) {
        let took = service.as_secs_f64();
        self.smoothed = Some(match self.smoothed {
            None => (took, took / 2.0),
            Some((average, deviation)) => {
                (average + WEIGHT_OF_TIME * (took - average), deviation + WEIGHT_OF_DEVIATION * ((took - average).abs() - deviation))
            }
        });
    }

    /// Whether a request can be expected to be answered within `left`, of a time-out of `timeout`.
    #[must_use]
    pub fn fits(&self, left: Duration, timeout: Duration) -> bool {
        let expected = self.smoothed.map_or(0.0, |(average, deviation)| average + DEVIATIONS * deviation);
        !left.is_zero() && left.as_secs_f64() >= expected.min(timeout.as_secs_f64() * EXPECTED_SHARE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_fits_if_the_last_answers_took_less_than_it_has_left() {
        let mut expected = Expected::default();
        assert!(expected.fits(SECOND / 1000, 5 * SECOND), "nothing is known yet");
        assert!(!expected.fits(Duration::ZERO, 5 * SECOND));
        (0..100).for_each(|_| expected.answered(SECOND));
        assert!(expected.fits(SECOND * 11 / 10, 5 * SECOND) && !expected.fits(SECOND * 9 / 10, 5 * SECOND));
    }

    #[test]
    fn a_request_that_has_all_its_time_left_is_always_sent() {
        let mut expected = Expected::default();
        (0..100).for_each(|n| expected.answered(n % 2 * (5 * SECOND)));
        assert!(expected.fits(5 * SECOND, 5 * SECOND) && !expected.fits(3 * SECOND, 5 * SECOND));
    }

    #[test]
    fn the_limit_that_kept_most_requests_is_named() {
        let mut not_sent = NotSent::default();
        assert_eq!(not_sent.worst(), None);
        not_sent.count(Limit::Ports);
        assert_eq!(not_sent.worst(), Some(Limit::Ports));
        not_sent.count(Limit::Connections);
        assert_eq!(not_sent.worst(), Some(Limit::Connections), "of equals, the first");
        not_sent.add(&not_sent.clone());
        assert_eq!((not_sent.total(), not_sent.of(Limit::Ports)), (4, 2));
        assert_eq!(Limit::of_errno(libc::EADDRNOTAVAIL), Some(Limit::Ports));
        assert_eq!(Limit::of_errno(libc::ECONNREFUSED), None);
    }
}
