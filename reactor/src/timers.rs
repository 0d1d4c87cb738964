//! The deadlines of a loop's connections: at most one for each slot, on a hierarchical timing wheel of links beside the slots.
//!
//! *Why a wheel.* A heap with cancelled entries left in it holds request rate × timeout dead ones (failure mode L7). Here a slot
//! hangs on the wheel once or not at all, so the wheel is as large as the table of slots and never grows.
//!
//! *Why levels.* In a flat hashed wheel of 1 ms ticks the far deadlines of 10,000 idle connections would lie in every bucket, and
//! the loop would wake each few milliseconds to look at them and put them back. With levels (Varghese and Lauck, "Hashed and
//! Hierarchical Timing Wheels", SOSP 1987, scheme 7; tokio `runtime/time/wheel` does the same) a deadline 60 s away is looked at
//! three times.
//!
//! *Why lazy.* A connection that gets a request each millisecond moves its deadline each millisecond. A later deadline is only
//! written down; the slot stays in its bucket, and is hung where it belongs when that bucket's time has come.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// Milliseconds: what epoll_wait(2) can wait for, and fine enough for timeouts of seconds.
const TICK: Duration = Duration::from_millis(1);
/// 64 buckets a level, so that one `u64` says which of them are occupied.
const BUCKET_BITS: u32 = 6;
const BUCKETS: usize = 1 << BUCKET_BITS;
/// 6 levels × 6 bits = 36 bits: all of the 32 bits of a stored tick (49 days) and the carry out of them.
const LEVELS: usize = 6;
/// The farthest deadline, in ticks from the wheel's own time. Farther ones run then, which is early by design and 49 days away.
const AHEAD_TICKS_MAX: u64 = u32::MAX as u64;
/// Links moved from bucket to bucket in one call of [`Wheel::expire`], before it says "not now" so that the turn stays short.
/// A whole life of a deadline, three moves among it, takes 73 ns in a release build here: so this is about 25 µs.
const MOVES_PER_CALL_MAX: u32 = 1024;

/// One slot's place on the wheel: 16 bytes. An array and not a struct, because `vec![[0; 4]; n]` asks the system for zeroed pages
/// (calloc(3)), and those of slots that are never used stay untouched and cost no memory. So 0 must mean "none" everywhere.
type Link = [u32; 4];
/// What a deadline costs each connection.
pub(crate) const LINK_BYTES: usize = size_of::<Link>();
/// The slot before in the bucket's ring, plus 1.
const PREV: usize = 0;
/// The slot after in the bucket's ring, plus 1.
const NEXT: usize = 1;
/// The low 32 bits of the tick at which the deadline passes. The rest follows from the wheel's time, since it is never farther
/// away than 32 bits.
const DUE: usize = 2;
/// Level × 64 + bucket + 1 where it hangs, or 0; and [`ARMED`].
const PLACE: usize = 3;
/// Whether the deadline is set. A slot can hang on the wheel without one: cancelled, and not met yet.
const ARMED: u32 = 1 << 31;

/// One deadline for each slot. No operation allocates, and each costs the same whatever the number of deadlines.
#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    /// The tick of `start`. 0, except in tests, which begin shortly before the stored 32 bits overflow.
    start_tick: u64,
    /// The wheel's own time: no bucket before it is occupied, and no deadline lies before it. 64 bits, so it never wraps.
    tick: u64,
    /// The latest time that it has been told and had to know.
    now_tick: u64,
    links: Vec<Link>,
    /// The first slot of each bucket's ring, plus 1, or 0.
    heads: [[u32; BUCKETS]; LEVELS],
    /// One bit for each bucket that has a slot.
    occupied: [u64; LEVELS],
    /// Where the first bucket that has a slot begins, or [`NEVER`].
    first_tick: u64,
    /// The same as a time: each turn asks for it twice, and it seldom changes.
    first_at: Option<Instant>,
}

/// Later than any tick.
const NEVER: u64 = u64::MAX;

impl Wheel {
    /// A wheel for the slots `0..slots_max`. The only allocation: 16 bytes for each slot, not resident before its first deadline.
    pub(crate) fn new(start: Instant, slots_max: u32) -> Wheel {
        Wheel::starting_at_tick(start, slots_max, 0)
    }

    fn starting_at_tick(start: Instant, slots_max: u32, start_tick: u64) -> Wheel {
        Wheel {
            start,
            start_tick,
            tick: start_tick,
            now_tick: start_tick,
            links: vec![[0; 4]; slots_max as usize],
            heads: [[0; BUCKETS]; LEVELS],
            occupied: [0; LEVELS],
            first_tick: NEVER,
            first_at: None,
        }
    }

