//! No duration makes the client panic or sleep for ever.

use super::*;
use crate::args::{Cli, Command};
use crate::plan::Plan;
use crate::schedule::Arrivals;
use clap::Parser;
use proptest::prelude::*;
use server::units::{TIME_MAX, Time};
use std::sync::mpsc::channel;

fn plan(args: &[String]) -> Plan {
    let args = ["loadtest", "run", "http://127.0.0.1:1/"].into_iter().map(str::to_owned).chain(args.iter().cloned());
    let Command::Run(args) = Cli::try_parse_from(args).unwrap().command else { unreachable!("it says run") };
    crate::run::plan(&args, ([127, 0, 0, 1], 1).into())
}

/// Up to the longest that a flag takes, as one writes it.
fn time() -> impl Strategy<Value = String> {
    let micros = prop_oneof![1..=TIME_MAX.as_micros() as u64, Just(TIME_MAX.as_micros() as u64)];
    micros.prop_map(|micros| Time(Duration::from_micros(micros)).to_string())
}

/// Whatever the types hold.
fn any_time() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(Duration::MAX), any::<Duration>()]
}

/// What the client does with its times, at its start and at the end of time.
fn live(plan: &Plan) {
    let (now, (intervals, _seen)) = (Instant::now(), channel());
    let mut client = Client::new(plan, 0, Arc::new(StartGate::new(1)), intervals, now);
    client.started = Some(now);
    for load in &mut client.loads {
        load.start(now);
        load.handle_due(now);
        load.expire_waiting(now);
        let _ = (load.wanted(now), load.to_open(now), load.is_settled(now));
    }
    let _ = client.is_over(); // True where nothing is ever due.
    client.attention = false;
    assert!(client.next_wake() >= Some(now));
    client.now = later(now, Duration::MAX);
    let _ = (client.is_over(), client.next_wake());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_duration_that_the_flags_make_is_too_long(
        rate in prop::sample::select(vec!["0.0000000000001", "0.000001", "0.5", "1000", "10000000"]),
        arrivals in prop::sample::select(vec!["constant", "poisson", "burst:10"]),
        requests in prop_oneof![Just(None), (1..=u64::MAX).prop_map(Some), Just(Some(u64::MAX))],
        [duration, warmup, timeout, connect_timeout, drain] in [time(), time(), time(), time(), time()],
        closed in any::<bool>(),
    ) {
        let long = match requests {
            Some(count) => ["-n".to_owned(), count.to_string()],
            None => ["-d".to_owned(), duration],
        };
        let flags = ["-R", rate, "--arrivals", arrivals, "--warmup", &warmup, "--timeout", &timeout, "--connect-timeout", &connect_timeout, "--drain", &drain];
        let closed = closed.then(|| "--closed".to_owned());
        let args: Vec<String> = long.into_iter().chain(flags.map(str::to_owned)).chain(closed).collect();
        live(&plan(&args));
    }

    #[test]
    fn no_duration_of_a_plan_is_too_long(
        [warmup, length, phase, timeout, drain] in [any_time(), any_time(), any_time(), any_time(), any_time()],
        poisson in any::<bool>(),
    ) {
        let mut plan = plan(&[]);
        (plan.warmup, plan.duration, plan.drain) = (warmup, Duration::MAX, drain);
        let class = &mut plan.classes[0];
        class.timeout = timeout;
        (class.schedule.phase, class.schedule.length) = (phase, length);
        class.schedule.arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
        live(&plan);
    }
}
