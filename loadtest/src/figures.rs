//! Results by name, so that a threshold or a scenario can speak of them: `p99`, `service.p99`, `error_rate`.
//!
//! Read next: `condition.rs`.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::histogram::{Clocks, Record};
use crate::units;

/// What kind of number a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Time,
    /// A part of one, shown in percent.
    Share,
    /// A plain number: a count, or a count per second.
    Number,
}

/// A number and what it means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// In the unit's base: microseconds, parts of one, or as it is.
    pub value: f64,
    /// The unit.
    pub unit: Unit,
}

impl Figure {
    /// A count.
    #[must_use]
    pub fn count(value: u64) -> Figure {
        Figure { value: value as f64, unit: Unit::Number }
    }

    /// A duration.
    #[must_use]
    pub fn time(value: Duration) -> Figure {
        Figure { value: units::as_us(value) as f64, unit: Unit::Time }
    }

    /// `part` of `whole`; zero of nothing.
    #[must_use]
    pub fn share(part: u64, whole: u64) -> Figure {
        Figure { value: if whole == 0 { 0.0 } else { part as f64 / whole as f64 }, unit: Unit::Share }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Time => f.pad(&units::microseconds(self.value as u64)),
            Unit::Share => f.pad(&format!("{:.2}%", self.value * 100.0)),
            Unit::Number => f.pad(&units::number(self.value)),
        }
    }
}

/// The names that [`of`] knows, for messages.
pub const NAMES: &str = "p50 p90 p99 p999 p9999 max mean, the same of another clock (service.p99; clocks: response response_ok service \
                         first_byte wait connect send_delay), scheduled completed ok errors timeouts unfinished error_rate rps goodput";

/// The figure of that name. `send_delay_p99` and `send_delay.p99` are the same; a time without a clock is the response's.
#[must_use]
pub fn of(record: &Record, measured: Duration, name: &str) -> Option<Figure> {
    let totals = &record.totals;
    let per_second = |count: u64| Figure { value: count as f64 / measured.as_secs_f64().max(1e-9), unit: Unit::Number };
    Some(match name {
        "scheduled" => Figure::count(totals.scheduled),
        "completed" => Figure::count(totals.completed()),
        "ok" => Figure::count(totals.ok),
        "errors" => Figure::count(totals.errors),
        "timeouts" => Figure::count(totals.timeouts),
        "unfinished" => Figure::count(totals.unfinished),
        "error_rate" => Figure::share(totals.errors, totals.completed()),
        "rps" => per_second(totals.completed()),
        "goodput" => per_second(totals.ok),
        _ => Figure { value: time(&record.clocks, name)?, unit: Unit::Time },
    })
}

/// The unit of the figure of that name, if there is one.
#[must_use]
pub fn unit_of(name: &str) -> Option<Unit> {
    of(&Record::default(), Duration::from_secs(1), name).map(|figure| figure.unit)
}

fn time(clocks: &Clocks, name: &str) -> Option<f64> {
    let (clock, point) = match name.rfind(['.', '_']) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => ("response", name),
    };
    let (_, histogram) = clocks.by_name().into_iter().find(|(name, _)| *name == clock)?;
    point_of(histogram, point)
}

fn point_of(histogram: &Histogram<u64>, point: &str) -> Option<f64> {
    let quantile = match point {
        "max" => return Some(histogram.max() as f64),
        "mean" => return Some(histogram.mean()),
        "p50" => 0.5,
        "p90" => 0.9,
        "p95" => 0.95,
        "p99" => 0.99,
        "p999" => 0.999,
        "p9999" => 0.9999,
        _ => return None,
    };
    Some(histogram.value_at_quantile(quantile) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_message_is_known() {
        for word in NAMES.split([' ', ',', '(', ')', ';', ':']).filter(|word| !word.is_empty()) {
            let is_clock = Clocks::default().by_name().iter().any(|(name, _)| *name == word);
            let is_prose = ["the", "same", "of", "another", "clock", "clocks"].contains(&word);
            assert!(is_clock || is_prose || unit_of(word).is_some(), "{word}");
        }
        assert_eq!(unit_of("p98"), None);
        assert_eq!(unit_of("nonsense.p99"), None);
    }

    #[test]
    fn figures_have_the_values_of_the_record() {
        let mut record = Record::default();
        record.clocks.send_delay.saturating_record(250);
        record.clocks.response.saturating_record(4000);
        record.totals.ok = 3;
        record.totals.errors = 1;
        let figure = |name| of(&record, Duration::from_secs(2), name).unwrap().to_string();
        assert_eq!(figure("send_delay_p99"), "250µs");
        assert_eq!((figure("p99"), figure("response.max")), ("4.0ms".to_owned(), "4.0ms".to_owned()));
        assert_eq!((figure("error_rate"), figure("rps"), figure("goodput")), ("25.00%".to_owned(), "2".to_owned(), "1.5".to_owned()));
    }
}
