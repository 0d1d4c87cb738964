//! The open loop by an injected clock: nothing is skipped, nothing is forgotten, and every time counts from due.

use super::*;
use crate::schedule::{Schedule, WhenBusy};
use proptest::prelude::*;
use reactor::Token;

const MS: Duration = Duration::from_millis(1);
const OK: Response = Response { status: 200, body_bytes: 0, body_as_expected: true, keep_alive: true };

fn plan(rate: f64, connections: u32, when_busy: WhenBusy) -> Plan {
    let schedule = Schedule { when_busy, ..Schedule::constant(rate, 1000 * MS) };
    let class = Class::get("test", "localhost", "/", schedule, connections);
    Plan {
        to: ([127, 0, 0, 1], 1).into(),
        classes: vec![class],
        threads: 1,
        warmup: Duration::ZERO,
        duration: 1000 * MS,
        drain: MS,
        seed: 1,
    }
}

/// A lane with its connections open and idle, started.
fn started(plan: &Plan, start: Instant) -> Lane {
    let mut lane = Lane::new(plan, 0, 0, 1);
    for slot in 0..lane.to_open(start) {
        let token = Token::from_bits(slot as u64);
        lane.pool.opened(token);
        lane.pool.rest(token);
    }
    lane.start(start);
    lane
}

fn send(lane: &mut Lane, now: Instant) -> Option<Exchange> {
    let arrival = lane.take(now)?;
    let exchange = Exchange { arrival, sent: now, written_bytes: 1, first_byte: None };
    lane.sent(&exchange);
    Some(exchange)
}

#[test]
fn a_stall_delays_answers_and_not_arrivals_and_every_wait_is_counted_from_due() {
    let start = Instant::now();
    let mut lane = started(&plan(1000.0, 1, WhenBusy::Queue), start);
    // The one connection is stalled for 100 ms by the first request; 100 more fall due meanwhile.
    lane.handle_due(start);
    let stalled = send(&mut lane, start).unwrap();
    for ms in 1..=100 {
        lane.handle_due(start + ms * MS);
    }
    let now = start + 100 * MS;
    lane.answered(&stalled, &OK, now);
    let mut answered = 1;
    while let Some(exchange) = send(&mut lane, now) {
        lane.answered(&exchange, &OK, now);
        answered += 1;
    }
    assert_eq!((answered, lane.record.totals.scheduled, lane.record.totals.ok), (101, 101, 101));
    let clocks = &lane.record.clocks;
    assert!((49_000..52_000).contains(&clocks.response.value_at_quantile(0.5)), "half of them waited half of the stall");
    assert_eq!(clocks.service.value_at_quantile(0.99), 0, "measured from sending, the stall is one sample of 101");
    assert_eq!(clocks.send_delay.max(), 0, "the generator was never late");
    assert!(clocks.wait.max() >= 99_000, "the wait for a connection is the server's doing");
}

#[test]
fn a_closed_loop_does_not_see_the_same_stall() {
    let start = Instant::now();
    let mut lane = started(&plan(1000.0, 1, WhenBusy::Skip), start);
    lane.handle_due(start);
    let token = lane.pool.summon().unwrap();
    lane.pool.answered(token);
    let stalled = send(&mut lane, start).unwrap();
    for ms in 1..=100 {
        lane.handle_due(start + ms * MS);
    }
    lane.answered(&stalled, &OK, start + 100 * MS);
    lane.pool.rest(token);
    assert_eq!((lane.record.totals.scheduled, lane.record.totals.skipped), (1, 100));
    assert_eq!(send(&mut lane, start + 100 * MS).map(|exchange| exchange.arrival.due), None);
}

#[test]
fn a_late_generator_blames_itself() {
    let start = Instant::now();
    let mut lane = started(&plan(1000.0, 10, WhenBusy::Queue), start);
    lane.handle_due(start + 50 * MS);
    assert_eq!(lane.record.totals.scheduled, 51);
    assert!((49_900..=50_100).contains(&lane.record.clocks.send_delay.max()));
    lane.handle_due(start + 2000 * MS);
    assert_eq!(lane.record.totals.scheduled, 1000, "none is skipped");
    assert_eq!(lane.record.totals.handled, 51, "but these were not handled in the time of the schedule");
}

#[test]
fn a_timeout_and_an_unfinished_request_are_in_the_histogram_at_what_they_took_at_least() {
    let start = Instant::now();
    let mut lane = started(&plan(10.0, 2, WhenBusy::Queue), start);
    lane.class.timeout = 300 * MS;
    lane.handle_due(start + 250 * MS); // due at 0, 100 and 200 ms
    let first = send(&mut lane, start + 250 * MS).unwrap();
    let second = send(&mut lane, start + 250 * MS).unwrap();
    lane.failed(&first, Phase::FirstByte, Kind::Timeout, start + 300 * MS);
    assert_eq!(lane.next_event(), Some(start + 300 * MS), "the fourth is due before the third, that waits, is given up");
    lane.expire_waiting(start + 499 * MS);
    assert_eq!(lane.record.totals.timeouts, 1);
    lane.expire_waiting(start + 500 * MS);
    assert_eq!(lane.record.totals.timeouts, 2, "who waits for a connection times out too");
    lane.handle_due(start + 500 * MS);
    lane.end(start + 500 * MS);
    lane.unfinished(second.arrival, Some(second.sent), start + 500 * MS);
    let totals = lane.record.totals;
    assert_eq!((totals.scheduled, totals.ok, totals.errors, totals.unfinished), (6, 0, 2, 4));
    assert_eq!(lane.record.clocks.response.len(), 6, "nobody is left out");
    assert_eq!(lane.record.clocks.response_ok.len(), 0);
    assert!(
        lane.record.errors.contains_key(&(Phase::Wait, Kind::Timeout))
            && lane.record.errors.contains_key(&(Phase::FirstByte, Kind::Timeout))
    );
}

