//! `docs/loadtest.md` explains every flag of the command line and every field of a real result, and none that does not exist.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeSet;

use clap::CommandFactory;
use common::{Scripted, loadtest, ok, run_json, stdout};
use loadtest::args::Cli;
use serde_json::Value;

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest.md")).unwrap()
}

/// The words in backticks in the first cell of each row of the tables in this section.
fn first_cells(page: &str, section: &str) -> BTreeSet<String> {
    let text = page.split(&format!("\n## {section}\n")).nth(1).unwrap_or_else(|| panic!("no section '{section}'"));
    let text = text.split("\n## ").next().unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_page_has_every_flag_and_no_other() {
    let cli = Cli::command();
    let commands = [cli.find_subcommand("run"), cli.find_subcommand("scenario").and_then(|scenario| scenario.find_subcommand("run"))];
    let arguments: Vec<_> = commands.into_iter().flatten().flat_map(|command| command.get_arguments()).collect();
    let documented = |text: &str| text.split([' ', '=']).next().unwrap_or_default().to_owned();
    let on_page: BTreeSet<String> = first_cells(&page(), "Flags").iter().map(|cell| documented(cell)).collect();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for argument in arguments {
        let short = argument.get_short().map(|short| format!("-{short}"));
        let long = argument.get_long().map(|long| format!("--{long}"));
        // Rejected letters have no long name, and a sentence of their own.
        if long.is_some() && argument.get_id() != "help" {
            known.extend(short.into_iter().chain(long));
        }
    }
    assert_eq!(on_page, known);
}

/// Every path of a document: `totals.ok`, `errors[].kind`. Names that are data stand as `<…>`.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = match path {
                    "status" => "<status>",
                    "classes" => "<class>",
                    _ => name.as_str(),
                };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                // A class has the fields of the whole run again.
                let again = ["totals", "latency", "errors", "status"].iter().any(|field| path == format!("classes.<class>.{field}"));
                found.insert(path.clone());
                if !again {
                    paths(value, &path, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| paths(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

/// One name for the clocks, which all have the same fields.
fn merged(found: BTreeSet<String>) -> BTreeSet<String> {
    let clock = |path: &str| {
        let mut parts: Vec<&str> = path.split('.').collect();
        if parts.len() == 3 && parts[0] == "latency" && parts[1] != "response" {
            parts[1] = "<clock>";
        }
        parts.join(".")
    };
    found.iter().map(|path| clock(path)).collect()
}

#[test]
fn the_page_has_every_field_of_a_real_result_and_no_other() {
    let server = Scripted::start(|n| Some(if n % 10 == 9 { b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec() } else { ok() }));
    let args =
        ["-R", "50", "-d", "2s", "-c", "2", "--warmup", "0", "--timeout", "1s", "--one-connection", "1s", "--fail-if", "errors>1000"];
    let (_, run) = run_json(&server, &args);
    let mut found = BTreeSet::new();
    paths(&run, "", &mut found);
    let output = loadtest(&["scenario", "run", "partial-read", "--no-progress", "--json", "-"]);
    let sides: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stdout(&output)));
    paths(&sides[0], "", &mut found);
    let found = merged(found);
    let documented = first_cells(&page(), "The JSON document");
    let missing: Vec<_> = found.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&found).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not on the page: {missing:#?}\nnot in a result: {unknown:#?}");
}

#[test]
fn the_page_has_every_exit_code() {
    use loadtest::exit;
    let text = page();
    let table = text.split("\n## Exit codes\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    for code in [exit::OK, exit::FAILURE, exit::USAGE, exit::THRESHOLD, exit::NOT_TRUSTWORTHY, exit::NO_CONTRAST] {
        assert!(table.contains(&format!("\n| {code} | ")), "no row for {code}");
    }
    assert!(table.contains("| 129, 130, 143 |"));
}
