//! The open loop by an injected clock: nothing is skipped, nothing is forgotten, and every time counts from due.

use super::*;
use crate::histogram::Record;
use crate::schedule::{Schedule, WhenBusy};
use crate::truth::bounds::Times;
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

/// A load with its connections open and idle, started.
fn started(plan: &Plan, start: Instant) -> ClassLoad {
    let mut load = ClassLoad::new(plan, 0, 0, 1);
    for slot in 0..load.to_open(start) {
        let token = Token::from_bits(slot as u64);
        load.pool.opened(token);
        load.pool.rest(token);
    }
    load.start(start);
    load
}

/// What a connection does: one that is idle, if there is one, becomes busy.
fn send(load: &mut ClassLoad, now: Instant) -> Option<Exchange> {
    let arrival = load.take(now)?;
    if let Some(token) = load.pool.summon() {
        load.pool.answered(token);
    }
    let exchange = Exchange { arrival, sent: now, written_bytes: 1, first_byte: None };
    load.account.sent(&exchange);
    Some(exchange)
}

#[test]
fn a_stall_delays_answers_and_not_arrivals_and_every_wait_is_counted_from_due() {
    let start = Instant::now();
    let mut load = started(&plan(1000.0, 1, WhenBusy::Queue), start);
    // The one connection is stalled for 100 ms by the first request; 100 more fall due meanwhile.
    load.handle_due(start);
    let stalled = send(&mut load, start).unwrap();
    for ms in 1..=100 {
        load.handle_due(start + ms * MS);
    }
    let now = start + 100 * MS;
    load.answered(&stalled, &OK, now);
    let mut answered = 1;
    while let Some(exchange) = send(&mut load, now) {
        load.answered(&exchange, &OK, now);
        answered += 1;
    }
    assert_eq!((answered, load.account.record.totals.scheduled, load.account.record.totals.ok), (101, 101, 101));
    let clocks = &load.account.record.clocks;
    assert!((49_000..52_000).contains(&clocks.response.known.value_at_quantile(0.5)), "half of them waited half of the stall");
    assert_eq!(clocks.service.value_at_quantile(0.99), 0, "measured from sending, the stall is one sample of 101");
    assert_eq!(clocks.send_delay.max(), 0, "the generator was never late");
    assert!(clocks.wait.max() >= 99_000, "the wait for a connection is the server's doing");
}

#[test]
fn a_closed_loop_does_not_see_the_same_stall() {
    let start = Instant::now();
    let mut load = started(&plan(1000.0, 1, WhenBusy::Skip), start);
    load.handle_due(start);
    let stalled = send(&mut load, start).unwrap();
    for ms in 1..=100 {
        load.handle_due(start + ms * MS);
    }
    load.answered(&stalled, &OK, start + 100 * MS);
    load.pool.rest(Token::from_bits(0));
    assert_eq!((load.account.record.totals.scheduled, load.account.record.totals.skipped), (1, 100));
    assert_eq!(send(&mut load, start + 100 * MS).map(|exchange| exchange.arrival.due), None);
}

#[test]
fn a_late_generator_blames_itself() {
    let start = Instant::now();
    let mut load = started(&plan(1000.0, 10, WhenBusy::Queue), start);
    load.handle_due(start + 50 * MS);
    assert_eq!(load.account.record.totals.scheduled, 51);
    while send(&mut load, start + 50 * MS).is_some() {}
    assert!((49_900..=50_100).contains(&load.account.record.clocks.send_delay.max()));
    load.handle_due(start + 2000 * MS);
    assert_eq!(load.account.record.totals.scheduled, 1000, "none is skipped");
    assert_eq!(load.account.record.totals.handled, 51, "but these were not handled in the time of the schedule");
}

