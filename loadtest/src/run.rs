//! `loadtest run`: from arguments to a plan, from an outcome to a summary and an exit code.
//!
//! Read next: `generator.rs`.

use std::time::Duration;

use crate::args::RunArgs;
use crate::condition::{Condition, Judged, Judgement};
use crate::exit;
use crate::generator::{self, Outcome};
use crate::interrupt;
use crate::json::{self, Document};
use crate::measure::one_connection;
use crate::output::{JsonOutput, note};
use crate::plan::{Plan, class_for};
use crate::progress::Progress;
use crate::report::{self, CLOSED_LOOP_WARNING, Summary};
use crate::schedule::{Arrivals, Schedule, WhenBusy};
use crate::truth::verdict::Verdict;
use crate::units::grouped;

/// Requests per second of an open loop when nothing is said: enough to measure, and no server minds.
const RATE_DEFAULT: f64 = 1000.0;
/// Measured time when nothing is said.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// Connections at most when nothing is said.
const CONNECTIONS_MAX_DEFAULT: u32 = 1024;
/// With `--requests`, the time may be longer than the schedule: random arrivals end when they end.
const DURATION_WITH_COUNT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Runs and reports; returns the exit code.
///
/// # Errors
/// One sentence: the run failed ([`exit::FAILURE`]).
pub fn run(args: &RunArgs, command: &[String]) -> Result<u8, String> {
    let mut json_output = JsonOutput::open(args.common.json.as_deref())?;
    let interrupted = interrupt::watch().map_err(|e| format!("cannot watch for signals: {e}"))?;
    let to = args.target.reach(args.connect_timeout)?;
    let plan = plan(args, to);
    if args.closed {
        note(format_args!("warning: {CLOSED_LOOP_WARNING}"));
    }
    let mut progress = Progress::new("", plan.length(), !args.common.no_progress);
    let outcome = generator::run(&plan, &mut progress, &interrupted)?;
    drop(progress);
    let worth_a_pass = !args.closed && args.requests.is_none() && plan.classes[0].connections > 1 && !args.one_connection.is_zero();
    let one_connection = match worth_a_pass && !outcome.interrupted && outcome.records[0].totals.ok > 0 {
        true => one_connection::pass(&plan, args.one_connection, &interrupted)?,
        false => None,
    };

    let verdict = Verdict::of(&plan, &outcome);
    let lookup = |name: &str| outcome.figure(0, name);
    let judged = args.fail_if.iter().map(|condition| Ok((condition.clone(), condition.judge(lookup)?)));
    let thresholds: Vec<(Condition, Judged)> = judged.collect::<Result<_, String>>()?;
    let request = format!("{} {}", args.method, args.target);
    let text = report::summary(&Summary {
        request: &request,
        plan: &plan,
        outcome: &outcome,
        verdict: &verdict,
        thresholds: &thresholds,
        one_connection,
    });
    let target = args.target.to_string();
    let document = json::document(&Document {
        command,
        target: &target,
        plan: &plan,
        outcome: &outcome,
        verdict: &verdict,
        thresholds: &thresholds,
        one_connection,
        scenario: None,
    });
    json_output.write_both(&document, &text)?;

    Ok(exit_code(&outcome, &verdict, &thresholds, args.common.allow_saturated, interrupted.exit_code()))
}

/// How the run ends, as a number; and a sentence on standard error where the number alone would be a riddle.
fn exit_code(outcome: &Outcome, verdict: &Verdict, thresholds: &[(Condition, Judged)], allow_saturated: bool, interrupted: u8) -> u8 {
    if outcome.interrupted {
        return interrupted;
    }
    let totals = &outcome.records[0].totals;
    if totals.ok == 0 {
        note(format_args!("not one of {} requests succeeded", grouped(totals.scheduled)));
        return exit::FAILURE;
    }
    let open = thresholds.iter().find(|(_, judged)| judged.judgement == Judgement::Open);
    if !verdict.generator_ok || open.is_some() {
        if !allow_saturated {
            return exit::NOT_TRUSTWORTHY;
        }
        note("warning: the result is not trustworthy; the exit code does not say so (--allow-saturated)");
    }
    let failed = thresholds.iter().any(|(_, judged)| judged.judgement == Judgement::Holds);
    if failed { exit::THRESHOLD } else { exit::OK }
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
    // `--requests` counts from the end of the warm-up. How many responses a closed loop gets before that is not known, so it has no warm-up.
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
    let mut class = class_for(&args.target, &args.method, &args.headers, &args.body, schedule);
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
