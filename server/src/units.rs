//! Durations, sizes and dates as people write them: `10s`, `1.5s`, `64KiB`. The flags of every program of the workspace read them here.
//!
//! A bare `10` is refused: in wrk it is seconds, in other programs milliseconds. Read next: `args.rs`, which uses them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest time that a flag takes, 30 days: more is a slip of the finger.
pub const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const TIME_UNITS: [(&str, u64); 5] = [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Other names of units that are read and never printed: `µs` is how measured times are printed.
const ALIASES: [(&str, &str); 2] = [("µs", "us"), ("min", "m")];

/// A [`Duration`] written with its unit: `us`, `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// Bytes written with their unit: `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Bytes, or `auto`: the system decides. `0` means the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeOrAuto(pub Option<u64>);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        duration(text).map(Time)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        with_unit(text, &SIZE_UNITS, "a number and B, KiB, MiB or GiB, for example 64KiB").map(Size)
    }
}

impl FromStr for SizeOrAuto {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeOrAuto, String> {
        match text {
            "auto" | "0" => Ok(SizeOrAuto(None)),
            _ => with_unit(text, &SIZE_UNITS, "auto, 0, or a number and B, KiB, MiB or GiB, for example 64KiB")
                .map(|bytes| SizeOrAuto(Some(bytes).filter(|bytes| *bytes > 0))),
        }
    }
}

/// A time in UTC to the millisecond, as RFC 3339 has it: `2026-11-22T23:05:28.123Z`. Outside of the years 1970 to 9999 it prints the
/// nearest time within them.
#[must_use]
pub fn utc(time: SystemTime) -> String {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = since_1970.as_millis().try_into().unwrap_or(i64::MAX);
    let timestamp = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{timestamp:.3}")
}

/// Reads a duration: a number and `us`, `ms`, `s`, `m` or `h`, in whole microseconds and at most [`TIME_MAX`]. `0` needs no unit.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let micros = with_unit(text, &TIME_UNITS, "a number and a unit (us, ms, s, m, h), such as 250ms, 10s or 1.5m")?;
    let time = Duration::from_micros(micros);
    if time > TIME_MAX { Err(format!("at most {} is allowed", Time(TIME_MAX))) } else { Ok(time) }
}

/// Reads a duration above zero: a timeout of nothing would close every connection.
///
/// # Errors
/// As [`duration`].
pub fn duration_above_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be above zero, such as 250ms or 10s".to_owned()),
        time => Ok(time),
    }
}

/// As [`duration_above_zero`], for a flag whose default is printed.
///
/// # Errors
/// As [`duration`].
pub fn time_above_zero(text: &str) -> Result<Time, String> {
    duration_above_zero(text).map(Time)
}

/// A number and its unit, as a whole number of the smallest unit. No floating point: `1.1s` is 1,100,000 µs exactly.
fn with_unit(text: &str, units: &[(&str, u64)], allowed: &str) -> Result<u64, String> {
    let number_bytes = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(number_bytes);
    if number.is_empty() {
        return Err(format!("expected {allowed}"));
    }
    if unit.is_empty() {
        return Err(format!("the unit is missing; expected {allowed}"));
    }
    let named = ALIASES.iter().find(|(alias, _)| *alias == unit).map_or(unit, |(_, name)| name);
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == named) else {
        return Err(format!("{unit:?} is no unit here; expected {allowed}"));
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(format!("expected {allowed}"));
    }
    let scaled = |digits: &str| digits.parse::<u64>().ok()?.checked_mul(*factor);
    let parts = 10_u64.checked_pow(fraction.len() as u32).and_then(|parts| Some((scaled(fraction)?, parts)));
    let (Some(whole), Some((fraction, parts))) = (scaled(whole), parts) else {
        return Err("the number is too large or too exact".to_owned());
    };
    if !fraction.is_multiple_of(parts) {
        return Err(format!("{text} is not a whole number of {}", units[0].0));
    }
    whole.checked_add(fraction / parts).ok_or_else(|| "the number is too large".to_owned())
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parts of a microsecond cannot be written, so they cannot have been asked for.
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        write_with_unit(f, micros, &TIME_UNITS, "s")
    }
}

