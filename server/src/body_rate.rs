//! Whether a request's body comes fast enough: so many bytes in each window of time, and our own backpressure is never the client's fault.
//!
//! A byte now and then keeps an idle timeout away for ever (`slowloris`), and a limit on the whole upload must allow for the largest.
//! So each window is judged by itself, the first one from the head on: that is the grace period. Apache's mod_reqtimeout asks for 500
//! bytes a second after 20 s (`RequestReadTimeout`), hyper has been asked for the same (hyper issue 3970). Read next: `exchange.rs`.

use std::time::{Duration, Instant};

use crate::clock::later;

/// How fast a body must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRateMin {
    /// Bytes of body in a second, on average over a window. 0: no least rate. Apache's default is 500.
    pub bytes_per_second: u64,
    /// The window. The first one begins with the head, so nobody is judged before it is over. As long as the header timeout: a client
    /// that is fast enough for the one is for the other.
    pub window: Duration,
}

impl Default for BodyRateMin {
    fn default() -> BodyRateMin {
        BodyRateMin { bytes_per_second: 500, window: Duration::from_secs(10) }
    }
}

impl BodyRateMin {
    fn bytes_in_window(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * self.window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// The present window of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    min: BodyRateMin,
    ends: Option<Instant>,
    bytes: u64,
    /// We held the client up: this window is not judged.
    excused: bool,
}

/// What a window's end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is not over.
    NotYet,
    /// The next one has begun.
    Next,
    /// Too little has come.
    TooSlow,
}

impl Window {
    /// The first one; without a least rate, or for a body that is not read, one without an end.
    pub(crate) fn first(min: Option<BodyRateMin>, now: Instant) -> Window {
        let min = min.unwrap_or(BodyRateMin { bytes_per_second: 0, window: Duration::ZERO });
        Window { min, ends: (min.bytes_per_second > 0).then(|| later(now, min.window)), bytes: 0, excused: false }
    }

    /// When it ends.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Bytes of the body have come.
    pub(crate) fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// We do not take what the client would send.
    pub(crate) fn excuse(&mut self) {
        self.excused = true;
    }

    /// Looks at the clock. `is_held`: we still do not take what the client would send.
    pub(crate) fn judge(&mut self, is_held: bool, now: Instant) -> Judgement {
        if self.ends.is_none_or(|ends| now < ends) {
            return Judgement::NotYet;
        }
        if self.bytes < self.min.bytes_in_window() && !self.excused && !is_held {
            return Judgement::TooSlow;
        }
        // From now on, and not from when the last one ended: a late loop must not shorten it.
        *self = Window { min: self.min, ends: Some(later(now, self.min.window)), bytes: 0, excused: is_held };
        Judgement::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: BodyRateMin = BodyRateMin { bytes_per_second: 100, window: Duration::from_secs(2) };

    #[test]
    fn each_window_is_judged_by_itself_at_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::first(Some(MIN), start);
        window.came(150);
        assert_eq!(window.judge(false, at(1)), Judgement::NotYet);
        window.came(50);
        assert_eq!(window.judge(false, at(2)), Judgement::Next);
        assert_eq!(window.ends(), Some(at(4)));
        window.came(199);
        assert_eq!(window.judge(false, at(4)), Judgement::TooSlow, "what came before does not count");
    }

    #[test]
    fn a_window_in_which_we_held_the_client_up_is_not_judged_and_the_one_after_it_is() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::first(Some(MIN), start);
        window.excuse();
        assert_eq!(window.judge(false, at(2)), Judgement::Next);
        assert_eq!(window.judge(true, at(4)), Judgement::Next, "it is held now");
        assert_eq!(window.judge(false, at(6)), Judgement::Next, "it was held when the window began");
        assert_eq!(window.judge(false, at(8)), Judgement::TooSlow);
    }

    #[test]
    fn without_a_rate_or_a_body_nothing_is_judged() {
        let start = Instant::now();
        let day = start + Duration::from_secs(86_400);
        let off = BodyRateMin { bytes_per_second: 0, ..MIN };
        for min in [Some(off), None] {
            let mut window = Window::first(min, start);
            assert_eq!((window.judge(false, day), window.ends()), (Judgement::NotYet, None));
        }
    }
}
