//! Results by name, so that a threshold or a scenario can speak of them: `p99`, `service.p99`, `error_rate`.
//!
//! Read next: `condition.rs`.

use std::fmt;
use std::time::Duration;

use crate::histogram::{Clocks, Record};
use crate::truth::bounds::is_supported;
use crate::truth::hiccup::Machine;
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

/// How often a thread must be woken for one request: the generator's, the loop's, a worker's, and the loop's again. On one machine each of
/// them can be late.
pub const WAKES_PER_REQUEST: u64 = 4;
/// The clients of the scenarios wait for a second or more.
const PAUSE_LIKE_A_CLIENT: Duration = Duration::from_millis(500);

/// A number, what it means, and within which bounds it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// In the unit's base: microseconds, parts of one, or as it is. Infinite: a time that never came.
    pub value: f64,
    /// The true value is at least this: the generator's own delays can only have made a time longer.
    pub low: f64,
    /// The true value is at most this; infinite for a time that was cut off by a time-out.
    pub high: f64,
    /// How many samples it was made of.
    pub n: u64,
    /// The unit.
    pub unit: Unit,
}

impl Figure {
    /// A number that is exactly known.
    #[must_use]
    pub const fn exactly(value: f64, unit: Unit) -> Figure {
        Figure { value, low: value, high: value, n: 1, unit }
    }

    /// A plain number.
    #[must_use]
    pub const fn number(value: f64) -> Figure {
        Figure::exactly(value, Unit::Number)
    }

    /// A count.
    #[must_use]
    pub fn count(value: u64) -> Figure {
        Figure::number(value as f64)
    }

    /// A duration.
    #[must_use]
    pub fn time(value: Duration) -> Figure {
        Figure::exactly(units::as_us(value) as f64, Unit::Time)
    }

    /// `part` of `whole`; zero of nothing.
    #[must_use]
    pub fn share(part: u64, whole: u64) -> Figure {
        let value = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Figure { n: whole, ..Figure::exactly(value, Unit::Share) }
    }

    /// The same, where the true value may lie anywhere between those.
    #[must_use]
    pub fn within(self, low: f64, high: f64) -> Figure {
        Figure { low, high, ..self }
    }

    /// The widest bounds of a figure that was measured while the machine was disturbed: a time may be that of the machine's pauses, a part
    /// may have been half as large, a number half or twice as large. If the machine paused for as long as a client waits, a count may have
    /// been zero.
    #[must_use]
    pub fn disturbed_by(self, machine: &Machine) -> Figure {
        let Figure { low, high, .. } = self;
        match self.unit {
            Unit::Time => self.lengthened_by(WAKES_PER_REQUEST * machine.pause_us(0.999)).within_high(high * 2.0),
            Unit::Share => self.within((low - 0.5).max(0.0), (high + 0.5).min(1.0)),
            Unit::Number if machine.pause_max() >= PAUSE_LIKE_A_CLIENT => self.within(0.0, high * 2.0),
            Unit::Number => self.within(low / 2.0, high * 2.0),
        }
    }

    fn within_high(self, high: f64) -> Figure {
        Figure { high, ..self }
    }

    /// The same, multiplied.
    #[must_use]
    pub fn times(self, factor: f64) -> Figure {
        Figure { value: self.value * factor, low: self.low * factor, high: self.high * factor, ..self }
    }

    /// `90ms and 100ms`: the bounds.
    #[must_use]
    pub fn bounds(&self) -> String {
        format!("{} and {}", Figure::exactly(self.low, self.unit), Figure::exactly(self.high, self.unit))
    }

    /// A time that the machine may have made longer by up to `us` microseconds.
    #[must_use]
    pub fn lengthened_by(self, us: u64) -> Figure {
        if self.unit == Unit::Time { Figure { low: (self.low - us as f64).max(0.0), ..self } } else { self }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Time if self.value.is_infinite() => f.pad("never"),
            // A share or a number may be infinite only as a bound.
            _ if self.value.is_infinite() => f.pad("any"),
            Unit::Time if self.high.is_infinite() => f.pad(&format!("≥ {}", units::microseconds(self.value as u64))),
            Unit::Time => f.pad(&units::microseconds(self.value as u64)),
            Unit::Share => f.pad(&format!("{:.2}%", self.value * 100.0)),
            Unit::Number => f.pad(&units::number(self.value)),
        }
    }
}

