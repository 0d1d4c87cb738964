//! The command line: wrk's short flags, long names where tools disagree, and a sentence for whatever is wrong.
//!
//! Every flag is also `LOADTEST_…` in the environment. Read next: `run.rs`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use server::units::{duration, duration_above_zero};

use crate::condition::Condition;
use crate::figures;
use crate::schedule::Arrivals;
use crate::target::Target;
use crate::units;

/// An open-loop HTTP/1.1 load generator, and the scenarios that reproduce every failure of an event-loop server.
///
/// Without arguments: runs every scenario and prints one line of contrast for each.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 ok; 1 the run failed; 2 wrong arguments; 3 a --fail-if condition was met; 4 the generator was not fit to \
                          judge; 5 a scenario's contrast was not shown; 130 interrupted.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends requests at a rate, whatever the answers do, and measures from the moment each was due. `loadtest URL` is short for it.
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Failures of an event-loop server: with one deliberate mistake, then correct, side by side.
    Scenario {
        /// Which.
        #[command(subcommand)]
        command: ScenarioCommand,
    },
}

/// What to do with scenarios.
#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Lists them.
    List,
    /// Explains one without running it.
    Show {
        /// Its slug.
        slug: String,
    },
    /// Runs one, or `all`, and judges the contrast.
    #[command(after_help = EXIT_CODES)]
    Run(ScenarioArgs),
}

/// How to run a scenario.
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// Its slug, or `all`.
    pub slug: String,
    /// How it is measured.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Run long enough for graphs.
    #[arg(long, env = "LOADTEST_LONG", value_parser = FalseyValueParser::new())]
    pub long: bool,
}

/// What `run` and `scenario run` have in common.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Write everything as JSON to FILE, or to standard output for `-` (the summary then goes to standard error).
    #[arg(long, value_name = "FILE", env = "LOADTEST_JSON")]
    pub json: Option<PathBuf>,
    /// Seed of everything random: the same seed gives the same arrivals.
    #[arg(long, value_name = "N", default_value_t = 1, env = "LOADTEST_SEED")]
    pub seed: u64,
    /// Exit with 0 and a warning even if the generator was not fit to judge.
    #[arg(long, env = "LOADTEST_ALLOW_SATURATED", value_parser = FalseyValueParser::new())]
    pub allow_saturated: bool,
    /// No progress on standard error.
    #[arg(long, alias = "quiet", env = "LOADTEST_NO_PROGRESS", value_parser = FalseyValueParser::new())]
    pub no_progress: bool,
}

impl Default for CommonArgs {
    fn default() -> CommonArgs {
        CommonArgs { json: None, seed: 1, allow_saturated: false, no_progress: false }
    }
}

/// A run against any server.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The target.
    #[arg(value_name = "URL", help = "http://HOST[:PORT][/PATH][?QUERY]")]
    pub target: Target,
    /// Requests per second, sent at this rate whatever the server does. [default: 1000; with --closed, as fast as the answers come]
    #[arg(short = 'R', long, visible_aliases = ["rps", "qps"], value_name = "N", allow_negative_numbers = true, value_parser = units::rate, env = "LOADTEST_RATE")]
    pub rate: Option<f64>,
    /// Spacing of the requests: constant, poisson, or burst:N.
    #[arg(long, value_name = "KIND", default_value = "constant", value_parser = arrivals, env = "LOADTEST_ARRIVALS")]
    pub arrivals: Arrivals,
    /// Connections opened before the start.
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000), env = "LOADTEST_CONNECTIONS")]
    pub connections: u32,
    /// Connections at most: more are opened when a request is due and none is free. [default: 1024, or --connections if that is more]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), env = "LOADTEST_MAX_CONNECTIONS")]
    pub max_connections: Option<u32>,
    /// Generator threads. [default: 2, or half the cores if that is less: the server needs some too]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256), env = "LOADTEST_THREADS")]
    pub threads: Option<u32>,
    /// How long to measure. [default: 10s]
    #[arg(short, long, short_alias = 'z', value_name = "TIME", value_parser = duration_above_zero, env = "LOADTEST_DURATION")]
    pub duration: Option<Duration>,
    /// Measure this many requests instead.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "duration", env = "LOADTEST_REQUESTS")]
    pub requests: Option<u64>,
    /// Requests due in this time from the start are sent and not counted.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration, env = "LOADTEST_WARMUP")]
    pub warmup: Duration,
    /// A request not answered this long after it was due has failed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration_above_zero, env = "LOADTEST_TIMEOUT")]
    pub timeout: Duration,
    /// A connection not established in this time has failed.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration_above_zero, env = "LOADTEST_CONNECT_TIMEOUT")]
    pub connect_timeout: Duration,
    /// How long to wait for answers after the last request was due: at least --timeout, so that each request ends as an answer or a failure.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration, env = "LOADTEST_DRAIN")]
    pub drain: Duration,
    /// Length of a pass on one connection after the run, each request as soon as the last one is answered; 0s for none. Not with --closed or -n.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration, env = "LOADTEST_ONE_CONNECTION")]
    pub one_connection: Duration,
    /// The method.
    #[arg(short, long, value_name = "NAME", default_value = "GET", value_parser = method, env = "LOADTEST_METHOD")]
    pub method: String,
    /// A header field, `Name: value`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = header, env = "LOADTEST_HEADER")]
    pub headers: Vec<(String, String)>,
    /// The body of the request.
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true, env = "LOADTEST_BODY")]
    pub body: String,
    /// Closed loop: a request is sent only when a connection is free, so stalls are hardly seen. For comparison.
    #[arg(long, env = "LOADTEST_CLOSED", value_parser = FalseyValueParser::new())]
    pub closed: bool,
    /// Exit with 3 if this is true of the result, such as 'p99>250ms', 'error_rate>1%', 'rps<900'; may be given several times.
    #[arg(long, value_name = "CONDITION", value_parser = threshold, env = "LOADTEST_FAIL_IF")]
    pub fail_if: Vec<Condition>,
    /// How it is measured.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Rate in oha and hey, quiet in k6: refused, with a hint.
    #[arg(short = 'q', hide = true, num_args = 0..=1, default_missing_value = "", value_parser = ambiguous_q)]
    pub ambiguous_q: Option<()>,
    /// VUs in k6: refused, with a hint.
    #[arg(short = 'u', hide = true, num_args = 0..=1, default_missing_value = "", value_parser = ambiguous_u)]
    pub ambiguous_u: Option<()>,
    /// Pipelining or parallelism elsewhere: refused, with a hint.
    #[arg(short = 'p', hide = true, num_args = 0..=1, default_missing_value = "", value_parser = ambiguous_p)]
    pub ambiguous_p: Option<()>,
}

