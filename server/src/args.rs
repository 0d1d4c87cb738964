//! The command line. Every flag is also an environment variable: `--header-timeout` is `SERVER_HEADER_TIMEOUT`.
//!
//! A flag goes before its variable, and the variable before the default. Nothing is decided here: read next `pool_args.rs`, the flags of
//! the worker pool; `config.rs`, which turns the flags into the limits and choices of each part.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{FalseyValueParser, Resettable};
use clap::error::ErrorKind;
use clap::{Arg, CommandFactory, FromArgMatches, Id, Parser, ValueEnum};
use reactor::listen::socket::{ListenAddress, ListenAddressError};
use reactor::policy::ListenerSharing;
use reactor::policy::{HalfClose, WhenNearlyFull};

use crate::config::{Config, default_loops};
use crate::pool_args::PoolArgs;
use crate::sources::Sources;
use crate::units::{Size, SizeOrAuto, Time, time_above_zero};

/// A high-concurrency HTTP server on an edge-triggered event loop.
#[derive(Clone, Debug, Parser)]
#[command(name = "server", version, max_term_width = 110)]
pub struct Args {
    /// Address of the service. May be given several times, or with commas between the addresses. Port 0 takes a free port; the first line on stdout
    /// has it. `[::]` serves IPv4 too. unix:PATH is a Unix socket.
    #[arg(
        long, env = "SERVER_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:8080",
        value_delimiter = ',', value_parser = listen_address
    )]
    pub listen: Vec<ListenAddress>,

    /// A listener on `[::]` serves IPv6 only.
    #[arg(long, env = "SERVER_IPV6_ONLY", value_parser = FalseyValueParser::new())]
    pub ipv6_only: bool,

    /// Address of the admin port: /metrics, /healthz, /readyz and /debug/state. Do not expose it to the public.
    #[arg(long, env = "SERVER_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:9090", value_parser = address)]
    pub admin: SocketAddr,

    /// Number of event loops. Each is a thread. The default is half of the CPUs that the process may use, at least 1.
    #[arg(
        long, env = "SERVER_LOOPS", value_name = "N",
        default_value_t = default_loops(),
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    pub loops: u32,

    /// The worker pool.
    #[command(flatten)]
    pub pool: PoolArgs,

    /// Open connections, all loops together. One more gets a 503. The default is 10000, or fewer if the descriptor limit (ulimit -n) is lower.
    #[arg(long, env = "SERVER_CONNECTIONS_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: Option<u32>,

    /// Open connections of one source address (IPv6: one /64). One more gets a 429. There is no limit by default, because behind a proxy all
    /// clients have the proxy's address.
    #[arg(long, env = "SERVER_CONNECTIONS_PER_SOURCE_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_source_max: Option<u32>,

    /// What happens to idle connections and slow requests when few connections are free.
    #[arg(long, env = "SERVER_WHEN_NEARLY_FULL", value_name = "HOW", value_enum, default_value_t = NearlyFull::Evict)]
    pub when_nearly_full: NearlyFull,

    /// Memory for unfinished input and unsent output, all loops together. When it is full, the connections that hold the most are evicted.
    #[arg(long, env = "SERVER_BUFFER_MEMORY_MAX", value_name = "SIZE", default_value_t = Size(Config::default().buffer_memory_bytes_max))]
    pub buffer_memory_max: Size,

    /// Bytes of request bodies that are collected in memory or wait in jobs, of all loops together. Beyond: 503.
    #[arg(long, env = "SERVER_BODY_MEMORY_MAX", value_name = "SIZE", default_value_t = Size(Config::default().http.memory.bodies_bytes_max))]
    pub body_memory_max: Size,

    /// Bytes of job outputs and of whole responses that wait for their clients to read, of all loops together. Beyond: 503.
    #[arg(
        long, env = "SERVER_RESPONSE_MEMORY_MAX", value_name = "SIZE",
        default_value_t = Size(Config::default().http.memory.responses_bytes_max)
    )]
    pub response_memory_max: Size,

    /// Size of a loop's scratch buffer, and the most that one connection can buffer. 4KiB to 16MiB.
    #[arg(
        long, env = "SERVER_BUFFER_BYTES_MAX", value_name = "SIZE",
        default_value_t = Size(u64::from(Config::default().reactor.limits.buffer_bytes_max))
    )]
    pub buffer_bytes_max: Size,

    /// Unsent output that the kernel may buffer for one connection (TCP_NOTSENT_LOWAT), 4KiB to 1GiB. With auto (or 0) the kernel decides, and
    /// buffers megabytes for a client that does not read.
    #[arg(
        long, env = "SERVER_SEND_BUFFER_MAX", value_name = "SIZE|auto",
        default_value_t = SizeOrAuto(Config::default().reactor.limits.kernel_unsent_bytes_max.map(u64::from))
    )]
    pub send_buffer_max: SizeOrAuto,

    /// Time from the first byte of a request's head to its last. Progress does not extend it. A slower client gets a 408.
    #[arg(
        long, env = "SERVER_HEADER_TIMEOUT", value_name = "TIME",
        default_value_t = Time(Config::default().http.timeouts.header),
        value_parser = time_above_zero
    )]
    pub header_timeout: Time,

    /// Bytes per second of a request body, on average over --body-rate-window. A slower client gets a 408. 0B sets no rate.
    #[arg(
        long, env = "SERVER_BODY_RATE_MIN", value_name = "SIZE",
        default_value_t = Size(Config::default().http.body_rate_min.bytes_per_second)
    )]
    pub body_rate_min: Size,

    /// Time over which the rate of a body is measured. No client is timed out before the first window has passed.
    #[arg(
        long, env = "SERVER_BODY_RATE_WINDOW", value_name = "TIME",
        default_value_t = Time(Config::default().http.body_rate_min.window),
        value_parser = time_above_zero
    )]
    pub body_rate_window: Time,

    /// Time that a connection may stay open between two requests. Then it is closed.
    #[arg(
        long, env = "SERVER_IDLE_TIMEOUT", value_name = "TIME",
        default_value_t = Time(Config::default().http.timeouts.idle),
        value_parser = time_above_zero
    )]
    pub idle_timeout: Time,

    /// Time from a request's head to the last byte of its response. Progress does not extend it, so it limits the size of uploads and downloads
    /// too. There is no limit by default.
    #[arg(long, env = "SERVER_REQUEST_TIMEOUT", value_name = "TIME", value_parser = time_above_zero)]
    pub request_timeout: Option<Time>,

    /// Bytes per second of a response that the client must acknowledge, on average over --response-rate-window. At less than half of it the
    /// connection is reset. 0B sets no rate. The default is that of Apache's mod_reqtimeout for request bodies.
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

    /// Time from a request's head to the result of its job. A job that would be later is rejected (503), or dropped from the queue (504).
    #[arg(
        long, env = "SERVER_JOB_DEADLINE", value_name = "TIME",
        default_value_t = Time(Config::default().http.job_deadline),
        value_parser = time_above_zero
    )]
    pub job_deadline: Time,

    /// Size of a request head. A larger one gets a 431.
    #[arg(
        long, env = "SERVER_HEADER_BYTES_MAX", value_name = "SIZE",
        default_value_t = Size(u64::from(Config::default().http.limits.head_bytes_max))
    )]
    pub header_bytes_max: Size,

    /// Size of a request body. A larger one gets a 413.
    #[arg(long, env = "SERVER_BODY_BYTES_MAX", value_name = "SIZE", default_value_t = Size(Config::default().http.limits.body_bytes_max))]
    pub body_bytes_max: Size,

    /// Pause of accepting after accept(2) failed for lack of descriptors or memory. A connection that closes ends it.
    #[arg(
        long, env = "SERVER_ACCEPT_PAUSE", value_name = "TIME",
        default_value_t = Time(Config::default().reactor.limits.accept_pause),
        value_parser = time_above_zero
    )]
    pub accept_pause: Time,

    /// Time from SIGTERM to the shutdown, in which /readyz fails and all clients are still served, so that load balancers stop sending traffic
    /// first.
    #[arg(long, env = "SERVER_SHUTDOWN_DELAY", value_name = "TIME", default_value_t = Time(Config::default().shutdown_delay))]
    pub shutdown_delay: Time,

    /// Time that the shutdown then waits for requests in flight.
    #[arg(long, env = "SERVER_SHUTDOWN_GRACE", value_name = "TIME", default_value_t = Time(Config::default().shutdown_grace))]
    pub shutdown_grace: Time,

    /// Directory whose files GET /files/PATH serves. There is no default.
    #[arg(long, env = "SERVER_FILES_ROOT", value_name = "DIR")]
    pub files_root: Option<PathBuf>,

    /// How several loops share a port.
    #[arg(long, env = "SERVER_LISTENER_SHARING", value_name = "HOW", value_enum, default_value_t = Sharing::ReusePort)]
    pub listener_sharing: Sharing,

    /// What it means when a client sends FIN before its response is complete.
    #[arg(long, env = "SERVER_HALF_CLOSE", value_name = "WHAT", value_enum, default_value_t = FinMeans::StillListens)]
    pub half_close: FinMeans,

    /// Turns a deliberate mistake on, to show what it does. May be given several times.
    #[cfg(feature = "mistakes")]
    #[arg(long, env = "SERVER_MISTAKE", value_name = "SLUG", value_delimiter = ',', value_parser = crate::demo::mistakes::public_slug)]
    pub mistake: Vec<&'static str>,

    /// Prints the deliberate mistakes, and exits.
    #[cfg(feature = "mistakes")]
    #[arg(long, env = "SERVER_LIST_MISTAKES", value_parser = FalseyValueParser::new())]
    pub list_mistakes: bool,

    /// Prints every setting with its value, its source and what happens when it is reached, and the sums of descriptors and memory. Exits with 0
    /// if they fit this machine, and with 2 if not.
    #[arg(long, env = "SERVER_CHECK", value_parser = FalseyValueParser::new())]
    pub check: bool,

    /// Where each value came from.
    #[arg(skip)]
    pub sources: Sources,
}

