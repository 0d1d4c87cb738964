//! When the next waiting job expires, and the thread that sleeps until then.
//!
//! Without that thread a job whose class is blocked, or any job while every worker is busy, would get its response only when a worker
//! next looks for work. The thread does not wake up once per job: it sleeps until the earliest deadline that was announced, and a job with
//! a later deadline costs its submitter one atomic operation. When the thread looks, most jobs have run already, and it then sleeps until
//! the earliest deadline of the jobs that still wait. The reactor's timers are armed lazily in the same way.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering, Parker};

/// The time of the next look for expired jobs. Submitters move it earlier; one thread sleeps until then.
#[derive(Debug)]
pub(crate) struct DeadlineAlarm {
    epoch: Instant,
    /// In nanoseconds after `epoch`. Not later than the deadline of any waiting job, except between `disarm` and the end of the look.
    look_at_ns: AtomicU64,
    parker: Parker,
}

const NEVER: u64 = u64::MAX;

impl DeadlineAlarm {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), look_at_ns: AtomicU64::new(NEVER), parker: Parker::default() }
    }

    /// A job with this deadline waits: look no later than then. Called after the job can be seen by the thread that looks.
    ///
    /// Never blocks. Wakes the sleeping thread only when its next look was to be later.
    pub(crate) fn arm(&self, deadline: Instant) {
        // 584 years after the start is the same as never.
        let ns = u64::try_from(deadline.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(NEVER);
        self.lower_to(ns);
    }

    /// Makes the thread look at once, whatever the time: the pool's phase has changed.
    pub(crate) fn look_now(&self) {
        self.lower_to(0);
    }

    fn lower_to(&self, ns: u64) {
        // A read-modify-write even when it changes nothing, ordered with the one in `disarm`: either the look after `disarm` sees the
        // job, or this sees that the alarm was disarmed. With a load in its place a job could be missed by both (loom test:
        // `loom_a_job_that_arrives_during_a_look_arms_the_alarm`).
        if ns < self.look_at_ns.fetch_min(ns, Ordering::AcqRel) {
            self.parker.unpark();
        }
    }

    /// Forgets every deadline. The caller looks at all jobs next, and arms the alarm for those that still wait.
    pub(crate) fn disarm(&self) {
        self.look_at_ns.swap(NEVER, Ordering::AcqRel);
    }

    /// The calling thread is the one to wake. It calls `disarm` next: what armed the alarm before that is seen by that look.
    pub(crate) fn attach_this_thread(&self) {
        self.parker.attach_this_thread();
    }

    /// Blocks until the time of the next look.
    pub(crate) fn sleep(&self) {
        loop {
            let look_at_ns = self.look_at_ns.load(Ordering::Acquire);
            if look_at_ns == NEVER {
                self.parker.park();
                continue;
            }
            let left = (self.epoch + Duration::from_nanos(look_at_ns)).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Returns early when the alarm was set to an earlier time, and sometimes for no reason (park_timeout in std).
            self.parker.park_timeout(left);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn look_at(alarm: &DeadlineAlarm) -> Option<Duration> {
        let ns = alarm.look_at_ns.load(Ordering::Relaxed);
        (ns != NEVER).then(|| Duration::from_nanos(ns))
    }

    #[test]
    fn the_alarm_is_set_for_the_earliest_deadline_that_it_has_heard_of() {
        let alarm = DeadlineAlarm::new();
        let after = |s| alarm.epoch + Duration::from_secs(s);
        assert_eq!(look_at(&alarm), None);
        for (deadline_s, look_at_s) in [(20, 20), (30, 20), (10, 10), (10, 10)] {
            alarm.arm(after(deadline_s));
            assert_eq!(look_at(&alarm), Some(Duration::from_secs(look_at_s)));
        }
        alarm.disarm();
        assert_eq!(look_at(&alarm), None);
        alarm.arm(after(30));
        alarm.look_now();
        assert_eq!(look_at(&alarm), Some(Duration::ZERO));
    }

    #[test]
    fn a_deadline_before_the_start_is_due_and_one_in_a_thousand_years_never_comes() {
        let alarm = DeadlineAlarm::new();
        alarm.arm(alarm.epoch + Duration::from_secs(1_000 * 365 * 24 * 3600));
        assert_eq!(look_at(&alarm), None);
        alarm.arm(alarm.epoch - Duration::from_secs(1));
        assert_eq!(look_at(&alarm), Some(Duration::ZERO));
        alarm.sleep(); // Returns at once.
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicBool;
    use loom::sync::Arc;

    /// The channel of jobs in its weakest form: a flag without a lock. If both sides miss each other, the model deadlocks.
    #[test]
    fn loom_a_job_that_arrives_during_a_look_arms_the_alarm() {
        loom::model(|| {
            let alarm = Arc::new(DeadlineAlarm::new());
            let job = Arc::new(AtomicBool::new(false));
            // Armed for another job, with the same deadline, which has run meanwhile.
            alarm.arm(alarm.epoch);
            let (of_submitter, sent) = (Arc::clone(&alarm), Arc::clone(&job));
            let submitter = loom::thread::spawn(move || {
                sent.store(true, Ordering::Release);
                of_submitter.arm(of_submitter.epoch);
            });
            alarm.disarm();
            if !job.load(Ordering::Acquire) {
                alarm.sleep();
            }
            submitter.join().expect("no panic");
        });
    }
}
