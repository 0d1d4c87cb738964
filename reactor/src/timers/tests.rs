//! The wheel against a sorted map, in virtual time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SLOTS: u32 = 40;
/// Milliseconds: far more than the 32 bits of a link. Times that lie so far behind are not told exactly.
const YEARS: u64 = 1000 * 86_400_000;

/// Every ring is closed both ways, holds each slot once, and the bits say which rings there are.
fn assert_consistent(wheel: &Wheel) {
    let mut hung = 0;
    for level in 0..LEVELS {
        for bucket in 0..BUCKETS {
            let head = wheel.heads[level][bucket];
            assert_eq!(wheel.occupied[level] >> bucket & 1 == 1, head != 0);
            let mut id = head;
            while id != 0 {
                let link = wheel.links[id as usize - 1];
                assert_eq!(Place::of(link), Some(Place::new(level, bucket)));
                assert_eq!(wheel.links[link[NEXT] as usize - 1][PREV], id);
                hung += 1;
                assert!(hung <= wheel.links.len(), "a ring does not close");
                id = if link[NEXT] == head { 0 } else { link[NEXT] };
            }
        }
    }
    assert_eq!(hung, wheel.links.iter().filter(|link| Place::of(**link).is_some()).count());
    assert!(wheel.links.iter().all(|link| link[PLACE] & ARMED == 0 || Place::of(*link).is_some()), "armed, and not on the wheel");
}

/// Wheel and model side by side.
struct Pair {
    wheel: Wheel,
    start: Instant,
    now: Instant,
    /// For each slot its deadline in milliseconds since the start, rounded up as promised.
    model: BTreeMap<u32, u64>,
}

impl Pair {
    fn new(start_tick: u64) -> Pair {
        let start = Instant::now();
        Pair { wheel: Wheel::starting_at_tick(start, SLOTS, start_tick), start, now: start, model: BTreeMap::new() }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn now_millis(&self) -> u64 {
        (self.now - self.start).as_millis() as u64
    }

    fn set(&mut self, slot: u32, at: Instant) {
        self.wheel.set(slot, Some(at), self.now);
        self.model.insert(slot, at.saturating_duration_since(self.start).as_nanos().div_ceil(1_000_000) as u64);
    }

    /// Expires at most `budget` deadlines; true if nothing is left. Each that comes must be due, and must say so.
    fn expire(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            match self.wheel.expire(self.now) {
                Some((slot, due)) => {
                    let due_millis = self.model.remove(&slot).expect("an expired slot had a deadline");
                    assert!(due_millis <= self.now_millis(), "early by {} ms", due_millis - self.now_millis());
                    assert!(due <= self.now && (due >= self.at(due_millis) || self.now_millis() > YEARS), "the time it was to run is told");
                }
                None if self.wheel.next().is_some_and(|next| next <= self.now) => {}
                None => return true,
            }
        }
        false
    }