/// The names of [`ListenerSharing`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sharing {
    /// A socket for each loop; the kernel distributes clients by a hash of the addresses
    ReusePort,
    /// One socket for all loops; the kernel wakes one of them for a client
    Exclusive,
    /// One loop accepts, and hands each connection to the loop that has the fewest
    HandOff,
}

/// What happens near the connection limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NearlyFull {
    /// The connections that have waited for their client the longest are closed, so that new clients are served
    Evict,
    /// Connections stay open until a timeout, and new clients get a 503
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
    /// The client has finished sending, and still reads its response
    StillListens,
    /// The client has disconnected, and its job is cancelled. For clients that never half-close, such as most proxies
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

/// An address of the service: an IP address and a port, or a Unix socket.
fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if text.starts_with("unix:") {
        text.parse().map_err(|e: ListenAddressError| e.to_string())
    } else {
        address(text).map(ListenAddress::Ip)
    }
}

/// An IP address and a port. The complaint says what to write instead.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
        return Err(format!("the port is missing, or an IPv6 address needs brackets: write {}", SocketAddr::new(ip, 8080)));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(if text.parse::<u16>().is_ok() { ("", text) } else { (text, "") });
    let port = port.parse().unwrap_or(8080_u16);
    let all = format!("0.0.0.0:{port} (all IPv4 addresses) or [::]:{port} (all addresses)");
    let is_name = host.bytes().any(|byte| byte.is_ascii_alphabetic())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    Err(match host {
        "" | "*" => format!("the address is missing: write 127.0.0.1:{port} (this machine only), {all}"),
        "localhost" => format!("a host name is not looked up: write 127.0.0.1:{port} or [::1]:{port}"),
        host if is_name => format!("a host name is not looked up: write its IP address (getent ahosts {host}) and the port, {all}"),
        _ => "expected an IP address and a port, for example 127.0.0.1:8080 or [::]:8080".to_owned(),
    })
}