    /// Sets, moves or (with `None`) cancels the deadline of `slot`. It is rounded up to the next millisecond, so that it never runs
    /// early. One that has passed already runs at the next [`Wheel::expire`]; one farther away than 49 days runs after 49 days.
    pub(crate) fn set(&mut self, slot: u32, at: Option<Instant>, now: Instant) {
        let Some(at) = at else {
            self.links[slot as usize][PLACE] &= !ARMED;
            return;
        };
        self.catch_up(now);
        // Not before `now_tick`: a handler that sets passed deadlines again and again must queue behind those of others.
        let due_tick = self.tick_after(at).max(self.now_tick).min(self.tick + AHEAD_TICKS_MAX);
        let link = &mut self.links[slot as usize];
        link[DUE] = due_tick as u32;
        link[PLACE] |= ARMED;
        match Place::of(*link) {
            Some(place) if place.start_tick(self.tick) <= due_tick => {} // Met in time where it hangs: nothing to move.
            Some(place) => {
                self.unhang(slot, place);
                self.hang(slot, due_tick);
            }
            None => self.hang(slot, due_tick),
        }
    }

    /// Takes `slot` off the wheel: its connection is closed, and the next tenant of the slot must not inherit the deadline.
    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(place) = Place::of(self.links[slot as usize]) {
            self.unhang(slot, place);
        }
        self.links[slot as usize] = [0; 4];
    }

    /// When [`Wheel::expire`] has something to do: never later than the earliest deadline. It may be earlier, by less than the width
    /// of the bucket in which the earliest slot hangs (64 of them span the distance), or because that slot's deadline was moved or cancelled.
    pub(crate) fn next(&self) -> Option<Instant> {
        debug_assert_eq!(self.first_tick, self.first_bucket().map_or(NEVER, |first| first.start_tick(self.tick)));
        self.first_at
    }

    /// Brings the wheel's time up to `now`, or as near as what has passed and was not taken lets it come.
    fn catch_up(&mut self, now: Instant) {
        self.now_tick = self.now_tick.max(self.tick_before(now));
        if self.now_tick < self.first_tick {
            // Nothing hangs before now, so a long sleep costs no steps. The range of deadlines counts from here on.
            self.tick = self.now_tick;
        }
    }

    /// Takes one deadline that has passed: its slot, and the time when it was to run (rounded up to the tick; one that had passed
    /// when it was set was to run then). It is not set any more.
    ///
    /// The caller repeats this within its budget. What is left is found by the next call, and [`Wheel::next`] is then not after
    /// `now`. `None` says that nothing more has passed, or that so many far deadlines came nearer at once that it is another
    /// turn's work; [`Wheel::next`] tells which.
    #[inline]
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(u32, Instant)> {
        // Most turns end here, so the time is not taken apart into ticks before this.
        if self.first_at.is_none_or(|at| now < at) { None } else { self.expire_first(now) }
    }

    fn expire_first(&mut self, now: Instant) -> Option<(u32, Instant)> {
        self.catch_up(now);
        let now_tick = self.now_tick;
        for _ in 0..MOVES_PER_CALL_MAX {
            let first = if self.first_tick <= now_tick { self.first_bucket() } else { None };
            let Some(place) = first else {
                self.catch_up(now);
                return None;
            };
            self.tick = self.first_tick;
            let slot = self.heads[place.level()][place.bucket()] - 1;
            self.unhang(slot, place);
            let link = &mut self.links[slot as usize];
            if link[PLACE] & ARMED == 0 {
                continue; // Cancelled since it was hung.
            }
            // The low bits of a tick that is at most 32 bits ahead give all of it.
            let due_tick = self.tick + u64::from(link[DUE].wrapping_sub(self.tick as u32));
            if due_tick <= now_tick {
                link[PLACE] &= !ARMED;
                return Some((slot, self.instant_of(due_tick)));
            }
            self.hang(slot, due_tick); // Near enough now for a finer bucket, or moved later since it was hung.
        }
        None
    }

    /// The bucket that comes first.
    fn first_bucket(&self) -> Option<Place> {
        (0..LEVELS)
            .filter_map(|level| {
                let here = (self.tick >> (level as u32 * BUCKET_BITS)) as u32 % BUCKETS as u32;
                let from_here = self.occupied[level].rotate_right(here);
                (from_here != 0).then(|| Place::new(level, (here + from_here.trailing_zeros()) as usize % BUCKETS))
            })
            .min_by_key(|place| place.start_tick(self.tick))
    }

    fn set_first(&mut self, tick: u64) {
        self.first_tick = tick;
        self.first_at = (tick != NEVER).then(|| self.instant_of(tick));
    }

    /// Hangs a slot at the end of the ring of the bucket where `due_tick` belongs.
    fn hang(&mut self, slot: u32, due_tick: u64) {
        let place = Place::for_tick(self.tick, due_tick);
        let id = slot + 1;
        let head = &mut self.heads[place.level()][place.bucket()];
        let (prev, next) = match *head {
            0 => {
                *head = id;
                self.occupied[place.level()] |= 1 << place.bucket();
                (id, id)
            }
            first => (self.links[first as usize - 1][PREV], first),
        };
        // A bucket keeps its first tick while it has a slot: the wheel's time never passes it.
        let start_tick = place.start_tick(self.tick);
        if start_tick < self.first_tick {
            self.set_first(start_tick);
        }
        let link = &mut self.links[slot as usize];
        link[PREV] = prev;
        link[NEXT] = next;
        link[PLACE] = place.0 | link[PLACE] & ARMED;
        self.links[prev as usize - 1][NEXT] = id;
        self.links[next as usize - 1][PREV] = id;
    }

    /// Takes a slot out of its bucket's ring. Whether it is armed stays as it is.
    fn unhang(&mut self, slot: u32, place: Place) {
        let [prev, next, ..] = self.links[slot as usize];
        let id = slot + 1;
        let head = &mut self.heads[place.level()][place.bucket()];
        if next == id {
            *head = 0;
            self.occupied[place.level()] &= !(1 << place.bucket());
            if place.start_tick(self.tick) == self.first_tick {
                self.set_first(self.first_bucket().map_or(NEVER, |first| first.start_tick(self.tick)));
            }
        } else {
            if *head == id {
                *head = next;
            }
            self.links[prev as usize - 1][NEXT] = next;
            self.links[next as usize - 1][PREV] = prev;
        }
        self.links[slot as usize][PLACE] &= ARMED;
    }

    /// The first tick that is not before `at`.
    fn tick_after(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        self.start_tick
            + since.as_secs().saturating_mul(1000).min(u64::MAX / 4)
            + u64::from(since.subsec_nanos().div_ceil(TICK.subsec_nanos()))
    }

    /// The last tick that is not after `now`.
    fn tick_before(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        self.start_tick + since.as_secs().saturating_mul(1000).min(u64::MAX / 4) + u64::from(since.subsec_millis())
    }

    fn instant_of(&self, tick: u64) -> Instant {
        self.start + Duration::from_millis(tick.saturating_sub(self.start_tick))
    }
}

