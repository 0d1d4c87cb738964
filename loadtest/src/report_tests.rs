//! The layout is an interface: people compare summaries by `diff`, so a change of a space is a change here.

use std::time::{Duration, SystemTime};

use super::*;
use crate::errors::{ErrorCount, Kind, Phase};
use crate::schedule::Schedule;
use crate::truth::hiccup::Machine;
use crate::truth::limits::Limit;
use crate::truth::silence::Quiet;

/// A run with known numbers, as the tests of `json.rs` use it too.
pub(crate) fn sample() -> (Plan, Outcome) {
    let schedule = Schedule::constant(1000.0, Duration::from_secs(32));
    let class = Class::get("normal", "127.0.0.1:8080", "/", schedule, 64);
    let plan = Plan {
        to: ([127, 0, 0, 1], 8080).into(),
        classes: vec![class],
        threads: 2,
        warmup: Duration::from_secs(2),
        duration: Duration::from_secs(30),
        drain: Duration::from_secs(2),
        seed: 1,
    };
    let mut record = Record::default();
    let totals = &mut record.totals;
    (totals.scheduled, totals.handled, totals.sent, totals.ok, totals.errors, totals.unfinished) = (30_000, 29_988, 30_000, 29_981, 6, 13);
    let clocks = &mut record.clocks;
    for (clock, samples) in [
        (&mut clocks.response.known, [(1_200, 20_000), (2_000, 9_600), (212_000, 341), (480_000, 39), (502_000, 1)]),
        (&mut clocks.service, [(1_100, 20_000), (1_800, 9_600), (2_900, 360), (410_000, 39), (488_000, 1)]),
        (&mut clocks.connect, [(80, 400), (120, 200), (400, 15), (1_000, 2), (1_000, 1)]),
        (&mut clocks.send_delay, [(20, 26_900), (60, 2_600), (110, 465), (300, 30), (1_000, 5)]),
    ] {
        for (us, count) in samples {
            clock.record_n(us, count).unwrap();
        }
    }
    clocks.response_low = clocks.response.known.clone();
    clocks.response.at_least.record_n(5_000_000, 13).unwrap();
    clocks.response.never = 6;
    clocks.failed.record_n(700, 6).unwrap();
    (record.totals.ended_in_time, record.totals.ok_in_time) = (29_980, 29_974);
    let error = |count, ms| ErrorCount { count, first_at: Duration::from_millis(ms), out: Some((Duration::ZERO, Duration::ZERO)) };
    record.errors.insert((Phase::FirstByte, Kind::Errno(libc::ECONNRESET)), error(5, 12_300));
    record.errors.insert((Phase::Body, Kind::Status(503)), error(1, 13_000));
    record.status.insert(200, 29_981);
    record.status.insert(503, 1);
    let outcome = Outcome {
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_390_245),
        measured: plan.duration,
        records: vec![record],
        series: vec![Vec::new()],
        cpu_by_thread: vec![0.31, 0.28],
        machine: Machine::default(),
        interrupted: false,
    };
    (plan, outcome)
}

fn text(plan: &Plan, outcome: &Outcome, thresholds: &[&str]) -> String {
    let verdict = Verdict::of(plan, outcome);
    let thresholds: Vec<_> = thresholds
        .iter()
        .map(|text| {
            let condition: Condition = text.parse().unwrap();
            let judged = condition.judge(|name| outcome.figure(0, name)).unwrap();
            (condition, judged)
        })
        .collect();
    summary(&Summary {
        request: "GET http://127.0.0.1:8080/",
        plan,
        outcome,
        verdict: &verdict,
        thresholds: &thresholds,
        one_connection: None,
    })
}

#[test]
fn the_summary_is_laid_out_as_promised() {
    let (plan, outcome) = sample();
    assert_eq!(
        text(&plan, &outcome, &["p99>250ms", "errors>5"]),
        "\
loadtest 0.1.0  GET http://127.0.0.1:8080/  open loop, constant 1000/s, 64 conns, 2 threads, 30s (+2s warmup)

                 scheduled   completed       ok   errors  timeouts  unfinished  not sent
requests             30000       29987    29981        6         0          13         0
rate          999.3/s ended, 999.1/s good, 1000/s were due
status        29,981 × 200, 1 × 503

latency            p50     p90     p95     p99   p99.9     max
response         1.2ms   2.0ms   2.0ms   212ms   480ms   never   all requests, from the moment each was due      <- use this
successes        1.2ms   2.0ms   2.0ms   212ms   480ms   502ms   the 29,981 good answers alone
failures             -       -       -       -       -   700µs   until 6 requests failed
service          1.1ms   1.8ms   1.8ms   2.9ms   410ms   488ms   from the moment it was sent     (hides 209ms at p99)
connect           80µs   120µs   120µs       -       -   1.0ms
send delay        20µs    60µs    60µs   110µs   300µs   1.0ms   generator lateness: OK

errors    5  first byte ECONNRESET   the server closed the connection instead of answering: idle timeout, crash or limit
          1  body status 503         the server refused work it could not do in time
         13  unfinished              no answer had come when the run ended
fail-if  p99>250ms   ok (p99 is 212ms)
fail-if  errors>5   FAILED (errors is 6)
verdict  generator OK (cpu 31%/28%, 99.96% of arrivals handled on time)
"
    );
}

