//! The queue of waiting jobs against a simple model, in virtual time.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use worker_pool::codel::CoDel;
use worker_pool::queue::{Dequeued, JobQueue, QueuedJob};
use worker_pool::{CancelFlag, Class, Config, Discipline, ResolvedConfig, Terms, Unfinished};

#[derive(Clone, Debug)]
struct Item {
    id: u32,
    terms: Terms,
    at: Instant,
}

impl QueuedJob for Item {
    fn terms(&self) -> &Terms {
        &self.terms
    }
    fn admitted_at(&self) -> Instant {
        self.at
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { slow: bool, deadline_ms: Option<u64> },
    Cancel { which: usize },
    Pass { ms: u64 },
    Take { jobs_max: usize },
    SlowEnds,
    AnswerExpired,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<bool>(), proptest::option::of(0..300u64))
            .prop_map(|(slow, deadline_ms)| Step::Push { slow, deadline_ms }),
        1 => (0..64usize).prop_map(|which| Step::Cancel { which }),
        3 => (0..80u64).prop_map(|ms| Step::Pass { ms }),
        4 => prop_oneof![Just(usize::MAX), 1..8usize].prop_map(|jobs_max| Step::Take { jobs_max }),
        2 => Just(Step::SlowEnds),
        1 => Just(Step::AnswerExpired),
    ];
    proptest::collection::vec(step, 1..200)
}

fn disciplines() -> impl Strategy<Value = Discipline> {
    prop_oneof![Just(Discipline::Fifo), Just(Discipline::NEWEST_FIRST), Just(Discipline::CODEL)]
}

fn waiting(discipline: Discipline, threads: u32) -> (JobQueue<Item>, ResolvedConfig) {
    let resolved = ResolvedConfig::of(&Config::with(|config| {
        config.threads = threads;
        config.policy.discipline = discipline;
    }));
    (JobQueue::new(&resolved), resolved)
}

/// Checks a job that the queue returned to be run.
fn check_run(item: &Item, waits: &[Item], slow_running: u32, resolved: &ResolvedConfig, now: Instant) {
    assert!(item.terms.deadline.is_none_or(|deadline| deadline > now), "an expired job was served");
    assert!(!item.terms.cancel.is_cancelled(), "a cancelled job was served");
    if item.terms.class == Class::Slow {
        assert!(slow_running < resolved.slow_threads_max, "slow jobs got more than their share");
    }
    let line: Vec<&Item> = waits.iter().filter(|other| other.terms.class == item.terms.class).collect();
    let oldest = line.iter().map(|other| other.at).min().expect("the item itself is among them");
    match resolved.discipline {
        Discipline::Fifo | Discipline::CoDel { .. } => assert_eq!(line[0].id, item.id, "not the oldest"),
        Discipline::NewestFirst { pressure } if now - oldest <= pressure => {
            assert_eq!(line[0].id, item.id, "no pressure, and not the oldest");
        }
        Discipline::NewestFirst { .. } => {
            assert_eq!(line[line.len() - 1].id, item.id, "under pressure, and not the newest");
        }
    }
}

