//! `loadtest scenario …`, and `loadtest` without arguments, which is `loadtest scenario run all`: list, explain, run, compare.
//!
//! Read next: `scenario.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{ScenarioArgs, ScenarioCommand};
use crate::condition::Judgement;
use crate::contrast::{self, Contrast};
use crate::contrast_text::{expectation_in_words, table_line};
use crate::exit;
use crate::interrupt;
use crate::json::{self, Document};
use crate::output::{self, JsonOutput, note};
use crate::program_name;
use crate::progress::ScenarioProgress;
use crate::results_by_name::{Figure, Unit};
use crate::scenario::{MistakeIn, Row, Scenario};
use crate::scenarios::{SCENARIOS, find, slugs};
use crate::side::{Load, Settings};

/// Does what was asked; returns the exit code.
///
/// # Errors
/// One sentence, with the exit code that goes with it.
pub fn command(wanted: &ScenarioCommand, command: &[String]) -> Result<u8, (u8, String)> {
    match wanted {
        ScenarioCommand::List => print(&list()),
        ScenarioCommand::Show { slug } => print(&show(known(slug)?)),
        ScenarioCommand::Run(args) if args.slug == "all" => run(SCENARIOS, args, command, false),
        ScenarioCommand::Run(args) => run(std::slice::from_ref(known(&args.slug)?), args, command, true),
    }
}

fn known(slug: &str) -> Result<&'static Scenario, (u8, String)> {
    find(slug).ok_or_else(|| (exit::USAGE, format!("there is no scenario '{slug}'; there are: {}, all", slugs())))
}

fn print(text: &str) -> Result<u8, (u8, String)> {
    output::print(text).map_err(|e| (exit::FAILURE, e))?;
    Ok(exit::OK)
}

fn list() -> String {
    let mut out = String::new();
    for scenario in SCENARIOS {
        let _ = writeln!(out, "{:<19} {}", scenario.slug, scenario.title); // Writing to a String cannot fail.
    }
    out
}

fn show(scenario: &Scenario) -> String {
    let mut out = format!("{}: {}\n\n", scenario.slug, scenario.title);
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(out, "{label:<9}{text}"); // Writing to a String cannot fail.
    };
    line("cause", scenario.cause);
    line("load", scenario.load);
    match scenario.mistake_in {
        MistakeIn::Server => line("server", &format!("{} --mistake {}", scenario.server_args.join(" "), scenario.slug)),
        MistakeIn::Client => line("mistake", "the client's: the server is the same on both sides"),
    }
    for (index, expected) in scenario.expect.iter().enumerate() {
        // Each is parsed by a test.
        let text = expected.parse().map_or_else(|_| (*expected).to_owned(), |condition| expectation_in_words(scenario, &condition));
        line(if index == 0 { "expected" } else { "" }, &text);
    }
    for (index, command) in scenario.look.iter().enumerate() {
        line(if index == 0 { "see it" } else { "" }, command);
    }
    line("code", &scenario.code.location(scenario.slug));
    line("page", &scenario.page());
    line("run", &format!("loadtest scenario run {}", scenario.slug));
    out
}

/// Runs scenarios one after the other: one in full, several with a line each.
fn run(scenarios: &'static [Scenario], args: &ScenarioArgs, command: &[String], in_full: bool) -> Result<u8, (u8, String)> {
    let failure = |e: String| (exit::FAILURE, e);
    let mut json_output = JsonOutput::open(args.common.json.as_deref()).map_err(failure)?;
    let interrupt = interrupt::watch().map_err(|e| failure(format!("cannot watch for signals: {e}")))?;
    let wanted = !args.common.no_progress;
    // Of several scenarios only the counter is shown; the seconds of one load would only lengthen a log of all scenarios.
    let progress_of_loads = wanted && in_full && std::io::stderr().is_terminal();
    let settings =
        Settings { seed: args.common.seed, long: args.long, progress: progress_of_loads, control: args.control, interrupted: &interrupt };
    let mut progress = ScenarioProgress::new(scenarios, args.long, wanted);
    let (begun, mut documents, mut counts, mut code) = (Instant::now(), Vec::new(), Counts::default(), exit::OK);
    let mut results = Results { to_stdout: !json_output.is_stdout(), text: String::new(), trouble: Vec::new() };
    if !in_full {
        results.add(&format!("{}\n", table_line("scenario", "result", "figure: with the mistake → correct")));
    }
    for (index, scenario) in scenarios.iter().enumerate() {
        progress.begin(index);
        let ended = contrast::run(scenario, &settings);
        progress.end();
        match ended {
            Ok(contrast) => {
                documents.extend(sides(&contrast, command));
                results.add(&if in_full { contrast.report() } else { contrast.line() + "\n" });
                if !in_full {
                    for (index, attempt) in contrast.attempts.iter().enumerate() {
                        note(format_args!("{}: {}: attempt {} was open: {attempt}", program_name(command), scenario.slug, index + 1));
                    }
                    if contrast.is_open() && !contrast.is_interrupted() {
                        note(format_args!("{}: {}: open: {}", program_name(command), scenario.slug, contrast.why_open()));
                    }
                }
                counts.add(contrast.state());
                code = exit::worst(code, contrast.exit_code(args.common.allow_saturated));
            }
            Err(e) => {
                counts.add(FAILED);
                code = exit::worst(code, exit::FAILURE);
                if in_full {
                    note(format_args!("{}: {}: {e}", program_name(command), scenario.slug));
                } else {
                    results.add(&format!("{}\n", table_line(scenario.slug, FAILED, &e.replace('\n', " "))));
                }
            }
        }
        if interrupt.is_set() {
            code = interrupt.exit_code();
            break;
        }
    }
    if !in_full {
        results.add(&format!("\n{}\n", counts.line(scenarios.len(), begun.elapsed())));
        // As it was typed, so that it can be copied.
        let program = command.first().map_or("loadtest", String::as_str);
        note(format_args!("`{program} scenario run NAME` shows one of them in full; docs/failures/NAME.md explains it"));
    }
    results.end(&mut json_output, &Value::Array(documents));
    if !results.trouble.is_empty() {
        note(format_args!("{}: {}", program_name(command), results.trouble.join("; ")));
        code = exit::worst(code, exit::FAILURE);
    }
    Ok(code)
}

