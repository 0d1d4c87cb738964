//! The stamps of one request, and the times between them.
//!
//! `due` → `handled` → `sent` → `first_byte` → answered. `sent` is read from the clock for each request, right before its write(2):
//! a stamp of the start of the turn dates the last of 500 requests milliseconds early. Test:
//! `each_request_of_a_burst_is_dated_when_it_is_written`. Read next: `class_load.rs`.

use std::time::{Duration, Instant};

use crate::errors::Phase;

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it should have been sent.
    pub due: Instant,
    /// When the generator saw that it was due.
    pub handled: Instant,
    /// Whether a connection was idle then. If so, the time until the write is the generator's own delay.
    pub found_idle: bool,
    /// False during the warm-up.
    pub measured: bool,
    /// The second in which it was due, counted from the start of the schedule.
    pub second: u32,
    /// Its place in the order of arrivals of this class on this thread.
    pub number: u64,
}

impl Arrival {
    /// The generator's own delay: due to written if a connection was idle, else due to handled. `sent` is `None` for a request that was
    /// never written.
    #[must_use]
    pub fn send_delay(&self, sent: Option<Instant>) -> Duration {
        let until = sent.filter(|_| self.found_idle).unwrap_or(self.handled);
        until.saturating_duration_since(self.due)
    }

    /// Handled to written, for a request that found no idle connection; else zero.
    #[must_use]
    pub fn wait(&self, sent: Instant) -> Duration {
        if self.found_idle { Duration::ZERO } else { sent.saturating_duration_since(self.handled) }
    }
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

    /// When input was read that the loop found at `turn`. The loop reads its clock once a turn, when poll returns: input that poll
    /// reported was there by then. A request that was written later in the same turn can have been answered only after that.
    #[must_use]
    pub fn read_at(&self, turn: Instant) -> Instant {
        if self.sent > turn { Instant::now() } else { turn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_until_the_write_is_the_generators_only_while_a_connection_was_idle() {
        let due = Instant::now();
        let ms = |ms| due + Duration::from_millis(ms);
        let arrival = Arrival { due, handled: ms(1), found_idle: true, measured: true, second: 0, number: 0 };
        assert_eq!((arrival.send_delay(Some(ms(5))), arrival.wait(ms(5))), (Duration::from_millis(5), Duration::ZERO));
        let waited = Arrival { found_idle: false, ..arrival };
        assert_eq!((waited.send_delay(Some(ms(5))), waited.wait(ms(5))), (Duration::from_millis(1), Duration::from_millis(4)));
        assert_eq!(arrival.send_delay(None), Duration::from_millis(1), "never written");
    }

    #[test]
    fn an_answer_is_never_dated_before_its_request() {
        let turn = Instant::now();
        let arrival = Arrival { due: turn, handled: turn, found_idle: true, measured: true, second: 0, number: 0 };
        let exchange = |sent| Exchange { arrival, sent, written_bytes: 1, first_byte: None };
        let later = turn + Duration::from_nanos(1);
        assert!(exchange(later).read_at(turn) >= later);
        assert_eq!(exchange(turn).read_at(later), later);
    }
}
