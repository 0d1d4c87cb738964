//! A job that waits is answered when its deadline passes, and not when a worker next looks for work.
//!
//! Each test holds the workers until the answer has arrived, so an answer that needs a worker never arrives.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

mod common;

use std::time::{Duration, Instant};

use common::{Gate, HOLDER, TestPool, config, config_with, gate};
use worker_pool::{CancelFlag, Class, Outcome, OutcomeKind, Reason, Terms};

/// Expires soon. The tests hold for any value: they wait for the answer, not for a time.
fn soon(class: Class) -> Terms {
    Terms { class, deadline: Some(Instant::now() + Duration::from_millis(20)), ..Terms::default() }
}

/// Admits a job even if its deadline has passed by now: admission is given an earlier time.
fn admit(bench: &TestPool, id: u32, terms: Terms) {
    let before = Instant::now() - Duration::from_secs(1);
    bench.submitter.try_submit(bench.plain(id), terms, before).unwrap();
}

/// Holds as many threads as slow jobs may.
fn block_slow_class(bench: &TestPool) -> Vec<Gate> {
    let gates: Vec<Gate> = (0..bench.pool.resolved_config().slow_threads_max)
        .map(|i| {
            let (gate, action) = gate();
            bench.admit(bench.job(HOLDER + i, action), Terms { class: Class::Slow, ..Terms::default() });
            gate
        })
        .collect();
    gates.iter().for_each(Gate::wait_entered);
    gates
}

#[test]
fn an_expired_job_of_a_blocked_class_is_answered_while_other_workers_sleep() {
    let bench = TestPool::new(config_with(|config| config.threads = 4));
    let gates = block_slow_class(&bench);
    admit(&bench, 1, soon(Class::Slow));
    assert_eq!(bench.next_answers(1), [(1, Outcome::Expired)]);
    assert_eq!(bench.pool.stats().running(Class::Slow), 2, "the class is still blocked");
    gates.iter().for_each(Gate::open);
}

#[test]
fn an_expired_job_is_answered_while_every_worker_is_busy() {
    let bench = TestPool::new(config());
    let gates = bench.hold_threads(2);
    for id in 0..4 {
        admit(&bench, id, soon(if id % 2 == 0 { Class::Fast } else { Class::Slow }));
    }
    let expired: Vec<_> = (0..4).map(|id| (id, Outcome::Expired)).collect();
    assert_eq!(bench.next_answers(4), expired);
    assert_eq!(bench.pool.stats().threads_busy(), 2);
    gates.iter().for_each(Gate::open);
}

#[test]
fn an_expired_job_is_answered_wherever_in_the_queue_it_stands() {
    let bench = TestPool::new(config());
    let gates = bench.hold_threads(2);
    let patient = Terms { deadline: Some(Instant::now() + Duration::from_secs(1_000_000)), ..Terms::default() };
    admit(&bench, 0, Terms::default());
    admit(&bench, 1, patient.clone());
    admit(&bench, 2, soon(Class::Fast));
    admit(&bench, 3, patient);
    assert_eq!(bench.next_answers(1), [(2, Outcome::Expired)]);
    gates.iter().for_each(Gate::open);
    assert_eq!(bench.next_answers(3), [(0, Outcome::Done(0)), (1, Outcome::Done(1)), (3, Outcome::Done(3))]);
}

#[test]
fn a_later_job_with_an_earlier_deadline_is_answered_first() {
    let bench = TestPool::new(config());
    let gates = bench.hold_threads(2);
    let begin = Instant::now();
    // The watcher sleeps until the first of these deadlines when the second is announced.
    for (id, after_ms) in [(0, 60_000), (1, 30)] {
        admit(&bench, id, Terms { deadline: Some(begin + Duration::from_millis(after_ms)), ..Terms::default() });
    }
    assert_eq!(bench.next_answers(1), [(1, Outcome::Expired)]);
    gates.iter().for_each(Gate::open);
    assert_eq!(bench.next_answers(1), [(0, Outcome::Done(0))]);
}

#[test]
fn expired_jobs_give_their_permits_back_while_the_workers_are_busy() {
    let bench = TestPool::new(config_with(|config| {
        config.limits.queue_jobs_max = 2;
        config.limits.wait_max = Duration::MAX;
    }));
    let gates = bench.hold_threads(2);
    for round in 0..3 {
        for id in 0..2 {
            admit(&bench, 2 * round + id, soon(Class::Fast));
        }
        // The queue is full until the first two expire. On a slow machine they have expired.
        if let Err(refused) = bench.submit(bench.plain(99), Terms { deadline: Some(Instant::now()), ..Terms::default() }) {
            assert!([Reason::QueueFull, Reason::WouldExpire].contains(&refused.reason));
        }
        assert_eq!(bench.next_answers(2), [(2 * round, Outcome::Expired), (2 * round + 1, Outcome::Expired)]);
    }
    assert_eq!(bench.pool.stats().in_flight().total(), 2, "those that hold the threads");
    gates.iter().for_each(Gate::open);
}

#[test]
fn a_cancelled_job_that_expires_is_answered_as_cancelled() {
    let bench = TestPool::new(config());
    let gates = bench.hold_threads(2);
    let cancel = CancelFlag::new();
    cancel.cancel();
    admit(&bench, 0, Terms { cancel, ..soon(Class::Fast) });
    assert_eq!(bench.next_answers(1), [(0, Outcome::Cancelled)]);
    gates.iter().for_each(Gate::open);
}

#[test]
fn the_thread_that_watches_deadlines_ends_with_the_pool() {
    let bench = TestPool::new(config());
    // It sleeps until this deadline, which passes long after the test.
    admit(&bench, 0, Terms { deadline: Some(Instant::now() + Duration::from_secs(1_000_000)), ..Terms::default() });
    assert_eq!(bench.next_answers(1), [(0, Outcome::Done(0))]);
    let stats = bench.pool.stats();
    // Without a limit on the time: it returns when every thread has ended.
    assert!(bench.pool.shutdown(Duration::MAX).is_clean());
    assert_eq!(stats.outcomes(OutcomeKind::Done), 1);
}
