//! What `--check` prints: every setting with its value, where the value came from and what happens when it is reached; and the two sums.
//!
//! Read next: `budget.rs`, where the sums are made.

use std::fmt::{Debug, Write};
use std::time::Duration;

use worker_pool::{Concurrency, Discipline, WhenFull};

use reactor::listen::socket::ListenAddress;

use crate::activation::Inherited;
use crate::budget::{Budget, Item, mebibytes};
use crate::config::{Config, cpus};
use crate::listeners::sharing_of_one_socket;
use crate::probe::{Probe, Without, probes};
use crate::sources::{Source, Sources};
use crate::units::{Size, SizeOrAuto, Time};

/// One line above the table: what its columns are.
const LEGEND: &str = "\
setting, value, where the value came from, and what happens when it is reached
  default: nothing sets it    flag, variable: the command line, the environment (--idle-timeout is SERVER_IDLE_TIMEOUT)
  derived: it follows from other settings    fixed: a number in the source

";

/// The report. `budget` is an error when the limits do not fit the machine.
#[must_use]
pub fn report(config: &Config, sources: &Sources, inherited: &Inherited, budget: &Result<Budget, String>) -> String {
    let mut out = LEGEND.to_owned();
    let mut section = |title: &str, rows: Rows| {
        let _ = writeln!(out, "{title}");
        for Row { name, value, origin, meaning } in rows {
            let origin = match origin {
                Origin::Flag => match sources.get(&name) {
                    Source::Default => "default",
                    Source::Flag => "flag",
                    Source::Variable => "variable",
                },
                Origin::Derived => "derived",
                Origin::Fixed => "fixed",
                Origin::System => "system",
            };
            let line = format!("  {name:<28}{value:>17}  {origin:<9} {meaning}");
            let _ = writeln!(out, "{}", line.trim_end());
        }
        let _ = writeln!(out);
    };
    section("process", process(config, inherited));
    section("connections and memory of each loop", each_loop(config, budget.as_ref().ok()));
    section("one turn of a loop", turn(config));
    section("requests and responses", http(config));
    section("worker pool", pool(config));
    section("system calls", system_calls(config));
    match budget {
        Ok(budget) => sums(&mut out, budget),
        Err(complaint) => {
            let _ = writeln!(out, "does not fit: {complaint}");
        }
    }
    out
}

type Rows = Vec<Row>;

/// A line of the table.
struct Row {
    /// The flag, or what the number is called.
    name: String,
    value: String,
    origin: Origin,
    meaning: String,
}

/// Where a value comes from.
enum Origin {
    /// A flag, its variable, or its default.
    Flag,
    Derived,
    Fixed,
    System,
}

fn flag(name: &str, value: impl ToString, meaning: impl Into<String>) -> Row {
    Row { name: name.to_owned(), value: value.to_string(), origin: Origin::Flag, meaning: meaning.into() }
}

fn derived(name: &str, value: impl ToString, meaning: &str) -> Row {
    Row { origin: Origin::Derived, ..flag(name, value, meaning) }
}

fn fixed(name: &str, value: impl ToString, meaning: &str) -> Row {
    Row { origin: Origin::Fixed, ..flag(name, value, meaning) }
}

