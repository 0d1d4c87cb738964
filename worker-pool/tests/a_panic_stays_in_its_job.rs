//! A poison job costs one answer and nothing else: no thread, no permit, no other job.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

mod common;

use std::time::Duration;

use common::{Bench, config, gate};
use worker_pool::{Class, Config, Outcome, OutcomeKind, Panics, Policy, Terms};

const THREADS: u32 = 4;

fn bench(panics: Panics) -> Bench {
    Bench::new(Config { threads: THREADS, policy: Policy { panics, ..Policy::default() }, ..config() })
}

fn poison(bench: &Bench, id: u32) -> common::TestJob {
    bench.job(id, Box::new(|_| panic!("poison, on purpose")))
}

#[test]
fn as_many_poison_jobs_as_threads_leave_every_thread_and_every_permit() {
    let bench = bench(Panics::Contain);
    for round in 0..3 {
        for id in 0..THREADS {
            bench.admit(poison(&bench, round * THREADS + id), Terms::default());
        }
        let endings = bench.next_endings(THREADS as usize);
        assert!(endings.iter().all(|(_, outcome)| *outcome == Outcome::Panicked));
    }
    let stats = bench.pool.stats();
    assert_eq!(stats.threads_alive(), THREADS);
    assert_eq!(stats.outcomes(OutcomeKind::Panicked), u64::from(3 * THREADS));
    assert_eq!(stats.in_flight().total(), 0);
    // All threads are there to be held at the same time.
    let gates = bench.hold_threads(THREADS);
    gates.iter().for_each(common::Gate::open);
    bench.admit(bench.plain(100), Terms::default());
    assert_eq!(bench.next_endings(1), [(100, Outcome::Done(100))]);
}

#[test]
fn a_slow_job_that_panics_gives_its_share_back() {
    let bench = bench(Panics::Contain);
    for id in 0..20 {
        let terms = Terms { class: Class::Slow, ..Terms::default() };
        bench.admit(poison(&bench, id), terms);
        assert_eq!(bench.next_endings(1), [(id, Outcome::Panicked)]);
    }
    let terms = Terms { class: Class::Slow, ..Terms::default() };
    bench.admit(bench.plain(20), terms);
    assert_eq!(bench.next_endings(1), [(20, Outcome::Done(20))]);
}

#[test]
fn a_panic_in_complete_is_contained_and_counted() {
    let bench = bench(Panics::Contain);
    for id in 0..2 * THREADS {
        let mut job = bench.plain(id);
        job.after = Some(Box::new(|| panic!("poison in complete, on purpose")));
        bench.admit(job, Terms::default());
        assert_eq!(bench.next_endings(1), [(id, Outcome::Done(id))]);
    }
    let stats = bench.pool.stats();
    let report = bench.pool.shutdown(common::PATIENCE);
    assert!(report.is_clean());
    assert_eq!(stats.complete_panics(), u64::from(2 * THREADS));
}

/// What a panic carries can panic in turn when it is dropped, after the first was caught.
#[test]
fn a_payload_that_panics_when_dropped_does_not_get_past() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("a bomb in the payload, on purpose");
            }
        }
    }
    let bench = bench(Panics::Contain);
    for id in 0..THREADS {
        bench.admit(bench.job(id, Box::new(|_| std::panic::panic_any(Bomb))), Terms::default());
    }
    let endings = bench.next_endings(THREADS as usize);
    assert!(endings.iter().all(|(_, outcome)| *outcome == Outcome::Panicked));
    assert_eq!(bench.pool.stats().threads_alive(), THREADS);
}

#[test]
fn worker_panic_the_mistake_loses_threads_answers_and_permits() {
    let bench = bench(Panics::EndThread);
    let stats = bench.pool.stats();
    // One thread is kept, so that the pool can still be seen to work at all.
    let (held, action) = gate();
    bench.admit(bench.job(common::HOLDER, action), Terms::default());
    held.wait_entered();
    for id in 0..THREADS - 1 {
        bench.admit(poison(&bench, id), Terms::default());
    }
    held.open();
    bench.admit(bench.plain(50), Terms::default());
    assert_eq!(bench.next_endings(1), [(50, Outcome::Done(50))], "the poisoned ones are never answered");
    // Waiting for threads to die: there is no event for it, which is a part of the mistake.
    while stats.threads_alive() > 1 {
        std::thread::yield_now();
    }
    assert_eq!(stats.in_flight().total(), THREADS - 1, "their permits are lost");
    assert_eq!(stats.outcomes(OutcomeKind::Panicked), 0);
    let report = bench.pool.shutdown(Duration::ZERO);
    assert_eq!(report.jobs_dropped, 0);
}
