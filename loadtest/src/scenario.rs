//! A failure that can be reproduced: the same load against the server with one mistake, then without, and what must differ.
//!
//! A [`Scenario`] is data and one function, `drive`, that does the same to either side through the small toolkit [`Side`]. To add one, copy
//! `scenarios/loop_stall.rs`. Read next: `side.rs`, which runs a side, and `contrast.rs`, which judges both.

use std::time::Duration;

use crate::contrast::Contrast;
use crate::side::{Measured, Side};

/// Stands in `server_args` for the path of an empty directory, made for the side and gone after it; see [`Side::directory`].
pub const DIRECTORY: &str = "{directory}";

/// Whose mistake a scenario shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MistakeIn {
    /// The server's: it is started with `--mistake SLUG`.
    Server,
    /// The client's: [`Side::run`] applies the entry of `mistakes.rs` to the plan.
    Client,
}

/// The file that holds a mistake, so that its line can be named.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Its path in the repository.
    pub file: &'static str,
    /// Its content (`include_str!`), in which the marker is looked for.
    pub source: &'static str,
}

impl Code {
    /// `server/src/dispatch.rs:88`: the line marked for `slug`.
    #[must_use]
    pub fn location(&self, slug: &str) -> String {
        let marker = format!("MISTAKE({slug})");
        match self.source.lines().position(|line| line.contains(&marker)) {
            Some(index) => format!("{}:{}", self.file, index + 1),
            None => self.file.to_owned(),
        }
    }
}

/// One failure and how to show it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Joins the mistake, the marked line, the test and the page `docs/failures/<slug>.md`.
    pub slug: &'static str,
    /// A title of a few words.
    pub title: &'static str,
    /// One sentence: what is wrong, and why it hurts.
    pub cause: &'static str,
    /// One sentence: what is sent.
    pub load: &'static str,
    /// Whose mistake it is.
    pub mistake_in: MistakeIn,
    /// Server arguments of both sides, in addition to the addresses.
    pub server_args: &'static [&'static str],
    /// Applies the load to one side and returns what was measured.
    pub drive: fn(&mut Side<'_>) -> Result<Measured, String>,
    /// Figures to show, each with its label, the headline first. Every figure of `expect` is among them.
    pub rows: &'static [Row],
    /// What must be true; see `condition.rs`. Figures of a side are named `broken.…` and `correct.…`.
    pub expect: &'static [&'static str],
    /// One sentence: what happened, with the figures measured.
    pub happened: fn(&Contrast) -> String,
    /// Commands that show it from outside, each with what to look for.
    pub look: &'static [&'static str],
    /// Where the marked line is.
    pub code: Code,
    /// How long both sides take without `--long`, measured on a machine that did nothing else: for "about 2 min left".
    pub takes: Duration,
}

/// A figure of a scenario and what it is called where people read it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, as [`Measured::figure`] knows it.
    pub figure: &'static str,
    /// The label, in words that make sense without the page.
    pub label: &'static str,
    /// The figure that this one is a part of: `12 of 150`.
    pub of: Option<&'static str>,
    /// What stands behind a plain number: `MiB`. Empty for counts.
    pub unit: &'static str,
}

impl Row {
    /// A figure with its label.
    #[must_use]
    pub const fn new(figure: &'static str, label: &'static str) -> Row {
        Row { figure, label, of: None, unit: "" }
    }

    /// The same, shown as a part of the figure `whole`.
    #[must_use]
    pub const fn of(self, whole: &'static str) -> Row {
        Row { of: Some(whole), ..self }
    }

    /// The same, with a unit.
    #[must_use]
    pub const fn unit(self, unit: &'static str) -> Row {
        Row { unit, ..self }
    }
}

impl Scenario {
    /// The row of that figure.
    #[must_use]
    pub fn row(&self, figure: &str) -> Option<&'static Row> {
        self.rows.iter().find(|row| row.figure == figure)
    }

    /// The page that explains it.
    #[must_use]
    pub fn page(&self) -> String {
        format!("docs/failures/{}.md", self.slug)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Condition;
    use crate::scenarios::SCENARIOS;

    #[test]
    fn every_scenario_is_complete_and_its_predicates_are_conditions() {
        for scenario in SCENARIOS {
            let Scenario { slug, title, cause, load, rows, expect, look, code, .. } = scenario;
            assert!(slug.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{slug}");
            assert!(cause.ends_with('.') && load.ends_with('.') && !title.ends_with('.'), "{slug}: sentences and titles");
            assert!(!rows.is_empty() && !expect.is_empty() && !look.is_empty(), "{slug}");
            for text in *expect {
                let condition: Condition = text.parse().unwrap();
                for name in [Some(condition.left.as_str()), condition.right_figure().map(|(_, name)| name)].into_iter().flatten() {
                    let figure = name.strip_prefix("broken.").or_else(|| name.strip_prefix("correct."));
                    let figure = figure.unwrap_or_else(|| panic!("{slug}: {name} is of no side"));
                    assert!(scenario.row(figure).is_some(), "{slug}: {figure} has no row, and so no label");
                }
            }
            for row in *rows {
                assert!(row.label.contains(' ') && !row.label.contains('_'), "{slug}: '{}' is no label in words", row.label);
            }
            assert!(code.location(slug).contains(".rs:"), "{slug}: no MISTAKE({slug}) in {}", code.file);
        }
    }

    #[test]
    fn the_headline_of_every_scenario_fits_a_terminal() {
        for scenario in SCENARIOS {
            // Slug, state, label, `150 of 150` twice.
            assert!(scenario.rows[0].label.chars().count() <= 60, "{}: {}", scenario.slug, scenario.rows[0].label);
        }
    }

    #[test]
    fn slugs_are_unique() {
        let mut slugs: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), SCENARIOS.len());
    }

    #[test]
    fn the_marked_line_is_named_by_its_number() {
        let code = Code { file: "a.rs", source: "one\n  two // MISTAKE(x-y): why\n" };
        assert_eq!((code.location("x-y"), code.location("other")), ("a.rs:2".to_owned(), "a.rs".to_owned()));
    }
}
