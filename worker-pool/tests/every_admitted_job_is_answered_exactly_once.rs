//! An admitted job is answered exactly once, on each path that it can take through the pool.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::{HOLDER, TestPool, config, config_with, gate};
use worker_pool::{CancelFlag, Class, Config, Discipline, Outcome, OutcomeKind, Shutdown, Terms, WhenFull};

/// Counts the answers of each job. Each of these ids must have exactly one.
fn assert_one_each(answers: &[(u32, Outcome<u32>)], ids: impl Iterator<Item = u32>) {
    let mut counts: HashMap<u32, u32> = ids.map(|id| (id, 0)).collect();
    for (id, _) in answers {
        if *id < HOLDER {
            *counts.get_mut(id).unwrap_or_else(|| panic!("job {id} was answered but never admitted")) += 1;
        }
    }
    counts.retain(|_, count| *count != 1);
    assert!(counts.is_empty(), "jobs and how often they were answered: {counts:?}");
}

#[test]
fn a_job_is_answered_once_as_done_panicked_expired_cancelled_or_stopped_at_a_checkpoint() {
    let bench = TestPool::new(config());
    let gates = bench.hold_threads(2);
    bench.admit(bench.plain(0), Terms::default());
    bench.admit(bench.job(1, Box::new(|_| panic!("on purpose"))), Terms::default());
    let deadline = Some(Instant::now() + Duration::from_nanos(1));
    // Admission would reject it, since it has expired. It is given an earlier time.
    let before = Instant::now() - Duration::from_secs(1);
    let job = bench.plain(2);
    bench.submitter.try_submit(job, Terms { deadline, ..Terms::default() }, before).unwrap();
    let cancel = CancelFlag::new();
    bench.admit(bench.plain(3), Terms { cancel: cancel.clone(), ..Terms::default() });
    cancel.cancel();
    let flag = CancelFlag::new();
    let of_job = flag.clone();
    let stops = move |checkpoint: &worker_pool::Checkpoint<'_>| {
        assert!(!checkpoint.stop_requested());
        of_job.cancel();
        u32::from(checkpoint.stop_requested())
    };
    bench.admit(bench.job(4, Box::new(stops)), Terms { cancel: flag, ..Terms::default() });
    gates.iter().for_each(common::Gate::open);
    let answers = bench.next_answers(5);
    let expected = [(0, Outcome::Done(0)), (1, Outcome::Panicked), (2, Outcome::Expired), (3, Outcome::Cancelled), (4, Outcome::Cancelled)];
    assert_eq!(answers, expected);
    assert!(bench.rest().iter().all(|(id, _)| *id >= HOLDER), "no second answer comes later");
}

#[test]
fn a_deadline_that_passes_while_the_job_runs_ends_it_at_its_checkpoint() {
    let bench = TestPool::new(config());
    let deadline = Instant::now() + Duration::from_millis(20);
    let spins = |checkpoint: &worker_pool::Checkpoint<'_>| {
        while !checkpoint.stop_requested() {
            std::hint::spin_loop();
        }
        7
    };
    // On a machine so slow that it expires before it runs, the outcome is the same.
    bench.admit(bench.job(0, Box::new(spins)), Terms { deadline: Some(deadline), ..Terms::default() });
    assert_eq!(bench.next_answers(1), [(0, Outcome::Expired)]);
}

#[test]
fn waiting_and_running_jobs_are_answered_once_when_shutdown_drops_them() {
    let bench = TestPool::new(config_with(|config| config.policy.shutdown = Shutdown::Drop));
    let (entering, entered) = std::sync::mpsc::channel();
    for id in 0..2 {
        let entering = entering.clone();
        let runs = move |checkpoint: &worker_pool::Checkpoint<'_>| {
            entering.send(()).unwrap();
            while !checkpoint.stop_requested() {
                std::thread::yield_now();
            }
            0
        };
        bench.admit(bench.job(id, Box::new(runs)), Terms::default());
    }
    (0..2).for_each(|_| entered.recv_timeout(common::HANG_TIMEOUT).unwrap());
    for id in 2..10 {
        bench.admit(bench.plain(id), Terms::default());
    }
    let TestPool { pool, ended, .. } = bench;
    let report = pool.shutdown(common::HANG_TIMEOUT);
    assert_eq!((report.jobs_dropped, report.threads_left), (10, 0));
    let answers: Vec<_> = ended.try_iter().collect();
    assert_one_each(&answers, 0..10);
    assert!(answers.iter().all(|(_, outcome)| *outcome == Outcome::Dropped));
}

