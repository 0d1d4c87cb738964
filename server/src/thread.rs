//! The calling thread: the CPU time that it has used, and the slices that the scheduler gives it.
//!
//! The load generator asks here too. Read next: `run.rs`, which starts the loops.

use std::time::Duration;

pub use crate::sys::ask_for_slices;

/// CPU time that the calling thread has used, in user mode and in the kernel (`CLOCK_THREAD_CPUTIME_ID`, clock_gettime(2)).
#[must_use]
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default() // The clock begins at zero with the thread.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_cpu_time_and_one_that_waits_does_not() {
        let before = cpu_time();
        let mut rounds = 0_u64;
        while cpu_time() < before + Duration::from_millis(2) {
            rounds = std::hint::black_box(rounds + 1);
        }
        assert!(rounds > 0);
        let waited = std::thread::spawn(|| {
            let before = cpu_time();
            std::thread::park_timeout(Duration::from_millis(50));
            cpu_time() - before
        });
        assert!(waited.join().expect("no panic") < Duration::from_millis(50), "the wait is not among it");
    }
}
