//! A panic in a job's code costs the output of that job: no thread, no permit, no other job.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

mod common;

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use common::{TestPool, config_with, gate};
use worker_pool::{CancelFlag, Checkpoint, Class, Job, Outcome, OutcomeKind, Panics, Pool, Shutdown, Terms};

const THREADS: u32 = 4;

fn bench(panics: Panics) -> TestPool {
    TestPool::new(config_with(|config| {
        config.threads = THREADS;
        config.policy.panics = panics;
    }))
}

fn poison(bench: &TestPool, id: u32) -> common::TestJob {
    bench.job(id, Box::new(|_| panic!("poison, on purpose")))
}

#[test]
fn a_panicking_job_for_each_thread_costs_no_thread_and_no_permit() {
    let bench = bench(Panics::Catch);
    for round in 0..3 {
        for id in 0..THREADS {
            bench.admit(poison(&bench, round * THREADS + id), Terms::default());
        }
        let answers = bench.next_answers(THREADS as usize);
        assert!(answers.iter().all(|(_, outcome)| *outcome == Outcome::Panicked));
    }
    let stats = bench.pool.stats();
    assert_eq!(stats.threads_alive(), THREADS);
    assert_eq!(stats.outcomes(OutcomeKind::Panicked), u64::from(3 * THREADS));
    assert_eq!(stats.in_flight().total(), 0);
    // Every thread can be held at the same time.
    let gates = bench.hold_threads(THREADS);
    gates.iter().for_each(common::Gate::open);
    bench.admit(bench.plain(100), Terms::default());
    assert_eq!(bench.next_answers(1), [(100, Outcome::Done(100))]);
}

#[test]
fn a_slow_job_that_panics_gives_its_slot_back() {
    let bench = bench(Panics::Catch);
    for id in 0..20 {
        let terms = Terms { class: Class::Slow, ..Terms::default() };
        bench.admit(poison(&bench, id), terms);
        assert_eq!(bench.next_answers(1), [(id, Outcome::Panicked)]);
    }
    let terms = Terms { class: Class::Slow, ..Terms::default() };
    bench.admit(bench.plain(20), terms);
    assert_eq!(bench.next_answers(1), [(20, Outcome::Done(20))]);
}

#[test]
fn a_panic_in_complete_is_contained_and_counted() {
    let bench = bench(Panics::Catch);
    for id in 0..2 * THREADS {
        let mut job = bench.plain(id);
        job.after = Some(Box::new(|| panic!("poison in complete, on purpose")));
        bench.admit(job, Terms::default());
        assert_eq!(bench.next_answers(1), [(id, Outcome::Done(id))]);
    }
    let stats = bench.pool.stats();
    let report = bench.pool.shutdown(common::HANG_TIMEOUT);
    assert!(report.is_clean());
    assert_eq!(stats.complete_panics(), u64::from(2 * THREADS));
}

/// Panics when it is dropped, unless a panic is under way: then Rust would abort the process.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a panic in Drop, on purpose");
        }
    }
}

/// What a panic carries can panic when it is dropped, after the first panic was caught.
#[test]
fn a_panic_payload_that_panics_when_dropped_costs_no_worker() {
    let bench = bench(Panics::Catch);
    for id in 0..THREADS {
        bench.admit(bench.job(id, Box::new(|_| std::panic::panic_any(Bomb))), Terms::default());
    }
    let answers = bench.next_answers(THREADS as usize);
    assert!(answers.iter().all(|(_, outcome)| *outcome == Outcome::Panicked));
    assert_eq!(bench.pool.stats().threads_alive(), THREADS);
}

/// A job of which everything panics when it is dropped: the job itself, and its output.
struct AllBombs {
    run: Box<dyn FnMut(&Checkpoint<'_>) + Send>,
    answered: Sender<OutcomeKind>,
    _bomb: Bomb,
}

impl Job for AllBombs {
    type Output = Bomb;
    fn run(&mut self, checkpoint: &Checkpoint<'_>) -> Bomb {
        (self.run)(checkpoint);
        Bomb
    }
    fn complete(self, outcome: Outcome<Bomb>) {
        let _ = self.answered.send(outcome.kind());
        // One bomb is enough: two panics at once abort the process.
        if let Outcome::Done(output) = outcome {
            std::mem::forget(output);
        }
    }
}

/// The `Drop` of the output of a job that was stopped runs in the pool, since no client gets that output.
#[test]
fn a_panicking_drop_of_a_stopped_jobs_output_costs_no_worker() {
    let pool = Pool::start(config_with(|config| config.threads = THREADS)).unwrap();
    let (answered, answers) = channel();
    for _ in 0..2 * THREADS {
        let cancel = CancelFlag::new();
        let cancels = cancel.clone();
        let run = move |checkpoint: &Checkpoint<'_>| {
            cancels.cancel();
            assert!(checkpoint.stop_requested());
        };
        let job = AllBombs { run: Box::new(run), answered: answered.clone(), _bomb: Bomb };
        pool.submitter().try_submit(job, Terms { cancel, ..Terms::default() }, Instant::now()).unwrap();
        assert_eq!(answers.recv_timeout(common::HANG_TIMEOUT), Ok(OutcomeKind::Panicked));
    }
    assert_eq!((pool.stats().threads_alive(), pool.stats().in_flight().total()), (THREADS, 0));
}

