//! The real loop under the simulator: without a mistake no seed breaks a promise, with one a seed is found soon, and a seed repeats.
//!
//! `SEED=4711 cargo test -p reactor --test simulated_runs_keep_every_promise` plays one seed only, and prints its trace if it fails.
//! CI runs 200,000: `cargo run --release -p reactor --example simulate -- --seeds 200000`.

use reactor::MISTAKES;
use reactor::mistakes::Mistake;
use reactor::sim::{Options, run, search};

#[path = "../examples/simulate.rs"]
#[allow(dead_code)]
mod program;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn mistake(slug: &str) -> &'static Mistake {
    MISTAKES.iter().find(|(name, _)| *name == slug).expect("a mistake of this name")
}

#[test]
fn no_seed_breaks_a_promise_of_the_correct_loop() {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        let outcome = run(seed, Options { trace: true, ..Options::default() });
        assert_eq!(outcome.violation, None, "{}", outcome.trace.join("\n"));
        return;
    }
    let found = search(0..2_000, threads(), Options::default(), |_| {});
    assert_eq!(found.violation, None);
    assert_eq!(found.seeds, 2_000);
}

#[test]
fn each_public_mistake_is_found_within_1000_seeds() {
    for (slug, change) in MISTAKES {
        let found = search(0..1_000, 1, Options { change: *change, ..Options::default() }, |_| {});
        // A wake-up is lost between two instructions of two threads, a herd needs several loops, and Nagle's algorithm a peer's kernel: loom
        // and the load test have them.
        let is_shown_elsewhere = ["lost-wakeup", "herd", "split-write"].contains(slug);
        assert_eq!(found.violation.is_none(), is_shown_elsewhere, "{slug}: {:?}", found.violation);
    }
}

#[test]
fn two_runs_of_a_seed_print_the_same_trace() {
    for change in [Options::default().change, mistake("edge-starvation").1, mistake("stale-completion").1] {
        for seed in 0..50 {
            let options = Options { change, trace: true, turns_max: None };
            let (first, second) = (run(seed, options), run(seed, options));
            assert_eq!(first, second);
            assert!(!first.trace.is_empty());
            // The trace only looks on.
            let without = run(seed, Options { trace: false, ..options });
            assert_eq!((without.violation, without.turns, without.nanos), (first.violation, first.turns, first.nanos));
        }
    }
}

fn said(args: &str) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = program::simulate(args.split_whitespace().map(str::to_owned), &mut out, &mut err);
    (code, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
}

#[test]
fn the_program_finds_a_mistake_and_replays_it() {
    let (code, out, _) = said("--seeds 1000 --threads 1 --mistake edge-starvation");
    assert_eq!(code, 1);
    let seed = out.lines().next().and_then(|line| line.strip_prefix("seed ")).expect("the seed comes first");
    let violation = out.lines().nth(1).expect("then what was violated");
    assert!(violation.starts_with("turn ") && violation.contains("no edge will come"), "{violation}");

    let (code, replayed, _) = said(&format!("--seed {seed} --mistake edge-starvation"));
    assert_eq!(code, 1);
    assert!(replayed.contains("VIOLATION") && replayed.contains(violation), "{replayed}");
    assert_eq!(said(&format!("--seed {seed}")).0, 0, "the same seed is kept by the correct loop");
}

#[test]
fn the_trace_says_what_each_turn_did() {
    // One run does not do everything, and which does what changes with the plan of runs.
    let mut out = String::new();
    for seed in 0..10 {
        let (code, trace, err) = said(&format!("--seed {seed} --turns 200"));
        assert_eq!((code, err.as_str()), (0, ""));
        out += &trace;
    }
    for word in
        ["turn 1,", "poll", "events:", "accept peer", "opened peer", "read peer", "stopped by", "write peer", "ready list:", "close peer"]
    {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    let wrong = [
        "--sed 7",
        "7",
        "--seed",
        "--seed x",
        "--seed -1",
        "--seed 18446744073709551616",
        "--seeds 0",
        "--turns 0 --seed 1",
        "--turns 5",
        "--seed 1 --seeds 2",
        "--seed 1 --threads 2",
        "--mistake",
        "--mistake nonsense",
    ];
    for args in wrong {
        let (code, out, err) = said(args);
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{args}: {err}");
    }
    assert_eq!(said("--help").0, 0);
    assert_eq!(said("--list-mistakes").1.lines().count(), MISTAKES.len());
}
