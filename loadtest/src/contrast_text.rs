//! A contrast in words: one line of the table, and the whole report.
//!
//! No figure stands without its label, no threshold without its arithmetic. Read next: `scenarios/`.

use std::fmt::Write as _;

use crate::args::Control;
use crate::condition::{Condition, Judged, Judgement};
use crate::contrast::Contrast;
use crate::results_by_name::{Figure, Unit};
use crate::scenario::{MistakeIn, Row, Scenario};
use crate::side::Measured;
use crate::units::{number_in_words, time_in_words};

/// A figure as a sentence has it: `91 ms`, `1,333`, `99.9 %`.
#[must_use]
pub fn in_words(figure: Figure) -> String {
    match figure.unit {
        Unit::Time if figure.value.is_infinite() => "never".to_owned(),
        _ if figure.value.is_infinite() => "any".to_owned(),
        Unit::Time if figure.high.is_infinite() => format!("at least {}", time_in_words(figure.value)),
        Unit::Time => time_in_words(figure.value),
        Unit::Share => format!("{} %", number_in_words(figure.value * 100.0)),
        Unit::Number => number_in_words(figure.value),
    }
}

/// Spaces between two columns of the table, at least.
const COLUMN_GAP: usize = 4;

/// The cell of a row: `12 of 150`, `398 MiB`. `None` if it was not measured.
fn cell(row: &Row, measured: &Measured) -> Option<String> {
    let figure = in_words(measured.figure(row.figure)?);
    let whole = row.of.and_then(|whole| measured.figure(whole));
    let whole = whole.map_or_else(String::new, |whole| format!(" of {}", in_words(whole)));
    let unit = if row.unit.is_empty() { String::new() } else { format!(" {}", row.unit) };
    Some(format!("{figure}{whole}{unit}"))
}

/// `352 times`, where the side with the mistake has more; nothing where a ratio says nothing.
fn times_more(broken: Figure, correct: Figure) -> Option<String> {
    let ratio = broken.value / correct.value;
    if broken.unit == Unit::Share || correct.value <= 0.0 || !ratio.is_finite() || ratio < 1.5 {
        return None;
    }
    Some(if ratio >= 10.0 { format!("{} times", number_in_words(ratio.round())) } else { format!("{ratio:.1} times") })
}

/// `with the mistake, fast jobs answered within 1 s: 12, at most 30 (0.2 × 150) needed`.
fn expectation(scenario: &Scenario, condition: &Condition, judged: &Judged) -> String {
    let labelled = |name: &str| match name.split_once('.') {
        Some((side, figure)) => (if side == "broken" { "with the mistake" } else { "correct" }, scenario.row(figure)),
        None => ("", None),
    };
    let (side, row) = labelled(&condition.left);
    let label = row.map_or(condition.left.as_str(), |row| row.label);
    let unit = row.filter(|row| !row.unit.is_empty()).map_or_else(String::new, |row| format!(" {}", row.unit));
    let arithmetic = condition.right_figure().map_or_else(String::new, |(factor, name)| {
        let base = in_words(judged.right.times(1.0 / factor));
        let other = labelled(name).1.map_or(name, |other| other.label);
        let same_figure = row.is_some_and(|row| row.label == other);
        match factor {
            1.0 => format!(" ({other})"),
            _ if same_figure => format!(" ({} × {base}{unit})", number_in_words(factor)),
            _ => format!(" ({} × {base}{unit}, {other})", number_in_words(factor)),
        }
    });
    let (left, right) = (in_words(judged.left), in_words(judged.right));
    format!("{label}, {side}: {left}{unit}, {} {right}{unit}{arithmetic} needed", condition.comparison())
}

impl Contrast {
    /// A figure of one side for a sentence; `?` if it was not measured.
    #[must_use]
    pub fn text(measured: &Measured, name: &str) -> String {
        measured.figure(name).map_or_else(|| "?".to_owned(), in_words)
    }

    /// The headline: `fast jobs answered within 1 s: 12 of 150 → 150 of 150`.
    #[must_use]
    pub fn headline(&self) -> String {
        let row = &self.scenario.rows[0];
        let side = |measured| cell(row, measured).unwrap_or_else(|| "not measured".to_owned());
        format!("{}: {} → {}", row.label, side(&self.broken), side(&self.correct))
    }

    /// A line of the table, without its newline.
    #[must_use]
    pub fn line(&self) -> String {
        table_line(self.scenario.slug, self.state(), &self.headline())
    }

    /// The verdict on each side: that of its load generator if it has one, and what the machine did.
    #[must_use]
    pub fn verdicts(&self) -> Vec<String> {
        let sides = [("with the mistake", &self.broken), ("correct", &self.correct)];
        let of = |(side, measured): (&str, &Measured)| {
            let state = if measured.machine.is_disturbed() { "busy" } else { "quiet" };
            let machine = format!("{side}: machine {state} ({})", measured.machine.line());
            let loads: Vec<_> = measured.loads.iter().map(|load| format!("{side}: {}", load.verdict.line_of_side())).collect();
            if loads.is_empty() { vec![machine] } else { loads }
        };
        sides.into_iter().flat_map(of).collect()
    }