#[test]
fn a_run_without_answers_errors_or_connections_has_the_same_lines() {
    let (mut plan, mut outcome) = sample();
    plan.classes[0].connections_max = 1024;
    plan.warmup = Duration::ZERO;
    plan.threads = 1;
    outcome.records = vec![Record::default()];
    outcome.cpu_by_thread = vec![0.0];
    outcome.interrupted = true;
    outcome.measured = Duration::from_millis(1_234);
    assert_eq!(
        text(&plan, &outcome, &[]),
        "\
loadtest 0.1.0  GET http://127.0.0.1:8080/  open loop, constant 1000/s, 64 to 1024 conns, 1 thread, 30s
interrupted after 1.23s of the measured time: what follows is partial

                 scheduled   completed       ok   errors  timeouts  unfinished  not sent
requests                 0           0        0        0         0           0         0
rate          0/s ended, 0/s good, 0/s were due
status        no answer

latency            p50     p90     p95     p99   p99.9     max
response             -       -       -       -       -       -   from the moment it was due      <- use this
service              -       -       -       -       -       -   from the moment it was sent
connect              -       -       -       -       -       -
send delay           -       -       -       -       -       -   generator lateness: OK

errors   none
verdict  generator OK (cpu 0%, 100.00% of arrivals handled on time)
"
    );
}

#[test]
fn a_closed_loop_is_named_and_warned_of() {
    let (mut plan, outcome) = sample();
    plan.classes[0].schedule.when_busy = WhenBusy::Skip;
    plan.classes[0].schedule.arrivals = Arrivals::WhenFree;
    let text = text(&plan, &outcome, &[]);
    assert!(text.contains("CLOSED loop, as fast as the answers come") && text.contains("\nwarning  closed loop: "), "{text}");
    assert!(!text.contains("use this"), "{text}");
}

#[test]
fn what_was_not_sent_what_waited_and_what_was_opened_is_shown_when_it_matters() {
    let (mut plan, mut outcome) = sample();
    plan.classes[0].connections_max = 1024;
    let record = &mut outcome.records[0];
    (0..1200).for_each(|_| record.totals.not_sent.count(Limit::Connections));
    (record.totals.opened_later, record.totals.found_full, record.totals.unfinished) = (960, 29_100, 0);
    record.clocks.wait.record_n(150_000, 30_000).unwrap();
    record.clocks.connect.record_n(1_010_000, 3).unwrap();
    record.quiet = Some(vec![Quiet {
        from: Duration::from_secs(9),
        until: Duration::from_millis(9_150),
        waited_from: Some(Duration::from_secs(9)),
        due_in_it: 150,
        connections: 64,
        own_delay: Duration::ZERO,
    }]);
    let text = text(&plan, &outcome, &["error_rate>1%"]);
    for needle in [
        "\nwait             150ms   150ms   150ms   150ms   150ms   150ms   for a connection, since none was idle\n",
        "\nstalls   1 stall of 150ms, on all connections at once; longest silence 150ms at 9.00s, 150 requests fell due in it\n",
        "\nopened   960 connections during the run, because a request was due and none was idle (at most 1,024 at a time)\n",
        "\nconnect  3 took about 1 s or more: the listen queue was full,",
        "       1200  not sent                the generator's own limits: see the verdict; not an error of the server\n",
        "\nfail-if  error_rate>1%   OPEN (error_rate is 0.02%, and the true value lies between 0.02% and 4.02%)\n",
        "\nverdict  NOT TRUSTWORTHY, the generator: limited by --max-connections: all 1,024 busy for 97% of the run; rate × latency needs about ",
    ] {
        assert!(text.contains(needle), "no '{needle}' in\n{text}");
    }
    assert!(!text.contains("use this"), "{text}");
}

#[test]
fn redirects_are_named_and_one_connection_is_told_if_it_differs() {
    let (plan, mut outcome) = sample();
    outcome.records[0].status.insert(301, 600);
    let verdict = Verdict::of(&plan, &outcome);
    let one_connection = Some(OneConnection { p50_us: 44_000, answers: 23 });
    let text = summary(&Summary { request: "GET /", plan: &plan, outcome: &outcome, verdict: &verdict, thresholds: &[], one_connection });
    assert!(text.contains("\nstatus        29,981 × 200, 1 × 503; 3xx, not followed: 600 × 301\n"), "{text}");
    assert!(text.contains("\none conn p50 44ms where 64 connections show 1.1ms: an answer written in two pieces"), "{text}");
}

#[test]
fn a_condition_on_too_few_requests_says_how_many_it_needs() {
    let (plan, mut outcome) = sample();
    let clocks = &mut outcome.records[0].clocks;
    clocks.response = crate::truth::bounds::Times::default();
    clocks.response.known.record_n(200_000, 499).unwrap();
    clocks.response.known.record(300_000).unwrap();
    clocks.response_low = clocks.response.known.clone();
    let text = text(&plan, &outcome, &["p99>250ms", "p99>310ms", "p50>250ms"]);
    for needle in ["OPEN (p99 is 200ms of 500 requests; at least 1000 are needed)", "p99>310ms   ok", "p50>250ms   ok"] {
        assert!(text.contains(needle), "no '{needle}' in\n{text}");
    }
}
