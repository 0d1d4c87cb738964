//! Which callback runs now. The loop makes two stores per call. Other threads read them, and do not mix up two calls (test:
//! `loom_a_look_never_mixes_two_calls`).
//!
//! Model-checked together with the mailbox: `RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence lock around one number that describes the call. It has one writer.
#[derive(Debug)]
pub(super) struct RunningCall {
    /// Odd while a call runs: twice the number of earlier calls, plus one.
    sequence: AtomicU64,
    /// The number that describes the call. Valid while `sequence` is odd.
    call: AtomicU64,
}

impl RunningCall {
    pub(super) fn new() -> RunningCall {
        RunningCall { sequence: AtomicU64::new(0), call: AtomicU64::new(0) }
    }

    /// Records that a call begins. It uses no clock and no locked instruction, because it runs for each message.
    #[inline]
    pub(super) fn enter(&self, call: u64) {
        // Release, so that a thread that reads this call also sees that the one before has ended. On x86 a plain store is enough for that.
        self.call.store(call, Ordering::Release);
        // The result is odd from any value: after a panic the `leave` of the call before may be missing.
        self.sequence.store((self.sequence.load(Ordering::Relaxed) + 1) | 1, Ordering::Release);
    }

    /// Records that the call has ended.
    #[inline]
    pub(super) fn leave(&self) {
        self.sequence.store((self.sequence.load(Ordering::Relaxed) | 1) + 1, Ordering::Release);
    }

    /// The number of the call that runs, counted from 1, and the argument of its `enter`.
    pub(super) fn look(&self) -> Option<(u64, u64)> {
        // If calls change during 8 attempts, none of them is slow, and the result is `None`.
        for _ in 0..8 {
            let sequence = self.sequence.load(Ordering::Acquire);
            if sequence & 1 == 0 {
                return None;
            }
            let call = self.call.load(Ordering::Acquire);
            // The sequence is odd and did not change, so `call` belongs to it.
            if self.sequence.load(Ordering::Relaxed) == sequence {
                return Some((sequence / 2 + 1, call));
            }
        }
        None
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use loom::sync::Arc;

    use super::RunningCall;

    #[test]
    fn loom_a_look_never_mixes_two_calls() {
        static SEEN: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
        loom::model(|| {
            let running = Arc::new(RunningCall::new());
            let looked_at = running.clone();
            let looking = loom::thread::spawn(move || looked_at.look());
            for call in 1..3 {
                running.enter(call);
                running.leave();
            }
            let seen = looking.join().expect("a look does not panic");
            if let Some((number, call)) = seen {
                assert_eq!(number, call);
            }
            SEEN[seen.map_or(0, |(number, _)| number as usize)].fetch_add(1, Ordering::Relaxed);
        });
        assert!(SEEN.iter().all(|seen| seen.load(Ordering::Relaxed) > 0), "the model reaches only {SEEN:?}");
    }
}