#[test]
fn a_timeout_and_an_unfinished_request_are_in_the_histogram_at_what_they_took_at_least() {
    let start = Instant::now();
    let mut load = started(&plan(10.0, 2, WhenBusy::Queue), start);
    load.class.timeout = 300 * MS;
    load.handle_due(start + 250 * MS); // due at 0, 100 and 200 ms
    let first = send(&mut load, start + 250 * MS).unwrap();
    let second = send(&mut load, start + 250 * MS).unwrap();
    load.failed(&first, Phase::FirstByte, Kind::Timeout, start + 300 * MS);
    assert_eq!(load.next_event(), Some(start + 300 * MS), "the fourth is due before the third, that waits, is given up");
    load.expire_waiting(start + 499 * MS);
    assert_eq!(load.account.record.totals.timeouts, 1);
    load.expire_waiting(start + 500 * MS);
    assert_eq!(load.account.record.totals.timeouts, 1);
    assert_eq!(load.account.record.totals.not_sent.of(Limit::Connections), 1, "both connections were busy");
    load.handle_due(start + 500 * MS);
    load.end(start + 500 * MS);
    load.unfinished(&second, start + 500 * MS);
    let totals = load.account.record.totals;
    assert_eq!((totals.scheduled, totals.ok, totals.errors, totals.unfinished), (6, 0, 1, 4));
    let response = &load.account.record.clocks.response;
    assert_eq!((response.len(), response.known.len(), response.at_least.len()), (6, 0, 6), "none is left out");
    assert_eq!(load.account.record.errors.keys().collect::<Vec<_>>(), [&(Phase::FirstByte, Kind::Timeout)]);
    assert_eq!(
        load.account.record.errors[&(Phase::FirstByte, Kind::Timeout)].out,
        Some((50 * MS, 50 * MS)),
        "sent at 250, given up at 300"
    );
}

#[test]
fn a_refused_connection_fails_the_request_that_waited_for_it_and_ranks_as_never() {
    let start = Instant::now();
    let mut load = ClassLoad::new(&plan(10.0, 1, WhenBusy::Queue), 0, 0, 1);
    load.start(start);
    load.handle_due(start);
    assert_eq!(load.to_open(start), 1);
    load.connect_failed(Kind::Errno(libc::ECONNREFUSED), start + MS);
    load.connect_failed(Kind::Errno(libc::ECONNREFUSED), start + MS);
    assert_eq!((load.account.record.totals.scheduled, load.account.record.totals.errors), (1, 1));
    assert_eq!(load.account.record.errors[&(Phase::Connect, Kind::Errno(libc::ECONNREFUSED))].count, 2, "the second failed no request");
    let response = &load.account.record.clocks.response;
    assert_eq!((response.never, response.known.len(), response.len()), (1, 0, 1), "a quick refusal is not a quick answer");
}

#[test]
fn a_refusing_answer_is_an_error_and_no_good_answer_of_the_histogram() {
    let start = Instant::now();
    let mut load = started(&plan(10.0, 2, WhenBusy::Queue), start);
    load.handle_due(start + 100 * MS);
    for response in [Response { status: 503, ..OK }, Response { body_as_expected: false, ..OK }] {
        let exchange = send(&mut load, start + 100 * MS).unwrap();
        load.answered(&exchange, &response, start + 101 * MS);
    }
    let Record { totals, clocks, status, .. } = load.account.record;
    assert_eq!((totals.errors, clocks.response.never, clocks.response.known.len(), clocks.failed.len()), (2, 2, 0, 2));
    assert_eq!(status.into_iter().collect::<Vec<_>>(), [(200, 1), (503, 1)]);
}

#[test]
fn the_warm_up_is_sent_and_not_counted() {
    let start = Instant::now();
    let mut plan = plan(100.0, 100, WhenBusy::Queue);
    plan.warmup = 500 * MS;
    let mut load = started(&plan, start);
    load.handle_due(start + 1000 * MS);
    let mut sent = 0;
    while let Some(exchange) = send(&mut load, start + 1000 * MS) {
        load.answered(&exchange, &OK, start + 1000 * MS);
        sent += 1;
    }
    assert_eq!((sent, load.account.record.totals.scheduled, load.account.record.totals.ok), (100, 50, 50));
    assert!(load.is_settled(start + 1000 * MS));
}

#[test]
fn connections_are_opened_for_those_who_wait_and_never_more_than_allowed() {
    let start = Instant::now();
    let mut plan = plan(1000.0, 2, WhenBusy::Queue);
    plan.classes[0].connections_max = 5;
    let mut load = started(&plan, start);
    assert_eq!(load.to_open(start), 0);
    load.handle_due(start + 2 * MS); // three are due, two connections are idle
    assert_eq!(load.to_open(start), 1);
    load.connecting = 1;
    assert_eq!(load.to_open(start), 0);
    load.handle_due(start + 100 * MS);
    assert_eq!(load.to_open(start), 2, "five and no more");
}

