//! A full pool rejects jobs by number, by class and by expected wait. A rejection costs no worker and gives the job back whole.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

mod common;

use std::time::{Duration, Instant};

use common::{Gate, TestPool, config, config_with};
use worker_pool::{Capacity, Class, Concurrency, Gradient, Outcome, Reason, SlowShare, Terms, ThreadModel, WhenFull};

const SLOW: Terms = Terms { class: Class::Slow, deadline: None, cancel: NEVER };
const NEVER: worker_pool::CancelFlag = worker_pool::CancelFlag::NEVER;

#[test]
fn a_full_pool_admits_its_threads_and_its_queue_and_gives_other_jobs_back_whole() {
    let bench = TestPool::new(config());
    let gates = bench.hold_threads(2);
    for id in 0..8 {
        bench.admit(bench.plain(id), Terms::default());
    }
    for id in 8..20 {
        let mut refused = bench.submit(bench.plain(id), Terms::default()).unwrap_err();
        assert_eq!(refused.reason, Reason::QueueFull);
        // Whole: it can still be run, here by the submitter.
        let terms = Terms::default();
        let here = worker_pool::Checkpoint::detached(&terms);
        assert_eq!((refused.job.action)(&here), id);
    }
    let stats = bench.pool.stats();
    assert_eq!((stats.depth(), stats.threads_busy(), stats.rejections(Reason::QueueFull)), (8, 2, 12));
    assert!(stats.oldest_age(Instant::now() + Duration::from_secs(1)) >= Duration::from_secs(1));
    gates.iter().for_each(Gate::open);
    let done: Vec<_> = (0..8).map(|id| (id, Outcome::Done(id))).collect();
    assert_eq!(bench.next_answers(8), done, "and no rejected job was answered");
    // The permit is given back before the answer is sent, so the next job is admitted.
    bench.admit(bench.plain(30), Terms::default());
    assert_eq!(bench.next_answers(1), [(30, Outcome::Done(30))]);
    assert_eq!(stats.oldest_age(Instant::now()), Duration::ZERO);
}

#[test]
fn slow_jobs_fill_their_share_of_the_queue_and_fast_jobs_are_still_admitted() {
    let bench = TestPool::new(config());
    let gates = bench.hold_threads(2);
    // Slow jobs may hold one thread and half of the eight slots.
    for id in 0..5 {
        bench.admit(bench.plain(id), SLOW);
    }
    let refused = bench.submit(bench.plain(5), SLOW).unwrap_err();
    assert_eq!(refused.reason, Reason::SlowShareFull);
    for id in 5..8 {
        bench.admit(bench.plain(id), Terms::default());
    }
    assert_eq!(bench.submit(bench.plain(9), Terms::default()).unwrap_err().reason, Reason::QueueFull);
    gates.iter().for_each(Gate::open);
    assert_eq!(bench.next_answers(8).len(), 8);
}

/// Runs a job of at least this time, so that the pool's mean is at least this long.
fn teach_run_time(bench: &TestPool, at_least: Duration) {
    let spins = move |_: &worker_pool::Checkpoint<'_>| {
        let began = Instant::now();
        while began.elapsed() < at_least {
            std::hint::spin_loop();
        }
        0
    };
    bench.admit(bench.job(0, Box::new(spins)), Terms::default());
    assert_eq!(bench.next_answers(1), [(0, Outcome::Done(0))]);
    assert!(bench.pool.stats().run_mean(Class::Fast) >= at_least);
}

#[test]
fn a_job_that_would_wait_too_long_is_rejected_with_a_time_to_retry_after() {
    let bench = TestPool::new(config_with(|config| {
        config.limits.queue_jobs_max = 1000;
        config.limits.wait_max = Duration::from_millis(1);
    }));
    teach_run_time(&bench, Duration::from_millis(20));
    let gates = bench.hold_threads(2);
    // One mean run of waiting is allowed whatever the limit: with two threads that is two jobs.
    for id in 1..3 {
        bench.admit(bench.plain(id), Terms::default());
    }
    let refused = bench.submit(bench.plain(3), Terms::default()).unwrap_err();
    assert_eq!(refused.reason, Reason::WaitTooLong);
    assert!(refused.retry_after >= Duration::from_millis(30), "three ahead of two threads, 20 ms each");
    gates.iter().for_each(Gate::open);
    assert_eq!(bench.next_answers(2).len(), 2);
}

#[test]
fn a_job_that_cannot_make_its_deadline_is_rejected_and_one_with_a_later_deadline_is_not() {
    let bench = TestPool::new(config());
    teach_run_time(&bench, Duration::from_millis(20));
    let gates = bench.hold_threads(2);
    let now = Instant::now();
    let within = |ms| Terms { deadline: Some(now + Duration::from_millis(ms)), ..Terms::default() };
    // At least 10 ms to wait and 20 ms to run.
    let refused = bench.submitter.try_submit(bench.plain(1), within(25), now).unwrap_err();
    assert_eq!(refused.reason, Reason::WouldExpire);
    bench.submitter.try_submit(bench.plain(2), within(1_000_000), now).unwrap();
    gates.iter().for_each(Gate::open);
    assert_eq!(bench.next_answers(1), [(2, Outcome::Done(2))]);
}

