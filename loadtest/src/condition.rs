//! Conditions on figures, in one small language: `p99>250ms` (a threshold) or `broken.response.p99 >= 10 * correct.response.p99` (what
//! a scenario must show).
//!
//! `FIGURE OPERATOR [NUMBER *] (FIGURE | VALUE)`. A value has the unit of the figure it is compared with. Read next: `scenario.rs`.

use std::fmt;
use std::str::FromStr;

use server::units::duration;

use crate::results_by_name::{Figure, Unit};

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
}

/// Longest first: `>=` begins with `>`.
const OPERATORS: &[(&str, Operator)] =
    &[(">=", Operator::AtLeast), ("<=", Operator::AtMost), ("==", Operator::Equal), (">", Operator::Above), ("<", Operator::Below)];

#[derive(Clone, Debug, PartialEq)]
enum Right {
    Value(Figure),
    Scaled { factor: f64, name: String },
}

/// A condition that is true or false of some figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    /// The name on the left, as written.
    pub left: String,
    operator: Operator,
    right: Right,
}

/// What can be said of a condition, within the bounds of its figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It holds wherever the figures lie within their bounds.
    Holds,
    /// It does not hold wherever they lie.
    Fails,
    /// Within the bounds it could be either: the result is not trustworthy.
    Open,
}

/// What a condition came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Whether it holds.
    pub judgement: Judgement,
    /// The figure on the left.
    pub left: Figure,
    /// What it was compared with, the factor included.
    pub right: Figure,
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        const ALLOWED: &str = "allowed is FIGURE OPERATOR VALUE, such as p99>250ms, error_rate>1% or unfinished>0; operators: > >= < <= ==";
        let at = text.find(['>', '<', '=']).ok_or(ALLOWED)?;
        let (left, rest) = text.split_at(at);
        let (symbol, operator) = OPERATORS.iter().find(|(symbol, _)| rest.starts_with(symbol)).ok_or(ALLOWED)?;
        let (left, right) = (left.trim(), rest[symbol.len()..].trim());
        if !is_name(left) {
            return Err(ALLOWED.to_owned());
        }
        let right = match right.split_once('*') {
            Some((factor, name)) => {
                let factor = factor.trim().parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
                Right::Scaled { factor: factor.ok_or(ALLOWED)?, name: name.trim().to_owned() }
            }
            None if is_name(right) => Right::Scaled { factor: 1.0, name: right.to_owned() },
            None => Right::Value(value(right).ok_or(ALLOWED)?),
        };
        if matches!(&right, Right::Scaled { name, .. } if !is_name(name)) {
            return Err(ALLOWED.to_owned());
        }
        Ok(Condition { text: text.trim().to_owned(), left: left.to_owned(), operator: *operator, right })
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn value(text: &str) -> Option<Figure> {
    let plain = |text: &str| text.trim().parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
    if let Some(percent) = text.strip_suffix('%') {
        return Some(Figure::exactly(plain(percent)? / 100.0, Unit::Share));
    }
    match plain(text) {
        Some(value) => Some(Figure::number(value)),
        None => Some(Figure::time(duration(text.trim()).ok()?)),
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Condition {
    /// The comparison in words, for `12, at most 30 needed`.
    #[must_use]
    pub fn comparison(&self) -> &'static str {
        match self.operator {
            Operator::Above => "more than",
            Operator::AtLeast => "at least",
            Operator::Below => "less than",
            Operator::AtMost => "at most",
            Operator::Equal => "exactly",
        }
    }

    /// The factor and the name of the figure on the right, if it is a figure.
    #[must_use]
    pub fn right_figure(&self) -> Option<(f64, &str)> {
        match &self.right {
            Right::Value(_) => None,
            Right::Scaled { factor, name } => Some((*factor, name)),
        }
    }

    /// The value on the right, if it is not a figure.
    #[must_use]
    pub fn right_value(&self) -> Option<Figure> {
        match self.right {
            Right::Value(figure) => Some(figure),
            Right::Scaled { .. } => None,
        }
    }

    /// Checks that the figures exist and that their units can be compared.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn check(&self, unit_of: impl Fn(&str) -> Option<Unit>, allowed: &str) -> Result<(), String> {
        let unit = |name: &str| unit_of(name).ok_or_else(|| format!("there is no figure '{name}'; there are: {allowed}"));
        let left = unit(&self.left)?;
        let right = match &self.right {
            Right::Value(figure) => figure.unit,
            Right::Scaled { name, .. } => unit(name)?,
        };
        match (left, right) {
            (a, b) if a == b => Ok(()),
            (Unit::Time, _) => Err(format!("{} is a time: compare it with one, such as 250ms", self.left)),
            (Unit::Share, Unit::Number) => Ok(()),
            (Unit::Share, _) => Err(format!("{} is a share: compare it with one, such as 1%", self.left)),
            (Unit::Number, _) => Err(format!("{} is a plain number: compare it with one, such as 100", self.left)),
        }
    }

    /// Whether it is true of the figures that `lookup` gives.
    ///
    /// # Errors
    /// A sentence, when there is no such figure.
    pub fn judge(&self, lookup: impl Fn(&str) -> Option<Figure>) -> Result<Judged, String> {
        let find = |name: &str| lookup(name).ok_or_else(|| format!("'{}' speaks of '{name}', which was not measured", self.text));
        let left = find(&self.left)?;
        let right = match &self.right {
            Right::Value(figure) => *figure,
            Right::Scaled { factor, name } => find(name)?.times(*factor),
        };
        Ok(Judged { judgement: self.operator.judge(left, right), left, right })
    }
}

