//! Silences: times in which requests waited and no answer came to any of them, and the pattern that they make.
//!
//! Each thread notes the times in which it read no answer. A silence of the server is a time in which no thread read one while a request
//! waited on any of them. Read next: `bounds.rs`.

use std::time::{Duration, Instant};

use crate::units::{as_us, microseconds};

/// Shorter times without an answer are not noted: a server that works has them.
const NOTED_MIN: Duration = Duration::from_millis(10);
/// How many of them one thread notes at most: 10 MB.
const NOTED_MAX: usize = 200_000;
/// A silence is a stall only if it is at least this long,
const STALL_MIN: Duration = Duration::from_millis(20);
/// this many times the average time between two answers (the gaps of a Poisson process are longer once in 22,000),
const STALL_GAPS: u32 = 10;
/// and this many times the median time of service: a server that needs a second for each request is slow and has not stalled.
const STALL_SERVICES: u32 = 4;
/// Stalls come at regular times if the intervals between their beginnings differ by at most this part of the longest one.
const REGULAR_SPREAD: f64 = 0.2;

/// A time in which one thread, or all of them, read no answer. Times since the start of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The last answer before it.
    pub from: Duration,
    /// The first answer after it, or the end.
    pub until: Duration,
    /// From when on a request waited in it; `None` if none did.
    pub waited_from: Option<Duration>,
    /// Requests that the generator handled in it.
    pub due_in_it: u64,
    /// Connections with a request on them at its end.
    pub connections: u64,
    /// The generator's own longest delay in it.
    pub own_delay: Duration,
}

impl Quiet {
    /// How long requests waited in it for a server that sent nothing. What the generator was late itself is not counted.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let from = self.waited_from.map_or(self.until, |at| at.max(self.from));
        self.until.saturating_sub(from).saturating_sub(self.own_delay)
    }

    /// When it began to be one.
    #[must_use]
    pub fn began(&self) -> Duration {
        self.waited_from.map_or(self.from, |at| at.max(self.from))
    }
}

