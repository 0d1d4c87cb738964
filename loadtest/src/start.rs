//! All threads begin at one instant, after the last of them has its connections.
//!
//! Read next: `client.rs`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How far ahead the start is set: threads look every millisecond, so all of them know it before it comes.
const LEAD: Duration = Duration::from_millis(5);

/// A gate that opens at one instant for all.
#[derive(Debug)]
pub struct StartGate {
    missing: AtomicU32,
    at: OnceLock<Instant>,
}

impl StartGate {
    /// A gate for so many threads.
    #[must_use]
    pub fn new(threads: u32) -> StartGate {
        StartGate { missing: AtomicU32::new(threads), at: OnceLock::new() }
    }

    /// One thread is ready. The last one sets the time.
    pub fn arrive(&self, now: Instant) {
        // AcqRel: the last thread sees what other threads did before; nothing depends on it but the count itself.
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = self.at.set(now + LEAD); // Only one thread is the last.
        }
    }

    /// When the schedules begin, once that is known.
    #[must_use]
    pub fn open_at(&self) -> Option<Instant> {
        self.at.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_for_all_when_the_last_has_arrived() {
        let (gate, now) = (StartGate::new(3), Instant::now());
        gate.arrive(now);
        gate.arrive(now + LEAD);
        assert_eq!(gate.open_at(), None);
        gate.arrive(now);
        assert_eq!(gate.open_at(), Some(now + LEAD));
    }
}