    /// Why the result is open: each predicate that could fall either way, within which bounds, and what the machine did.
    #[must_use]
    pub fn why_open(&self) -> String {
        let open = self.judged.iter().filter(|(_, judged)| judged.judgement == Judgement::Open);
        let open = open.map(|(condition, judged)| {
            let bounds = |figure: &Figure| match (figure.low, figure.high) {
                (low, high) if (low - high).abs() < 1e-9 => in_words(*figure),
                (low, high) => {
                    format!("{} to {}", in_words(Figure::exactly(low, figure.unit)), in_words(Figure::exactly(high, figure.unit)))
                }
            };
            format!(
                "{} (known: {}, against {})",
                expectation(self.scenario, condition, judged),
                bounds(&judged.left),
                bounds(&judged.right)
            )
        });
        open.chain(self.verdicts()).collect::<Vec<_>>().join("; ")
    }

    /// Label, both cells and ratio of a row; `None` if neither side has the figure. A figure that one side cannot have (a latency, where
    /// nothing was answered) is shown as a dash.
    fn table_row(&self, row: &Row) -> Option<[String; 4]> {
        let cells = [&self.broken, &self.correct].map(|side| cell(row, side));
        if cells == [None, None] {
            return None;
        }
        let ratio = self.broken.figure(row.figure).zip(self.correct.figure(row.figure));
        let ratio = ratio.and_then(|(broken, correct)| times_more(broken, correct)).unwrap_or_default();
        let [broken, correct] = cells.map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
        Some([row.label.to_owned(), broken, correct, ratio])
    }

    /// The whole contrast, ending in a newline.
    #[must_use]
    pub fn report(&self) -> String {
        let scenario = self.scenario;
        let mut out = format!("{}: {}\n\n", scenario.slug, scenario.title);
        let mut line = |label: &str, text: &str| {
            let _ = writeln!(out, "{}", format!("{label:<9}{text}").trim_end()); // Writing to a String cannot fail.
        };
        line("cause", scenario.cause);
        line("load", scenario.load);
        match self.control {
            None => {}
            Some(Control::Mistake) => line("control", "both sides had the mistake: the contrast must not be shown"),
            Some(Control::Correct) => line("control", "neither side had the mistake: the contrast must not be shown"),
        }
        line("", "");
        let broken = match scenario.mistake_in {
            MistakeIn::Server => "with --mistake",
            MistakeIn::Client => "with the mistake",
        };
        let rows: Vec<_> = scenario.rows.iter().filter_map(|row| self.table_row(row)).collect();
        let len = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
        let label_len = len(&mut rows.iter().map(|row| row[0].as_str()));
        let broken_len = len(&mut rows.iter().map(|row| row[1].as_str()).chain([broken])) + COLUMN_GAP;
        let correct_len = len(&mut rows.iter().map(|row| row[2].as_str()).chain(["correct"])) + COLUMN_GAP;
        line("", &format!("{:label_len$}{broken:>broken_len$}{:>correct_len$}", "", "correct"));
        for [label, broken, correct, ratio] in &rows {
            line("", &format!("{label:<label_len$}{broken:>broken_len$}{correct:>correct_len$}   {ratio}"));
        }
        line("", "");
        for (index, (condition, judged)) in self.judged.iter().enumerate() {
            let state = match judged.judgement {
                Judgement::Holds => "yes",
                Judgement::Fails => "NO",
                Judgement::Open => "OPEN",
            };
            line(if index == 0 { "expected" } else { "" }, &format!("{state:<5}{}", expectation(scenario, condition, judged)));
        }
        line("happened", &(scenario.happened)(self));
        for (index, command) in scenario.look.iter().enumerate() {
            line(if index == 0 { "see it" } else { "" }, command);
        }
        line("code", &scenario.code.location(scenario.slug));
        line("page", &scenario.page());
        for (index, attempt) in self.attempts.iter().enumerate() {
            line(if index == 0 { "before" } else { "" }, &format!("attempt {} was open: {attempt}", index + 1));
        }
        for (index, text) in self.verdicts().iter().enumerate() {
            line(if index == 0 { "verdict" } else { "" }, text);
        }
        if self.is_interrupted() {
            line("", "interrupted: what was measured is partial");
        }
        line("result", self.state());
        out
    }
}

/// One line of the table of several scenarios: slug, result, and the headline or what went wrong.
#[must_use]
pub fn table_line(slug: &str, state: &str, text: &str) -> String {
    format!("{slug:<20}{state:<17}{text}").trim_end().to_owned()
}

/// What was asked of a scenario, in words: for `scenario show`.
#[must_use]
pub fn expectation_in_words(scenario: &Scenario, condition: &Condition) -> String {
    let labelled = |name: &str| {
        let (side, figure) = name.split_once('.').unwrap_or(("", name));
        let label = scenario.row(figure).map_or(figure, |row| row.label);
        format!("{label}, {}", if side == "broken" { "with the mistake" } else { "correct" })
    };
    let needed = match condition.right_figure() {
        Some((factor, name)) => format!("{} × ({})", number_in_words(factor), labelled(name)),
        None => condition.right_value().map_or_else(String::new, in_words),
    };
    format!("{}: {} {needed}", labelled(&condition.left), condition.comparison())
}