/// A bucket: level × 64 + its number in the level + 1, as stored in a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

impl Place {
    fn new(level: usize, bucket: usize) -> Place {
        Place((level * BUCKETS + bucket) as u32 + 1)
    }

    /// Where a link hangs.
    fn of(link: Link) -> Option<Place> {
        match link[PLACE] & !ARMED {
            0 => None,
            place => Some(Place(place)),
        }
    }

    /// The level is that of the highest digit (in base 64) in which the two ticks differ: on it, `due_tick` is a later bucket
    /// than the present one, and fewer than 64 buckets away.
    fn for_tick(tick: u64, due_tick: u64) -> Place {
        let highest_bit = 63 - ((tick ^ due_tick) | 1).leading_zeros();
        // Beyond the top level's 36 bits only a carry can differ. The top level is a ring then: 4 of its buckets are 32 bits.
        let level = ((highest_bit / BUCKET_BITS) as usize).min(LEVELS - 1);
        Place::new(level, (due_tick >> (level as u32 * BUCKET_BITS)) as usize % BUCKETS)
    }

    fn level(self) -> usize {
        (self.0 - 1) as usize / BUCKETS
    }

    fn bucket(self) -> usize {
        (self.0 - 1) as usize % BUCKETS
    }

    /// The first tick of the bucket, seen from `tick`: this one's bucket or one of the 63 after it.
    fn start_tick(self, tick: u64) -> u64 {
        let shift = self.level() as u32 * BUCKET_BITS;
        let here = tick >> shift;
        let ahead = (self.bucket() as u64).wrapping_sub(here) % BUCKETS as u64;
        (here + ahead) << shift
    }
}