#[test]
fn a_panicking_drop_of_a_job_costs_no_worker_whatever_its_outcome() {
    let pool = Pool::start(config_with(|config| {
        config.threads = 2;
        config.policy.shutdown = Shutdown::Drop;
    }))
    .unwrap();
    let submitter = pool.submitter();
    let (answered, answers) = channel();
    let submit = |run: Box<dyn FnMut(&Checkpoint<'_>) + Send>, terms, now| {
        let job = AllBombs { run, answered: answered.clone(), _bomb: Bomb };
        assert!(submitter.try_submit(job, terms, now).is_ok());
    };
    let mut gates = Vec::new();
    for _ in 0..2 {
        let (gate, mut action) = gate();
        submit(
            Box::new(move |checkpoint| {
                action(checkpoint);
            }),
            Terms::default(),
            Instant::now(),
        );
        gate.wait_entered();
        gates.push(gate);
    }
    let (past, before) = (Instant::now(), Instant::now() - Duration::from_secs(1));
    let cancel = CancelFlag::new();
    cancel.cancel();
    submit(Box::new(|_| {}), Terms { deadline: Some(past), ..Terms::default() }, before);
    submit(Box::new(|_| {}), Terms { cancel, ..Terms::default() }, before);
    submit(Box::new(|_| panic!("on purpose")), Terms::default(), before);
    gates.iter().for_each(common::Gate::open);
    let mut kinds: Vec<_> = (0..5).map(|_| answers.recv_timeout(common::HANG_TIMEOUT).unwrap()).collect();
    kinds.sort_by_key(|kind| *kind as u8);
    assert_eq!(kinds, [OutcomeKind::Done, OutcomeKind::Done, OutcomeKind::Panicked, OutcomeKind::Expired, OutcomeKind::Cancelled]);
    let stats = pool.stats();
    assert_eq!((stats.threads_alive(), stats.in_flight().total()), (2, 0));
    // Now the thread that shuts the pool down drops a job that waits.
    let (stop, stopped) = channel::<()>();
    let stopped = std::sync::Arc::new(std::sync::Mutex::new(stopped));
    let (entering, entered) = channel();
    for _ in 0..2 {
        let (stopped, entering) = (stopped.clone(), entering.clone());
        let run = move |_: &Checkpoint<'_>| {
            let _ = entering.send(());
            let _ = stopped.lock().unwrap().recv();
        };
        submit(Box::new(run), Terms::default(), Instant::now());
        entered.recv_timeout(common::HANG_TIMEOUT).unwrap();
    }
    submit(Box::new(|_| {}), Terms::default(), Instant::now());
    let report = pool.shutdown(Duration::ZERO);
    assert_eq!((report.jobs_dropped, report.threads_left), (1, 2));
    assert_eq!(answers.recv_timeout(common::HANG_TIMEOUT), Ok(OutcomeKind::Dropped));
    drop(stop);
    for _ in 0..2 {
        assert_eq!(answers.recv_timeout(common::HANG_TIMEOUT), Ok(OutcomeKind::Done));
    }
}

/// std drops the result of a thread, with what its panic carried, in the thread that joins it, or aborts the process.
#[test]
fn a_panic_payload_that_panics_when_dropped_does_not_unwind_the_thread_that_shuts_down() {
    let bench = bench(Panics::EndThread);
    let stats = bench.pool.stats();
    for id in 0..THREADS {
        bench.admit(bench.job(id, Box::new(|_| std::panic::panic_any(Bomb))), Terms::default());
    }
    while stats.threads_alive() > 0 {
        std::thread::yield_now(); // No event says that a thread has ended.
    }
    assert_eq!(bench.pool.shutdown(common::HANG_TIMEOUT).threads_left, 0);
}

#[test]
fn worker_panic_the_mistake_loses_threads_answers_and_permits() {
    let bench = bench(Panics::EndThread);
    let stats = bench.pool.stats();
    // One thread is kept, so that the pool still works.
    let (held, action) = gate();
    bench.admit(bench.job(common::HOLDER, action), Terms::default());
    held.wait_entered();
    for id in 0..THREADS - 1 {
        bench.admit(poison(&bench, id), Terms::default());
    }
    held.open();
    bench.admit(bench.plain(50), Terms::default());
    assert_eq!(bench.next_answers(1), [(50, Outcome::Done(50))], "the jobs that panicked are never answered");
    // No event says that a thread has ended, which is a part of the mistake.
    while stats.threads_alive() > 1 {
        std::thread::yield_now();
    }
    assert_eq!(stats.in_flight().total(), THREADS - 1, "their permits are lost");
    assert_eq!(stats.outcomes(OutcomeKind::Panicked), 0);
    let report = bench.pool.shutdown(Duration::ZERO);
    assert_eq!(report.jobs_dropped, 0);
}
