//! Many seeds, on several threads, until one fails.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::run::{Options, Violation, run};

/// What a search has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The failing run with the lowest seed among those that were run.
    pub violation: Option<Violation>,
    /// Seeds that were run.
    pub seeds: u64,
    /// Turns of the loop in all of them.
    pub turns: u64,
    /// Virtual time of all of them, in nanoseconds.
    pub nanos: u64,
    /// Bytes that the loop read and wrote.
    pub bytes: u64,
}

/// Seeds that a thread takes at a time.
const BATCH: u64 = 64;

/// Runs the seeds of a range on so many threads. Stops soon after the first violation. `progress` is told now and then how many are
/// done.
pub fn search(seeds: Range<u64>, threads: usize, options: Options, progress: impl Fn(u64) + Sync) -> Found {
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        let mut found = Found::default();
        while !stop.load(Ordering::Relaxed) {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            if from >= seeds.end {
                break;
            }
            let to = seeds.end.min(from + BATCH);
            for seed in from..to {
                let outcome = run(seed, options);
                found.seeds += 1;
                found.turns += outcome.turns;
                found.nanos += outcome.nanos;
                found.bytes += outcome.bytes;
                if outcome.violation.is_some() {
                    found.violation = outcome.violation;
                    stop.store(true, Ordering::Relaxed);
                    return found;
                }
            }
            progress(done.fetch_add(to - from, Ordering::Relaxed) + to - from);
        }
        found
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for thread in threads {
            // A panic here is the simulator's own: the loop's are caught.
            let found = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.seeds += found.seeds;
            all.turns += found.turns;
            all.nanos += found.nanos;
            all.bytes += found.bytes;
            let earlier = |a: &Violation, b: &Violation| a.seed < b.seed;
            match (&all.violation, found.violation) {
                (Some(a), Some(b)) if earlier(a, &b) => {}
                (_, Some(b)) => all.violation = Some(b),
                (_, None) => {}
            }
        }
        all
    })
}