#[test]
fn under_pressure_an_even_sample_of_the_jobs_is_admitted() {
    let bench = TestPool::new(config_with(|config| {
        config.limits.queue_jobs_max = 100;
        config.limits.wait_max = Duration::MAX;
        config.policy.when_full = WhenFull::Sample { keep_percent: 10 };
    }));
    let gates = bench.hold_threads(2);
    let admitted: Vec<u32> = (0..250).filter(|id| bench.submit(bench.plain(*id), Terms::default()).is_ok()).collect();
    assert_eq!(admitted[..50], (0..50).collect::<Vec<_>>(), "half of the queue fills without sampling");
    assert_eq!(admitted.len(), 50 + 20, "of 200 more, every tenth");
    assert_eq!(bench.pool.stats().rejections(Reason::Sampled), 180);
    gates.iter().for_each(Gate::open);
    assert_eq!(bench.next_answers(70).len(), 70);
}

#[test]
fn the_adaptive_limit_rejects_jobs_from_the_start() {
    let gradient = Gradient::with(|gradient| gradient.queue_jobs = 3);
    let bench = TestPool::new(config_with(|config| {
        config.limits.queue_jobs_max = 100;
        config.limits.wait_max = Duration::MAX;
        config.policy.concurrency = Concurrency::Gradient(gradient);
    }));
    let gates = bench.hold_threads(2);
    for id in 0..3 {
        bench.admit(bench.plain(id), Terms::default());
    }
    let refused = bench.submit(bench.plain(3), Terms::default()).unwrap_err();
    assert_eq!(refused.reason, Reason::LimitReached);
    gates.iter().for_each(Gate::open);
    assert_eq!(bench.next_answers(3).len(), 3);
}

#[test]
fn pool_starvation_the_mistake_lets_slow_jobs_hold_every_thread() {
    for (slow_share, fast_is_served) in [(SlowShare::Half, true), (SlowShare::Everything, false)] {
        let bench = TestPool::new(config_with(|config| {
            config.threads = 4;
            config.policy.slow_share = slow_share;
        }));
        let gates: Vec<Gate> = (0..4)
            .map(|i| {
                let (gate, action) = common::gate();
                bench.admit(bench.job(common::HOLDER + i, action), SLOW);
                gate
            })
            .collect();
        let entered = if fast_is_served { 2 } else { 4 };
        gates[..entered].iter().for_each(Gate::wait_entered);
        bench.admit(bench.plain(1), Terms::default());
        let stats = bench.pool.stats();
        if fast_is_served {
            assert_eq!(bench.next_answers(1), [(1, Outcome::Done(1))]);
            assert_eq!(stats.running(Class::Slow), 2);
            assert_eq!(stats.waiting(Class::Slow), 2);
        } else {
            assert_eq!((stats.running(Class::Slow), stats.waiting(Class::Fast)), (4, 1));
        }
        gates.iter().for_each(Gate::open);
    }
}

#[test]
fn unbounded_queue_the_mistake_admits_every_job_and_runs_expired_ones() {
    let bench = TestPool::new(config_with(|config| config.policy.capacity = Capacity::Unbounded));
    let gates = bench.hold_threads(2);
    let now = Instant::now();
    let cancel = worker_pool::CancelFlag::new();
    for id in 0..10_000 {
        let terms = Terms { deadline: Some(now), cancel: cancel.clone(), ..Terms::default() };
        bench.submitter.try_submit(bench.plain(id), terms, now).unwrap();
    }
    cancel.cancel();
    assert_eq!(bench.pool.stats().depth(), 10_000);
    gates.iter().for_each(Gate::open);
    let answers = bench.next_answers(10_000);
    assert!(answers.iter().all(|(id, outcome)| *outcome == Outcome::Done(*id)));
}

#[test]
fn departed_clients_the_mistake_runs_cancelled_jobs() {
    for (abandoned, outcome) in [(worker_pool::Abandoned::Skip, Outcome::Cancelled), (worker_pool::Abandoned::RunAnyway, Outcome::Done(1))]
    {
        let bench = TestPool::new(config_with(|config| config.policy.abandoned = abandoned));
        let gates = bench.hold_threads(2);
        let cancel = worker_pool::CancelFlag::new();
        let asks = |checkpoint: &worker_pool::Checkpoint<'_>| u32::from(!checkpoint.stop_requested());
        bench.admit(bench.job(1, Box::new(asks)), Terms { cancel: cancel.clone(), ..Terms::default() });
        cancel.cancel();
        gates.iter().for_each(Gate::open);
        assert_eq!(bench.next_answers(1), [(1, outcome)]);
        let wasted = bench.pool.stats().abandoned_run_time();
        assert_eq!(wasted > Duration::ZERO, outcome != Outcome::Cancelled);
    }
}

#[test]
fn thread_per_job_the_mistake_has_a_thread_for_every_job() {
    const JOBS: u32 = 100;
    for (thread_model, running) in [(ThreadModel::PoolThread, 2), (ThreadModel::ThreadPerJob, JOBS)] {
        let bench = TestPool::new(config_with(|config| {
            config.limits.queue_jobs_max = JOBS;
            config.limits.wait_max = Duration::MAX;
            config.policy.thread_model = thread_model;
        }));
        let gates: Vec<Gate> = (0..JOBS)
            .map(|i| {
                let (gate, action) = common::gate();
                bench.admit(bench.job(i, action), Terms::default());
                gate
            })
            .collect();
        // The first two jobs run in either case. Only the mistake runs other jobs too.
        gates[..running as usize].iter().for_each(Gate::wait_entered);
        assert_eq!(bench.pool.stats().threads_busy(), running);
        gates.iter().for_each(Gate::open);
        assert_eq!(bench.next_answers(JOBS as usize).len(), JOBS as usize);
    }
}