#[test]
fn threads_share_the_connections_of_a_class() {
    let mut plan = plan(1000.0, 10, WhenBusy::Queue);
    plan.classes[0].connections_max = 11;
    let parts: Vec<_> =
        (0..3).map(|share| ClassLoad::new(&plan, 0, share, 3)).map(|load| (load.connections, load.connections_max)).collect();
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
        let mut load = started(&plan, start);
        let (mut now, mut on_the_wire, mut notes) = (start, Vec::new(), 0);
        for (ms, action) in steps {
            now += ms * MS;
            load.handle_due(now);
            load.expire_waiting(now);
            match action {
                0 | 1 => on_the_wire.extend(send(&mut load, now)),
                2 => if let Some(exchange) = on_the_wire.pop() { load.answered(&exchange, &OK, now) },
                3 => if let Some(exchange) = on_the_wire.pop() { load.answered(&exchange, &Response { status: 500, ..OK }, now) },
                4 => if let Some(exchange) = on_the_wire.pop() { load.failed(&exchange, Phase::Body, Kind::ShortBody, now) },
                _ => {
                    let errors = load.account.record.totals.errors;
                    load.connect_failed(Kind::Timeout, now);
                    notes += u64::from(load.account.record.totals.errors == errors);
                }
            }
        }
        for exchange in on_the_wire {
            load.unfinished(&exchange, now);
        }
        load.end(now);
        let record = &load.account.record;
        let totals = record.totals;
        prop_assert_eq!(totals.scheduled, totals.ok + totals.errors + totals.unfinished + totals.not_sent.total());
        prop_assert_eq!(record.clocks.response.len(), totals.scheduled);
        prop_assert_eq!(record.clocks.send_delay.len(), totals.scheduled);
        let response = &record.clocks.response;
        prop_assert_eq!((response.known.len(), response.never), (totals.ok, totals.errors - totals.timeouts));
        prop_assert_eq!((record.clocks.failed.len(), record.clocks.response_low.len()), (response.never, totals.ok));
        prop_assert!(record.clocks.service.len() <= totals.sent && record.clocks.wait.len() == totals.sent);
        prop_assert_eq!(record.errors.values().map(|error| error.count).sum::<u64>(), totals.errors + notes);
        let interval = load.account.next_interval(now);
        prop_assert_eq!((interval.scheduled, interval.errors), (totals.scheduled, totals.errors));
        prop_assert_eq!(interval.completed, totals.completed());
        prop_assert_eq!(interval.due.values().map(Times::len).sum::<u64>(), totals.scheduled);
        prop_assert!(interval.in_flight_max <= totals.scheduled);
    }
}

/// Three connections, 300 ms for each answer, and 20 requests a second: they carry ten.
fn overloaded() -> (ClassLoad, Instant) {
    let start = Instant::now();
    let mut load = started(&plan(20.0, 3, WhenBusy::Queue), start);
    load.class.timeout = 500 * MS;
    let mut busy: VecDeque<(Exchange, Instant)> = VecDeque::new();
    let mut now = start;
    while !load.is_settled(now) || load.next_event().is_some() {
        load.handle_due(now);
        load.expire_waiting(now);
        while let Some((exchange, at)) = busy.front().copied().filter(|(_, at)| *at <= now) {
            busy.pop_front();
            if at.saturating_duration_since(exchange.arrival.due) > load.class.timeout {
                load.failed(&exchange, Phase::FirstByte, Kind::Timeout, at);
            } else {
                load.answered(&exchange, &OK, at);
            }
        }
        while busy.len() < 3
            && let Some(exchange) = send(&mut load, now)
        {
            busy.push_back((exchange, now + 300 * MS));
        }
        now += MS;
    }
    (load, now)
}

#[test]
fn what_cannot_be_answered_in_time_is_not_sent() {
    let (mut load, now) = overloaded();
    load.end(now);
    let totals = load.account.record.totals;
    assert_eq!((totals.scheduled, totals.timeouts, totals.errors, totals.unfinished), (20, 0, 0, 0), "{totals:?}");
    assert!(totals.ok >= 10, "three connections carry ten a second: {totals:?}");
    assert_eq!((totals.ok + totals.not_sent.of(Limit::Connections), totals.sent), (20, totals.ok));
    assert!(totals.found_full >= 10, "{totals:?}");
}

