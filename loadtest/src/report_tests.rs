//! The layout is an interface: people compare summaries by `diff`, so a change of a space is a change here.

use std::time::{Duration, SystemTime};

use super::*;
use crate::errors::{ErrorCount, Kind, Phase};
use crate::figures;
use crate::schedule::Schedule;

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
        (&mut clocks.response, [(1_200, 20_000), (2_000, 9_600), (212_000, 360), (480_000, 39), (502_000, 1)]),
        (&mut clocks.service, [(1_100, 20_000), (1_800, 9_600), (2_900, 360), (410_000, 39), (488_000, 1)]),
        (&mut clocks.connect, [(80, 400), (120, 200), (400, 15), (1_000, 2), (1_000, 1)]),
        (&mut clocks.send_delay, [(20, 26_900), (60, 2_600), (110, 465), (300, 30), (1_000, 5)]),
    ] {
        for (us, count) in samples {
            clock.record_n(us, count).unwrap();
        }
    }
    record
        .errors
        .insert((Phase::FirstByte, Kind::Errno(libc::ECONNRESET)), ErrorCount { count: 5, first_at: Duration::from_millis(12_300) });
    record.errors.insert((Phase::Body, Kind::Status(503)), ErrorCount { count: 1, first_at: Duration::from_secs(13) });
    record.status.insert(200, 29_981);
    record.status.insert(503, 1);
    let outcome = Outcome {
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_390_245),
        measured: plan.duration,
        records: vec![record],
        series: vec![Vec::new()],
        cpu_by_thread: vec![0.31, 0.28],
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
            let judged = condition.judge(|name| figures::of(&outcome.records[0], outcome.measured, name)).unwrap();
            (condition, judged)
        })
        .collect();
    summary(&Summary { request: "GET http://127.0.0.1:8080/", plan, outcome, verdict: &verdict, thresholds: &thresholds })
}

#[test]
fn the_summary_is_laid_out_as_promised() {
    let (plan, outcome) = sample();
    assert_eq!(
        text(&plan, &outcome, &["p99>250ms", "errors>5"]),
        "\
loadtest 0.1.0  GET http://127.0.0.1:8080/  open loop, constant 1000/s, 64 conns, 2 threads, 30s (+2s warmup)

                 scheduled   completed       ok   errors  timeouts  unfinished
requests             30000       29987    29981        6         0          13

latency            p50     p90     p99   p99.9     max
response         1.2ms   2.0ms   212ms   480ms   502ms   from the moment it was due      <- use this
service          1.1ms   1.8ms   2.9ms   410ms   488ms   from the moment it was sent     (hides 209ms at p99)
connect           80µs   120µs   400µs   1.0ms   1.0ms
send delay        20µs    60µs   110µs   300µs   1.0ms   generator lateness: OK

errors   5  first byte ECONNRESET   the server closed the connection instead of answering: idle timeout, crash or limit
         1  body status 503         the server refused work it could not do in time
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

                 scheduled   completed       ok   errors  timeouts  unfinished
requests                 0           0        0        0         0           0

latency            p50     p90     p99   p99.9     max
response             -       -       -       -       -   from the moment it was due      <- use this
service              -       -       -       -       -   from the moment it was sent     (hides 0µs at p99)
connect              -       -       -       -       -
send delay           -       -       -       -       -   generator lateness: OK

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
}
