//! The Date header, made once a second: `Date: Sun, 06 Nov 1994 08:49:37 GMT`.
//!
//! RFC 9110 sections 5.6.7 and 6.6.1. No clock of its own: whoever owns the clocks brings the times.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// The whole header line, so that it is copied in one piece: `Date: Sun, 06 Nov 1994 08:49:37 GMT` and CRLF.
pub type DateLine = [u8; 37];

/// Where the date begins in the line.
const DATE_AT: usize = b"Date: ".len();

/// The cached line of the present second.
#[derive(Clone, Debug)]
pub struct HttpDate {
    /// What the wall clock said at `anchor`, since 1970.
    anchor_wall: Duration,
    anchor: Instant,
    /// The line holds before this.
    next: Instant,
    line: DateLine,
}

impl HttpDate {
    /// Ties the loop's clock to the wall clock: both read at the same moment.
    #[must_use]
    pub fn new(now: Instant, wall: SystemTime) -> Self {
        let mut date = Self { anchor_wall: Duration::ZERO, anchor: now, next: now, line: *b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" };
        date.set(now, wall);
        date
    }

    /// Ties them anew, after the wall clock was set or has drifted: once a minute is enough.
    pub fn set(&mut self, now: Instant, wall: SystemTime) {
        // Before 1970 there is no clock worth a date; the epoch shows that it is not set.
        self.anchor_wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.anchor = now;
        self.refresh(now);
    }

    /// The line for `now`.
    #[inline]
    pub fn bytes(&mut self, now: Instant) -> &DateLine {
        if now >= self.next {
            self.refresh(now);
        }
        &self.line
    }

    #[cold]
    fn refresh(&mut self, now: Instant) {
        let wall = self.anchor_wall + now.saturating_duration_since(self.anchor);
        self.line[DATE_AT..DATE_AT + 29].copy_from_slice(&imf_fixdate(wall.as_secs()));
        self.next = now + (Duration::from_secs(1) - Duration::from_nanos(wall.subsec_nanos().into()));
    }
}

/// Seconds since 1970 as an IMF-fixdate. Years above 9999 have no such form and are shown as 9999.
fn imf_fixdate(seconds: u64) -> [u8; 29] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed"; // 1 January 1970 was a Thursday
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (days, second) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let weekday = (days % 7) as usize * 3;
    text[..3].copy_from_slice(&DAYS[weekday..weekday + 3]);
    put_two(&mut text, 5, day);
    let month = (month as usize - 1) * 3;
    text[8..11].copy_from_slice(&MONTHS[month..month + 3]);
    let year = year.min(9999);
    put_two(&mut text, 12, year / 100);
    put_two(&mut text, 14, year % 100);
    put_two(&mut text, 17, second / 3600);
    put_two(&mut text, 20, second / 60 % 60);
    put_two(&mut text, 23, second % 60);
    text
}

fn put_two(text: &mut [u8; 29], at: usize, number: u64) {
    text[at] = b'0' + (number / 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

/// The Gregorian date of a day since 1 January 1970: (year, month 1 to 12, day 1 to 31).
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: years begin in
/// March, so that the leap day is the last of its year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 1 March of year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097); // eras of 400 years
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"), // 2100 is no leap year
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&imf_fixdate(seconds)), Ok(text));
        }
    }

    #[test]
    fn every_day_of_a_century_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..36_525 * 2 {
            assert_eq!(civil_from_days(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn the_text_changes_with_the_wall_clock_s_second_and_not_before() {
        let now = Instant::now();
        let wall = UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let mut date = HttpDate::new(now, wall);
        assert_eq!(&date.bytes(now)[23..31], b"08:49:37");
        let next = now + Duration::from_millis(750);
        assert_eq!(&date.bytes(next - Duration::from_nanos(1))[23..31], b"08:49:37");
        assert_eq!(&date.bytes(next)[23..31], b"08:49:38");
        assert_eq!(&date.bytes(next + Duration::from_secs(3600))[23..31], b"09:49:38");
        date.set(next, UNIX_EPOCH);
        assert_eq!(&date.bytes(next)[..], b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
    }
}