/// The names that [`of`] knows, for messages.
pub const NAMES: &str = "p50 p90 p95 p99 p99.9 p99.99 max mean, the same of another clock (service.p99; clocks: response response_ok service \
                         first_byte wait connect send_delay failed at_least), scheduled completed ok errors timeouts unfinished not_sent \
                         error_rate rps goodput";

/// The figure of that name. `send_delay_p99` and `send_delay.p99` are the same; a time without a clock is the response's. `p99.9` and
/// `p999` are the same.
#[must_use]
pub fn of(record: &Record, measured: Duration, name: &str) -> Option<Figure> {
    let totals = &record.totals;
    let not_sent = totals.not_sent.total() as f64;
    // A request that was not sent may have been answered well, or badly, or not. So may one that timed out after the generator was late.
    let counted = |count: u64, less: u64, more: f64| {
        Figure { n: totals.scheduled, ..Figure::count(count) }.within(count.saturating_sub(less) as f64, count as f64 + more)
    };
    let per_second = |count: u64| {
        let seconds = measured.as_secs_f64().max(1e-9);
        Figure { n: count, ..Figure::number(count as f64 / seconds) }.within(count as f64 / seconds, (count as f64 + not_sent) / seconds)
    };
    Some(match name {
        "scheduled" => Figure::count(totals.scheduled),
        "completed" => counted(totals.completed(), 0, not_sent),
        "ok" => counted(totals.ok, 0, not_sent + totals.late_timeouts as f64),
        "errors" => counted(totals.errors, totals.late_timeouts, not_sent),
        "timeouts" => counted(totals.timeouts, totals.late_timeouts, not_sent),
        "unfinished" => counted(totals.unfinished, 0, 0.0),
        "not_sent" => Figure::count(totals.not_sent.total()),
        "error_rate" => {
            let share = |count: u64| Figure::share(count, totals.scheduled).value;
            let bad = totals.errors + totals.unfinished;
            Figure::share(bad, totals.scheduled).within(share(bad - totals.late_timeouts), share(bad + totals.not_sent.total()))
        }
        "rps" => per_second(totals.ended_in_time),
        "goodput" => per_second(totals.ok_in_time),
        _ => return time(&record.clocks, name),
    })
}

/// The unit of the figure of that name, if there is one.
#[must_use]
pub fn unit_of(name: &str) -> Option<Unit> {
    of(&Record::default(), Duration::from_secs(1), name).map(|figure| figure.unit)
}

/// The part of the requests that a figure's name speaks of: 0.99 for `service.p99`. `None` for other figures.
#[must_use]
pub fn quantile_of(name: &str) -> Option<f64> {
    quantile(split(name).1)
}

/// The quantile of `p95`, `p99.9`, or `p999` as `p99.9` is written where dots have a meaning: 0.95, 0.999. From p1 to p99.999.
fn quantile(point: &str) -> Option<f64> {
    let digits = point.strip_prefix('p')?;
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        // p100 is not the tenth percentile.
        None if digits.len() > 2 && !digits.starts_with('9') => return None,
        None => digits.split_at_checked(2).unwrap_or((digits, "")),
    };
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 2 || fraction.len() > 3 || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    // Read as a decimal: 99.9 / 100.0 is a little more than 0.999, and would be one rank higher.
    let quantile: f64 = format!("0.{whole:0>2}{fraction}").parse().ok()?;
    (quantile >= 0.01).then_some(quantile)
}

/// Clock and point: `service` and `p99.9` of `service.p99.9`.
fn split(name: &str) -> (&str, &str) {
    let at = name.rfind(".p").or_else(|| name.rfind("_p")).or_else(|| name.rfind(['.', '_']).filter(|at| !name[..*at].starts_with('p')));
    at.map_or(("response", name), |at| (&name[..at], &name[at + 1..]))
}