/// The state of a scenario that could not be measured.
const FAILED: &str = "FAILED";

/// How many scenarios had which result.
#[derive(Default)]
struct Counts(BTreeMap<&'static str, usize>);

impl Counts {
    fn add(&mut self, state: &'static str) {
        *self.0.entry(state).or_default() += 1;
    }

    /// `18 scenarios in 1 min 42 s: 18 shown`, and every other result that occurred.
    fn line(&self, scenarios: usize, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs();
        let time = if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) };
        let run: usize = self.0.values().sum();
        let of = if run < scenarios { format!(" of {scenarios}") } else { String::new() };
        let shown = self.0.get("shown").copied().unwrap_or(0);
        let others: String = self.0.iter().filter(|(state, _)| **state != "shown").map(|(state, n)| format!(", {n} {state}")).collect();
        format!("{run}{of} scenarios in {time}: {shown} shown{others}")
    }
}

/// What people read: at once on standard output, since the next scenario takes a while, unless that belongs to the JSON document.
struct Results {
    to_stdout: bool,
    text: String,
    trouble: Vec<String>,
}

impl Results {
    fn add(&mut self, text: &str) {
        if self.to_stdout {
            self.try_to(|| output::print(text));
        } else {
            self.text += text;
        }
    }

    fn end(&mut self, json_output: &mut JsonOutput, document: &Value) {
        let text = std::mem::take(&mut self.text);
        if self.to_stdout {
            self.try_to(|| json_output.write(document));
        } else {
            self.try_to(|| json_output.write_both(document, &text));
        }
    }

    /// Goes on whatever happens, and keeps each kind of trouble once.
    fn try_to(&mut self, write: impl FnOnce() -> Result<(), String>) {
        if let Err(e) = write()
            && !self.trouble.contains(&e)
        {
            self.trouble.push(e);
        }
    }
}

/// A document for each load of each side, or one for a side that has none.
fn sides(contrast: &Contrast, command: &[String]) -> Vec<Value> {
    let expected: Vec<_> =
        contrast.judged.iter().map(|(condition, judged)| json!({"expr": condition.to_string(), "ok": judged.judgement == Judgement::Holds, "open": judged.judgement == Judgement::Open})).collect();
    let Contrast { scenario, broken, correct, .. } = contrast;
    let mut documents = Vec::new();
    for (side, measured) in [("broken", broken), ("correct", correct)] {
        let rows = scenario.rows.iter().filter_map(|row| Some((row, measured.figure(row.figure)?)));
        let figures: Vec<_> = rows.map(|(row, figure)| figure_value(row, figure)).collect();
        let of = json!({
            "name": scenario.slug,
            "side": side,
            "result": contrast.state(),
            "headline": contrast.headline(),
            "expected": expected,
            "figures": figures,
            "attempts": contrast.attempts,
            "machine": measured.machine.line(),
        });
        if measured.loads.is_empty() {
            documents.push(json::without_load(command, scenario.load, &of));
        }
        documents.extend(measured.loads.iter().map(|Load { plan, outcome, verdict }| {
            let target = scenario.load;
            json::document(&Document {
                command,
                target,
                plan,
                outcome,
                verdict,
                thresholds: &[],
                one_connection: None,
                scenario: Some(&of),
            })
        }));
    }
    documents
}

/// A figure with its label, as JSON.
fn figure_value(row: &Row, figure: Figure) -> Value {
    let unit = match figure.unit {
        Unit::Time => "us",
        Unit::Share => "share",
        Unit::Number if row.unit.is_empty() => "count",
        Unit::Number => row.unit,
    };
    json!({
        "name": row.figure,
        "label": row.label,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "n": figure.n,
        "unit": unit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_every_result_that_occurred() {
        let mut counts = Counts::default();
        (0..16).for_each(|_| counts.add("shown"));
        assert_eq!(counts.line(16, Duration::from_secs(102)), "16 scenarios in 1 min 42 s: 16 shown");
        counts.add("NOT TRUSTWORTHY");
        counts.add(FAILED);
        assert_eq!(counts.line(20, Duration::from_secs(42)), "18 of 20 scenarios in 42 s: 16 shown, 1 FAILED, 1 NOT TRUSTWORTHY");
    }
}
