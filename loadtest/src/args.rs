//! The command line: wrk's short flags, long names where tools disagree, and for each wrong value what is allowed instead.
//!
//! Every flag is also `LOADTEST_…` in the environment. `docs/loadtest.md` explains each; a test compares the two. Read next: `run.rs`.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use server::units::{duration, duration_above_zero};

use crate::condition::Condition;
use crate::results_by_name;
use crate::schedule::Arrivals;
use crate::target::Target;
use crate::units;

/// An open-loop HTTP/1.1 load generator, and scenarios that reproduce the failures of an event-loop server.
///
/// Without arguments it runs every scenario and prints one line for each: the same load against a server with one mistake, and without.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, after_help = EXIT_CODES, override_usage = "loadtest\n       loadtest [OPTIONS] URL\n       loadtest COMMAND")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 complete; 1 the run failed, or a result could not be written; 2 wrong arguments; 3 a --fail-if condition was \
                          met; 4 the result is not trustworthy; 5 a scenario's contrast was not shown; 129, 130, 143 ended early by SIGHUP, SIGINT, \
                          SIGTERM, with partial results.\n\ndocs/loadtest.md explains every line of the output, every flag and every field of the \
                          JSON document.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends requests to a server at a fixed rate, and measures each response from the moment its request was due. `loadtest URL` is short for it.
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Runs the same load against a server with one deliberate mistake and without it, and compares the two.
    Scenario {
        /// What to do with scenarios.
        #[command(subcommand)]
        command: ScenarioCommand,
    },
}

/// What to do with scenarios.
#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Lists all scenarios.
    List,
    /// Explains one scenario without running it.
    Show {
        /// Name of the scenario, as `scenario list` prints it.
        #[arg(value_name = "NAME")]
        slug: String,
    },
    /// Runs one scenario, or `all`, and checks that the two sides differ as expected.
    #[command(after_help = EXIT_CODES)]
    Run(ScenarioArgs),
}

/// How to run a scenario.
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// Name of the scenario, as `scenario list` prints it, or `all`.
    #[arg(value_name = "NAME")]
    pub slug: String,
    /// The flags that `run` has too.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Run several times longer than is needed to judge, for graphs.
    #[arg(long, env = "LOADTEST_LONG", value_parser = FalseyValueParser::new())]
    pub long: bool,
    /// A check of the scenario itself: both sides run with the mistake, or both without it (`correct`). Its contrast must vanish, with exit code 5.
    #[arg(long, value_name = "SIDE", value_enum, env = "LOADTEST_CONTROL")]
    pub control: Option<Control>,
}

/// What both sides of a control run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Control {
    /// Both have the mistake, as if the fix were lost.
    Mistake,
    /// Neither has it, as if the switch of the mistake did nothing.
    Correct,
}

/// What `run` and `scenario run` have in common.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Write the result as JSON to FILE; with `-` to standard output, and the summary to standard error.
    #[arg(long, value_name = "FILE", env = "LOADTEST_JSON")]
    pub json: Option<PathBuf>,
    /// Seed of random arrivals: the same seed gives the same arrivals.
    #[arg(long, value_name = "N", default_value_t = 1, env = "LOADTEST_SEED")]
    pub seed: u64,
    /// Exit with 0 and a warning although the result is not trustworthy.
    #[arg(long, env = "LOADTEST_ALLOW_SATURATED", value_parser = FalseyValueParser::new())]
    pub allow_saturated: bool,
    /// Print no progress on standard error.
    #[arg(long, alias = "quiet", env = "LOADTEST_NO_PROGRESS", value_parser = FalseyValueParser::new())]
    pub no_progress: bool,
}

