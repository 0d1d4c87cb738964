//! `loadtest run`: from arguments to a plan, from an outcome to a summary and an exit code.
//!
//! Read next: `generator.rs`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::args::RunArgs;
use crate::condition::{Condition, Judged};
use crate::exit;
use crate::figures;
use crate::generator;
use crate::interrupt;
use crate::json::{self, Document};
use crate::plan::{Plan, class_for};
use crate::progress::Progress;
use crate::report::{self, CLOSED_LOOP_WARNING, Summary};
use crate::schedule::{Arrivals, Schedule, WhenBusy};
use crate::verdict::Verdict;

/// Requests per second of an open loop when nothing is said: enough to measure, and no server minds.
const RATE_DEFAULT: f64 = 1000.0;
/// Measured time when nothing is said.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// Connections at most when nothing is said.
const CONNECTIONS_MAX_DEFAULT: u32 = 1024;
/// With `--requests`, the time may be longer than the schedule: random arrivals end when they end.
const DURATION_WITH_COUNT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where a JSON document goes. Opened before the run: a wrong path must not cost a run.
#[derive(Debug)]
pub enum JsonOutput {
    /// None was asked for.
    None,
    /// Standard output; what people read goes to standard error.
    Stdout,
    /// A file.
    File(File),
}

impl JsonOutput {
    /// Opens it.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn open(path: Option<&Path>) -> Result<JsonOutput, String> {
        match path {
            None => Ok(JsonOutput::None),
            Some(path) if path.as_os_str() == "-" => Ok(JsonOutput::Stdout),
            Some(path) => File::create(path).map(JsonOutput::File).map_err(|e| format!("cannot write --json '{}': {e}", path.display())),
        }
    }

    /// Writes the document, and `text` to where people read.
    ///
    /// # Errors
    /// A sentence.
    pub fn write(&mut self, document: &serde_json::Value, text: &str) -> Result<(), String> {
        let put = |to: &mut dyn Write| writeln!(to, "{document:#}").and_then(|()| to.flush());
        let written = match self {
            JsonOutput::None => write_text(&mut io::stdout(), text),
            JsonOutput::Stdout => put(&mut io::stdout().lock()).and_then(|()| write_text(&mut io::stderr(), text)),
            JsonOutput::File(file) => put(file).and_then(|()| write_text(&mut io::stdout(), text)),
        };
        match written {
            // The reader has gone (`| head`): it has what it wanted.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|e| format!("cannot write the result: {e}")),
        }
    }
}

fn write_text(to: &mut dyn Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes()).and_then(|()| to.flush())
}

/// Runs and reports; returns the exit code.
///
/// # Errors
/// One sentence: the run failed ([`exit::FAILURE`]).
pub fn run(args: &RunArgs, command: &[String]) -> Result<u8, String> {
    let mut json_output = JsonOutput::open(args.common.json.as_deref())?;
    let interrupted = interrupt::on_sigint().map_err(|e| format!("cannot watch for SIGINT: {e}"))?;
    let to = args.target.reach(args.connect_timeout)?;
    let plan = plan(args, to);
    if args.closed {
        eprintln!("warning: {CLOSED_LOOP_WARNING}");
    }
    let mut progress = Progress::new("", plan.length(), !args.common.no_progress);
    let outcome = generator::run(&plan, &mut progress, &interrupted)?;
    drop(progress);

    let verdict = Verdict::of(&plan, &outcome);
    let lookup = |name: &str| figures::of(&outcome.records[0], outcome.measured, name);
    let judged = args.fail_if.iter().map(|condition| Ok((condition.clone(), condition.judge(lookup)?)));
    let thresholds: Vec<(Condition, Judged)> = judged.collect::<Result<_, String>>()?;
    let request = format!("{} {}", args.method, args.target);
    let text = report::summary(&Summary { request: &request, plan: &plan, outcome: &outcome, verdict: &verdict, thresholds: &thresholds });
    let target = args.target.to_string();
    let document = json::document(&Document {
        command,
        target: &target,
        plan: &plan,
        outcome: &outcome,
        verdict: &verdict,
        thresholds: &thresholds,
        scenario: None,
    });
    json_output.write(&document, &text)?;

    if outcome.interrupted {
        return Ok(exit::INTERRUPTED);
    }
    if !verdict.generator_ok && !args.common.allow_saturated {
        return Ok(exit::NOT_TRUSTWORTHY);
    }
    if !verdict.generator_ok {
        eprintln!("warning: the generator was not fit to judge (--allow-saturated)");
    }
    Ok(if thresholds.iter().any(|(_, judged)| judged.holds) { exit::THRESHOLD } else { exit::OK })
}

/// The plan that the arguments ask for.
pub(crate) fn plan(args: &RunArgs, to: std::net::SocketAddr) -> Plan {
    let rate = args.rate.unwrap_or(RATE_DEFAULT);
    let when_free = args.closed && args.rate.is_none();
    let arrivals = if when_free { Arrivals::WhenFree } else { args.arrivals };
    let duration = match args.requests {
        Some(count) if !when_free && arrivals != Arrivals::Poisson => {
            Duration::try_from_secs_f64((count as f64 / rate).max(0.001)).unwrap_or(Duration::MAX)
        }
        Some(_) => DURATION_WITH_COUNT_MAX,
        None => args.duration.unwrap_or(DURATION_DEFAULT),
    };
    // `--requests` counts from the end of the warm-up. How many answers a closed loop gets before that nobody knows: it has none.
    let warmup = if when_free && args.requests.is_some() { Duration::ZERO } else { args.warmup };
    let warmup_requests = (warmup.as_secs_f64() * rate).ceil() as u64;
    let schedule = Schedule {
        rate,
        arrivals,
        phase: Duration::ZERO,
        length: warmup.saturating_add(duration),
        count_max: args.requests.map(|count| count.saturating_add(warmup_requests)),
        when_busy: if args.closed { WhenBusy::Skip } else { WhenBusy::Queue },
    };
    let mut class = class_for(&args.target, &args.method, &args.headers, args.body.as_bytes(), schedule);
    class.connections = args.connections;
    // A closed loop has the connections it was given: a new one for each late answer would open it.
    let connections_max = if args.closed { args.connections } else { args.max_connections.unwrap_or(CONNECTIONS_MAX_DEFAULT) };
    class.connections_max = connections_max.max(args.connections);
    class.timeout = args.timeout;
    class.connect_timeout = args.connect_timeout;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or_else(|| u32::try_from(cores / 2).unwrap_or(1).clamp(1, 2));
    Plan {
        to,
        threads: threads.min(class.connections_max),
        classes: vec![class],
        warmup,
        duration,
        drain: args.drain,
        seed: args.common.seed,
    }
}