fn process(config: &Config, inherited: &Inherited) -> Rows {
    let mut rows = Vec::new();
    match inherited.http_address() {
        Some(address) => {
            rows.push(Row { origin: Origin::System, ..flag("service", address, "an inherited socket (LISTEN_FDS); --listen is not used") })
        }
        None => rows.extend(config.listen.iter().map(|address| flag("--listen", address, "the service"))),
    }
    rows.push(match inherited.admin_address() {
        Some(address) => {
            Row { origin: Origin::System, ..flag("admin port", address, "an inherited socket (LISTEN_FDS); --admin is not used") }
        }
        None => flag("--admin", config.admin, "metrics, health and state, on a loop of its own"),
    });
    let sharing = config.reactor.policy.sharing;
    let is_one_socket = inherited.http.is_some() || config.listen.iter().all(|address| matches!(address, ListenAddress::Unix(_)));
    let sharing = if is_one_socket { sharing_of_one_socket(sharing) } else { sharing };
    let (cpus, quota) = cpus();
    let reason = quota.as_ref().map_or_else(String::new, |limit| format!(": {}", limit.source));
    rows.extend([
        flag("--ipv6-only", config.ipv6_only, "whether [::] serves IPv6 only; if false it serves IPv4 too"),
        flag("--loops", config.loops, format!("threads that serve connections; the default is half of the {cpus} CPUs{reason}")),
        fixed("loop slice", time(crate::run::LOOP_SLICE), "the scheduler runs a loop that wakes before a worker (Linux 6.12)"),
        flag("--listener-sharing", as_flag(sharing), "how the loops share a port"),
        flag("--shutdown-delay", time(config.shutdown_delay), "after SIGTERM /readyz fails and all clients are served for this time"),
        flag("--shutdown-grace", time(config.shutdown_grace), "then requests in flight have this time; what is left is closed"),
    ]);
    if let Some(root) = &config.files_root {
        rows.push(flag("--files-root", root.display(), "GET /files/PATH"));
    }
    rows.extend(config.mistakes.iter().map(|slug| flag("--mistake", slug, "a deliberate mistake: this server fails on purpose")));
    rows
}

fn each_loop(config: &Config, budget: Option<&Budget>) -> Rows {
    let limits = &config.reactor.limits;
    let connections = budget.map_or_else(|| "-".to_owned(), |budget| budget.connections_of(0).to_string());
    let all = budget.map_or_else(|| "-".to_owned(), |budget| budget.connections_max.to_string());
    let reserved = budget.map(|budget| config.one_loop(budget.connections_of(0), 0).limits.free_slots_min);
    let per_source = config.http.connections_per_source_max.map_or_else(|| "no limit".to_owned(), |max| max.to_string());
    vec![
        flag("--connections-max", all, "all loops together; one more client gets a 503 and is closed"),
        derived("connections of a loop", connections, "its share of --connections-max"),
        flag("--connections-per-source-max", per_source, "all loops together; one more client of the address gets a 429 and is closed"),
        derived(
            "kept free for new clients",
            reserved.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            "when fewer connections of the loop are free, --when-nearly-full decides",
        ),
        flag(
            "--when-nearly-full",
            as_flag(config.reactor.policy.when_nearly_full),
            "evict: closes the connection that has waited for its client the longest; keep: closes none",
        ),
        fixed("rejections at once", limits.refusals_max, "clients above the limit that get their 503; others wait in the kernel's queue"),
        flag("--buffer-memory-max", Size(config.buffer_memory_bytes_max), "all loops together; when it is full, connections are evicted"),
        derived(
            "buffer memory of a loop",
            Size(config.buffer_memory_bytes_max / u64::from(config.loops)),
            "its share; the connection that has stalled the longest is evicted first",
        ),
        flag("--buffer-bytes-max", bytes(limits.buffer_bytes_max), "the most that one connection buffers, and the loop's scratch buffer"),
        derived("output high water", bytes(limits.output_high_water_bytes), "with this much unsent output no more requests are read"),
        derived("output low water", bytes(limits.output_low_water_bytes), "with this little they are read again"),
        flag(
            "--send-buffer-max",
            SizeOrAuto(limits.kernel_unsent_bytes_max.map(u64::from)),
            "unsent output of one connection in the kernel; auto: up to net.ipv4.tcp_wmem",
        ),
        fixed(
            "linger",
            time(limits.linger_timeout),
            "after the last response input is discarded for this time, so that the response is not lost",
        ),
        fixed("linger of rejected clients", time(limits.refused_linger_timeout), "the same after a 503 or 429 at the connection limit"),
        fixed("linger bytes", bytes(limits.linger_bytes_max), "a client that sends more than this meanwhile is reset"),
        flag(
            "--accept-pause",
            time(limits.accept_pause),
            "no accept(2) after EMFILE or ENOMEM for this time, or until a connection closes",
        ),
        flag(
            "--response-rate-min",
            format!("{}/s", Size(u64::from(limits.output_rate_min))),
            "a client that reads its response at less than half of it is reset",
        ),
        flag("--response-rate-window", time(limits.output_rate_window), "time over which the rate of a response is measured"),
        fixed("evictable stall", time(limits.evictable_stall_min), "a client that has not read for this time is evicted for a new client"),
        derived("mailbox", limits.mail_max, "places: one for each job that can be in flight, and 1024"),
    ]
}