/// Reads the command line and the environment. A variable that is empty counts as one that is not set: unit files and templates of containers leave
/// variables empty that nothing fills in.
///
/// # Errors
/// The exit code after help, the version or one line of complaint was printed: 0 or 2.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = program_name(&args);
    let mut command = Args::command().display_name(name.clone());
    let sources = Sources::of(&command, &args, |name| std::env::var_os(name));
    let is_empty = |arg: &&Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let empty: Vec<Id> = command.get_arguments().filter(is_empty).map(|arg| arg.get_id().clone()).collect();
    for id in empty {
        command = command.mut_arg(id, |arg| arg.env(Resettable::Reset));
    }
    let parsed = command.try_get_matches_from(args).and_then(|mut matches| Args::from_arg_matches_mut(&mut matches));
    parsed.map(|args| Args { sources: sources.clone(), ..args }).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed stdout is no reason to fail.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            crate::complaint::complain(&name, &sources.named(&one_line(&error.render().to_string())));
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
    fn what_is_no_address_gets_an_answer_that_can_be_copied() {
        for (text, parts) in [
            ("localhost:8081", &["not looked up", "127.0.0.1:8081", "[::1]:8081"][..]),
            ("localhost", &["not looked up", "127.0.0.1:8080"]),
            ("www.example.com:443", &["not looked up", "getent ahosts www.example.com", "0.0.0.0:443", "[::]:443"]),
            (":8081", &["address is missing", "127.0.0.1:8081", "0.0.0.0:8081", "[::]:8081"]),
            ("8081", &["address is missing", "127.0.0.1:8081"]),
            ("*:80", &["address is missing", "0.0.0.0:80"]),
            ("192.0.2.1", &["port is missing", "192.0.2.1:8080"]),
            ("::1", &["brackets", "[::1]:8080"]),
            ("[::1]", &["port is missing", "[::1]:8080"]),
            ("", &["address is missing"]),
            ("127.0.0.1:99999", &["expected an IP address and a port"]),
            ("1.2.3.4.5:80", &["expected an IP address and a port"]),
        ] {
            let error = address(text).expect_err(text);
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        assert_eq!(address("[::]:0").map(|address| address.is_ipv6()), Ok(true));
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
