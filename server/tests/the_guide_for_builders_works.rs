//! `docs/fork.md`, done as it says, in a fresh copy: its files are written, its commands are run, in its order.
//!
//! It builds the workspace anew, so it is not part of a plain `cargo test`: `.ci/run` has it as a step of its own. That the guide's service
//! compiles is checked by every `cargo test` (the documentation test of `server::guide`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing that the guide has a reader do.
#[derive(Debug)]
enum Step {
    Write { path: String, text: String },
    Run(String),
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn steps(guide: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(what) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let fence = lines.next().expect("a block follows its mark");
        assert!(fence.starts_with("```"), "no block behind {line:?}");
        let text: String = lines.by_ref().take_while(|line| *line != "```").map(|line| line.to_owned() + "\n").collect();
        steps.push(match what.strip_prefix("file: ") {
            Some(path) => Step::Write { path: path.to_owned(), text },
            None if what == "run" => Step::Run(text),
            None => panic!("an unknown mark: {line:?}"),
        });
    }
    steps
}

/// All that git knows, as it lies here.
fn copy_to(copy: &Path) {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("there is git");
    assert!(output.status.success());
    for name in output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        let to = copy.join(&name);
        fs::create_dir_all(to.parent().expect("it lies somewhere")).expect("a directory");
        // What was deleted and not yet committed is not copied.
        let _ = fs::copy(root().join(&name), to);
    }
}

#[test]
fn every_shell_command_of_the_guide_is_run_and_every_file_is_written() {
    let guide = fs::read_to_string(root().join("docs/fork.md")).expect("the guide");
    let steps = steps(&guide);
    let blocks = |start: &str| guide.lines().filter(|line| line.starts_with(start)).count();
    let runs = steps.iter().filter(|step| matches!(step, Step::Run(_))).count();
    assert_eq!(runs, blocks("```sh"));
    assert_eq!(steps.len() - runs, blocks("```rust") + blocks("```toml"));
    assert!(runs >= 5 && steps.len() - runs >= 3, "{steps:#?}");
}

#[test]
#[ignore = "builds the workspace anew: a step of .ci/run"]
fn who_follows_the_guide_has_a_service_that_answers() {
    let guide = fs::read_to_string(root().join("docs/fork.md")).expect("the guide");
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path();
    copy_to(copy);
    // Dependencies are built once; what lies elsewhere has its own place there.
    let target = Path::new(env!("CARGO_BIN_EXE_server")).ancestors().nth(2).expect("of a target directory").join("guide");
    for step in steps(&guide) {
        match step {
            Step::Write { path, text } => fs::write(copy.join(path), text).expect("it can be written"),
            Step::Run(commands) => {
                println!("{commands}");
                let mut shell = Command::new("bash");
                shell.args(["-euo", "pipefail", "-c", &commands]).current_dir(copy);
                shell.env("CARGO_TARGET_DIR", &target).env("CARGO_NET_OFFLINE", "true");
                // What cargo tells this test about this crate is not true of the copy.
                for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
                    shell.env_remove(name);
                }
                let status = shell.env_remove("CARGO_MANIFEST_DIR").status().expect("there is bash");
                assert!(status.success(), "this does not work:\n{commands}");
            }
        }
    }
}
