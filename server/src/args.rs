//! The command line. Every flag is also an environment variable: `--header-timeout` is `SERVER_HEADER_TIMEOUT`.
//!
//! A flag goes before its variable, and the variable before the default. Nothing is decided here: read next `pool_args.rs`, the flags of
//! the worker pool; `config.rs`, which turns the flags into the limits and choices of each part.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use reactor::listen::socket::ListenAddress;
use reactor::policy::ListenerSharing;
use reactor::policy::{HalfClose, WhenNearlyFull};

use crate::config::{Config, default_loops};
use crate::pool_args::PoolArgs;
use crate::units::{Size, SizeOrAuto, Time, time_above_zero};

/// A high-concurrency HTTP server on an edge-triggered event loop.
#[derive(Clone, Debug, Parser)]
#[command(name = "server", version, max_term_width = 110)]
pub struct Args {
    /// Where the service listens. Port 0 takes a free one; the first line on stdout says which. unix:PATH is a Unix socket.
    #[arg(long, env = "SERVER_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub listen: ListenAddress,

    /// Where /metrics, /healthz, /readyz and /debug/state listen: a loop of its own. Keep it away from the public.
    #[arg(long, env = "SERVER_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:9090", value_parser = address)]
    pub admin: SocketAddr,

    /// Event loops, a thread each. Default: half of the cores, at least one.
    #[arg(
        long, env = "SERVER_LOOPS", value_name = "N",
        default_value_t = default_loops(),
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    pub loops: u32,

    /// The worker pool.
    #[command(flatten)]
    pub pool: PoolArgs,

    /// Open connections of all loops together. Default: 10000, or what fits under the descriptor limit.
    #[arg(long, env = "SERVER_CONNECTIONS_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: Option<u32>,

    /// Open connections of one source address (IPv6: one /64); one more is answered 429. Not limited by default: behind a proxy all
    /// clients have one address.
    #[arg(long, env = "SERVER_CONNECTIONS_PER_SOURCE_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_source_max: Option<u32>,

    /// Near the connection limit: whether those that have waited for their client the longest make room.
    #[arg(long, env = "SERVER_WHEN_NEARLY_FULL", value_name = "HOW", value_enum, default_value_t = NearlyFull::Evict)]
    pub when_nearly_full: NearlyFull,

    /// Bytes that unfinished input and unsent output of all loops may hold together.
    #[arg(long, env = "SERVER_BUFFER_MEMORY_MAX", value_name = "SIZE", default_value_t = Size(Config::default().buffer_memory_bytes_max))]
    pub buffer_memory_max: Size,

