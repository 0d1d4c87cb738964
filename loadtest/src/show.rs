//! `loadtest scenario …`, and `loadtest` without arguments: list, explain, run, judge.
//!
//! Read next: `scenario.rs`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::args::{CommonArgs, ScenarioArgs, ScenarioCommand};
use crate::contrast::Contrast;
use crate::exit;
use crate::interrupt;
use crate::json::{self, Document};
use crate::program_name;
use crate::run::JsonOutput;
use crate::scenario::{self, MistakeIn, Scenario, Settings};
use crate::scenarios::{SCENARIOS, find, slugs};

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

/// `loadtest` without arguments.
///
/// # Errors
/// As [`command`].
pub fn all(command: &[String]) -> Result<u8, (u8, String)> {
    let args = ScenarioArgs { slug: "all".to_owned(), common: CommonArgs::default(), long: false };
    run(SCENARIOS, &args, command, false)
}

fn known(slug: &str) -> Result<&'static Scenario, (u8, String)> {
    find(slug).ok_or_else(|| (exit::USAGE, format!("there is no scenario '{slug}'; there are: {}, all", slugs())))
}

fn print(text: &str) -> Result<u8, (u8, String)> {
    JsonOutput::None.write(&Value::Null, text).map_err(|e| (exit::FAILURE, e))?;
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
        line(if index == 0 { "expected" } else { "" }, expected);
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
    let interrupted = interrupt::on_sigint().map_err(|e| failure(format!("cannot watch for SIGINT: {e}")))?;
    let settings = Settings { seed: args.common.seed, long: args.long, progress: !args.common.no_progress, interrupted: &interrupted };
    let mut documents = Vec::new();
    let (mut code, mut text) = (exit::OK, String::new());
    for scenario in scenarios {
        let contrast = match scenario::run(scenario, &settings) {
            Ok(contrast) => contrast,
            Err(e) => {
                code = exit::worst(code, exit::FAILURE);
                eprintln!("{}: {}: {e}", program_name(command), scenario.slug);
                continue;
            }
        };
        documents.extend(sides(&contrast, command));
        let said = if in_full { contrast.report() } else { contrast.line() + "\n" };
        if matches!(json_output, JsonOutput::None) {
            print(&said)?; // At once: the next one takes a while.
        } else {
            text += &said;
        }
        if !in_full {
            for (side, load) in contrast.loads().filter(|(_, load)| !load.verdict.generator_ok) {
                eprintln!("{}: {} {side}: {}", program_name(command), scenario.slug, load.verdict.line());
            }
        }
        code = exit::worst(code, contrast.exit_code(args.common.allow_saturated));
        if contrast.is_interrupted() {
            break;
        }
    }
    if !in_full {
        // As it was typed, so that it can be copied.
        let program = command.first().map_or("loadtest", String::as_str);
        eprintln!("`{program} scenario run SLUG` shows one of them in full, with the line of code and how to see it yourself");
    }
    if !matches!(json_output, JsonOutput::None) {
        json_output.write(&Value::Array(documents), &text).map_err(failure)?;
    }
    Ok(code)
}

/// A document for each load of each side, or one for a side that has none.
fn sides(contrast: &Contrast, command: &[String]) -> Vec<Value> {
    let expected: Vec<_> =
        contrast.judged.iter().map(|(condition, judged)| json!({"expr": condition.to_string(), "ok": judged.holds})).collect();
    let Contrast { scenario, broken, correct, .. } = contrast;
    let mut documents = Vec::new();
    for (side, measured) in [("broken", broken), ("correct", correct)] {
        let figures: Vec<_> = measured.figures.iter().map(|(name, figure)| json!({"name": name, "value": figure.value})).collect();
        let of = json!({"name": scenario.slug, "side": side, "expected": expected, "figures": figures});
        if measured.loads.is_empty() {
            documents.push(json::without_load(command, scenario.load, &of));
        }
        documents.extend(measured.loads.iter().map(|scenario::Load { plan, outcome, verdict }| {
            let target = scenario.load;
            json::document(&Document { command, target, plan, outcome, verdict, thresholds: &[], scenario: Some(&of) })
        }));
    }
    documents
}