#[test]
fn a_connection_that_the_generators_own_limits_refuse_fails_no_request() {
    let start = Instant::now();
    let mut load = ClassLoad::new(&plan(10.0, 1, WhenBusy::Queue), 0, 0, 1);
    load.class.timeout = 300 * MS;
    load.start(start);
    load.handle_due(start);
    assert_eq!(load.to_open(start), 1);
    load.connect_failed(Kind::Errno(libc::EADDRNOTAVAIL), start);
    assert_eq!((load.to_open(start), load.next_event()), (0, Some(start + CONNECT_PAUSE)), "not at once again");
    load.expire_waiting(start + CONNECT_PAUSE);
    assert_eq!((load.to_open(start + CONNECT_PAUSE), load.next_event()), (1, Some(start + 100 * MS)));
    load.expire_waiting(start + 300 * MS);
    let totals = load.account.record.totals;
    assert_eq!((totals.errors, totals.not_sent.of(Limit::Ports)), (0, 1), "{totals:?}");
}

#[test]
fn a_server_that_takes_no_connections_is_blamed_for_the_requests_that_waited_for_one() {
    let start = Instant::now();
    let mut load = ClassLoad::new(&plan(10.0, 1, WhenBusy::Queue), 0, 0, 1);
    load.start(start);
    load.handle_due(start);
    load.connecting = 1;
    load.expire_waiting(start + load.class.timeout);
    let totals = load.account.record.totals;
    assert_eq!((totals.timeouts, totals.not_sent.total()), (1, 0), "{totals:?}");
    assert!(load.account.record.errors.contains_key(&(Phase::Connect, Kind::Timeout)));
}

#[test]
fn a_generator_that_was_too_late_to_send_names_itself() {
    let start = Instant::now();
    let mut load = started(&plan(1.0, 1, WhenBusy::Queue), start);
    let late = start + load.class.timeout;
    load.handle_due(late);
    assert_eq!(send(&mut load, late).map(|exchange| exchange.sent), None);
    assert_eq!(load.account.record.totals.not_sent.of(Limit::Cpu), 1);
}

#[test]
fn a_stall_inside_a_second_is_seen_at_its_end() {
    let start = Instant::now();
    let mut load = started(&plan(100.0, 1, WhenBusy::Queue), start);
    let mut exchange = None;
    for ms in 0..700 {
        let now = start + ms * MS;
        load.handle_due(now);
        // Answers come at once, but for 300 ms.
        if !(200..500).contains(&ms) {
            while let Some(sent) = exchange.take().or_else(|| send(&mut load, now)) {
                load.answered(&sent, &OK, now);
            }
        } else if exchange.is_none() {
            exchange = send(&mut load, now);
        }
    }
    let interval = load.account.next_interval(start + 1000 * MS);
    assert_eq!((interval.in_flight_max, interval.oldest), (31, 300 * MS));
    load.end(start + 1000 * MS);
    let quiet = load.account.record.quiet.unwrap();
    let silence = quiet.iter().max_by_key(|quiet| quiet.silence()).unwrap();
    assert_eq!((silence.began(), silence.silence(), silence.due_in_it), (200 * MS, 300 * MS, 31));
}

#[test]
fn a_pause_of_the_generator_is_not_a_silence_of_the_server() {
    let start = Instant::now();
    let mut load = started(&plan(100.0, 1, WhenBusy::Queue), start);
    load.handle_due(start);
    let sent = send(&mut load, start).unwrap();
    // The thread does not run for 300 ms. The answer came in the first of them, and is read before the schedule is looked at.
    load.answered(&sent, &OK, start + 300 * MS);
    load.handle_due(start + 300 * MS);
    load.end(start + 300 * MS);
    let quiet = load.account.record.quiet.unwrap();
    assert!(quiet.iter().all(|quiet| quiet.silence() <= 10 * MS), "{quiet:?}");
}

#[test]
fn the_rate_is_over_the_time_that_was_measured() {
    let start = Instant::now();
    let mut plan = plan(100.0, 1, WhenBusy::Queue);
    plan.classes[0].schedule.count_max = Some(10);
    plan.classes[0].schedule.length = Duration::from_secs(24 * 3600);
    let mut load = started(&plan, start);
    load.handle_due(start + 1000 * MS);
    assert_eq!(load.schedule_ran(), 100 * MS, "ten requests at 100 a second, of the planned day");
    let in_time = send(&mut load, start + 10 * MS).unwrap();
    load.answered(&in_time, &OK, start + 99 * MS);
    let drained = send(&mut load, start + 10 * MS).unwrap();
    load.answered(&drained, &OK, start + 101 * MS);
    let totals = load.account.record.totals;
    assert_eq!((totals.ok, totals.ok_in_time), (2, 1), "an answer while draining is not throughput");
}
