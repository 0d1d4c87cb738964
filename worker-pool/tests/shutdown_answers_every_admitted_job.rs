//! Shutdown answers every admitted job, with either policy and within its grace time.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

mod common;

use std::time::{Duration, Instant};

use common::{Gate, HOLDER, TestPool, config_with};
use worker_pool::{Class, Outcome, Reason, Shutdown, ShutdownReport, Terms};

fn bench(shutdown: Shutdown) -> TestPool {
    TestPool::new(config_with(|config| config.policy.shutdown = shutdown))
}

/// Fills every thread and every slot of the queue, with jobs of both classes.
fn fill(bench: &TestPool) -> Vec<Gate> {
    let gates = bench.hold_threads(2);
    for id in 0..8 {
        let class = if id % 2 == 0 { Class::Slow } else { Class::Fast };
        bench.admit(bench.plain(id), Terms { class, ..Terms::default() });
    }
    assert!(bench.submit(bench.plain(9), Terms::default()).is_err());
    gates
}

fn outcomes(bench_ended: &std::sync::mpsc::Receiver<(u32, Outcome<u32>)>) -> Vec<(u32, Outcome<u32>)> {
    let mut answers: Vec<_> = bench_ended.try_iter().filter(|(id, _)| *id < HOLDER).collect();
    answers.sort_by_key(|(id, _)| *id);
    answers
}

#[test]
fn finish_runs_a_full_queue_to_its_end() {
    let bench = bench(Shutdown::Finish);
    let gates = fill(&bench);
    let TestPool { pool, submitter, ended, answers } = bench;
    gates.iter().for_each(Gate::open);
    let report = pool.shutdown(common::HANG_TIMEOUT);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(outcomes(&ended), (0..8).map(|id| (id, Outcome::Done(id))).collect::<Vec<_>>());
    let job = common::TestJob { id: 10, action: Box::new(|_| 0), answers, after: None };
    let refused = submitter.try_submit(job, Terms::default(), Instant::now()).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::Stopping, Duration::ZERO));
}

#[test]
fn drop_answers_a_full_queue_without_running_a_job() {
    let bench = bench(Shutdown::Drop);
    let gates = fill(&bench);
    let TestPool { pool, ended, .. } = bench;
    // The two running jobs do not ask their checkpoint: they still run when the time is over.
    let report = pool.shutdown(Duration::ZERO);
    assert_eq!(report, ShutdownReport { jobs_dropped: 8, threads_left: 2 });
    assert_eq!(outcomes(&ended), (0..8).map(|id| (id, Outcome::Dropped)).collect::<Vec<_>>());
    gates.iter().for_each(Gate::open);
    // They end later, and each is answered once.
    let late: Vec<_> = std::iter::from_fn(|| ended.recv_timeout(common::HANG_TIMEOUT).ok()).take(2).collect();
    assert!(late.iter().all(|(id, outcome)| *id >= HOLDER && *outcome == Outcome::Done(0)));
}

#[test]
fn finish_drops_the_waiting_jobs_when_the_grace_time_is_over() {
    let bench = bench(Shutdown::Finish);
    let _gates = fill(&bench);
    let TestPool { pool, ended, .. } = bench;
    let report = pool.shutdown(Duration::ZERO);
    assert_eq!(report, ShutdownReport { jobs_dropped: 8, threads_left: 2 });
    assert_eq!(outcomes(&ended).len(), 8);
}

#[test]
fn an_idle_pool_ends_its_threads_when_it_is_shut_down_or_dropped() {
    let report = bench(Shutdown::Finish).pool.shutdown(Duration::MAX);
    assert!(report.is_clean());
    let bench = bench(Shutdown::Finish);
    let stats = bench.pool.stats();
    drop(bench);
    // The drop does not wait for them.
    let begun = Instant::now();
    while stats.threads_alive() > 0 {
        assert!(begun.elapsed() < common::HANG_TIMEOUT, "the threads of a dropped pool live on");
        std::thread::yield_now();
    }
}

#[test]
fn a_job_submitted_during_shutdown_is_either_rejected_or_answered() {
    for shutdown in [Shutdown::Finish, Shutdown::Drop] {
        let bench = bench(shutdown);
        let TestPool { pool, submitter, answers, ended } = bench;
        let go = std::sync::Arc::new(std::sync::Barrier::new(2));
        let of_thread = std::sync::Arc::clone(&go);
        let loop_thread = std::thread::spawn(move || {
            of_thread.wait();
            let mut admitted = 0;
            loop {
                let action = Box::new(|_: &worker_pool::Checkpoint<'_>| 0);
                let job = common::TestJob { id: 0, action, answers: answers.clone(), after: None };
                match submitter.try_submit(job, Terms::default(), Instant::now()) {
                    Ok(()) => admitted += 1,
                    Err(refused) if refused.reason == Reason::Stopping => return admitted,
                    Err(_) => {}
                }
            }
        });
        go.wait();
        let report = pool.shutdown(common::HANG_TIMEOUT);
        assert_eq!(report.threads_left, 0);
        let admitted = loop_thread.join().unwrap();
        // Every sender is gone, so the iteration ends, after one answer for each admission.
        assert_eq!(ended.iter().count(), admitted);
    }
}
