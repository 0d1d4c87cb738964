//! The deadlines of a loop's connections, and additions of times that cannot overflow. The deadlines: at most one for each slot, on a hierarchical timing wheel whose links are in an array by slot.
//!
//! *Why a wheel.* A heap that keeps cancelled entries holds request rate × timeout of them. Here a slot is linked into at most one bucket, so the
//! wheel has a fixed size, one link for each slot.
//!
//! *Why levels.* In a flat hashed wheel of 1 ms ticks the far deadlines of 10,000 idle connections would fill all buckets, and the loop would
//! wake every few milliseconds to check them and put them back. With levels (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels",
//! SOSP 1987, scheme 7; tokio `runtime/time/wheel` does the same) a deadline 60 s away is checked three times.
//!
//! *Why lazy.* A connection that gets a request each millisecond moves its deadline each millisecond. A later deadline is only stored. The slot
//! stays in its bucket, and moves to the right bucket when the time of its bucket has come.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// The resolution of deadlines: 1 ms, the resolution of epoll_wait(2), and fine enough for timeouts of seconds.
const TICK: Duration = Duration::from_millis(1);
/// 64 buckets per level, so that one `u64` stores which of them are occupied.
const BUCKET_BITS: u32 = 6;
const BUCKETS: usize = 1 << BUCKET_BITS;
/// 6 levels × 6 bits = 36 bits: the 32 bits of a stored tick (49 days), and the carry out of them.
const LEVELS: usize = 6;
/// The farthest deadline, in ticks from the wheel's own time. A deadline farther away than these 49 days runs after 49 days, which is early.
const AHEAD_TICKS_MAX: u64 = u32::MAX as u64;
/// Links moved from bucket to bucket in one call of [`Wheel::expire`], before it returns `None` to keep the turn short. Setting, moving and
/// expiring a deadline, with three moves, takes 73 ns in a release build (measured), so these moves take about 25 µs.
const MOVES_PER_CALL_MAX: u32 = 1024;

/// One slot's place on the wheel: 16 bytes. It is an array and not a struct, because `vec![[0; 4]; n]` allocates zeroed pages (calloc(3)). The pages
/// of slots that are not used are not touched and use no memory. So 0 must mean "none" in each element.
type Link = [u32; 4];
/// Bytes that the wheel uses for each slot.
pub(crate) const LINK_BYTES: usize = size_of::<Link>();
/// The slot before in the bucket's ring, plus 1.
const PREV: usize = 0;
/// The slot after in the bucket's ring, plus 1.
const NEXT: usize = 1;
/// The low 32 bits of the tick at which the deadline passes. The high bits follow from the wheel's time, because a deadline is at most
/// [`AHEAD_TICKS_MAX`] away.
const DUE: usize = 2;
/// Level × 64 + bucket + 1 of the bucket that the slot is linked into, or 0. The bit [`ARMED`] is added to it.
const PLACE: usize = 3;
/// Whether the deadline is set. A slot whose deadline was cancelled stays linked until its bucket's time has come.
const ARMED: u32 = 1 << 31;

/// One deadline for each slot. Its operations do not allocate, and their cost does not depend on the number of deadlines.
#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    /// The tick of `start`. 0, except in tests that begin shortly before the stored 32 bits overflow.
    start_tick: u64,
    /// The wheel's own time. No bucket and no deadline before it is occupied. 64 bits of milliseconds do not wrap.
    tick: u64,
    /// The latest `now` that a call has brought the wheel up to.
    now_tick: u64,
    links: Vec<Link>,
    /// The first slot of each bucket's ring, plus 1. 0 means that the bucket is empty.
    heads: [[u32; BUCKETS]; LEVELS],
    /// One bit per bucket: whether it has a slot.
    occupied: [u64; LEVELS],
    /// The first tick of the first bucket that has a slot, or [`NEVER`].
    first_tick: u64,
    /// The same as an `Instant`. It is stored because each turn reads it twice and it seldom changes.
    first_at: Option<Instant>,
}

/// Later than any tick.
const NEVER: u64 = u64::MAX;

impl Wheel {
    /// A wheel for the slots `0..slots_max`. Allocates 16 bytes for each slot, which become resident with the slot's first deadline.
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

    /// Sets, moves or (with `None`) cancels the deadline of `slot`. It is rounded up to the next millisecond, so that it does not run early (test:
    /// `deadlines_are_never_early`). A deadline that has passed runs at the next [`Wheel::expire`]. A deadline farther away than 49 days runs after
    /// 49 days.
    pub(crate) fn set(&mut self, slot: u32, at: Option<Instant>, now: Instant) {
        let Some(at) = at else {
            self.links[slot as usize][PLACE] &= !ARMED;
            return;
        };
        self.catch_up(now);
        // Not before `now_tick`: deadlines that a handler sets to passed times must run after the deadlines of other connections.
        let due_tick = self.tick_after(at).max(self.now_tick).min(self.tick + AHEAD_TICKS_MAX);
        let link = &mut self.links[slot as usize];
        link[DUE] = due_tick as u32;
        link[PLACE] |= ARMED;
        match Place::of(*link) {
            Some(place) if place.start_tick(self.tick) <= due_tick => {} // Its bucket begins early enough, so the slot need not move.
            Some(place) => {
                self.unhang(slot, place);
                self.hang(slot, due_tick);
            }
            None => self.hang(slot, due_tick),
        }
    }

