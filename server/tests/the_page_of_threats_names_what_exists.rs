//! docs/threats.md names no flag that the command line does not have.

use std::collections::BTreeSet;

use clap::CommandFactory;
use server::args::Args;

/// Flags of cargo.
const OTHERS: [&str; 2] = ["--example", "--no-default-features"];

#[test]
fn every_flag_on_the_page_of_threats_exists() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/threats.md")).expect("the page is there");
    let flags: BTreeSet<&str> = page
        .split(|c: char| !c.is_ascii_lowercase() && c != '-')
        .filter(|word| word.starts_with("--") && word.trim_matches('-').len() > 1 && !OTHERS.contains(word))
        .collect();
    assert!(flags.len() > 10, "{flags:?}");
    let command = Args::command();
    let known: BTreeSet<String> = command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    for flag in flags {
        assert!(known.contains(flag), "{flag} is no flag of the server");
    }
}
