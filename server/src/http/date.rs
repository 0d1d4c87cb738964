//! The Date header, made once a second: `Date: Sun, 06 Nov 1994 08:49:37 GMT`.
//!
//! RFC 9110 sections 5.6.7 and 6.6.1. The wall clock is read for each new second, and not computed from the monotonic clock: an operator or
//! NTP can set it (clock_settime(2)), and the monotonic clock stands still while the machine is suspended (clock_gettime(2)). Test:
//! `the_date_follows_a_step_of_the_wall_clock_within_a_second`.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, in UTC: the year has four digits (RFC 9110 section 5.6.7).
const YEAR_9999_END: Duration = Duration::from_secs(253_402_300_799);

/// The whole header line, so that it is copied in one piece: `Date: Sun, 06 Nov 1994 08:49:37 GMT` and CRLF.
pub type DateLine = [u8; 37];

/// Where the date begins in the line.
const DATE_AT: usize = b"Date: ".len();

/// The cached line of the present second.
#[derive(Clone, Debug)]
pub struct HttpDate {
    /// The line holds before this time of the monotonic clock.
    next: Instant,
    line: DateLine,
    wall_clock: fn() -> SystemTime,
}

impl HttpDate {
    /// The line for `now`, which is the present time of the monotonic clock. `wall_clock` is [`SystemTime::now`], or a test's own clock.
    #[must_use]
    pub fn new(now: Instant, wall_clock: fn() -> SystemTime) -> Self {
        let mut date = Self { next: now, line: *b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", wall_clock };
        date.refresh(now);
        date
    }

    /// The line for `now`, at most one second old. Reads the wall clock once a second (about 25 ns).
    #[inline]
    pub fn bytes(&mut self, now: Instant) -> &DateLine {
        if now >= self.next {
            self.refresh(now);
        }
        &self.line
    }

    #[cold]
    fn refresh(&mut self, now: Instant) {
        // Before 1970 there is no clock worth a date; the epoch shows that it is not set.
        let wall = (self.wall_clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Written in place: no memory is allocated. A slice takes what fits, and an IMF-fixdate has always 29 bytes.
        let written = write!(&mut self.line[DATE_AT..DATE_AT + 29], "{}", imf_fixdate(wall));
        debug_assert!(written.is_ok(), "an IMF-fixdate has 29 bytes");
        self.next = now + (Duration::from_secs(1) - Duration::from_nanos(wall.subsec_nanos().into()));
    }
}

/// The text of a date in a field such as Last-Modified: `Sun, 06 Nov 1994 08:49:37 GMT`. Fractions of a second are cut off.
#[must_use]
pub fn http_date(time: SystemTime) -> String {
    imf_fixdate(time.duration_since(UNIX_EPOCH).unwrap_or_default()).to_string()
}

/// The time that a date in a field says, in any of the three forms that RFC 9110 section 5.6.7 has a recipient accept. None if it is malformed: the
/// field is then ignored (section 13.1.3).
#[must_use]
pub fn parse_http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// The wall clock as the library formats it: it panics before 1970 and after 9999, which no IMF-fixdate can say.
fn imf_fixdate(since_1970: Duration) -> httpdate::HttpDate {
    httpdate::HttpDate::from(UNIX_EPOCH + since_1970.min(YEAR_9999_END))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn known_seconds_have_their_known_dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), // RFC 9110 section 5.6.7
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (2_147_483_647, "Tue, 19 Jan 2038 03:14:07 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"), // 2100 is not a leap year
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(imf_fixdate(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    thread_local! {
        static WALL: Cell<SystemTime> = const { Cell::new(UNIX_EPOCH) };
    }

    /// A date by a wall clock that the test sets.
    fn date_at(now: Instant, wall: SystemTime) -> HttpDate {
        WALL.set(wall);
        HttpDate::new(now, || WALL.get())
    }

    /// The library panics outside of its years; a wall clock that was set wrongly must not end the loop.
    #[test]
    fn no_wall_clock_makes_the_date_header_panic() {
        let now = Instant::now();
        for (wall, text) in [
            (UNIX_EPOCH - Duration::from_secs(1), "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH + Duration::from_secs(253_402_300_800), "Fri, 31 Dec 9999 23:59:59 GMT"),
            (UNIX_EPOCH + Duration::from_secs(i64::MAX as u64), "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let mut date = date_at(now, wall);
            assert_eq!(date.bytes(now)[..], format!("Date: {text}\r\n").into_bytes());
            date.bytes(now + Duration::from_secs(60));
        }
    }

    #[test]
    fn the_text_changes_with_the_wall_clock_s_second_and_not_before() {
        let now = Instant::now();
        let wall = UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let mut date = date_at(now, wall);
        assert_eq!(&date.bytes(now)[23..31], b"08:49:37");
        WALL.set(wall + Duration::from_millis(750));
        let next = now + Duration::from_millis(750);
        assert_eq!(&date.bytes(next - Duration::from_nanos(1))[23..31], b"08:49:37");
        assert_eq!(&date.bytes(next)[23..31], b"08:49:38");
    }

    #[test]
    fn the_date_follows_a_step_of_the_wall_clock_within_a_second() {
        let mut now = Instant::now();
        let start = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut date = date_at(now, start);
        assert_eq!(&date.bytes(now)[23..31], b"08:49:37");
        // An hour forward, as after a suspend of an hour, in which the monotonic clock stands still; then two hours back.
        for (wall, text) in [(start + Duration::from_secs(3600), b"09:49:37"), (start - Duration::from_secs(3600), b"07:49:37")] {
            WALL.set(wall);
            now += Duration::from_secs(1);
            assert_eq!(&date.bytes(now)[23..31], text);
        }
    }
}