/// A run against any server.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The target.
    #[arg(value_name = "URL", help = "Target: http://HOST[:PORT][/PATH][?QUERY]")]
    pub target: Target,
    /// Requests per second, whether or not earlier ones were answered. [default: 1000; with --closed, as fast as responses arrive]
    #[arg(short = 'R', long, visible_aliases = ["rps", "qps"], value_name = "N", allow_negative_numbers = true, value_parser = units::rate, env = "LOADTEST_RATE")]
    pub rate: Option<f64>,
    /// Spacing of the requests: constant, poisson, or burst:N.
    #[arg(long, value_name = "KIND", default_value = "constant", value_parser = arrivals, env = "LOADTEST_ARRIVALS")]
    pub arrivals: Arrivals,
    /// Connections opened before the start.
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000), env = "LOADTEST_CONNECTIONS")]
    pub connections: u32,
    /// Limit of connections: one more is opened when a request is due and none is free. [default: 1024, or --connections if that is more]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), env = "LOADTEST_MAX_CONNECTIONS")]
    pub max_connections: Option<u32>,
    /// Threads of the load generator. [default: 2, or half of the cores if that is less]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256), env = "LOADTEST_THREADS")]
    pub threads: Option<u32>,
    /// How long to measure. [default: 10s]
    #[arg(short, long, short_alias = 'z', value_name = "TIME", value_parser = time_above_zero, env = "LOADTEST_DURATION")]
    pub duration: Option<Duration>,
    /// Measure this many requests, instead of a time.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "duration", env = "LOADTEST_REQUESTS")]
    pub requests: Option<u64>,
    /// Requests that are due in this time from the start are sent and not counted.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time, env = "LOADTEST_WARMUP")]
    pub warmup: Duration,
    /// A request without a complete response this long after it was due has failed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time_above_zero, env = "LOADTEST_TIMEOUT")]
    pub timeout: Duration,
    /// A connection that is not established within this time has failed.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_above_zero, env = "LOADTEST_CONNECT_TIMEOUT")]
    pub connect_timeout: Duration,
    /// How long to wait for responses after the last request was due; never less than --timeout, so that every request is answered or fails.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time, env = "LOADTEST_DRAIN")]
    pub drain: Duration,
    /// Length of a second pass on one connection, each request sent when the last one is answered; 0s for none. Not with --closed, -n or -c 1.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time, env = "LOADTEST_ONE_CONNECTION")]
    pub one_connection: Duration,
    /// Request method.
    #[arg(short, long, value_name = "NAME", default_value = "GET", value_parser = method, env = "LOADTEST_METHOD")]
    pub method: String,
    /// Header field, `Name: value`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = header, env = "LOADTEST_HEADER")]
    pub headers: Vec<(String, String)>,
    /// Request body: TEXT, @FILE for the content of a file, or @- for standard input.
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = body, env = "LOADTEST_BODY")]
    pub body: Arc<[u8]>,
    /// Closed loop: send a request only when a connection is free. It hardly shows stalls; for comparison with other tools.
    #[arg(long, env = "LOADTEST_CLOSED", value_parser = FalseyValueParser::new())]
    pub closed: bool,
    /// Exit with 3 if this is true of the result: 'p99.9>250ms', 'error_rate>1%', 'rps<900'; may be given several times.
    #[arg(long, value_name = "CONDITION", value_parser = threshold, env = "LOADTEST_FAIL_IF")]
    pub fail_if: Vec<Condition>,
    /// Accepted for wrk2's command lines; all percentiles are always printed.
    #[arg(short = 'L', long = "latency", hide = true)]
    pub latency: bool,
    /// The flags that scenarios have too.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Rate in oha and hey, quiet in k6: rejected, with a hint.
    #[arg(short = 'q', hide = true, num_args = 0..=1, default_missing_value = "", value_parser = ambiguous_q)]
    pub ambiguous_q: Option<()>,
    /// VUs in k6: rejected, with a hint.
    #[arg(short = 'u', hide = true, num_args = 0..=1, default_missing_value = "", value_parser = ambiguous_u)]
    pub ambiguous_u: Option<()>,
    /// Pipelining or parallelism in other tools: rejected, with a hint.
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

/// As [`duration`]; a number without a unit, as wrk and hey take it, gets a suggestion.
fn time(text: &str) -> Result<Duration, String> {
    with_suggestion(text, duration(text))
}

fn time_above_zero(text: &str) -> Result<Duration, String> {
    with_suggestion(text, duration_above_zero(text))
}

fn with_suggestion(text: &str, read: Result<Duration, String>) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    read.map_err(|e| if is_number { format!("{e}; did you mean {text}s?") } else { e })
}

/// The body itself, or the file that it names after `@`, as curl has it.
fn body(text: &str) -> Result<Arc<[u8]>, String> {
    let bytes = match text.strip_prefix('@') {
        None => return Ok(text.as_bytes().into()),
        Some("-") => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
        Some(path) => fs::read(path),
    };
    let bytes = bytes.map_err(|e| format!("cannot read the body: {e}; allowed are TEXT, @FILE, and @- for standard input"))?;
    Ok(bytes.into())
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
    condition.check(results_by_name::unit_of, results_by_name::NAMES)?;
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
            (["-d", "10"], "--duration", "did you mean 10s?"),
            (["--warmup", "0.5"], "--warmup", "did you mean 0.5s?"),
            (["--timeout", "5"], "--timeout", "did you mean 5s?"),
            (["-b", "@/no/such/file"], "--body", "@FILE"),
            (["-d", "0s"], "--duration", "above zero"),
            (["--warmup", "2 parsecs"], "--warmup", "us, ms, s, m, h"),
            (["--timeout", "x"], "--timeout", "us, ms, s, m, h"),
            (["-c", "0"], "--connections", "1..="),
            (["-t", "1000"], "--threads", "1..=256"),
            (["--arrivals", "burst:0"], "--arrivals", "constant, poisson and burst:N"),
            (["-H", "no colon"], "--header", "Name: value"),
            (["-m", "GET /"], "--method", "GET, HEAD or POST"),
            (["--fail-if", "p99>250"], "--fail-if", "250ms"),
            (["--fail-if", "p100>1s"], "--fail-if", "no figure 'p100'"),
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
    fn a_body_is_text_or_the_bytes_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"\0\xff\r\n").unwrap();
        assert_eq!(body("a@b").unwrap().as_ref(), b"a@b");
        assert_eq!(body(&format!("@{}", file.path().display())).unwrap().as_ref(), b"\0\xff\r\n");
    }

    #[test]
    fn wrk2s_latency_flag_is_accepted() {
        for flag in ["-L", "--latency"] {
            let cli = Cli::try_parse_from(["loadtest", "run", "-R2000", flag, "-d10s", "http://localhost/"]).unwrap();
            assert!(matches!(cli.command, Command::Run(run) if run.latency && run.rate == Some(2000.0)), "{flag}");
        }
    }

    #[test]
    fn aliases_of_other_tools_are_understood() {
        for args in [["--rps", "5"], ["--qps", "5"], ["-R", "5"]] {
            let cli = Cli::try_parse_from(["loadtest", "run", "http://localhost/"].iter().chain(&args)).unwrap();
            assert!(matches!(cli.command, Command::Run(run) if run.rate == Some(5.0)), "{args:?}");
        }
    }
}
