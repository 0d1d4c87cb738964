//! The simulator's own test: of each fault that is put into the loop, it finds a seed.
//!
//! Each mutant is the crate's source with one place changed (`mutants/mod.rs`), copied aside, built, and searched. It takes a few seconds
//! for each, so it runs when asked for: `cargo test --release -p reactor --test every_mutant_of_the_loop_is_found -- --ignored`.
#![allow(clippy::unwrap_used)] // In the helpers of a test, as in the test.

mod mutants;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use mutants::{MUTANTS, Mutant};

/// Within so many seeds each mutant must be found.
const SEEDS_MAX: &str = "10000";

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(mutant: &Mutant) -> String {
    let path = crate_root().join("src").join(mutant.file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {}: {e}", mutant.slug, path.display()));
    let count = text.matches(mutant.from).count();
    assert_eq!(count, 1, "{}: its place is {count} times in {}: the code has changed, so write the mutant anew", mutant.slug, mutant.file);
    text
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A workspace of its own with the crate in it, and the other members left out.
fn workspace(at: &Path) {
    let root = crate_root().parent().unwrap();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let lines = manifest.lines().filter(|line| !["worker-pool = {", "server = {"].iter().any(|other| line.starts_with(other)));
    let alone = lines.map(|line| match line.split_once(" = [") {
        Some((key @ ("members" | "default-members"), _)) => format!("{key} = [\"reactor\"]\n"),
        _ => format!("{line}\n"),
    });
    fs::create_dir_all(at).unwrap();
    fs::write(at.join("Cargo.toml"), alone.collect::<String>()).unwrap();
    fs::copy(root.join("Cargo.lock"), at.join("Cargo.lock")).unwrap();
    for part in ["src", "examples"] {
        copy(&crate_root().join(part), &at.join("reactor").join(part));
    }
    fs::copy(crate_root().join("Cargo.toml"), at.join("reactor/Cargo.toml")).unwrap();
}

/// Builds and searches; what the search printed, if it found the mutant.
fn find(mutant: &Mutant, at: &Path) -> Result<String, String> {
    let file = at.join("reactor/src").join(mutant.file);
    let original = source(mutant);
    fs::write(&file, original.replace(mutant.from, mutant.to)).unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--profile", "mutant", "--package", "reactor", "--example", "simulate"])
        .current_dir(at)
        .env("CARGO_TARGET_DIR", at.join("target"))
        .env("RUSTFLAGS", "--cap-lints warn")
        .output()
        .unwrap();
    if !built.status.success() {
        return Err(format!("it does not build:\n{}", String::from_utf8_lossy(&built.stderr)));
    }
    let program = at.join("target/mutant/examples/simulate");
    let searched = Command::new("timeout").arg("120").arg(program).args(["--seeds", SEEDS_MAX, "--threads", "1"]).output().unwrap();
    fs::write(&file, original).unwrap();
    let said = String::from_utf8_lossy(&searched.stdout).into_owned();
    match searched.status.code() {
        Some(1) => Ok(said.lines().take(2).collect::<Vec<_>>().join(", ")),
        code => Err(format!("it was not found (exit {code:?}): {said}")),
    }
}

#[test]
fn the_place_of_every_mutant_is_still_there() {
    for mutant in MUTANTS {
        assert_ne!(source(mutant), source(mutant).replace(mutant.from, mutant.to), "{}", mutant.slug);
    }
}

#[test]
#[ignore = "builds the crate once for each mutant, about two minutes; CI asks for it"]
fn every_mutant_of_the_loop_is_found() {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    let only = std::env::var("MUTANT").ok();
    let left = Mutex::new(MUTANTS.iter().filter(|mutant| only.as_deref().is_none_or(|slug| slug == mutant.slug)).collect::<Vec<_>>());
    let survivors = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let at = scratch.join(worker.to_string());
            let (left, survivors) = (&left, &survivors);
            scope.spawn(move || {
                workspace(&at);
                let manifest = fs::read_to_string(at.join("Cargo.toml")).unwrap();
                // Quick to build, and fast enough; without debug assertions, so that the simulator alone must see the fault.
                let profile = "\n[profile.mutant]\ninherits = \"release\"\nlto = false\ncodegen-units = 16\nopt-level = 1\ndebug = false\n";
                fs::write(at.join("Cargo.toml"), manifest + profile).unwrap();
                loop {
                    let Some(mutant) = left.lock().unwrap().pop() else { return };
                    match find(mutant, &at) {
                        Ok(said) => println!("{}: {said}", mutant.slug),
                        Err(said) => survivors.lock().unwrap().push(format!("{}: {said}", mutant.slug)),
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}