#[test]
fn jobs_that_codel_or_a_newer_job_sheds_are_answered_once() {
    let long_ago = Instant::now() - Duration::from_secs(5);
    let bench = TestPool::new(config_with(|config| config.policy.discipline = Discipline::CODEL));
    let gates = bench.hold_threads(2);
    // All have waited for seconds. The clock decides which of them CoDel sheds (its law is tested in virtual time). Each is answered once in
    // any case.
    for id in 0..8 {
        let job = bench.plain(id);
        bench.submitter.try_submit(job, Terms::default(), long_ago).unwrap();
    }
    gates.iter().for_each(common::Gate::open);
    assert_one_each(&bench.next_answers(8), 0..8);

    let bench = TestPool::new(config_with(|config| config.policy.when_full = WhenFull::DropOldest));
    let gates = bench.hold_threads(2);
    for id in 0..16 {
        bench.admit(bench.plain(id), Terms::default());
    }
    let refused = bench.submit(bench.plain(99), Terms::default()).unwrap_err();
    assert_eq!(refused.job.id, 99, "twice the limit is the end, also when the oldest are shed");
    gates.iter().for_each(common::Gate::open);
    let answers = bench.next_answers(16);
    assert_one_each(&answers, 0..16);
    let shed: Vec<u32> = answers.iter().filter(|(_, outcome)| *outcome == Outcome::Shed).map(|(id, _)| *id).collect();
    assert_eq!(shed, (0..8).collect::<Vec<_>>(), "the oldest are shed, and no more than necessary");
}

#[test]
fn a_storm_of_jobs_with_every_outcome_leaves_no_job_and_no_permit_behind() {
    for shutdown in [Shutdown::Finish, Shutdown::Drop] {
        let bench = TestPool::new(Config::with(|config| {
            config.threads = 4;
            config.limits.queue_jobs_max = 64;
            config.limits.wait_max = Duration::MAX;
            config.policy.shutdown = shutdown;
        }));
        let mut admitted = Vec::new();
        for id in 0..5_000_u32 {
            let cancel = if id % 3 == 0 { CancelFlag::new() } else { CancelFlag::default() };
            let deadline = (id % 5 == 0).then(|| Instant::now() + Duration::from_micros(u64::from(id % 200)));
            let class = if id % 7 == 0 { Class::Slow } else { Class::Fast };
            let action = move |checkpoint: &worker_pool::Checkpoint<'_>| match id % 11 {
                0 => panic!("on purpose"),
                1 => u32::from(checkpoint.stop_requested()),
                _ => id,
            };
            let mut job = bench.job(id, Box::new(action));
            if id % 13 == 0 {
                job.after = Some(Box::new(|| panic!("on purpose, in complete")));
            }
            match bench.submit(job, Terms { class, deadline, cancel: cancel.clone() }) {
                Ok(()) => admitted.push(id),
                Err(refused) => assert_eq!(refused.job.id, id),
            }
            if id % 2 == 0 {
                cancel.cancel();
            }
        }
        let stats = bench.pool.stats();
        let TestPool { pool, ended, .. } = bench;
        let report = pool.shutdown(common::HANG_TIMEOUT);
        assert_eq!(report.threads_left, 0);
        let answers: Vec<_> = ended.try_iter().collect();
        assert_one_each(&answers, admitted.iter().copied());
        assert_eq!(stats.admitted(), admitted.len() as u64);
        let outcomes: u64 = OutcomeKind::ALL.iter().map(|kind| stats.outcomes(*kind)).sum();
        assert_eq!(outcomes, admitted.len() as u64);
        assert_eq!((stats.depth(), stats.threads_busy(), stats.threads_alive()), (0, 0, 0));
        assert_eq!(stats.in_flight().total(), 0, "every permit came back");
    }
}

#[test]
fn a_job_that_runs_when_the_pool_is_dropped_is_still_answered() {
    let bench = TestPool::new(config());
    let submitter = bench.submitter.clone();
    let (held, action) = gate();
    bench.admit(bench.job(0, action), Terms::default());
    held.wait_entered();
    for id in 1..5 {
        bench.admit(bench.plain(id), Terms::default());
    }
    let late = bench.plain(9);
    let TestPool { pool, ended, answers, .. } = bench;
    drop(answers);
    drop(pool); // Without a shutdown, while one thread runs a job.
    let refused = submitter.try_submit(late, Terms::default(), Instant::now()).unwrap_err();
    assert_eq!(refused.job.id, 9);
    drop(refused);
    held.open();
    let answers: Vec<_> = std::iter::from_fn(|| ended.recv_timeout(common::HANG_TIMEOUT).ok()).collect();
    assert_one_each(&answers, 0..5);
}