/// The times in which both threads read no answer. Both lists are in order.
#[must_use]
pub fn intersect(a: &[Quiet], b: &[Quiet]) -> Vec<Quiet> {
    let (mut i, mut j) = (0, 0);
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (from, until) = (x.from.max(y.from), x.until.min(y.until));
        if from < until {
            let waited_from = [x.waited_from, y.waited_from].into_iter().flatten().filter(|at| *at < until).min();
            both.push(Quiet {
                from,
                until,
                waited_from,
                due_in_it: x.due_in_it + y.due_in_it,
                connections: x.connections + y.connections,
                own_delay: x.own_delay.max(y.own_delay),
            });
        }
        if x.until <= y.until {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

/// Notes the quiet times of one class on one thread.
#[derive(Debug, Default)]
pub struct Watch {
    last_answer: Option<Instant>,
    waited_from: Option<Instant>,
    due_since: u64,
    own_delay: Duration,
    /// The quiet times so far, in order.
    pub noted: Vec<Quiet>,
}

impl Watch {
    /// A request fell due.
    pub fn due(&mut self, due: Instant, send_delay: Duration) {
        self.waited_from.get_or_insert(due);
        self.due_since += 1;
        self.own_delay(send_delay);
    }

    /// The generator itself was late by this much.
    pub fn own_delay(&mut self, delay: Duration) {
        self.own_delay = self.own_delay.max(delay);
    }

    /// The server gave a sign of life: an answer of any kind, or a reset. `waits`: whether a request still waits.
    pub fn answer(&mut self, now: Instant, started: Instant, connections: u64, waits: bool) {
        self.note(now, started, connections);
        self.last_answer = Some(now);
        self.waited_from = waits.then_some(now);
        (self.due_since, self.own_delay) = (0, Duration::ZERO);
    }

    /// The run ends.
    pub fn end(&mut self, now: Instant, started: Instant, connections: u64) {
        self.note(now, started, connections);
        self.last_answer = Some(now);
    }

    fn note(&mut self, now: Instant, started: Instant, connections: u64) {
        let from = self.last_answer.unwrap_or(started);
        if now.saturating_duration_since(from) < NOTED_MIN || self.noted.len() >= NOTED_MAX {
            return;
        }
        let since_start = |at: Instant| at.saturating_duration_since(started);
        self.noted.push(Quiet {
            from: since_start(from),
            until: since_start(now),
            waited_from: self.waited_from.map(since_start),
            due_in_it: self.due_since,
            connections,
            own_delay: self.own_delay,
        });
    }
}

/// What the silences of a run have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalls {
    /// Silences that were stalls.
    pub count: usize,
    /// The shortest and the longest of them.
    pub length: (Duration, Duration),
    /// The time from the beginning of one to that of the next, if they come at regular times.
    pub every: Option<Duration>,
    /// Whether each of them held more than one connection.
    pub on_all_connections: bool,
    /// The longest.
    pub longest: Quiet,
}

impl Stalls {
    /// The stalls among the quiet times after the warm-up, for that many answers in the measured time and that median time of service.
    #[must_use]
    pub fn among(quiet: &[Quiet], warmup: Duration, measured: Duration, answers: u64, service_p50_us: u64) -> Option<Stalls> {
        let gap = measured / u32::try_from(answers.max(1)).unwrap_or(u32::MAX);
        let min = STALL_MIN.max(gap.saturating_mul(STALL_GAPS)).max(Duration::from_micros(service_p50_us).saturating_mul(STALL_SERVICES));
        let stalls: Vec<_> = quiet.iter().filter(|quiet| quiet.until > warmup && quiet.silence() >= min).collect();
        let longest = **stalls.iter().max_by_key(|quiet| quiet.silence())?;
        let lengths = stalls.iter().map(|quiet| quiet.silence());
        let intervals: Vec<_> = stalls.windows(2).map(|pair| pair[1].began().saturating_sub(pair[0].began())).collect();
        let every = match (intervals.iter().min(), intervals.iter().max()) {
            (Some(min), Some(max))
                if intervals.len() >= 2 && max.saturating_sub(*min).as_secs_f64() <= max.as_secs_f64() * REGULAR_SPREAD =>
            {
                Some(intervals.iter().sum::<Duration>() / u32::try_from(intervals.len()).unwrap_or(u32::MAX))
            }
            _ => None,
        };
        Some(Stalls {
            count: stalls.len(),
            length: (lengths.clone().min().unwrap_or_default(), lengths.max().unwrap_or_default()),
            every,
            on_all_connections: stalls.iter().all(|quiet| quiet.connections > 1),
            longest,
        })
    }

    /// `4 stalls of 130 to 150 ms, every 5.0 s, on all connections at once; longest silence 0.15 s, 150 requests fell due in it`.
    #[must_use]
    pub fn line(&self) -> String {
        let time = |time: Duration| microseconds(as_us(time));
        let (short, long) = (time(self.length.0), time(self.length.1));
        let lengths = if short == long { short } else { format!("{short} to {long}") };
        let mut text = format!("{} stall{} of {lengths}", self.count, if self.count == 1 { "" } else { "s" });
        if let Some(every) = self.every {
            text += &format!(", every {}", time(every));
        }
        if self.on_all_connections {
            text += ", on all connections at once";
        }
        let Quiet { due_in_it, .. } = self.longest;
        let requests = if due_in_it == 1 { "1 request" } else { &format!("{due_in_it} requests") };
        text + &format!("; longest silence {} at {}, {requests} fell due in it", time(self.longest.silence()), time(self.longest.began()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn quiet(from_ms: u32, until_ms: u32, waited_from_ms: u32) -> Quiet {
        Quiet {
            from: from_ms * MS,
            until: until_ms * MS,
            waited_from: Some(waited_from_ms * MS),
            due_in_it: u64::from(until_ms - from_ms),
            connections: 10,
            own_delay: Duration::ZERO,
        }
    }

    #[test]
    fn a_time_without_answers_is_a_silence_only_from_when_a_request_waited() {
        assert_eq!(quiet(100, 250, 120).silence(), 130 * MS);
        assert_eq!(Quiet { waited_from: None, ..quiet(100, 250, 0) }.silence(), Duration::ZERO);
        assert_eq!(Quiet { own_delay: 149 * MS, ..quiet(100, 250, 100) }.silence(), MS, "the generator itself was asleep");
    }

    #[test]
    fn threads_are_silent_together() {
        // One thread has nothing to do from 0 to 300; on the other, requests wait from 120 to 200.
        let idle = Quiet { waited_from: None, due_in_it: 0, connections: 0, ..quiet(0, 300, 0) };
        let both = intersect(&[idle], &[quiet(100, 200, 120), quiet(250, 400, 250)]);
        assert_eq!(both.iter().map(Quiet::silence).collect::<Vec<_>>(), [80 * MS, 50 * MS]);
        assert_eq!(intersect(&[quiet(0, 100, 0)], &[quiet(100, 200, 100)]), []);
    }

    #[test]
    fn stalls_are_told_as_a_pattern() {
        let silences = [quiet(10, 15, 10), quiet(1000, 1130, 1000), quiet(6000, 6150, 6000), quiet(11_000, 11_140, 11_000)];
        let stalls = Stalls::among(&silences, Duration::ZERO, 20_000 * MS, 20_000, 100).unwrap();
        assert_eq!(
            stalls.line(),
            "3 stalls of 130ms to 150ms, every 5.00s, on all connections at once; longest silence 150ms at 6.00s, 150 requests fell due in it"
        );
        let warm = Stalls::among(&silences, 7000 * MS, 20_000 * MS, 20_000, 100).unwrap();
        assert!(warm.line().starts_with("1 stall of 140ms, on all connections at once; "), "{}", warm.line());
    }

    #[test]
    fn a_slow_server_and_a_low_rate_are_no_stalls() {
        let silences = [quiet(0, 1000, 0)];
        assert_eq!(Stalls::among(&silences, Duration::ZERO, 10_000 * MS, 30_000, 1_000_000), None, "each request takes a second");
        assert_eq!(Stalls::among(&silences, Duration::ZERO, 10_000 * MS, 50, 100), None, "five requests a second");
    }

    #[test]
    fn the_watch_notes_when_no_answer_came_and_since_when_a_request_waited() {
        let start = Instant::now();
        let mut watch = Watch::default();
        watch.due(start, Duration::ZERO);
        watch.answer(start + MS, start, 1, false);
        watch.due(start + 50 * MS, 2 * MS);
        watch.due(start + 60 * MS, MS);
        watch.answer(start + 100 * MS, start, 2, true);
        watch.end(start + 200 * MS, start, 1);
        let [first, second] = watch.noted[..] else { panic!("{:?}", watch.noted) };
        assert_eq!((first.from, first.until, first.waited_from), (MS, 100 * MS, Some(50 * MS)));
        assert_eq!((first.due_in_it, first.connections, first.silence()), (2, 2, 48 * MS));
        assert_eq!((second.silence(), second.due_in_it), (100 * MS, 0), "requests waited until the end");
    }
}