    /// Takes `slot` off the wheel. Its connection is closed, and the next connection in the slot must not inherit the deadline.
    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(place) = Place::of(self.links[slot as usize]) {
            self.unhang(slot, place);
        }
        self.links[slot as usize] = [0; 4];
    }

    /// When [`Wheel::expire`] has something to do: at the earliest deadline or before it. It is earlier by less than the width of the bucket of the
    /// earliest slot (64 of these widths span the distance), or because that slot's deadline was moved or cancelled.
    pub(crate) fn next(&self) -> Option<Instant> {
        debug_assert_eq!(self.first_tick, self.first_bucket().map_or(NEVER, |first| first.start_tick(self.tick)));
        self.first_at
    }

    /// Brings the wheel's time up to `now`, unless a bucket that has begun still has slots.
    fn catch_up(&mut self, now: Instant) {
        self.now_tick = self.now_tick.max(self.tick_before(now));
        if self.now_tick < self.first_tick {
            // No bucket before now has a slot, so a long sleep costs no steps. The range of deadlines counts from here.
            self.tick = self.now_tick;
        }
    }

    /// Takes one deadline that has passed. Returns its slot, and the time at which it was due, rounded up to the tick. A deadline that had passed
    /// when it was set was due at that time. It is not set any more.
    ///
    /// The caller repeats this within its budget. The next call finds the remaining deadlines, and [`Wheel::next`] is then not after `now`.
    /// `None` means that no further deadline has passed, or that [`MOVES_PER_CALL_MAX`] links were moved and the next turn must continue.
    /// [`Wheel::next`] tells which.
    #[inline]
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(u32, Instant)> {
        // Most turns return here, before `now` is converted to ticks.
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
                continue; // Cancelled since it was linked.
            }
            // The deadline is less than 2^32 ticks ahead, so its low bits determine all of it.
            let due_tick = self.tick + u64::from(link[DUE].wrapping_sub(self.tick as u32));
            if due_tick <= now_tick {
                link[PLACE] &= !ARMED;
                return Some((slot, self.instant_of(due_tick)));
            }
            self.hang(slot, due_tick); // It belongs in a finer bucket now, or was moved to a later time since it was linked.
        }
        None
    }

    /// The occupied bucket whose time comes first.
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

    /// Links a slot at the end of the ring of the bucket for `due_tick`.
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
        // A bucket keeps its first tick while it has a slot, because the wheel's time does not pass it.
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

    /// Unlinks a slot from its bucket's ring. Does not change whether its deadline is set.
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

    /// The bucket that a link is in.
    fn of(link: Link) -> Option<Place> {
        match link[PLACE] & !ARMED {
            0 => None,
            place => Some(Place(place)),
        }
    }

    /// The bucket for `due_tick`, seen from `tick`. Its level is the highest digit (in base 64) in which the two ticks differ. On that level the
    /// bucket of `due_tick` is later than the bucket of `tick`, and fewer than 64 buckets away.
    fn for_tick(tick: u64, due_tick: u64) -> Place {
        let highest_bit = 63 - ((tick ^ due_tick) | 1).leading_zeros();
        // Above the 36 bits of the levels, only a carry can differ. The top level is then used as a ring: 4 of its buckets span 32 bits.
        let level = ((highest_bit / BUCKET_BITS) as usize).min(LEVELS - 1);
        Place::new(level, (due_tick >> (level as u32 * BUCKET_BITS)) as usize % BUCKETS)
    }

    fn level(self) -> usize {
        (self.0 - 1) as usize / BUCKETS
    }

    fn bucket(self) -> usize {
        (self.0 - 1) as usize % BUCKETS
    }

    /// The first tick of the bucket, seen from `tick`: it is the bucket of `tick` or one of the 63 after it.
    fn start_tick(self, tick: u64) -> u64 {
        let shift = self.level() as u32 * BUCKET_BITS;
        let here = tick >> shift;
        let ahead = (self.bucket() as u64).wrapping_sub(here) % BUCKETS as u64;
        (here + ahead) << shift
    }
}

// Addition of times and durations without a panic: `Instant + Duration` panics where no `Instant` can hold the sum.
//
// The limits and the arguments of this crate may be any `Duration`, and `Duration::MAX` is a common way to write "no limit". So the loop uses these
// functions for durations that a caller chose. Test: `no_duration_is_too_long`.

/// The time `duration` after `now`. `None` if no `Instant` can hold it, which means never.
#[inline]
pub(crate) fn after(now: Instant, duration: Duration) -> Option<Instant> {
    now.checked_add(duration)
}

/// `duration`, lengthened by `part` / 1024 of its tenth.
pub(crate) fn lengthened(duration: Duration, part: u32) -> Duration {
    let tenth = duration / 10;
    // Where the product would overflow, divide first. The rounding does not matter for such durations.
    let more = tenth.checked_mul(part).map_or_else(|| (tenth / 1024).saturating_mul(part), |product| product / 1024);
    duration.saturating_add(more)
}