fn check_answer(item: &Item, why: Unfinished, waits: &[Item], jobs_max: usize, now: Instant, resolved: &ResolvedConfig) {
    match why {
        Unfinished::Cancelled => assert!(item.terms.cancel.is_cancelled()),
        Unfinished::Expired => assert!(item.terms.deadline.is_some_and(|deadline| deadline <= now)),
        Unfinished::Shed if waits.len() > jobs_max => {
            assert!(waits.iter().all(|other| other.at >= item.at), "the job that was shed is not the oldest");
        }
        Unfinished::Shed => {
            let Discipline::CoDel { target, .. } = resolved.discipline else { panic!("shed for no reason") };
            assert!(now - item.at > target * 2, "CoDel shed a job that had not waited twice the target");
        }
        Unfinished::Dropped => panic!("the pool was not shut down"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_expired_job_runs_and_the_queue_keeps_its_limits_and_its_order(
        steps in steps(), discipline in disciplines(), threads in 2..6u32,
    ) {
        let (mut queue, resolved) = waiting(discipline, threads);
        let mut now = Instant::now();
        let (mut waits, mut slow_running, mut next_id): (Vec<Item>, u32, u32) = (Vec::new(), 0, 0);
        let mut given_out = 0;
        for step in steps {
            match step {
                Step::Push { slow, deadline_ms } => {
                    let class = if slow { Class::Slow } else { Class::Fast };
                    let deadline = deadline_ms.map(|ms| now + Duration::from_millis(ms));
                    let terms = Terms { class, deadline, cancel: CancelFlag::new() };
                    let item = Item { id: next_id, terms, at: now };
                    next_id += 1;
                    waits.push(item.clone());
                    queue.push(item);
                }
                Step::Cancel { which } => {
                    if let Some(item) = waits.get(which) {
                        item.terms.cancel.cancel();
                    }
                }
                Step::Pass { ms } => now += Duration::from_millis(ms),
                Step::SlowEnds if slow_running > 0 => {
                    slow_running -= 1;
                    queue.slow_ended();
                }
                Step::SlowEnds => {}
                Step::AnswerExpired => {
                    while let Some((item, why)) = queue.pop_expired(now) {
                        check_answer(&item, why, &waits, usize::MAX, now, &resolved);
                        given_out += 1;
                        waits.retain(|other| other.id != item.id);
                    }
                    let expired = |item: &Item| item.terms.deadline.is_some_and(|deadline| deadline <= now);
                    prop_assert!(!waits.iter().any(expired), "an expired job was left in the queue");
                }
                Step::Take { jobs_max } => {
                    let runnable = queue.has_runnable();
                    let item = match queue.take(now, jobs_max) {
                        Dequeued::Run(item) => {
                            prop_assert!(waits.len() <= jobs_max, "ran one while too many waited");
                            check_run(&item, &waits, slow_running, &resolved, now);
                            slow_running += u32::from(item.terms.class == Class::Slow);
                            item
                        }
                        Dequeued::Answer(item, why) => {
                            check_answer(&item, why, &waits, jobs_max, now, &resolved);
                            item
                        }
                        Dequeued::Nothing => {
                            prop_assert!(!runnable, "said that something could run, and gave nothing");
                            let fast = waits.iter().filter(|item| item.terms.class == Class::Fast).count();
                            prop_assert_eq!(fast, 0, "a free thread and a fast job, and nothing was given");
                            prop_assert!(waits.is_empty() || slow_running == resolved.slow_threads_max);
                            continue;
                        }
                    };
                    given_out += 1;
                    waits.retain(|other| other.id != item.id);
                }
            }
            prop_assert_eq!(queue.len(), waits.len());
            prop_assert_eq!(queue.oldest(), waits.iter().map(|item| item.at).min());
            prop_assert_eq!(queue.next_deadline(), waits.iter().filter_map(|item| item.terms.deadline).min());
        }
        while queue.pop_any().is_some() {
            given_out += 1;
        }
        prop_assert_eq!(given_out, next_id, "every job came out exactly once");
    }

    /// The law without the state machine: a shed wait is above twice the target, and within the last two intervals there was a whole
    /// interval that had a job and in which every wait was above the target.
    #[test]
    fn codel_sheds_only_after_an_interval_in_which_every_wait_was_too_long(
        jobs in proptest::collection::vec((0..40u64, prop_oneof![20 => 0..30u64, 1 => 0..1_000u64]), 1..300),
    ) {
        let (target, interval) = (Duration::from_millis(5), Duration::from_millis(100));
        let mut codel = CoDel::new(target, interval);
        let begin = Instant::now() + interval * 2;
        let mut now = begin;
        let mut seen: Vec<(Instant, Duration)> = Vec::new();
        for (wait_ms, passes_ms) in jobs {
            now += Duration::from_millis(passes_ms);
            let waited = Duration::from_millis(wait_ms);
            if codel.sheds(waited, now) {
                prop_assert!(waited > target * 2);
                let recent: Vec<_> = seen.iter().filter(|(at, _)| *at >= now - interval * 2).collect();
                // A whole interval without a short wait lies between two of these.
                let short = recent.iter().filter(|(_, waited)| *waited <= target).map(|(at, _)| *at);
                let edges: Vec<Instant> = [now - interval * 2].into_iter().chain(short).chain([now]).collect();
                let whole = edges.windows(2).any(|edge| {
                    edge[1] - edge[0] >= interval && recent.iter().any(|(at, waited)| *waited > target && *at >= edge[0] && *at <= edge[1])
                });
                prop_assert!(whole, "shed although no recent interval was bad throughout");
            }
            seen.push((now, waited));
        }
    }
}

#[test]
fn codel_does_not_shed_because_of_an_interval_that_is_long_past() {
    let (target, interval) = (Duration::from_millis(5), Duration::from_millis(100));
    let ms = Duration::from_millis;
    for idle in [ms(201), ms(1_000), Duration::from_secs(3600)] {
        let mut codel = CoDel::new(target, interval);
        let begin = Instant::now();
        // One bad interval; then no job for a whole interval or more.
        (0..10).for_each(|i| assert!(!codel.sheds(ms(50), begin + ms(10 * i))));
        let burst = begin + idle;
        let shed = (0..10).filter(|i| codel.sheds(ms(50), burst + ms(10 * i))).count();
        assert_eq!(shed, 0, "a burst after {idle:?}");
    }
    // Without the pause it sheds all but the first of the next interval.
    let mut codel = CoDel::new(target, interval);
    let begin = Instant::now();
    let shed = (0..20).filter(|i| codel.sheds(ms(50), begin + ms(10 * i) + ms(1))).count();
    assert_eq!(shed, 8);
}

#[test]
fn codel_lets_a_burst_pass_and_sheds_a_standing_queue() {
    let (target, interval) = (Duration::from_millis(5), Duration::from_millis(100));
    let ms = Duration::from_millis;
    let mut codel = CoDel::new(target, interval);
    let begin = Instant::now();
    // A burst: waits of up to 50 ms that pass within the interval.
    assert!((0..10).all(|i| !codel.sheds(ms(50 - 5 * i), begin + ms(10 * i))));
    // A standing queue of 11 ms. After one interval every wait above 10 ms is shed.
    let later = begin + ms(1_000);
    let shed: Vec<bool> = (0..40).map(|i| codel.sheds(ms(11), later + ms(10 * i))).collect();
    assert!(shed[..11].iter().all(|shed| !shed), "the first interval only watches");
    assert!(shed[12..21].iter().all(|shed| *shed), "then the law holds: {shed:?}");
    // The overload ends after one whole interval with a short wait.
    let calm: Vec<bool> = (40..80).map(|i| codel.sheds(ms(if i % 5 == 0 { 1 } else { 11 }), later + ms(10 * i))).collect();
    assert!(calm[25..].iter().all(|shed| !shed), "{calm:?}");
}

#[test]
fn fast_and_slow_jobs_take_turns() {
    let (mut queue, resolved) = waiting(Discipline::Fifo, 8);
    let now = Instant::now();
    for id in 0..20 {
        let class = if id < 10 { Class::Fast } else { Class::Slow };
        queue.push(Item { id, terms: Terms { class, ..Terms::default() }, at: now });
    }
    let mut slow_of_first = 0;
    for _ in 0..8 {
        let Dequeued::Run(item) = queue.take(now, usize::MAX) else { panic!("something must run") };
        slow_of_first += u32::from(item.terms.class == Class::Slow);
    }
    assert_eq!(slow_of_first, resolved.slow_threads_max, "four each");
}