    fn check(&self, all_expired: bool) {
        assert_consistent(&self.wheel);
        let first = self.model.values().min();
        if all_expired {
            assert!(first.is_none_or(|&first| first > self.now_millis()), "a deadline has passed and was not found");
            assert!(self.wheel.next().is_none_or(|next| next > self.now), "nothing to do, yet the loop would not sleep");
        }
        if let Some(&first) = first {
            let next = self.wheel.next().expect("a deadline is set");
            assert!(next <= self.at(first).max(self.now), "the loop would sleep past a deadline");
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Set { slot: u32, ahead: Duration },
    SetPassed { slot: u32, ago: Duration },
    Cancel { slot: u32 },
    Remove { slot: u32 },
    Sleep { long: Duration, budget: usize },
    SleepUntilNext,
}

/// Of every order of magnitude, from nothing to 13 days, and not in whole milliseconds.
fn durations() -> impl Strategy<Value = Duration> {
    (0..51u32).prop_flat_map(|bits| 0..1u64 << bits).prop_map(Duration::from_nanos)
}

fn ops() -> impl Strategy<Value = Op> {
    let slots = 0..SLOTS;
    prop_oneof![
        6 => (slots.clone(), durations()).prop_map(|(slot, ahead)| Op::Set { slot, ahead }),
        1 => (slots.clone(), durations()).prop_map(|(slot, ago)| Op::SetPassed { slot, ago }),
        1 => slots.clone().prop_map(|slot| Op::Cancel { slot }),
        1 => slots.prop_map(|slot| Op::Remove { slot }),
        // After more than some hours it expires all, as a loop soon does: the range of 49 days counts from the first that is left.
        3 => (durations(), 0..8usize).prop_map(|(long, budget)| Op::Sleep { long, budget: if long.as_secs() < 4 * 3600 { budget } else { usize::MAX } }),
        3 => Just(Op::SleepUntilNext),
    ]
}

/// Where the stored 32 bits, the wheel's 36 bits and single levels overflow soon after, or nothing does.
fn start_ticks() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        (1u64 << 32..=1 << 32, 0..100_000u64).prop_map(|(edge, before)| edge - before),
        (1u64 << 36..=1 << 36, 0..100_000u64).prop_map(|(edge, before)| edge - before),
        0..1u64 << 40,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_set_moved_and_cancelled_runs_once_never_early_and_at_the_first_look_after(
        start_tick in start_ticks(),
        ops in prop::collection::vec(ops(), 1..120),
    ) {
        let mut pair = Pair::new(start_tick);
        for op in ops {
            let mut all_expired = false;
            match op {
                Op::Set { slot, ahead } => pair.set(slot, pair.now + ahead),
                Op::SetPassed { slot, ago } => pair.set(slot, pair.now.checked_sub(ago).unwrap_or(pair.start)),
                Op::Cancel { slot } => {
                    pair.wheel.set(slot, None, pair.now);
                    pair.model.remove(&slot);
                }
                Op::Remove { slot } => {
                    pair.wheel.remove(slot);
                    pair.model.remove(&slot);
                }
                Op::Sleep { long, budget } => {
                    pair.now += long;
                    all_expired = pair.expire(budget);
                }
                Op::SleepUntilNext => {
                    if let Some(next) = pair.wheel.next() {
                        pair.now = pair.now.max(next);
                    }
                    all_expired = pair.expire(usize::MAX);
                }
            }
            pair.check(all_expired);
        }
        // In the end everything comes, and nothing twice.
        pair.now += Duration::from_secs(60 * 86_400);
        prop_assert!(pair.expire(usize::MAX));
        prop_assert!(pair.model.is_empty());
        prop_assert_eq!(pair.wheel.next(), None);
    }

    #[test]
    fn a_loop_that_sleeps_until_next_runs_each_deadline_in_its_millisecond_and_wakes_at_most_once_a_level(
        start_tick in start_ticks(),
        ahead in durations(),
    ) {
        let mut pair = Pair::new(start_tick);
        let at = pair.now + ahead;
        pair.set(0, at);
        let mut wakes = 0;
        let due = loop {
            pair.now = pair.wheel.next().expect("it has not run yet");
            wakes += 1;
            prop_assert!(wakes <= LEVELS);
            if let Some((slot, due)) = pair.wheel.expire(pair.now) {
                prop_assert_eq!(slot, 0);
                break due;
            }
        };
        prop_assert_eq!(due, pair.now);
        prop_assert!(due >= at && due < at + TICK);
        prop_assert_eq!(pair.wheel.next(), None);
    }

    #[test]
    fn next_is_early_by_less_than_the_width_of_the_bucket(start_tick in start_ticks(), ahead in durations()) {
        let mut pair = Pair::new(start_tick);
        pair.set(0, pair.now + ahead);
        let level = Place::of(pair.wheel.links[0]).expect("it hangs").level();
        let early = pair.at(pair.model[&0]) - pair.wheel.next().expect("it is set");
        prop_assert!(early < Duration::from_millis(1 << (level as u32 * BUCKET_BITS)));
    }
}

#[test]
fn a_later_deadline_moves_no_link_and_an_earlier_one_does() {
    let mut pair = Pair::new(0);
    pair.set(7, pair.at(5_000));
    let place = Place::of(pair.wheel.links[7]);
    for later in 5_001..50_000 {
        pair.set(7, pair.at(later));
        assert_eq!(Place::of(pair.wheel.links[7]), place);
    }
    pair.set(7, pair.at(100));
    assert_ne!(Place::of(pair.wheel.links[7]), place);
    pair.now = pair.at(100);
    assert_eq!(pair.wheel.expire(pair.now), Some((7, pair.now)));
}

#[test]
fn a_deadline_beyond_the_range_runs_at_the_end_of_the_range() {
    let mut pair = Pair::new(12_345);
    pair.wheel.set(3, Some(pair.start + Duration::from_secs(1000 * 86_400)), pair.now);
    assert_eq!(pair.wheel.expire(pair.at(u64::from(u32::MAX) - 1)), None);
    assert_eq!(pair.wheel.expire(pair.at(u64::from(u32::MAX))).map(|(slot, _)| slot), Some(3));
}

#[test]
fn after_an_idle_month_the_range_counts_from_now() {
    let mut pair = Pair::new(0);
    pair.now = pair.at(40 * 86_400_000);
    assert!(pair.expire(1));
    pair.set(0, pair.at(60 * 86_400_000));
    assert_eq!(pair.wheel.expire(pair.at(60 * 86_400_000 - 1)), None);
    assert!(pair.wheel.expire(pair.at(60 * 86_400_000)).is_some());
}

#[test]
fn after_a_sleep_of_years_in_the_middle_of_a_pass_nothing_is_lost() {
    let mut pair = Pair::new(0);
    for slot in 0..10 {
        pair.set(slot, pair.at(10));
    }
    pair.now = pair.at(10);
    assert!(!pair.expire(5));
    pair.now += Duration::from_millis(YEARS + 1);
    assert!(!pair.expire(1));
    pair.set(20, pair.now); // Its 32 bits cannot say "now" from where the wheel is; it must run all the same.
    assert!(pair.expire(100));
    assert!(pair.model.is_empty());
}

#[test]
fn a_handler_that_sets_passed_deadlines_again_and_again_does_not_starve_the_others() {
    let mut pair = Pair::new(0);
    pair.set(0, pair.at(1));
    for slot in 1..SLOTS {
        pair.set(slot, pair.at(u64::from(slot)));
    }
    pair.now = pair.at(1000);
    let mut expired = std::collections::BTreeSet::new();
    for _ in 0..2 * SLOTS {
        let (slot, _) = pair.wheel.expire(pair.now).expect("slot 0 is always due");
        expired.insert(slot);
        if slot == 0 {
            pair.wheel.set(0, Some(pair.start), pair.now);
        }
    }
    assert_eq!(expired.len(), SLOTS as usize);
}

#[test]
fn ten_thousand_far_deadlines_come_nearer_in_bounded_steps() {
    let slots: u32 = 10_000;
    let start = Instant::now();
    let mut wheel = Wheel::new(start, slots);
    for slot in 0..slots {
        wheel.set(slot, Some(start + Duration::from_millis(4096 + u64::from(slot % 4096))), start);
    }
    let now = wheel.next().expect("they are set");
    let mut calls = 0;
    let mut expired = 0;
    while wheel.next().is_some_and(|next| next <= now) {
        expired += usize::from(wheel.expire(now).is_some());
        calls += 1;
    }
    assert_eq!(expired, (0..slots).filter(|slot| slot % 4096 == 0).count());
    assert!(calls >= slots.div_ceil(MOVES_PER_CALL_MAX), "a call moved more than its bound: {calls} calls were enough");
    assert!(calls <= slots.div_ceil(MOVES_PER_CALL_MAX) + 2 + expired as u32, "{calls} calls");
    assert_consistent(&wheel);
}

#[test]
fn ten_thousand_idle_connections_wake_the_loop_once_for_each_bucket_and_not_each_few_milliseconds() {
    let slots: u32 = 10_000;
    let start = Instant::now();
    let mut wheel = Wheel::new(start, slots);
    // 60 s, spread by up to 10 % (`timer-herd`).
    for slot in 0..slots {
        wheel.set(slot, Some(start + Duration::from_millis(60_000 + u64::from(slot) * 7919 % 6000)), start);
    }
    let mut wakes = 0;
    while let Some(now) = wheel.next().filter(|next| *next < start + Duration::from_secs(60)) {
        while wheel.expire(now).is_some() || wheel.next().is_some_and(|next| next <= now) {}
        wakes += 1;
    }
    assert!(wakes <= 4, "{wakes} wakes in the 60 s in which nothing was due");
}

#[test]
fn links_of_slots_that_are_never_used_are_not_resident() {
    let resident_bytes = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
        let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has numbers, proc_pid_statm(5)");
        pages * 4096
    };
    let before = resident_bytes();
    let now = Instant::now();
    let mut wheel = Wheel::new(now, 1 << 26); // A GiB of links.
    wheel.set(1 << 25, Some(now), now);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes more are resident");
}
