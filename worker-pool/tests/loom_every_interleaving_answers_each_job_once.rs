//! Every interleaving (up to two preemptions) of submitting, running, cancelling and shutting down.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p worker-pool --release loom`
#![cfg(loom)]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use loom::sync::mpsc;
use loom::thread;
use worker_pool::loom_model::LoomPool;
use worker_pool::{CancelFlag, Checkpoint, Class, Config, Job, Outcome, Reason, Shutdown, Terms};

/// Counts per outcome. std's atomics: they check the pool and are no part of it.
#[derive(Default)]
struct Counts {
    done: AtomicU32,
    cancelled: AtomicU32,
    dropped: AtomicU32,
    expired: AtomicU32,
    other: AtomicU32,
    ran: AtomicU32,
}

impl Counts {
    fn answered(&self) -> u32 {
        let all = [&self.done, &self.cancelled, &self.dropped, &self.expired, &self.other];
        all.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }
}

struct Count(Arc<Counts>);

impl Job for Count {
    type Output = ();
    fn run(&mut self, _: &Checkpoint<'_>) {
        self.0.ran.fetch_add(1, Ordering::SeqCst);
    }
    fn complete(self, outcome: Outcome<()>) {
        let count = match outcome {
            Outcome::Done(()) => &self.0.done,
            Outcome::Cancelled => &self.0.cancelled,
            Outcome::Dropped => &self.0.dropped,
            Outcome::Expired => &self.0.expired,
            _ => &self.0.other,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

fn config(queue_jobs_max: u32, shutdown: Shutdown) -> Config {
    Config::with(|config| {
        config.threads = 2;
        config.limits.queue_jobs_max = queue_jobs_max;
        config.limits.wait_max = Duration::MAX;
        config.policy.shutdown = shutdown;
    })
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    builder.check(model);
}

fn submit(pool: &LoomPool<Count>, counts: &Arc<Counts>, terms: Terms) -> Result<(), Reason> {
    let job = Count(Arc::clone(counts));
    pool.submitter().try_submit(job, terms, Instant::now()).map_err(|refused| refused.reason)
}

#[test]
fn loom_no_worker_sleeps_next_to_a_job_and_finishing_runs_every_job() {
    check(|| {
        let counts = Arc::new(Counts::default());
        let pool = LoomPool::new(&config(4, Shutdown::Finish));
        let workers: Vec<_> = (0..2).map(|_| thread::spawn(pool.worker())).collect();
        for _ in 0..2 {
            submit(&pool, &counts, Terms::default()).unwrap();
        }
        pool.begin_shutdown();
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(counts.done.load(Ordering::SeqCst), 2);
        assert_eq!(counts.answered(), 2);
        assert_eq!(pool.stats().in_flight().total(), 0);
    });
}

/// Without the message `Wake`, a worker that moved two jobs into the queue would leave the second to a worker that sleeps. The first job waits
/// for the second to begin, so the model would deadlock. The pool is shut down only after both are answered, since that wakes every worker.
#[test]
fn loom_a_job_moved_out_of_the_channel_still_wakes_a_sleeping_worker() {
    struct Meet {
        begun: Option<mpsc::Sender<()>>,
        other: Option<mpsc::Receiver<()>>,
        answered: mpsc::Sender<()>,
    }
    impl Job for Meet {
        type Output = ();
        fn run(&mut self, _: &Checkpoint<'_>) {
            if let Some(begun) = self.begun.take() {
                begun.send(()).unwrap();
            }
            if let Some(other) = self.other.take() {
                other.recv().unwrap();
            }
        }
        fn complete(self, outcome: Outcome<()>) {
            assert_eq!(outcome, Outcome::Done(()));
            self.answered.send(()).unwrap();
        }
    }
    check(|| {
        let pool = LoomPool::new(&config(4, Shutdown::Finish));
        let workers: Vec<_> = (0..2).map(|_| thread::spawn(pool.worker())).collect();
        let (begun, other) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let submitter = pool.submitter();
        let now = Instant::now();
        let first = Meet { begun: None, other: Some(other), answered: answered.clone() };
        let second = Meet { begun: Some(begun), other: None, answered };
        submitter.try_submit(first, Terms::default(), now).unwrap();
        submitter.try_submit(second, Terms::default(), now).unwrap();
        for _ in 0..2 {
            answers.recv().unwrap();
        }
        pool.begin_shutdown();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn loom_a_submit_that_races_with_shutdown_is_either_answered_or_rejected() {
    for shutdown in [Shutdown::Finish, Shutdown::Drop] {
        check(move || {
            let counts = Arc::new(Counts::default());
            let pool = LoomPool::new(&config(4, shutdown));
            let worker = thread::spawn(pool.worker());
            let submitter = pool.submitter();
            let of_thread = Arc::clone(&counts);
            let loop_thread = thread::spawn(move || {
                let job = Count(of_thread);
                submitter.try_submit(job, Terms::default(), Instant::now()).is_ok()
            });
            pool.begin_shutdown();
            worker.join().unwrap();
            pool.drop_waiting();
            let stats = pool.stats();
            // The last receiver is dropped here, with the messages in the channel. The loop may send after that.
            drop(pool);
            let admitted = loop_thread.join().unwrap();
            assert_eq!(stats.in_flight().total(), 0);
            assert_eq!(counts.answered(), u32::from(admitted));
        });
    }
}

#[test]
fn loom_a_cancelled_job_is_answered_once_whether_it_ran_or_not() {
    check(|| {
        let counts = Arc::new(Counts::default());
        let pool = LoomPool::new(&config(4, Shutdown::Finish));
        let worker = thread::spawn(pool.worker());
        let cancel = CancelFlag::new();
        let terms = Terms { cancel: cancel.clone(), ..Terms::default() };
        submit(&pool, &counts, terms).unwrap();
        cancel.cancel();
        pool.begin_shutdown();
        worker.join().unwrap();
        let ran = counts.ran.load(Ordering::SeqCst);
        assert_eq!(counts.done.load(Ordering::SeqCst), ran);
        assert_eq!(counts.cancelled.load(Ordering::SeqCst), 1 - ran);
        assert_eq!(counts.answered(), 1);
    });
}

#[test]
fn loom_two_loops_cannot_take_the_same_permit() {
    check(|| {
        let counts = Arc::new(Counts::default());
        // Two threads (not started) and a queue of one are three permits. One is left for two loops.
        let pool = LoomPool::new(&config(1, Shutdown::Drop));
        for _ in 0..2 {
            submit(&pool, &counts, Terms::default()).unwrap();
        }
        let submitter = pool.submitter();
        let of_thread = Arc::clone(&counts);
        let other_loop = thread::spawn(move || submitter.try_submit(Count(of_thread), Terms::default(), Instant::now()).is_ok());
        let mine = submit(&pool, &counts, Terms::default());
        let theirs = other_loop.join().unwrap();
        assert!(mine.is_ok() != theirs, "one of two gets the last permit: {mine:?}, {theirs}");
        pool.begin_shutdown();
        assert_eq!(counts.dropped.load(Ordering::SeqCst), 3);
        assert_eq!(pool.stats().in_flight().total(), 0);
    });
}

#[test]
fn loom_a_slow_job_that_ends_lets_the_next_slow_one_run() {
    check(|| {
        let counts = Arc::new(Counts::default());
        let pool = LoomPool::new(&config(4, Shutdown::Finish));
        let workers: Vec<_> = (0..2).map(|_| thread::spawn(pool.worker())).collect();
        for _ in 0..2 {
            submit(&pool, &counts, Terms { class: Class::Slow, ..Terms::default() }).unwrap();
        }
        pool.begin_shutdown();
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(counts.done.load(Ordering::SeqCst), 2);
        assert_eq!(pool.stats().in_flight().total(), 0);
    });
}

/// Terms of a job that has expired when anything looks at it, and the time at which admission is to take it.
fn expired_terms() -> (Terms, Instant) {
    let deadline = Instant::now();
    (Terms { deadline: Some(deadline), ..Terms::default() }, deadline - Duration::from_secs(1))
}

/// Sends its outcome to the model's main thread.
struct Report(mpsc::Sender<Outcome<()>>);

impl Job for Report {
    type Output = ();
    fn run(&mut self, _: &Checkpoint<'_>) {}
    fn complete(self, outcome: Outcome<()>) {
        self.0.send(outcome).unwrap();
    }
}

/// No worker runs in this model: if the watcher of the deadlines misses the job, the model deadlocks.
#[test]
fn loom_an_expired_job_is_answered_although_no_worker_looks() {
    check(|| {
        let pool = LoomPool::new(&config(4, Shutdown::Drop));
        let watcher = thread::spawn(pool.deadline_watcher());
        let (report, reports) = mpsc::channel();
        let submitter = pool.submitter();
        for _ in 0..2 {
            let (terms, now) = expired_terms();
            submitter.try_submit(Report(report.clone()), terms, now).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(reports.recv().unwrap(), Outcome::Expired);
        }
        pool.begin_shutdown();
        watcher.join().unwrap();
        assert_eq!(pool.stats().in_flight().total(), 0);
    });
}

#[test]
fn loom_an_expired_job_is_answered_once_whether_a_worker_or_the_watcher_finds_it() {
    check(|| {
        let counts = Arc::new(Counts::default());
        let pool = LoomPool::new(&config(4, Shutdown::Finish));
        let worker = thread::spawn(pool.worker());
        let watcher = thread::spawn(pool.deadline_watcher());
        let (terms, now) = expired_terms();
        pool.submitter().try_submit(Count(Arc::clone(&counts)), terms, now).unwrap();
        pool.begin_shutdown();
        worker.join().unwrap();
        watcher.join().unwrap();
        assert_eq!((counts.expired.load(Ordering::SeqCst), counts.answered()), (1, 1));
        assert_eq!(pool.stats().in_flight().total(), 0);
    });
}

/// The watcher empties the channel too. The worker that a send woke then finds nothing there; the job is in the ordered queue.
#[test]
fn loom_a_look_for_expired_jobs_leaves_no_worker_asleep_next_to_a_job() {
    check(|| {
        let pool = LoomPool::new(&config(4, Shutdown::Finish));
        let worker = thread::spawn(pool.worker());
        let watcher = thread::spawn(pool.deadline_watcher());
        let (report, reports) = mpsc::channel();
        pool.submitter().try_submit(Report(report), Terms::default(), Instant::now()).unwrap();
        assert_eq!(reports.recv().unwrap(), Outcome::Done(()));
        pool.begin_shutdown();
        worker.join().unwrap();
        watcher.join().unwrap();
    });
}
