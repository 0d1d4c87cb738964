//! The real event loop under a simulated, seeded, hostile system: replays one seed as a readable trace, or searches many for a broken
//! promise. What it models, and how to read it: `docs/simulator.md`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reactor::MISTAKES;
use reactor::sim::{Options, Outcome, run, search};

const USAGE: &str = "\
simulate --seed N [--turns N] [--mistake SLUG]     plays one seed and prints its trace
simulate [--seeds N] [--from N] [--mistake SLUG]   searches N seeds (10000) for a broken promise
         [--threads N]                             on N threads (all cores)
simulate --list-mistakes                           names the deliberate mistakes

Exit code: 0 all promises were kept, 1 one was broken, 2 the arguments were wrong.";

/// Mistakes that one loop on one thread cannot show, and where they are shown.
const NOT_HERE: &[(&str, &str)] = &[
    ("lost-wakeup", "lost-wakeup happens between two instructions of two threads: loom shows it (reactor/src/mailbox/loom_tests.rs)"),
    ("herd", "herd needs several loops in one kernel: the load test shows it"),
    ("split-write", "split-write needs a peer's kernel that delays acknowledgements: the load test shows it"),
];

/// Lines of the trace that are shown before a violation.
const LINES_BEFORE: usize = 60;

#[derive(Default)]
struct Args {
    seed: Option<u64>,
    turns: Option<u64>,
    seeds: Option<u64>,
    from: Option<u64>,
    threads: Option<u64>,
    mistake: Option<&'static reactor::mistakes::Mistake>,
}

/// What the arguments ask for.
enum Asked {
    Usage,
    Mistakes,
    Run(Args),
}

fn parse(mut given: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut args = Args::default();
    while let Some(flag) = given.next() {
        let number = |value: Option<String>, least: u64| {
            let value = value.ok_or_else(|| format!("{flag}: a number is missing"))?;
            match value.parse::<u64>() {
                Ok(n) if n >= least => Ok(n),
                _ => Err(format!("{flag} {value}: not a number from {least} to {}", u64::MAX)),
            }
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(Asked::Usage),
            "--list-mistakes" => return Ok(Asked::Mistakes),
            "--seed" => args.seed = Some(number(given.next(), 0)?),
            "--turns" => args.turns = Some(number(given.next(), 1)?),
            "--seeds" => args.seeds = Some(number(given.next(), 1)?),
            "--from" => args.from = Some(number(given.next(), 0)?),
            "--threads" => args.threads = Some(number(given.next(), 1)?),
            "--mistake" => {
                let slug = given.next().ok_or("--mistake: a name is missing; --list-mistakes names them")?;
                let known = MISTAKES.iter().find(|(name, _)| *name == slug);
                args.mistake = Some(known.ok_or_else(|| format!("--mistake {slug}: no such mistake; --list-mistakes names them"))?);
            }
            _ => return Err(format!("{flag}: no such flag; --help names them")),
        }
    }
    match (&args.seed, &args.seeds) {
        (Some(_), Some(_)) => Err("--seed plays one seed and --seeds searches many: give one of them".to_owned()),
        (Some(_), None) if args.threads.or(args.from).is_some() => Err("--threads and --from belong to a search, not to --seed".to_owned()),
        (None, _) if args.turns.is_some() => Err("--turns belongs to --seed".to_owned()),
        _ => Ok(Asked::Run(args)),
    }
}

fn main() -> ExitCode {
    ExitCode::from(simulate(std::env::args().skip(1), &mut std::io::stdout(), &mut std::io::stderr()))
}

/// The program: its arguments, where it prints, and its exit code.
pub(crate) fn simulate(args: impl Iterator<Item = String>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (text, code) = match parse(args) {
        Ok(Asked::Run(args)) => {
            let change = args.mistake.map_or(Options::default().change, |(_, change)| *change);
            match args.seed {
                Some(seed) => replay(seed, Options { change, turns_max: args.turns, trace: true }),
                None => look(&args, Options { change, ..Options::default() }),
            }
        }
        Ok(Asked::Usage) => (USAGE.to_owned(), 0),
        Ok(Asked::Mistakes) => (MISTAKES.iter().map(|(slug, _)| *slug).collect::<Vec<_>>().join("\n"), 0),
        Err(wrong) => {
            let _ = writeln!(err, "{wrong}");
            return 2;
        }
    };
    // Content if the reader has gone (`| head`).
    let _ = writeln!(out, "{text}");
    code
}

fn replay(seed: u64, options: Options) -> (String, u8) {
    let Outcome { violation, turns, nanos, trace, .. } = run(seed, options);
    let Some(violation) = violation else {
        return (format!("{}\nseed {seed}: every promise was kept in {turns} turns, {}", trace.join("\n"), time(nanos)), 0);
    };
    let at = trace.iter().position(|line| line.contains("VIOLATION")).unwrap_or(trace.len());
    let from = if options.turns_max.is_some() { 0 } else { at.saturating_sub(LINES_BEFORE) };
    let shown = trace[from..trace.len().min(at + 1)].join("\n");
    let left_out = if from > 0 { format!("({from} lines before; --turns {turns} shows all)\n") } else { String::new() };
    (format!("{left_out}{shown}\nseed {seed}\nturn {}: {}", violation.turn, violation.text), 1)
}

fn look(args: &Args, options: Options) -> (String, u8) {
    let (from, many) = (args.from.unwrap_or(0), args.seeds.unwrap_or(10_000));
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64)) as usize;
    let started = Instant::now();
    let shown = Mutex::new(started);
    let is_terminal = std::io::stderr().is_terminal();
    let (every, before, after) = match is_terminal {
        true => (Duration::from_millis(200), "\r", ""),
        false => (Duration::from_secs(10), "", "\n"),
    };
    let found = search(from..from.saturating_add(many), threads, options, |done| {
        let Ok(mut shown) = shown.try_lock() else { return };
        if shown.elapsed() >= every {
            *shown = Instant::now();
            eprint!("{before}{done} of {many} seeds{after}");
        }
    });
    if is_terminal {
        eprint!("\r");
    }
    let seconds = started.elapsed().as_secs_f64();
    let figures = format!(
        "{} seeds, {} turns, {} of virtual time, {} bytes moved, in {seconds:.1} s on {threads} threads ({:.0} seeds a second)",
        found.seeds,
        found.turns,
        time(found.nanos),
        found.bytes,
        found.seeds as f64 / seconds
    );
    let mistake = args.mistake.map(|(slug, _)| *slug);
    match (found.violation, mistake) {
        (None, mistake) => {
            let why = NOT_HERE.iter().find(|(slug, _)| Some(*slug) == mistake).map(|(_, why)| format!("\n{why}")).unwrap_or_default();
            (format!("no promise was broken: {figures}{why}"), 0)
        }
        (Some(violation), _) => {
            let mistake = mistake.map(|slug| format!(" --mistake {slug}")).unwrap_or_default();
            let text = format!(
                "seed {}\nturn {}: {}\n{figures}\nreplay: cargo run --release -p reactor --example simulate -- --seed {}{mistake}",
                violation.seed, violation.turn, violation.text, violation.seed
            );
            (text, 1)
        }
    }
}

fn time(nanos: u64) -> String {
    format!("{:.3} s", nanos as f64 / 1e9)
}