#[test]
fn a_refused_connection_fails_the_request_that_waited_for_it_and_leaves_no_time() {
    let start = Instant::now();
    let mut lane = Lane::new(&plan(10.0, 1, WhenBusy::Queue), 0, 0, 1);
    lane.start(start);
    lane.handle_due(start);
    assert_eq!(lane.to_open(start), 1);
    lane.connect_failed(Kind::Errno(libc::ECONNREFUSED), start + MS);
    lane.connect_failed(Kind::Errno(libc::ECONNREFUSED), start + MS);
    assert_eq!((lane.record.totals.scheduled, lane.record.totals.errors), (1, 1));
    assert_eq!(lane.record.errors[&(Phase::Connect, Kind::Errno(libc::ECONNREFUSED))].count, 2, "the second hit nobody");
    assert_eq!(lane.record.clocks.response.len(), 0, "a quick refusal is no quick answer");
}

#[test]
fn a_refusing_answer_is_an_error_and_no_good_answer_of_the_histogram() {
    let start = Instant::now();
    let mut lane = started(&plan(10.0, 2, WhenBusy::Queue), start);
    lane.handle_due(start + 100 * MS);
    for response in [Response { status: 503, ..OK }, Response { body_as_expected: false, ..OK }] {
        let exchange = send(&mut lane, start + 100 * MS).unwrap();
        lane.answered(&exchange, &response, start + 101 * MS);
    }
    assert_eq!((lane.record.totals.errors, lane.record.clocks.response.len(), lane.record.clocks.response_ok.len()), (2, 2, 0));
    assert_eq!(lane.record.status.into_iter().collect::<Vec<_>>(), [(200, 1), (503, 1)]);
}

#[test]
fn the_warm_up_is_sent_and_not_counted() {
    let start = Instant::now();
    let mut plan = plan(100.0, 100, WhenBusy::Queue);
    plan.warmup = 500 * MS;
    let mut lane = started(&plan, start);
    lane.handle_due(start + 1000 * MS);
    let mut sent = 0;
    while let Some(exchange) = send(&mut lane, start + 1000 * MS) {
        lane.answered(&exchange, &OK, start + 1000 * MS);
        sent += 1;
    }
    assert_eq!((sent, lane.record.totals.scheduled, lane.record.totals.ok), (100, 50, 50));
    assert!(lane.is_settled(start + 1000 * MS));
}

#[test]
fn connections_are_opened_for_those_who_wait_and_never_more_than_allowed() {
    let start = Instant::now();
    let mut plan = plan(1000.0, 2, WhenBusy::Queue);
    plan.classes[0].connections_max = 5;
    let mut lane = started(&plan, start);
    assert_eq!(lane.to_open(start), 0);
    lane.handle_due(start + 2 * MS); // three are due, two connections are idle
    assert_eq!(lane.to_open(start), 1);
    lane.connecting = 1;
    assert_eq!(lane.to_open(start), 0);
    lane.handle_due(start + 100 * MS);
    assert_eq!(lane.to_open(start), 2, "five and no more");
}

#[test]
fn threads_share_the_connections_of_a_class() {
    let mut plan = plan(1000.0, 10, WhenBusy::Queue);
    plan.classes[0].connections_max = 11;
    let parts: Vec<_> = (0..3).map(|share| Lane::new(&plan, 0, share, 3)).map(|lane| (lane.connections, lane.connections_max)).collect();
    assert_eq!(parts, [(4, 4), (3, 4), (3, 3)]);
}

proptest! {
    #[test]
    fn every_scheduled_request_ends_exactly_once(
        steps in proptest::collection::vec((0u32..40, 0u8..6), 1..80), rate in 20f64..500.0, timeout_ms in 20u32..400,
    ) {
        let start = Instant::now();
        let mut plan = plan(rate, 4, WhenBusy::Queue);
        plan.classes[0].timeout = timeout_ms * MS;
        let mut lane = started(&plan, start);
        let (mut now, mut on_the_wire) = (start, Vec::new());
        for (ms, action) in steps {
            now += ms * MS;
            lane.handle_due(now);
            lane.expire_waiting(now);
            match action {
                0 | 1 => on_the_wire.extend(send(&mut lane, now)),
                2 => if let Some(exchange) = on_the_wire.pop() { lane.answered(&exchange, &OK, now) },
                3 => if let Some(exchange) = on_the_wire.pop() { lane.answered(&exchange, &Response { status: 500, ..OK }, now) },
                4 => if let Some(exchange) = on_the_wire.pop() { lane.failed(&exchange, Phase::Body, Kind::ShortBody, now) },
                _ => lane.connect_failed(Kind::Timeout, now),
            }
        }
        for exchange in on_the_wire {
            lane.unfinished(exchange.arrival, Some(exchange.sent), now);
        }
        lane.end(now);
        let totals = lane.record.totals;
        prop_assert_eq!(totals.scheduled, totals.ok + totals.errors + totals.unfinished);
        prop_assert_eq!(lane.record.clocks.send_delay.len(), totals.scheduled);
        let untimed = lane.record.errors.iter().filter(|((_, kind), _)| *kind == Kind::ShortBody).map(|(_, error)| error.count).sum::<u64>();
        prop_assert_eq!(lane.record.clocks.response.len(), totals.scheduled - untimed);
        prop_assert!(lane.record.clocks.service.len() <= totals.sent);
    }
}
