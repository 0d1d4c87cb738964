//! Two sides of a scenario next to each other: figures, ratio, what was expected, what happened, and where to look.
//!
//! Read next: `scenarios/`.

use std::fmt::Write as _;

use crate::condition::{Condition, Judged};
use crate::exit;
use crate::figures::{Figure, Unit};
use crate::scenario::{Measured, MistakeIn, Scenario};

/// A scenario that was run and judged.
#[derive(Clone, Debug)]
pub struct Contrast {
    /// Which.
    pub scenario: &'static Scenario,
    /// With the mistake.
    pub broken: Measured,
    /// Without.
    pub correct: Measured,
    /// What was expected, and what came of it.
    pub judged: Vec<(Condition, Judged)>,
}

/// Judges two sides.
///
/// # Errors
/// A sentence, when a predicate speaks of what was not measured.
pub fn judge(scenario: &'static Scenario, broken: Measured, correct: Measured, expect: &[Condition]) -> Result<Contrast, String> {
    let lookup = |name: &str| match name.split_once('.')? {
        ("broken", name) => broken.figure(name),
        ("correct", name) => correct.figure(name),
        _ => None,
    };
    let judged = expect.iter().map(|condition| Ok((condition.clone(), condition.judge(lookup)?)));
    let judged = judged.collect::<Result<_, String>>()?;
    Ok(Contrast { scenario, broken, correct, judged })
}

impl Contrast {
    /// Whether the sides differ as declared.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.judged.iter().all(|(_, judged)| judged.holds)
    }

    /// Whether the generator was fit to judge both sides.
    #[must_use]
    pub fn is_trustworthy(&self) -> bool {
        self.loads().all(|(_, load)| load.verdict.generator_ok)
    }

    /// Whether a side was ended early by Ctrl-C.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.broken.interrupted || self.correct.interrupted
    }

    /// Every load of both sides, with the name of the side.
    pub fn loads(&self) -> impl Iterator<Item = (&'static str, &crate::scenario::Load)> {
        let broken = self.broken.loads.iter().map(|load| ("broken", load));
        broken.chain(self.correct.loads.iter().map(|load| ("correct", load)))
    }

    /// The exit code: an untrustworthy result proves nothing, whichever way it points.
    #[must_use]
    pub fn exit_code(&self, allow_saturated: bool) -> u8 {
        if self.is_interrupted() {
            exit::INTERRUPTED
        } else if !self.is_trustworthy() && !allow_saturated {
            exit::NOT_TRUSTWORTHY
        } else if !self.is_shown() {
            exit::NO_CONTRAST
        } else {
            exit::OK
        }
    }

    /// A figure of each side.
    #[must_use]
    pub fn figures(&self, name: &str) -> Option<(Figure, Figure)> {
        Some((self.broken.figure(name)?, self.correct.figure(name)?))
    }

    /// A figure of one side for a sentence; `?` if it was not measured.
    #[must_use]
    pub fn text(measured: &Measured, name: &str) -> String {
        measured.figure(name).map_or_else(|| "?".to_owned(), |figure| figure.to_string())
    }

    /// One line: `loop-stall  shown  response.p99 92ms with the mistake, 1.1ms without (84x)  docs/failures/loop-stall.md`.
    #[must_use]
    pub fn line(&self) -> String {
        let headline = self.scenario.rows[0];
        let figures = self.figures(headline).map_or_else(String::new, |(broken, correct)| {
            format!(
                "{headline} {broken} with the mistake, {correct} without{}",
                ratio(broken, correct).map_or_else(String::new, |ratio| format!(" ({ratio})"))
            )
        });
        format!("{:<19} {:<15} {figures}   {}", self.scenario.slug, self.state(), self.scenario.page())
    }

    fn state(&self) -> &'static str {
        if self.is_interrupted() {
            "interrupted"
        } else if !self.is_trustworthy() {
            "NOT TRUSTWORTHY"
        } else if self.is_shown() {
            "shown"
        } else {
            "NOT SHOWN"
        }
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
        line("", "");
        let broken = match scenario.mistake_in {
            MistakeIn::Server => "with --mistake",
            MistakeIn::Client => "with the mistake",
        };
        line("", &format!("{:<22}{broken:>18}{:>14}{:>10}", "", "correct", "ratio"));
        for row in scenario.rows {
            if let Some((broken, correct)) = self.figures(row) {
                line("", &format!("{row:<22}{broken:>18}{correct:>14}{:>10}", ratio(broken, correct).unwrap_or_default()));
            }
        }
        line("", "");
        for (index, (condition, judged)) in self.judged.iter().enumerate() {
            let state = if judged.holds { "yes" } else { "NO" };
            line(if index == 0 { "expected" } else { "" }, &format!("{condition}: {state} ({} against {})", judged.left, judged.right));
        }
        line("happened", &(scenario.happened)(self));
        for (index, command) in scenario.look.iter().enumerate() {
            line(if index == 0 { "see it" } else { "" }, command);
        }
        line("code", &scenario.code.location(scenario.slug));
        line("page", &scenario.page());
        for (index, (side, load)) in self.loads().enumerate() {
            line(if index == 0 { "verdict" } else { "" }, &format!("{side}: {}", load.verdict.line()));
        }
        if self.is_interrupted() {
            line("", "interrupted: what was measured is partial");
        }
        out
    }
}

/// `84x`; nothing where a ratio says nothing.
fn ratio(broken: Figure, correct: Figure) -> Option<String> {
    if broken.unit == Unit::Share || correct.value <= 0.0 || broken.value <= 0.0 {
        return None;
    }
    let ratio = broken.value / correct.value;
    Some(if ratio >= 10.0 { format!("{ratio:.0}x") } else { format!("{ratio:.1}x") })
}

#[cfg(test)]
#[path = "contrast_tests.rs"]
mod tests;
