//! Detects a stuck loop from another thread: a loop that cannot run cannot report itself.
//!
//! The loops count their callbacks and note which one runs (two stores, no clock). This thread looks every [`LOOK_EVERY`]. A callback that is the
//! same at two looks has run for at least the time between them. A callback that has run for [`STALL`] is counted and logged. Read next:
//! `monitor.rs`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use reactor::stats::Running;

use crate::monitor::{LoopView, Monitor};
use crate::process;

/// How often the watchdog looks. A stall is detected about this much late at most. A look costs a few loads from memory for each loop and a wake-up
/// of this thread: 28 µs of CPU time, measured on a busy two-core machine, 0.3 % of a core.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A callback that runs this long is a stall: an alert is due. All other connections of the loop have waited meanwhile.
pub const STALL: Duration = Duration::from_millis(50);

/// What the watchdog knows of one loop, readable from any thread.
#[derive(Debug, Default)]
pub struct LoopWatch {
    stalls: AtomicU64,
    held_nanos: AtomicU64,
}

impl LoopWatch {
    /// Callbacks that ran for [`STALL`] or longer.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Least time that the current callback has run. Zero if each look finds a new one.
    #[must_use]
    pub fn held(&self) -> Duration {
        Duration::from_nanos(self.held_nanos.load(Ordering::Relaxed))
    }
}

/// A running watchdog. Dropping it stops the thread.
#[derive(Debug)]
pub struct Watchdog {
    _stop: SyncSender<()>,
}

impl Watchdog {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(monitor: Arc<Monitor>) -> io::Result<Watchdog> {
        let (stop, stopped) = sync_channel(0);
        crate::thread::start("watchdog", move || {
            let mut trackers: Vec<Tracker> = monitor.loops.iter().map(|_| Tracker::default()).collect();
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                for (view, tracker) in monitor.loops.iter().zip(&mut trackers) {
                    look(view, tracker, now);
                }
            }
        })?;
        Ok(Watchdog { _stop: stop })
    }
}

fn look(view: &LoopView, tracker: &mut Tracker, now: Instant) {
    let seen = tracker.look(view.stats.running(now), now);
    view.watch.held_nanos.store(tracker.held(now).as_nanos() as u64, Ordering::Relaxed);
    match seen {
        Seen::Nothing => {}
        Seen::Stall(call) => {
            view.watch.stalls.fetch_add(1, Ordering::Relaxed);
            let doing = view.tid.map(process::doing).unwrap_or_default();
            log::warn!(
                "a callback holds its loop, and all other connections wait loop={} callback={} slot={} age={}ms {doing}",
                view.name,
                call.callback.label(),
                slot(call),
                tracker.held(now).as_millis(),
            );
        }
        Seen::End(call, held) => {
            log::warn!(
                "the loop runs again loop={} callback={} slot={} held={}ms",
                view.name,
                call.callback.label(),
                slot(call),
                held.as_millis(),
            );
        }
    }
}

fn slot(call: Running) -> String {
    if call.slot == reactor::Stats::NO_SLOT { "-".to_owned() } else { call.slot.to_string() }
}

/// The result of one look.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// No stall, or one that was reported before.
    Nothing,
    /// A call has just been found to last longer than [`STALL`].
    Stall(Running),
    /// A stalling call has ended. It lasted at least this long.
    End(Running, Duration),
}

/// Compares successive looks at one loop.
#[derive(Debug, Default)]
struct Tracker {
    call: Option<Call>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    running: Running,
    /// When it was first seen.
    since: Instant,
    /// When it was last seen.
    last: Instant,
    is_stall: bool,
}

impl Tracker {
    fn look(&mut self, running: Option<Running>, now: Instant) -> Seen {
        match (&mut self.call, running) {
            (Some(call), Some(running)) if call.running.sequence == running.sequence => {
                call.last = now;
                if call.is_stall || now.saturating_duration_since(call.since) < STALL {
                    return Seen::Nothing;
                }
                call.is_stall = true;
                Seen::Stall(call.running)
            }
            (before, running) => {
                let before = before.take();
                self.call = running.map(|running| Call { running, since: now, last: now, is_stall: false });
                match before {
                    Some(call) if call.is_stall => Seen::End(call.running, call.last.saturating_duration_since(call.since)),
                    _ => Seen::Nothing,
                }
            }
        }
    }

    fn held(&self, now: Instant) -> Duration {
        self.call.map_or(Duration::ZERO, |call| now.saturating_duration_since(call.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::Callback;

    fn call(sequence: u64) -> Option<Running> {
        Some(Running { callback: Callback::Input, slot: 3, sequence, turn_age: Duration::ZERO })
    }

    #[test]
    fn a_call_seen_for_fifty_milliseconds_is_one_stall_and_its_end_is_told() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [0, 10, 20, 30, 40, 49] {
            assert_eq!(tracker.look(call(1), at(ms)), Seen::Nothing);
        }
        assert_eq!(tracker.look(call(1), at(50)), Seen::Stall(call(1).expect("it runs")));
        assert_eq!(tracker.held(at(50)), STALL);
        assert_eq!(tracker.look(call(1), at(90)), Seen::Nothing, "it is known");
        assert_eq!(tracker.look(None, at(100)), Seen::End(call(1).expect("it ran"), Duration::from_millis(90)));
        assert_eq!(tracker.held(at(100)), Duration::ZERO);
    }

    #[test]
    fn many_short_calls_are_no_stall_however_long_the_loop_is_busy() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        for n in 0..1000 {
            // Each is seen twice, 40 ms apart.
            for ms in [40 * n, 40 * n + 39] {
                assert_eq!(tracker.look(call(n), start + Duration::from_millis(ms)), Seen::Nothing);
            }
        }
    }

    #[test]
    fn a_stall_right_after_a_stall_is_another_one() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut stalls = 0;
        for (sequence, ms) in [(1, 0), (1, 60), (2, 70), (2, 130), (3, 140)] {
            stalls += u32::from(matches!(tracker.look(call(sequence), at(ms)), Seen::Stall(_)));
        }
        assert_eq!(stalls, 2);
    }
}
