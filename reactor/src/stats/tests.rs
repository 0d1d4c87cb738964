//! Counters, gauges, and what another thread sees of a callback.

use super::*;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

#[test]
fn each_label_is_unique_and_each_list_is_in_the_order_of_the_numbers() {
    assert!(Callback::ALL.iter().enumerate().all(|(number, &callback)| callback as usize == number));
    assert!(AcceptError::ALL.iter().enumerate().all(|(number, &error)| error as usize == number));
    assert!(CloseReason::ALL.iter().enumerate().all(|(number, &reason)| reason as usize == number));
    assert_eq!(Callback::ALL.map(Callback::label).into_iter().collect::<BTreeSet<_>>().len(), Callback::COUNT);
    assert_eq!(AcceptError::ALL.map(AcceptError::label).into_iter().collect::<BTreeSet<_>>().len(), AcceptError::COUNT);
    assert_eq!(CloseReason::ALL.map(CloseReason::label).into_iter().collect::<BTreeSet<_>>().len(), CloseReason::COUNT);
}

#[test]
fn the_running_callback_is_seen_with_its_name_its_slot_and_the_age_of_its_turn() {
    let base = Instant::now();
    let at = |millis| base + Duration::from_millis(millis);
    let stats = Stats::new(base);
    assert_eq!((stats.running(at(1)), stats.turn_age(at(1))), (None, None));
    stats.turn_begins(at(10));
    assert_eq!((stats.running(at(12)), stats.turn_age(at(12))), (None, Some(Duration::from_millis(2))));
    stats.enter(Callback::Input, 7);
    let first = stats.running(at(15)).expect("input runs");
    assert_eq!(first, Running { callback: Callback::Input, slot: 7, sequence: 1, turn_age: Duration::from_millis(5) });
    assert_eq!(stats.running(at(15)), Some(first), "the same call has the same number");
    stats.leave();
    assert_eq!(stats.running(at(16)), None);
    stats.enter(Callback::Woke, Stats::NO_SLOT);
    let second = stats.running(at(9)).expect("woke runs");
    assert_eq!(second, Running { callback: Callback::Woke, slot: Stats::NO_SLOT, sequence: 2, turn_age: Duration::ZERO });
    stats.leave();
    stats.turn_ends();
    assert_eq!((stats.running(at(20)), stats.turn_age(at(20))), (None, None));
}

#[test]
fn a_turn_that_begins_at_the_very_base_is_a_turn() {
    let base = Instant::now();
    let stats = Stats::new(base);
    stats.turn_begins(base);
    assert_eq!(stats.turn_age(base), Some(Duration::ZERO));
}

#[test]
fn a_callback_whose_end_was_skipped_does_not_turn_the_numbers_around() {
    let stats = Stats::new(Instant::now());
    stats.enter(Callback::Mail, 1);
    stats.enter(Callback::Closed, 1);
    assert_eq!(stats.running(Instant::now()).map(|running| (running.callback, running.sequence)), Some((Callback::Closed, 2)));
    stats.leave();
    stats.leave();
    assert_eq!(stats.running(Instant::now()), None);
}

#[test]
fn another_thread_never_sees_one_callbacks_name_with_the_others_number() {
    const CALLS: u32 = 200_000;
    let base = Instant::now();
    let stats = Stats::new(base);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sequence_before = 0;
            while !ended.load(Ordering::Relaxed) {
                if let Some(running) = stats.running(base) {
                    assert_eq!(running.callback, Callback::ALL[running.sequence as usize % Callback::COUNT]);
                    assert_eq!(running.slot, running.sequence as u32);
                    assert!(running.sequence >= sequence_before);
                    sequence_before = running.sequence;
                }
            }
        });
        for sequence in 1..=CALLS {
            stats.enter(Callback::ALL[sequence as usize % Callback::COUNT], sequence);
            stats.bytes_read.add(3);
            stats.leave();
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert_eq!(stats.bytes_read.get(), 3 * u64::from(CALLS));
}

#[test]
fn a_gauge_goes_up_and_down_and_keeps_its_highest_where_it_should() {
    let stats = Stats::new(Instant::now());
    stats.connections_lingering.add(3);
    stats.connections_lingering.sub(2);
    assert_eq!(stats.connections_lingering.get(), 1);
    stats.events_per_turn_max.raise_to(5);
    stats.events_per_turn_max.raise_to(4);
    assert_eq!(stats.events_per_turn_max.get(), 5);
}