impl fmt::Display for SizeOrAuto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Size(bytes).fmt(f),
            None => f.pad("auto"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, self.0, &SIZE_UNITS, "B")
    }
}

/// The largest unit that leaves a whole number.
fn write_with_unit(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], of_zero: &str) -> fmt::Result {
    let fits = units.iter().rev().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
    let (unit, factor) = fits.copied().unwrap_or((of_zero, 1));
    f.pad(&format!("{}{unit}", value / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_reads_as_the_same_value(micros in 0..TIME_MAX.as_micros() as u64, bytes in any::<u64>()) {
            let time = Time(Duration::from_micros(micros));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
            let size = SizeOrAuto(Some(bytes).filter(|bytes| *bytes > 0));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*") {
            let _ = text.parse::<Time>();
            let _ = text.parse::<Size>();
        }
    }

    #[test]
    fn a_time_prints_its_date_in_utc_to_the_millisecond() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_164_799_000, "2024-02-28T23:59:59.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_001, "2100-03-01T00:00:00.001Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
        assert_eq!(utc(UNIX_EPOCH + Duration::from_nanos(1_999_999)), "1970-01-01T00:00:00.001Z", "parts of a millisecond are cut off");
        assert_eq!(utc(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(&utc(UNIX_EPOCH + Duration::from_secs(i64::MAX as u64))[..5], "9999-");
    }

    #[test]
    fn each_unit_means_what_it_says() {
        assert_eq!("250ms".parse(), Ok(Time(Duration::from_millis(250))));
        assert_eq!("10s".parse(), Ok(Time(Duration::from_secs(10))));
        assert_eq!("2m".parse(), Ok(Time(Duration::from_secs(120))));
        assert_eq!("1h".parse(), Ok(Time(Duration::from_secs(3600))));
        for (text, micros) in
            [("0", 0), ("80us", 80), ("80µs", 80), ("1.1s", 1_100_000), ("1.50s", 1_500_000), ("0.5m", 30_000_000), ("2min", 120_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!("1.5KiB".parse(), Ok(Size(1536)));
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("1GiB".parse(), Ok(Size(1 << 30)));
        assert_eq!(Size(65_536).to_string(), "64KiB");
        assert_eq!(["auto", "0", "0B", "1B"].map(str::parse), [None, None, None, Some(1)].map(|bytes| Ok(SizeOrAuto(bytes))));
        assert_eq!(Time(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Time(Duration::ZERO).to_string(), "0s");
    }

    #[test]
    fn a_bare_number_and_a_wrong_unit_are_refused_with_what_is_allowed() {
        for text in ["10", "", "s", "10 s", "-1s", "+1s", "1e3s", "1..5s", ".5s", "5.s", "10sec", "10S", "10ss", "31m31", "ten s", "0.0"] {
            let error = text.parse::<Time>().expect_err(text);
            assert!(error.contains("expected") && error.contains("us, ms, s, m, h"), "{text}: {error}");
        }
        for text in ["99999999999999999999s", "9999999999999h", "1.00000000000000000000s", "721h", "0.5us", "1.0000001s"] {
            let error = text.parse::<Time>().expect_err(text);
            assert!(["too large", "at most", "whole number of us"].iter().any(|reason| error.contains(reason)), "{text}: {error}");
        }
        for text in ["64", "64KB", "64k", "64kib", "KiB", "0x10B", "17179869184GiB", "64µs"] {
            let error = text.parse::<Size>().expect_err(text);
            assert!(error.contains("expected") || error.contains("too large"), "{text}: {error}");
            let error = text.parse::<SizeOrAuto>().expect_err(text);
            assert!(error.contains("auto") || error.contains("too large"), "{text}: {error}");
        }
        assert!(time_above_zero("0s").is_err_and(|error| error.contains("above zero")));
    }
}