/// What one turn of a loop does at most. What is left is done in the next turn, after other connections.
fn turn(config: &Config) -> Rows {
    let limits = &config.reactor.limits;
    vec![
        derived("turn", time(limits.turn_time_max()), "the sum of the times below; what is left waits for the next turn"),
        fixed("time for visits", time(limits.visits_time_max), "reading, handling and writing; then other connections come first"),
        fixed("time for accepts", time(limits.accepts_time_max), "new clients wait in the kernel's queue"),
        fixed("time for mail", time(limits.mail_time_max), "results of jobs wait in the mailbox"),
        fixed("time for deadlines", time(limits.deadlines_time_max), "expired connections are closed in the next turn"),
        fixed("time for connects", time(limits.connects_time_max), "outbound connections begin in the next turn"),
        fixed("time for closes", time(limits.closes_time_max), "close(2) of the others follows in the next turn"),
        fixed("messages in a first visit", limits.first_visit_messages_max, "then the connection waits behind those with less work"),
        fixed("messages per visit", limits.visit_messages_max, "then the other connections that have work left are visited"),
        fixed("reads per visit", limits.visit_reads_max, "the same for a client whose bytes arrive one by one"),
        fixed("written per visit", bytes(limits.visit_written_bytes_max), "the same for a client that reads fast"),
        fixed("events per poll", limits.events_per_poll_max, "more events wait in the kernel"),
        derived("accepts per turn", limits.accepts_per_turn_max, "more new clients wait in the kernel's queue"),
        fixed("mail per turn", limits.mail_per_turn_max, "more results wait in the mailbox"),
        fixed("deadlines per turn", limits.deadlines_per_turn_max, "more expired connections are closed in the next turn"),
        fixed("closes per turn", limits.closes_per_turn_max, "more close(2) follow in the next turn"),
    ]
}

fn http(config: &Config) -> Rows {
    let (limits, timeouts) = (&config.http.limits, &config.http.timeouts);
    let rate = format!("{}/s", Size(config.http.body_rate_min.bytes_per_second));
    vec![
        flag("--header-bytes-max", bytes(limits.head_bytes_max), "a larger head gets a 431"),
        fixed("header fields", limits.headers_max, "more fields get a 431"),
        derived("request target", bytes(limits.target_bytes_max), "a longer one gets a 414"),
        flag("--body-bytes-max", Size(limits.body_bytes_max), "a larger body gets a 413"),
        flag(
            "--body-memory-max",
            Size(config.http.memory.bodies_bytes_max),
            "bodies in memory and in jobs, all loops together; one more gets a 503",
        ),
        flag(
            "--response-memory-max",
            Size(config.http.memory.responses_bytes_max),
            "job outputs and responses not sent yet, all loops together; one more is replaced by a 503",
        ),
        fixed("chunk extensions", bytes(limits.chunk_extension_bytes_max), "more, in all chunks of a body, get a 400"),
        fixed("trailers", bytes(limits.trailer_bytes_max), "more get a 431"),
        flag("--half-close", as_flag(config.http.half_close), "what a FIN of the client before the end of its response means"),
        flag("--header-timeout", time(timeouts.header), "a head that is not complete by then gets a 408"),
        flag("--body-rate-min", rate, "a slower body gets a 408"),
        flag(
            "--body-rate-window",
            time(config.http.body_rate_min.window),
            "time over which the rate is measured; the first one begins with the head",
        ),
        flag("--idle-timeout", time(timeouts.idle), "a connection without a request is closed"),
        flag(
            "--request-timeout",
            timeouts.request.map_or_else(|| "no limit".to_owned(), time),
            "an exchange that is not complete by then gets a 503, or is cut short",
        ),
        flag(
            "--job-deadline",
            time(config.http.job_deadline),
            "a job whose result is not there by then gets a 504; at most --request-timeout, if that is set",
        ),
        fixed("idle in the shutdown", time(timeouts.drain_idle), "a kept connection is closed then; its next request may be on the way"),
    ]
}