fn time(clocks: &Clocks, name: &str) -> Option<Figure> {
    let (clock, point) = split(name);
    if clock == "response" {
        return response(clocks, point, quantile_of(name));
    }
    let (_, histogram) = clocks.by_name().into_iter().find(|(name, _)| *name == clock)?;
    let value = match (point, quantile_of(name)) {
        ("max", _) => histogram.max() as f64,
        ("mean", _) => histogram.mean(),
        (_, Some(quantile)) => histogram.value_at_quantile(quantile) as f64,
        _ => return None,
    };
    Some(Figure { n: histogram.len(), ..Figure::exactly(value, Unit::Time) })
}

/// A figure of the response time of all requests. `NAN` never: a run without requests has zero.
fn response(clocks: &Clocks, point: &str, quantile: Option<f64>) -> Option<Figure> {
    let n = clocks.response.len();
    let known = clocks.response.known.len();
    let or_never = |us: Option<u64>| us.map_or(f64::INFINITY, |us| us as f64);
    let (bound, low) = match (point, quantile) {
        ("mean", _) => {
            let mean = if known == n { clocks.response.known.mean() } else { f64::INFINITY };
            let low = if known == n { clocks.response_low.mean() } else { clocks.response.lower_bounds().mean() };
            return Some(Figure { n, ..Figure::exactly(mean, Unit::Time) }.within(low.min(mean), mean));
        }
        ("max", _) => (clocks.response.max(), clocks.response_low.max()),
        (_, Some(quantile)) => {
            let rank = (quantile * n as f64).ceil().max(1.0);
            let low = if known == 0 { 0 } else { clocks.response_low.value_at_quantile(((rank - 0.5) / known as f64).min(1.0)) };
            (clocks.response.quantile(quantile), low)
        }
        _ => return None,
    };
    let Some(bound) = bound else { return Some(Figure { n, ..Figure::exactly(0.0, Unit::Time) }) };
    let value = or_never(bound.low_us);
    let low = if bound.is_exact() { (low as f64).min(value) } else { value };
    let figure = Figure { n, ..Figure::exactly(value, Unit::Time) }.within(low, or_never(bound.high_us));
    let supported = quantile.is_none_or(|quantile| is_supported(quantile, n));
    // Of too few samples it is only known that it lies between the shortest and the longest.
    let widest = |figure: Figure| {
        let shortest = if known == 0 { figure.low } else { clocks.response_low.min() as f64 };
        figure.within(shortest.min(figure.low), or_never(clocks.response.max().and_then(|max| max.high_us)))
    };
    Some(if supported { figure } else { widest(figure) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::limits::Limit;

    #[test]
    fn every_name_in_the_message_is_known() {
        for word in NAMES.split([' ', ',', '(', ')', ';', ':']).filter(|word| !word.is_empty()) {
            let is_clock = Clocks::default().by_name().iter().any(|(name, _)| *name == word);
            let is_prose = ["response", "the", "same", "of", "another", "clock", "clocks"].contains(&word);
            assert!(is_clock || is_prose || unit_of(word).is_some(), "{word}");
        }
        for (name, expected) in [
            ("p50", Some(0.5)),
            ("p95", Some(0.95)),
            ("p99.9", Some(0.999)),
            ("p999", Some(0.999)),
            ("p9999", Some(0.9999)),
            ("p99.99", Some(0.9999)),
            ("p1", Some(0.01)),
            ("p5", Some(0.05)),
            ("p0", None),
            ("p100", None),
            ("p99.", None),
            ("p100.0", None),
            ("p-1", None),
            ("p", None),
            ("pmax", None),
        ] {
            assert_eq!(quantile(name), expected, "{name}");
        }
        for name in ["service.p99.9", "send_delay_p99.9", "response.max", "wait_mean", "first_byte.p95"] {
            assert_eq!(unit_of(name), Some(Unit::Time), "{name}");
        }
        assert_eq!(unit_of("px99"), None);
        assert_eq!(unit_of("nonsense.p99"), None);
    }

    #[test]
    fn a_figure_is_named_in_several_ways() {
        for (name, clock, quantile) in [
            ("p99", "response", Some(0.99)),
            ("p99.9", "response", Some(0.999)),
            ("service.p99.9", "service", Some(0.999)),
            ("send_delay_p99", "send_delay", Some(0.99)),
            ("first_byte.max", "first_byte", None),
            ("wait_max", "wait", None),
        ] {
            assert_eq!((split(name).0, quantile_of(name)), (clock, quantile), "{name}");
            assert_eq!(unit_of(name), Some(Unit::Time), "{name}");
        }
    }

    fn answered(ms: u64, n: u64, own_ms: u64) -> Record {
        let mut record = Record::default();
        record.clocks.response.known.record_n(ms * 1000, n).unwrap();
        record.clocks.response_low.record_n((ms - own_ms) * 1000, n).unwrap();
        (record.totals.scheduled, record.totals.ok, record.totals.ok_in_time) = (n, n, n);
        record
    }

    fn figure(record: &Record, name: &str) -> Figure {
        of(record, Duration::from_secs(2), name).unwrap()
    }

    #[test]
    fn figures_have_the_values_of_the_record() {
        let mut record = answered(4, 3, 1);
        record.clocks.send_delay.saturating_record(250);
        record.clocks.response.never = 1;
        (record.totals.scheduled, record.totals.errors, record.totals.ended_in_time) = (5, 1, 4);
        (record.totals.unfinished, record.totals.ok_in_time) = (1, 3);
        let text = |name| figure(&record, name).to_string();
        assert_eq!(text("send_delay_p99"), "250µs");
        assert_eq!((text("response_ok.p50"), text("max")), ("4.0ms".to_owned(), "never".to_owned()));
        assert_eq!((text("error_rate"), text("rps"), text("goodput")), ("40.00%".to_owned(), "2".to_owned(), "1.5".to_owned()));
    }

    #[test]
    fn a_time_is_at_least_what_it_would_have_been_without_the_generators_delays() {
        let p99 = figure(&answered(5, 1000, 2), "p99");
        assert_eq!(((p99.value - 5000.0).abs() < 5.0, p99.high, p99.low.round()), (true, p99.value, 3001.0), "{p99:?}");
    }

    #[test]
    fn a_request_that_was_not_sent_might_have_ended_in_any_way() {
        let mut record = answered(5, 1000, 2);
        record.totals.scheduled += 200;
        (0..200).for_each(|_| record.totals.not_sent.count(Limit::Connections));
        let bounds = |name| (figure(&record, name).low, figure(&record, name).high);
        assert_eq!((bounds("ok"), bounds("errors"), bounds("goodput")), ((1000.0, 1200.0), (0.0, 200.0), (500.0, 600.0)));
        assert_eq!(bounds("error_rate").0, 0.0);
    }

    #[test]
    fn a_time_out_after_a_delay_of_the_generator_might_have_been_an_answer() {
        let mut record = answered(5, 12, 2);
        (record.totals.errors, record.totals.timeouts, record.totals.late_timeouts, record.totals.scheduled) = (6, 6, 1, 18);
        let bounds = |name| (figure(&record, name).low, figure(&record, name).high);
        assert_eq!((bounds("ok"), bounds("timeouts")), ((12.0, 13.0), (5.0, 6.0)));
    }

    #[test]
    fn a_quantile_of_too_few_samples_lies_somewhere_between_the_shortest_and_the_longest() {
        let mut record = answered(5, 100, 0);
        record.clocks.response.answered(Duration::from_secs(1));
        record.clocks.response_low.saturating_record(1_000_000);
        let p99 = figure(&record, "p99");
        assert!(p99.low <= 5_010.0 && p99.high >= 1_000_000.0, "{p99:?}");
        let p50 = figure(&record, "p50");
        assert!(p50.high < 6_000.0, "{p50:?}");
    }
}