    /// The scratch buffer of a loop and the largest buffer that a connection can lease. 4KiB to 16MiB.
    #[arg(
        long, env = "SERVER_BUFFER_BYTES_MAX", value_name = "SIZE",
        default_value_t = Size(u64::from(Config::default().reactor.limits.buffer_bytes_max))
    )]
    pub buffer_bytes_max: Size,

    /// Output of one connection that the kernel may hold unsent (TCP_NOTSENT_LOWAT): 4KiB to 1GiB, or auto (or 0) for as much as the kernel
    /// likes, which is megabytes for a client that does not read.
    #[arg(
        long, env = "SERVER_SEND_BUFFER_MAX", value_name = "SIZE|auto",
        default_value_t = SizeOrAuto(Config::default().reactor.limits.kernel_unsent_bytes_max.map(u64::from))
    )]
    pub send_buffer_max: SizeOrAuto,

    /// From the first byte of a request's head to its end. Absolute: progress does not extend it.
    #[arg(
        long, env = "SERVER_HEADER_TIMEOUT", value_name = "TIME",
        default_value_t = Time(Config::default().http.timeouts.header),
        value_parser = time_above_zero
    )]
    pub header_timeout: Time,

    /// Bytes of a request body that must come in a second, on average over --body-rate-window. 0B: no least rate.
    #[arg(
        long, env = "SERVER_BODY_RATE_MIN", value_name = "SIZE",
        default_value_t = Size(Config::default().http.body_rate_min.bytes_per_second)
    )]
    pub body_rate_min: Size,

    /// Over what the rate of a body is measured. Nobody is judged before the first window is over.
    #[arg(
        long, env = "SERVER_BODY_RATE_WINDOW", value_name = "TIME",
        default_value_t = Time(Config::default().http.body_rate_min.window),
        value_parser = time_above_zero
    )]
    pub body_rate_window: Time,

    /// How long a connection may stay open between two requests.
    #[arg(
        long, env = "SERVER_IDLE_TIMEOUT", value_name = "TIME",
        default_value_t = Time(Config::default().http.timeouts.idle),
        value_parser = time_above_zero
    )]
    pub idle_timeout: Time,

    /// From a request's head to the last byte of its response. Absolute, so it limits the size of uploads and downloads too. Default: none.
    #[arg(long, env = "SERVER_REQUEST_TIMEOUT", value_name = "TIME", value_parser = time_above_zero)]
    pub request_timeout: Option<Time>,

    /// Bytes of a response that a client must acknowledge in a second, on average over --response-rate-window; at less than half of it, the
    /// connection is reset. 0B: no least rate. The default is that of Apache's mod_reqtimeout for request bodies.
    #[arg(
        long, env = "SERVER_RESPONSE_RATE_MIN", value_name = "SIZE",
        default_value_t = Size(u64::from(Config::default().reactor.limits.output_rate_min))
    )]
    pub response_rate_min: Size,

    /// Over what the rate of a response is measured. At least as long as one receive buffer of the client takes at the least rate, because a
    /// client acknowledges in steps of that size: 128KiB at 500 bytes a second take 262 s (docs/numbers.md, "Steps of acknowledgement").
    #[arg(
        long, env = "SERVER_RESPONSE_RATE_WINDOW", value_name = "TIME",
        default_value_t = Time(Config::default().reactor.limits.output_rate_window),
        value_parser = time_above_zero
    )]
    pub response_rate_window: Time,

    /// How long a client has use for a job's result. A job that cannot make it is refused or dropped.
    #[arg(
        long, env = "SERVER_JOB_DEADLINE", value_name = "TIME",
        default_value_t = Time(Config::default().http.job_deadline),
        value_parser = time_above_zero
    )]
    pub job_deadline: Time,

    /// Bytes of one request head. More: 431.
    #[arg(
        long, env = "SERVER_HEADER_BYTES_MAX", value_name = "SIZE",
        default_value_t = Size(u64::from(Config::default().http.limits.head_bytes_max))
    )]
    pub header_bytes_max: Size,

    /// Bytes of one request body. More: 413.
    #[arg(long, env = "SERVER_BODY_BYTES_MAX", value_name = "SIZE", default_value_t = Size(Config::default().http.limits.body_bytes_max))]
    pub body_bytes_max: Size,

    /// Pause after accept(2) fails for want of descriptors or memory, unless a close ends it earlier.
    #[arg(
        long, env = "SERVER_ACCEPT_PAUSE", value_name = "TIME",
        default_value_t = Time(Config::default().reactor.limits.accept_pause),
        value_parser = time_above_zero
    )]
    pub accept_pause: Time,

    /// How long SIGTERM only makes /readyz fail, with everybody served as before, until who sends clients here has noticed. Default: 0s.
    #[arg(long, env = "SERVER_SHUTDOWN_DELAY", value_name = "TIME", default_value_t = Time(Config::default().shutdown_delay))]
    pub shutdown_delay: Time,

    /// How long SIGTERM then waits for requests in flight.
    #[arg(long, env = "SERVER_SHUTDOWN_GRACE", value_name = "TIME", default_value_t = Time(Config::default().shutdown_grace))]
    pub shutdown_grace: Time,

    /// The directory whose files GET /files/PATH serves. Without it there are none.
    #[arg(long, env = "SERVER_FILES_ROOT", value_name = "DIR")]
    pub files_root: Option<PathBuf>,

    /// How several loops share the port.
    #[arg(long, env = "SERVER_LISTENER_SHARING", value_name = "HOW", value_enum, default_value_t = Sharing::ReusePort)]
    pub listener_sharing: Sharing,

    /// What it means when a client sends FIN while its request is being answered.
    #[arg(long, env = "SERVER_HALF_CLOSE", value_name = "WHAT", value_enum, default_value_t = FinMeans::StillListens)]
    pub half_close: FinMeans,

    /// Switches a deliberate mistake on, to see what it does. May be given several times.
    #[cfg(feature = "mistakes")]
    #[arg(long, env = "SERVER_MISTAKE", value_name = "SLUG", value_delimiter = ',', value_parser = crate::demo::mistakes::public_slug)]
    pub mistake: Vec<&'static str>,

    /// Prints the deliberate mistakes and exits.
    #[cfg(feature = "mistakes")]
    #[arg(long, env = "SERVER_LIST_MISTAKES", value_parser = FalseyValueParser::new())]
    pub list_mistakes: bool,

    /// Prints every limit with its reason and the sums of descriptors and memory, and exits: 0 if they fit, 2 if not.
    #[arg(long, env = "SERVER_CHECK", value_parser = FalseyValueParser::new())]
    pub check: bool,
}