impl Operator {
    fn judge(self, left: Figure, right: Figure) -> Judgement {
        let judge = |holds: bool, fails: bool| match (holds, fails) {
            (true, _) => Judgement::Holds,
            (_, true) => Judgement::Fails,
            _ => Judgement::Open,
        };
        // Nothing is more than never, and nothing can be told from a time without a limit but what is below its lower bound.
        match self {
            Operator::Above => judge(left.low > right.high, left.high <= right.low),
            Operator::AtLeast => judge(left.low >= right.high && right.high.is_finite(), left.high < right.low || right.low.is_infinite()),
            Operator::Below => judge(left.high < right.low, left.low >= right.high),
            Operator::AtMost => judge(left.high <= right.low && left.high.is_finite(), left.low > right.high || left.low.is_infinite()),
            Operator::Equal => {
                let equal = |a: f64, b: f64| (a - b).abs() < 1e-9;
                let known = equal(left.low, left.high) && equal(right.low, right.high);
                judge(known && equal(left.value, right.value), left.high < right.low - 1e-9 || left.low > right.high + 1e-9)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results_by_name;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<Figure> {
        match name {
            "broken.response.p99" => Some(Figure::exactly(92_000.0, Unit::Time)),
            "correct.response.p99" => Some(Figure::exactly(1_100.0, Unit::Time)),
            "stuck" => Some(Figure::count(0)),
            _ => None,
        }
    }

    fn holds(text: &str) -> bool {
        text.parse::<Condition>().unwrap().judge(lookup).unwrap().judgement == Judgement::Holds
    }

    /// `left OPERATOR right`, of a figure from `low` to `high` on the left.
    fn judged(low: f64, high: f64, rest: &str) -> Judgement {
        let figure = Figure::exactly(high, Unit::Time).within(low, high);
        format!("x {rest}").parse::<Condition>().unwrap().judge(|_| Some(figure)).unwrap().judgement
    }

    #[test]
    fn a_condition_is_open_only_if_its_figures_could_fall_on_either_side() {
        use Judgement::{Fails, Holds, Open};
        const MS: f64 = 1000.0;
        for (rest, expected) in [
            (">= 80ms", Holds),
            (">= 90ms", Holds),
            (">= 91ms", Open),
            (">= 95ms", Open),
            (">= 101ms", Fails),
            ("> 89ms", Holds),
            ("> 90ms", Open),
            ("> 100ms", Fails),
            ("<= 100ms", Holds),
            ("<= 99ms", Open),
            ("<= 89ms", Fails),
            ("< 100ms", Open),
            ("< 101ms", Holds),
            ("< 90ms", Fails),
            ("== 95ms", Open),
            ("== 80ms", Fails),
            ("== 101ms", Fails),
        ] {
            assert_eq!(judged(90.0 * MS, 100.0 * MS, rest), expected, "90 to 100 ms {rest}");
        }
        assert_eq!(judged(95.0 * MS, 95.0 * MS, "== 95ms"), Holds);
    }

    #[test]
    fn a_time_that_never_came_is_long_and_proves_nothing_on_the_other_side() {
        use Judgement::{Fails, Holds, Open};
        const NEVER: f64 = f64::INFINITY;
        assert_eq!((judged(NEVER, NEVER, ">= 5s"), judged(NEVER, NEVER, "<= 5s"), judged(5e6, NEVER, ">= 5s")), (Holds, Fails, Holds));
        assert_eq!((judged(5e6, NEVER, ">= 6s"), judged(5e6, NEVER, "<= 6s"), judged(5e6, NEVER, "<= 4s")), (Open, Open, Fails));
        // Both sides never answer: that is no contrast.
        assert_eq!(judged(NEVER, NEVER, ">= 10 * x"), Fails);
    }

    #[test]
    fn conditions_hold_as_they_read() {
        assert!(holds("broken.response.p99 >= 10 * correct.response.p99"));
        assert!(!holds("broken.response.p99 >= 100*correct.response.p99"));
        assert!(holds("broken.response.p99>correct.response.p99"));
        assert!(holds("broken.response.p99 > 91ms") && !holds("broken.response.p99>92ms") && holds("broken.response.p99>=92ms"));
        assert!(holds("stuck == 0") && holds("stuck<1") && holds("stuck <= 0") && !holds("stuck > 0"));
    }

    #[test]
    fn a_figure_that_was_not_measured_is_named() {
        let refusal = "nothing > 3".parse::<Condition>().unwrap().judge(lookup).unwrap_err();
        assert!(refusal.contains("'nothing'"), "{refusal}");
    }

    #[test]
    fn what_is_no_condition_is_told_what_is() {
        for text in
            ["", "p99", "p99 250ms", "p99>", ">3", "p99>10 lightyears", "p99=3", "p99 > x * y", "p99 > -1 * max", "p99>-1ms", "p 9 > 3"]
        {
            assert!(text.parse::<Condition>().unwrap_err().contains("FIGURE OPERATOR VALUE"), "{text}");
        }
    }

    #[test]
    fn units_must_fit() {
        let check = |text: &str| text.parse::<Condition>().unwrap().check(results_by_name::unit_of, results_by_name::NAMES);
        for text in
            ["p99>250ms", "error_rate>1%", "error_rate>0.01", "rps<900", "unfinished>0", "send_delay_p99>1ms", "p99 > 5 * service.p99"]
        {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        assert!(check("p99>250").unwrap_err().contains("such as 250ms"));
        assert!(check("rps<1s").unwrap_err().contains("plain number"));
        assert!(check("error_rate>1s").unwrap_err().contains("such as 1%"));
        assert!(check("p100>1s").unwrap_err().contains("no figure 'p100'"));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<Condition>();
        }
    }
}