fn pool(config: &Config) -> Rows {
    let pool = &config.pool;
    let policy = &pool.policy;
    let mut rows = vec![
        flag("--workers", pool.threads, "threads that run jobs; the default is the CPUs that the loops leave, at least 2"),
        flag("--queue-jobs-max", pool.limits.queue_jobs_max, "jobs that wait; one more gets a 503 with Retry-After"),
        flag(
            "--queue-wait-max",
            time(pool.limits.wait_max),
            "a job that would wait longer gets a 503 at once; at most half of --job-deadline",
        ),
        flag(
            "--queue-standing-wait-max",
            time(pool.limits.standing_wait_max),
            "the same once the queue has been backed up for --queue-wait-max",
        ),
        flag("--queue-discipline", discipline(policy.discipline), "which waiting job runs next"),
        flag("--queue-when-full", when_full(policy.when_full), "which job is rejected when the queue is full"),
    ];
    if let WhenFull::Sample { keep_percent } = policy.when_full {
        rows.push(flag(
            "--queue-sample-percent",
            format!("{keep_percent}%"),
            "jobs that are admitted while the queue is half full or more",
        ));
    }
    rows.extend([
        flag("--queue-bound", bound(policy.concurrency), "jobs in flight: static: workers and queue; gradient: fewer while latency rises"),
        fixed("nice", format!("+{}", pool.nice_increment), "workers have a lower priority than loops"),
    ]);
    rows
}

fn system_calls(config: &Config) -> Rows {
    let row = |probe: Probe| {
        let (value, meaning) = match (probe.error, probe.without) {
            (None, _) => ("works".to_owned(), ""),
            (Some(error), Without::CannotStart) => {
                (format!("{error:?}"), "a sandbox (seccomp) forbids it; the server cannot run without it")
            }
            (Some(error), Without::Instead(instead)) => (format!("{error:?}"), instead),
        };
        Row { origin: Origin::System, ..flag(probe.call, value, meaning) }
    };
    probes(config.files_root.is_some()).into_iter().map(row).collect()
}

/// A choice as its flag takes it: `ReusePort` is `reuse-port`.
fn as_flag(choice: impl Debug) -> String {
    let mut flag = String::new();
    for letter in format!("{choice:?}").chars() {
        if letter.is_ascii_uppercase() && !flag.is_empty() {
            flag.push('-');
        }
        flag.push(letter.to_ascii_lowercase());
    }
    flag
}

fn discipline(discipline: Discipline) -> String {
    match discipline {
        Discipline::Fifo => "fifo".to_owned(),
        Discipline::NewestFirst { pressure } => format!("newest at {}", time(pressure)),
        Discipline::CoDel { target, interval } => format!("codel {}/{}", time(target), time(interval)),
    }
}

fn when_full(when_full: WhenFull) -> String {
    match when_full {
        WhenFull::RefuseNewest => "refuse-newest".to_owned(),
        WhenFull::DropOldest => "drop-oldest".to_owned(),
        WhenFull::Sample { keep_percent } => format!("sample {keep_percent}%"),
    }
}

fn bound(concurrency: Concurrency) -> &'static str {
    match concurrency {
        Concurrency::Static => "static",
        Concurrency::Gradient(_) => "gradient",
    }
}

fn sums(out: &mut String, budget: &Budget) {
    let machine = &budget.machine;
    bill(out, "descriptors", &budget.descriptors, &|count| count.to_string());
    let _ = writeln!(
        out,
        "  = {} of {} (RLIMIT_NOFILE, raised to the hard limit: ulimit -Hn)\n",
        budget.descriptors_sum(),
        machine.descriptors_max
    );
    bill(out, "memory", &budget.memory, &mebibytes);
    let _ = writeln!(out, "  = {} of {} ({})", mebibytes(budget.memory_sum()), mebibytes(machine.memory_bytes_max), machine.memory_source);
}

fn bill(out: &mut String, title: &str, items: &[Item], show: &dyn Fn(u64) -> String) {
    let _ = writeln!(out, "{title}");
    for Item { what, count, reason } in items {
        let _ = writeln!(out, "  {what:<28}{:>17}  {reason}", show(*count));
    }
}

fn bytes(count: u32) -> String {
    Size(u64::from(count)).to_string()
}

fn time(time: Duration) -> String {
    Time(time).to_string()
}