/// The names of [`ListenerSharing`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sharing {
    /// A socket for each loop; the kernel spreads by a hash of the addresses
    ReusePort,
    /// One socket in every loop's epoll, one of them woken
    Exclusive,
    /// One loop accepts and hands each connection to the loop that has the fewest
    HandOff,
}

/// What happens near the connection limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NearlyFull {
    /// The longest idle connections and the slowest requests close, so that newcomers are served
    Evict,
    /// Everybody stays until a timeout, and newcomers are refused
    Keep,
}

impl From<NearlyFull> for WhenNearlyFull {
    fn from(nearly_full: NearlyFull) -> WhenNearlyFull {
        match nearly_full {
            NearlyFull::Evict => WhenNearlyFull::Evict,
            NearlyFull::Keep => WhenNearlyFull::Keep,
        }
    }
}

impl From<Sharing> for ListenerSharing {
    fn from(sharing: Sharing) -> ListenerSharing {
        match sharing {
            Sharing::ReusePort => ListenerSharing::ReusePort,
            Sharing::Exclusive => ListenerSharing::Exclusive,
            Sharing::HandOff => ListenerSharing::HandOff,
        }
    }
}

/// The names of [`HalfClose`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FinMeans {
    /// It has nothing more to say, and gets its answer
    StillListens,
    /// It has left: its job is cancelled. For clients that never half-close, such as most proxies
    HasLeft,
}

impl From<FinMeans> for HalfClose {
    fn from(fin: FinMeans) -> HalfClose {
        match fin {
            FinMeans::StillListens => HalfClose::StillListens,
            FinMeans::HasLeft => HalfClose::HasLeft,
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an IP address and a port, for example 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// Reads the command line and the environment.
///
/// # Errors
/// The exit code after help, the version or one line of complaint was printed: 0 or 2.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = program_name(&args);
    let matches = Args::command().display_name(name.clone()).try_get_matches_from(args);
    matches.and_then(|mut matches| Args::from_arg_matches_mut(&mut matches)).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed stdout is no reason to fail.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            crate::complaint::complain(&name, &one_line(&error.render().to_string()));
            ExitCode::from(crate::run::USAGE)
        }
    })
}

/// The name that the program was started by, without its directory: complaints begin with it, and a fork has its own.
pub(crate) fn program_name(args: &[OsString]) -> String {
    let name = args.first().and_then(|program| Path::new(program).file_name());
    name.map_or_else(|| "server".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// clap's complaint without the advice that follows it: what was wrong and what is allowed, in one line.
fn one_line(complaint: &str) -> String {
    let lines = complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information")).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_program_has_the_name_that_it_was_started_by() {
        for (program, name) in
            [("target/release/greeter", "greeter"), ("./server", "server"), ("server", "server"), ("", "server"), ("/", "server")]
        {
            assert_eq!(program_name(&[program.into()]), name, "{program}");
        }
        assert_eq!(program_name(&[]), "server");
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in Args::command().get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
            let flag = arg.get_long().expect("all are long");
            let variable = format!("SERVER_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
        }
    }

    #[test]
    fn without_flags_the_configuration_is_the_default_one() {
        // The environment of a test run has no SERVER_ variables.
        let args = Args::try_parse_from(["server"]).expect("no flag is needed");
        let config = Config::from_args(&args).expect("the defaults fit together");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
}
