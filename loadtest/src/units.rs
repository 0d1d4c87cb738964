//! Rates as people write them, and measured values as people read them. Durations and sizes of flags: `server::units`.
//!
//! Read next: `args.rs`.

use std::time::Duration;

/// Reads a rate in requests per second: `2000`, `0.5`, `2k`, also `2000/s`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn rate(text: &str) -> Result<f64, String> {
    const ALLOWED: &str = "allowed are requests per second above 0 and up to 10000000, such as 2000, 0.5, 2k or 2000/s";
    let number = text.trim();
    let number = number.strip_suffix("/s").unwrap_or(number);
    let (number, factor) = match number.strip_suffix('k') {
        Some(number) => (number, 1000.0),
        None => (number, 1.0),
    };
    // `f64` would read "inf" and "NaN" too.
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(ALLOWED.to_owned());
    }
    let rate: f64 = number.parse::<f64>().map_err(|_| ALLOWED.to_owned())? * factor;
    if rate > 0.0 && rate <= 1e7 { Ok(rate) } else { Err(ALLOWED.to_owned()) }
}

/// Prints a number of microseconds with three digits or fewer: `80µs`, `2.9ms`, `212ms`, `1.25s`, `17.3s`.
#[must_use]
pub fn microseconds(us: u64) -> String {
    // Each limit is where rounding would give one digit more.
    match us {
        0..1_000 => format!("{us}µs"),
        1_000..9_950 => format!("{:.1}ms", us as f64 / 1e3),
        9_950..999_500 => format!("{:.0}ms", us as f64 / 1e3),
        999_500..9_995_000 => format!("{:.2}s", us as f64 / 1e6),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

/// Prints a rate or a count without needless digits: `2000`, `0.5`, `998.3`.
#[must_use]
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{:.1}", (value * 10.0).round() / 10.0) }
}

/// A time in a sentence, with its unit apart and two or three digits: `56 µs`, `0.26 ms`, `2.6 ms`, `91 ms`, `1.25 s`.
#[must_use]
pub fn time_in_words(us: f64) -> String {
    // Each limit is where rounding would give one digit more.
    if us < 99.5 {
        format!("{us:.0} µs")
    } else if us < 995.0 {
        format!("{:.2} ms", us / 1e3)
    } else if us < 9_950.0 {
        format!("{:.1} ms", us / 1e3)
    } else if us < 999_500.0 {
        format!("{:.0} ms", us / 1e3)
    } else if us < 9_995_000.0 {
        format!("{:.2} s", us / 1e6)
    } else {
        format!("{:.1} s", us / 1e6)
    }
}

/// A number in a sentence: `12,000`, `398`, `6.3`, `4`.
#[must_use]
pub fn number_in_words(value: f64) -> String {
    let text = number(if value.abs() >= 100.0 { value.round() } else { value });
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, fraction)| (whole, fraction));
    let mut out = String::new();
    for (index, digit) in whole.char_indices() {
        if index > 0 && (whole.len() - index) % 3 == 0 && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    if fraction.is_empty() { out } else { format!("{out}.{fraction}") }
}

/// A length of time for people who wait: `about 2 min`, `about 40 s`.
#[must_use]
pub fn about(time: Duration) -> String {
    match time.as_secs_f64() {
        // Minutes from where half a minute more or less does not matter.
        seconds if seconds >= 90.0 => format!("about {:.0} min", seconds / 60.0),
        seconds if seconds >= 15.0 => format!("about {:.0} s", (seconds / 5.0).round() * 5.0),
        seconds => format!("about {:.0} s", seconds.ceil().max(1.0)),
    }
}

/// Prints a count with its thousands apart: `29,981`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in whole microseconds, as the histograms have it.
#[must_use]
pub fn as_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_and_nonsense_is_refused() {
        for (text, expected) in [("2000", 2000.0), ("0.5", 0.5), ("2k", 2000.0), ("2000/s", 2000.0), ("1.5k/s", 1500.0)] {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "-1", "inf", "NaN", "1e3", "many", "k", "10000001", "."] {
            assert!(rate(text).unwrap_err().contains("requests per second"), "{text}");
        }
    }

    #[test]
    fn times_are_printed_short() {
        for (us, text) in [
            (0, "0µs"),
            (80, "80µs"),
            (999, "999µs"),
            (1_000, "1.0ms"),
            (2_949, "2.9ms"),
            (9_949, "9.9ms"),
            (9_950, "10ms"),
            (212_400, "212ms"),
            (999_499, "999ms"),
            (999_500, "1.00s"),
            (1_250_000, "1.25s"),
            (17_300_000, "17.3s"),
        ] {
            assert_eq!(microseconds(us), text);
        }
    }

    #[test]
    fn a_time_in_a_sentence_has_its_unit_apart_and_two_or_three_digits() {
        for (us, text) in [
            (0.0, "0 µs"),
            (56.4, "56 µs"),
            (99.6, "0.10 ms"),
            (259.0, "0.26 ms"),
            (996.0, "1.0 ms"),
            (2_590.0, "2.6 ms"),
            (9_960.0, "10 ms"),
            (91_300.0, "91 ms"),
            (999_600.0, "1.00 s"),
            (2_960_000.0, "2.96 s"),
            (17_300_000.0, "17.3 s"),
        ] {
            assert_eq!(time_in_words(us), text);
        }
    }

    #[test]
    fn thousands_are_set_apart_and_waiting_times_are_rounded() {
        for (value, text) in [
            (0.0, "0"),
            (12.0, "12"),
            (999.0, "999"),
            (1_333.0, "1,333"),
            (1_234_567.0, "1,234,567"),
            (3.98, "4.0"),
            (397.81, "398"),
            (6.31, "6.3"),
        ] {
            assert_eq!(number_in_words(value), text);
        }
        for (seconds, text) in
            [(0, "about 1 s"), (9, "about 9 s"), (42, "about 40 s"), (89, "about 90 s"), (100, "about 2 min"), (130, "about 2 min")]
        {
            assert_eq!(about(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn thousands_are_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1_024, "1,024"), (29_981, "29,981"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(count), text);
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,12}") {
            let _ = rate(&text);
        }
    }
}