fn ambiguous_q(_: &str) -> Result<(), String> {
    Err("-q is the rate in some tools and quiet in others; use -R RATE for the rate, --quiet for quiet".to_owned())
}

fn ambiguous_u(_: &str) -> Result<(), String> {
    Err("-u means users or the URL in other tools; use -c for connections, -R for the rate, and the URL without a flag".to_owned())
}

fn ambiguous_p(_: &str) -> Result<(), String> {
    Err("-p means pipelining, parallelism or a port in other tools; use -c for connections, -R for the rate".to_owned())
}

fn arrivals(text: &str) -> Result<Arrivals, String> {
    match (text, text.strip_prefix("burst:")) {
        ("constant", _) => Ok(Arrivals::Constant),
        ("poisson", _) => Ok(Arrivals::Poisson),
        (_, Some(size)) if size.parse::<u32>().is_ok_and(|size| size > 0) => Ok(Arrivals::Burst(size.parse().unwrap_or(1))),
        _ => Err("allowed are constant, poisson and burst:N with N of 1 or more".to_owned()),
    }
}

/// A token of RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn method(text: &str) -> Result<String, String> {
    if is_token(text) { Ok(text.to_owned()) } else { Err("allowed is a method such as GET, HEAD or POST".to_owned()) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let field = text.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    field
        .filter(|(name, value)| is_token(name) && !value.contains(|c: char| c.is_control() && c != '\t'))
        .ok_or_else(|| "allowed is 'Name: value' without control characters".to_owned())
}

fn threshold(text: &str) -> Result<Condition, String> {
    let condition: Condition = text.parse()?;
    condition.check(figures::unit_of, figures::NAMES)?;
    Ok(condition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn refusal(args: &[&str]) -> String {
        let args = ["loadtest", "run", "http://localhost/"].iter().chain(args);
        Cli::try_parse_from(args).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag_and_what_is_allowed() {
        for (args, flag, allowed) in [
            (["-R", "fast"], "--rate", "requests per second"),
            (["-R", "0"], "--rate", "above 0"),
            (["-d", "10"], "--duration", "the unit is missing"),
            (["-d", "0s"], "--duration", "above zero"),
            (["--warmup", "2 parsecs"], "--warmup", "us, ms, s, m, h"),
            (["--timeout", "x"], "--timeout", "us, ms, s, m, h"),
            (["-c", "0"], "--connections", "1..="),
            (["-t", "1000"], "--threads", "1..=256"),
            (["--arrivals", "burst:0"], "--arrivals", "constant, poisson and burst:N"),
            (["-H", "no colon"], "--header", "Name: value"),
            (["-m", "GET /"], "--method", "GET, HEAD or POST"),
            (["--fail-if", "p99>250"], "--fail-if", "250ms"),
            (["--fail-if", "p98>1s"], "--fail-if", "no figure 'p98'"),
            (["-q", "100"], "-q", "-R RATE"),
            (["-u", "100"], "-u", "-c for connections"),
            (["-p", "100"], "-p", "-c for connections"),
        ] {
            let text = refusal(&args);
            assert!(text.contains(flag) && text.contains(args[1]) && text.contains(allowed), "{args:?}: {text}");
        }
        assert!(refusal(&["-q"]).contains("-R RATE"));
    }

    #[test]
    fn aliases_of_other_tools_are_understood() {
        for args in [["--rps", "5"], ["--qps", "5"], ["-R", "5"]] {
            let cli = Cli::try_parse_from(["loadtest", "run", "http://localhost/"].iter().chain(&args)).unwrap();
            assert!(matches!(cli.command, Some(Command::Run(run)) if run.rate == Some(5.0)), "{args:?}");
        }
    }
}
