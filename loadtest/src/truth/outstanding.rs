//! The requests that have fallen due and have not ended, and the oldest of them.
//!
//! Read next: `silence.rs`.

use std::collections::VecDeque;
use std::time::Instant;

/// Arrivals in the order in which they fell due. The front has always not ended.
#[derive(Debug, Default)]
pub struct Outstanding {
    /// `None`: it has ended, and one before it has not.
    due: VecDeque<Option<Instant>>,
    /// The number of the front.
    first: u64,
    len: u64,
}

impl Outstanding {
    /// The next arrival; returns its number.
    pub fn begin(&mut self, due: Instant) -> u64 {
        self.due.push_back(Some(due));
        self.len += 1;
        self.first + self.due.len() as u64 - 1
    }

    /// The arrival of that number has ended.
    ///
    /// # Panics
    /// If it had ended before: each scheduled request ends exactly once.
    pub fn end(&mut self, number: u64) {
        let ended = usize::try_from(number.wrapping_sub(self.first)).ok().and_then(|at| self.due.get_mut(at)?.take());
        assert!(ended.is_some(), "request {number} ended twice");
        self.len -= 1;
        while self.due.front().is_some_and(Option::is_none) {
            self.due.pop_front();
            self.first += 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When the oldest of them was due.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.due.front().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_oldest_is_known_in_whatever_order_they_end() {
        let now = Instant::now();
        let due = |n: u64| now + Duration::from_millis(n);
        let mut outstanding = Outstanding::default();
        for n in 0..5 {
            assert_eq!(outstanding.begin(due(n)), n);
        }
        for (ended, oldest) in [(1, Some(0)), (0, Some(2)), (4, Some(2)), (2, Some(3)), (3, None)] {
            outstanding.end(ended);
            assert_eq!(outstanding.oldest(), oldest.map(due), "after {ended}");
        }
        assert!(outstanding.is_empty());
        assert_eq!(outstanding.begin(due(9)), 5);
        assert_eq!((outstanding.len(), outstanding.oldest()), (1, Some(due(9))));
    }
}
