//! The public types allow any `Duration` and any `Instant`. None of them makes the pool panic, in a worker or in a submitter.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use worker_pool::admission::{self, ClassEstimate};
use worker_pool::codel::CoDel;
use worker_pool::gradient::GradientLimit;
use worker_pool::queue::{Dequeued, JobQueue, QueuedJob};
use worker_pool::{
    Checkpoint, Class, Concurrency, Config, Discipline, Gradient, InFlight, Job, Outcome, Pool, ResolvedConfig, Terms, WhenFull,
};

/// Any duration, most of them near an end or near a limit of the arithmetic.
fn durations() -> impl Strategy<Value = Duration> {
    let secs = prop_oneof![
        Just(0u64),
        Just(u64::MAX),
        Just(u64::MAX / 2),
        Just(i64::MAX as u64),
        Just(u64::from(u32::MAX)),
        Just(u64::MAX / 1_000_000_000), // As many nanoseconds as a u64 holds.
        0..100u64,
        any::<u64>(),
    ];
    let nanos = prop_oneof![Just(0u32), Just(1), Just(999_999_999), 0..1_000_000_000u32];
    (secs, nanos).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

/// Any instant that this system can express.
fn instants() -> impl Strategy<Value = Instant> {
    (durations(), any::<bool>(), 0..4u32).prop_map(|(duration, later, halvings)| {
        let now = Instant::now();
        let shift = |by: Duration| if later { now.checked_add(by) } else { now.checked_sub(by) };
        // Halved until it fits: that lands near the ends.
        let fits = (0..65).filter_map(|i| shift(duration / (1 << halvings).max(1) / 2u32.saturating_pow(i.min(31)))).next();
        fits.unwrap_or(now)
    })
}

fn configs() -> impl Strategy<Value = Config> {
    let discipline = prop_oneof![
        Just(Discipline::Fifo),
        durations().prop_map(|pressure| Discipline::NewestFirst { pressure }),
        (durations(), durations()).prop_map(|(target, interval)| Discipline::CoDel { target, interval }),
    ];
    let concurrency = prop_oneof![
        Just(Concurrency::Static),
        (durations(), 1..3u32).prop_map(|(window, window_samples_min)| {
            Concurrency::Gradient(Gradient::with(|gradient| {
                gradient.window = window;
                gradient.window_samples_min = window_samples_min;
            }))
        }),
    ];
    let when_full = prop_oneof![
        Just(WhenFull::RefuseNewest),
        Just(WhenFull::DropOldest),
        (1..100u8).prop_map(|keep_percent| WhenFull::Sample { keep_percent })
    ];
    (discipline, concurrency, when_full, durations(), durations()).prop_map(
        |(discipline, concurrency, when_full, wait_max, standing_wait_max)| {
            Config::with(|config| {
                config.threads = 2;
                config.limits.queue_jobs_max = 8;
                config.limits.wait_max = wait_max;
                config.limits.standing_wait_max = standing_wait_max;
                config.policy.discipline = discipline;
                config.policy.concurrency = concurrency;
                config.policy.when_full = when_full;
            })
        },
    )
}

fn terms() -> impl Strategy<Value = Terms> {
    (proptest::option::of(instants()), any::<bool>()).prop_map(|(deadline, slow)| Terms {
        class: if slow { Class::Slow } else { Class::Fast },
        deadline,
        ..Terms::default()
    })
}

#[derive(Debug)]
struct Item(Terms, Instant);

impl QueuedJob for Item {
    fn terms(&self) -> &Terms {
        &self.0
    }
    fn admitted_at(&self) -> Instant {
        self.1
    }
}

struct Report(Sender<()>);

impl Job for Report {
    type Output = ();
    fn run(&mut self, checkpoint: &Checkpoint<'_>) {
        checkpoint.stop_requested();
    }
    fn complete(self, _: Outcome<()>) {
        let _ = self.0.send(());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_duration_and_no_instant_panics_in_admission_and_in_the_queue(
        config in configs(), jobs in proptest::collection::vec((terms(), instants(), instants(), durations()), 1..20),
    ) {
        if config.check().is_err() {
            return Ok(());
        }
        let resolved = ResolvedConfig::of(&config);
        let mut queue = JobQueue::new(&resolved);
        let known = ClassEstimate::new(jobs[0].1);
        let mut gradient = GradientLimit::from_config(&resolved);
        for (i, (terms, admitted_at, now, run)) in jobs.into_iter().enumerate() {
            let in_flight = InFlight { fast: i as u32, slow: u32::MAX - i as u32 };
            let _ = admission::check(&resolved, &terms, in_flight, &known, now);
            let wait = admission::expected_wait(&resolved, terms.class, in_flight, run);
            admission::under_pressure(&resolved, terms.class, in_flight, wait);
            known.run_mean.record(run);
            queue.push(Item(terms, admitted_at));
            queue.next_deadline();
            if let Dequeued::Run(item) = queue.take(now, 8) && item.0.class == Class::Slow {
                queue.slow_ended();
            }
            if let Some(gradient) = &mut gradient {
                let limit = gradient.record(run, i as u32, now).unwrap_or(gradient.limit());
                prop_assert!(limit >= resolved.threads && limit <= resolved.in_flight_max, "{limit}");
            }
        }
    }

    #[test]
    fn no_duration_panics_in_codel(
        target in durations(), interval in durations(), jobs in proptest::collection::vec((durations(), instants()), 1..20),
    ) {
        let mut codel = CoDel::new(target, interval);
        for (waited, now) in jobs {
            codel.sheds(waited, now);
        }
    }
}

proptest! {
    // Each case starts threads.
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_duration_and_no_instant_costs_a_running_pool_a_worker_or_an_answer(
        config in configs(), jobs in proptest::collection::vec((terms(), instants()), 1..12), grace in durations(),
    ) {
        let Ok(pool) = Pool::start(config) else { return Ok(()) };
        let (submitter, stats) = (pool.submitter(), pool.stats());
        let (report, reports) = channel();
        let admitted = jobs.into_iter().filter(|(terms, now)| {
            submitter.expected_wait(terms);
            stats.oldest_age(*now);
            submitter.try_submit(Report(report.clone()), terms.clone(), *now).is_ok()
        });
        let admitted = admitted.count();
        // A deadline or a cancellation may come first, but an answer always does.
        for _ in 0..admitted {
            prop_assert_eq!(reports.recv_timeout(Duration::from_secs(30)), Ok(()));
        }
        prop_assert_eq!(stats.threads_alive(), 2);
        pool.shutdown(grace);
    }
}
