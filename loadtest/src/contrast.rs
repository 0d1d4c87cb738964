//! Two sides of a scenario next to each other, judged: whether they differ as declared, and whether that can be believed.
//!
//! Read next: `contrast_text.rs`, the same for people.

use crate::args::Control;
use crate::condition::{Condition, Judged, Judgement};
use crate::exit;
use crate::scenario::Scenario;
use crate::side::{Load, Measured, Settings, run_side};

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
    /// Whether both sides were the same, and which: what is judged then is the scenario.
    pub control: Option<Control>,
    /// What came of the attempts before this one: a sentence each. Only an open result is measured again.
    pub attempts: Vec<String>,
}

/// How often a contrast is measured at most.
const ATTEMPTS_MAX: usize = 3;

/// Runs both sides and judges. A result that is open is measured again, both sides, with fresh processes; one that is not shown never is.
///
/// # Errors
/// A sentence, when a side could not be measured: the server did not start, or died.
pub fn run(scenario: &'static Scenario, settings: &Settings<'_>) -> Result<Contrast, String> {
    let expect: Vec<Condition> = scenario.expect.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [first, second] = match settings.control {
        None => [true, false],
        Some(Control::Mistake) => [true; 2],
        Some(Control::Correct) => [false; 2],
    };
    judge_repeatedly(|| {
        let broken = run_side(scenario, settings, 0, first)?;
        let correct = run_side(scenario, settings, 1, second)?;
        Ok(Contrast { control: settings.control, ..judge(scenario, broken, correct, &expect)? })
    })
}

fn judge_repeatedly(mut attempt: impl FnMut() -> Result<Contrast, String>) -> Result<Contrast, String> {
    let mut attempts = Vec::new();
    loop {
        let contrast = attempt()?;
        if !contrast.is_open() || contrast.is_interrupted() || attempts.len() + 1 >= ATTEMPTS_MAX {
            return Ok(Contrast { attempts, ..contrast });
        }
        attempts.push(contrast.why_open());
    }
}

/// Judges two sides, within the bounds of their figures.
///
/// A machine that is disturbed can hide a contrast. It does not make one of this size: the sides differ by a factor of three or more, or by
/// all against none. So a predicate that fails on a disturbed side is open unless it also fails with wider bounds. How long threads waited for
/// a CPU widens the bounds and decides nothing more: a mistake that starts 400 threads makes them wait for each other. Tests:
/// `a_disturbed_machine_can_hide_a_contrast_and_not_refute_it`, `threads_that_wait_for_each_other_do_not_hide_a_lost_fix`.
///
/// # Errors
/// A sentence, when a predicate speaks of what was not measured.
pub fn judge(scenario: &'static Scenario, broken: Measured, correct: Measured, expect: &[Condition]) -> Result<Contrast, String> {
    let side = |name: &str| match name.split_once('.')? {
        ("broken", name) => Some((&broken, name.to_owned())),
        ("correct", name) => Some((&correct, name.to_owned())),
        _ => None,
    };
    let lookup = |name: &str| side(name).and_then(|(side, name)| side.figure(&name));
    let widened = |name: &str| {
        let (side, name) = side(name)?;
        let figure = side.figure(&name)?;
        Some(if side.machine.is_disturbed() { figure.disturbed_by(&side.machine) } else { figure })
    };
    let judge = |condition: &Condition| {
        let mut judged = condition.judge(lookup)?;
        let hidden = || Ok::<_, String>(condition.judge(widened)?.judgement != Judgement::Fails);
        if judged.judgement == Judgement::Fails && hidden()? {
            judged.judgement = Judgement::Open;
        }
        Ok((condition.clone(), judged))
    };
    let judged = expect.iter().map(judge).collect::<Result<_, String>>()?;
    Ok(Contrast { scenario, broken, correct, judged, control: None, attempts: Vec::new() })
}

impl Contrast {
    /// Whether the sides differ as declared, wherever the figures lie within their bounds.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.judged.iter().all(|(_, judged)| judged.judgement == Judgement::Holds)
    }

    /// Whether a predicate fails, wherever the figures lie within their bounds.
    #[must_use]
    pub fn is_refuted(&self) -> bool {
        self.judged.iter().any(|(_, judged)| judged.judgement == Judgement::Fails)
    }

    /// Whether the figures are not known well enough to say either.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_shown() && !self.is_refuted()
    }

    /// Whether a side was ended early by Ctrl-C.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.broken.interrupted || self.correct.interrupted
    }

    /// Every load of both sides, with the name of the side.
    pub fn loads(&self) -> impl Iterator<Item = (&'static str, &Load)> {
        let broken = self.broken.loads.iter().map(|load| ("broken", load));
        broken.chain(self.correct.loads.iter().map(|load| ("correct", load)))
    }

    /// The exit code: an open result proves nothing, whichever way it points.
    #[must_use]
    pub fn exit_code(&self, allow_saturated: bool) -> u8 {
        if self.is_interrupted() {
            exit::INTERRUPTED
        } else if self.is_refuted() {
            exit::NO_CONTRAST
        } else if self.is_open() && !allow_saturated {
            exit::NOT_TRUSTWORTHY
        } else {
            exit::OK
        }
    }

    /// The result in a word or two.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.is_interrupted() {
            "interrupted"
        } else if self.is_refuted() {
            "NOT SHOWN"
        } else if self.is_open() {
            "NOT TRUSTWORTHY"
        } else {
            "shown"
        }
    }
}

#[cfg(test)]
#[path = "contrast_tests.rs"]
pub(crate) mod tests;
