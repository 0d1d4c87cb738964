//! Two sides of a scenario next to each other, judged: whether they differ as declared, and whether that can be believed.
//!
//! Read next: `contrast_text.rs`, the same for people.

use crate::condition::{Condition, Judged};
use crate::exit;
use crate::scenario::{Measured, Scenario};

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

    /// The result in a word or two.
    #[must_use]
    pub fn state(&self) -> &'static str {
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
}

#[cfg(test)]
#[path = "contrast_tests.rs"]
mod tests;
