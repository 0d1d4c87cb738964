//! What `--check` prints: every effective limit with its reason, and the two sums.
//!
//! Read next: `budget.rs`, where the sums are made.

use std::fmt::{Debug, Write};

use worker_pool::{Concurrency, Discipline, WhenFull};

use reactor::listen::socket::ListenAddress;

use crate::activation::Inherited;
use crate::budget::{Budget, Item, mebibytes};
use crate::config::Config;
use crate::listeners::sharing_of_one_socket;
use crate::probe::{Probe, Without, probes};
use crate::units::{Size, SizeOrAuto, Time};

/// The report. `budget` is an error when the limits do not fit the machine.
#[must_use]
pub fn report(config: &Config, inherited: &Inherited, budget: &Result<Budget, String>) -> String {
    let mut out = String::new();
    let mut section = |title: &str, rows: &[(&str, String, &str)]| {
        let _ = writeln!(out, "{title}");
        for (name, value, reason) in rows {
            let _ = writeln!(out, "  {name:<26}{value:>16}  {reason}");
        }
        let _ = writeln!(out);
    };
    section("process", &process(config, inherited));
    section("each loop", &each_loop(config, budget.as_ref().ok()));
    section("http", &http(config));
    section("worker pool", &pool(config));
    section("system calls", &system_calls(config));
    match budget {
        Ok(budget) => sums(&mut out, budget),
        Err(complaint) => {
            let _ = writeln!(out, "does not fit: {complaint}");
        }
    }
    out
}

type Rows = Vec<(&'static str, String, &'static str)>;

fn process(config: &Config, inherited: &Inherited) -> Rows {
    let listen = match inherited.http_address() {
        Some(address) => ("listen", address.to_string(), "the service: an inherited socket (LISTEN_FDS), so not --listen"),
        None => ("listen", config.listen.to_string(), "the service; --listen"),
    };
    let admin = match inherited.admin_address() {
        Some(address) => ("admin", address.to_string(), "metrics and state: an inherited socket (LISTEN_FDS), so not --admin"),
        None => ("admin", config.admin.to_string(), "metrics and state, on a loop of its own; --admin"),
    };
    let sharing = config.reactor.policy.sharing;
    let is_one_socket = match &inherited.http {
        Some(_) => true,
        None => matches!(config.listen, ListenAddress::Unix(_)),
    };
    let sharing = if is_one_socket { sharing_of_one_socket(sharing) } else { sharing };
    let mut rows = vec![
        listen,
        admin,
        ("loops", config.loops.to_string(), "threads that serve connections: half of the cores; --loops"),
        ("loop slice", time(crate::run::LOOP_SLICE), "the scheduler's: a loop that wakes runs before a worker (Linux 6.12)"),
        ("listener sharing", as_flag(sharing), "how they share the port; --listener-sharing"),
        ("shutdown delay", time(config.shutdown_delay), "after SIGTERM only /readyz fails, and all are served; --shutdown-delay"),
        ("shutdown grace", time(config.shutdown_grace), "then requests in flight have so long; --shutdown-grace"),
    ];
    for slug in &config.mistakes {
        rows.push(("mistake", (*slug).to_owned(), "switched on deliberately; --mistake"));
    }
    rows
}

fn each_loop(config: &Config, budget: Option<&Budget>) -> Rows {
    let limits = &config.reactor.limits;
    let connections = budget.map_or_else(|| "-".to_owned(), |budget| budget.connections_of(0).to_string());
    let buffer_memory = config.buffer_memory_bytes_max / u64::from(config.loops);
    let room =
        budget.map_or_else(|| "-".to_owned(), |budget| config.one_loop(budget.connections_of(0), 0).limits.free_slots_min.to_string());
    let per_source = config.http.connections_per_source_max.map_or_else(|| "-".to_owned(), |max| max.to_string());
    vec![
        ("connections", connections, "its share of --connections-max; one descriptor and at most 192 bytes each"),
        ("room for newcomers", room, "of these; twice the accepts of a turn, at most an eighth"),
        (
            "when nearly full",
            as_flag(config.reactor.policy.when_nearly_full),
            "idle longest and slowest requests go first; --when-nearly-full",
        ),
        ("connections of a source", per_source, "429 beyond; all loops together; --connections-per-source-max"),
        ("refusals", limits.refusals_max.to_string(), "beyond that: accepted, told 503, closed"),
        ("buffer memory", Size(buffer_memory).to_string(), "its share of --buffer-memory-max; the oldest unfinished request gives way"),
        ("buffer", bytes(limits.buffer_bytes_max), "scratch and largest lease; --buffer-bytes-max"),
        ("output high water", bytes(limits.output_high_water_bytes), "unsent bytes at which reading stops"),
        ("output low water", bytes(limits.output_low_water_bytes), "and at which it goes on"),
        (
            "kernel's unsent output",
            SizeOrAuto(limits.kernel_unsent_bytes_max.map(u64::from)).to_string(),
            "of one connection, beside what is on its way; auto: up to tcp_wmem; --send-buffer-max",
        ),
        (
            "turn",
            time(limits.turn_time_max()),
            "the sum of its stages' times; each may exceed its own by the work between two readings of the clock",
        ),
        ("time for visits", time(limits.visits_time_max), "connections with work left get half of it at least"),
        ("time for accepts", time(limits.accepts_time_max), "established connections do not wait for a flood of new ones"),
        ("time for mail", time(limits.mail_time_max), "results of jobs"),
        ("time for deadlines", time(limits.deadlines_time_max), "thousands may expire together"),
        ("time for connects", time(limits.connects_time_max), "outbound connections"),
        ("time for closes", time(limits.closes_time_max), "thousands of clients may disconnect together"),
        ("messages in a first visit", limits.first_visit_messages_max.to_string(), "small: many connections may become runnable at once"),
        ("messages per visit", limits.visit_messages_max.to_string(), "of a connection that has work left"),
        ("reads per visit", limits.visit_reads_max.to_string(), "one peer's single bytes must not keep the loop"),
        ("written per visit", bytes(limits.visit_written_bytes_max), "a fast reader gives way after this"),
        ("events per poll", limits.events_per_poll_max.to_string(), "more wait in the kernel; a small batch keeps turns short"),
        ("accepts per turn", limits.accepts_per_turn_max.to_string(), "a flood of connects must not keep the established waiting"),
        ("mail per turn", limits.mail_per_turn_max.to_string(), "results of jobs"),
        ("deadlines per turn", limits.deadlines_per_turn_max.to_string(), "thousands may expire together"),
        (
            "closes per turn",
            limits.closes_per_turn_max.to_string(),
            "close(2) costs microseconds; fewer than events, or all wait behind them",
        ),
        ("mailbox", limits.mail_max.to_string(), "one place for each job that can be in flight, and 1024"),
        ("response rate", format!("{}/s", Size(u64::from(limits.output_rate_min))), "reset below half of it; --response-rate-min"),
        ("response rate window", time(limits.output_rate_window), "one receive buffer at that rate; --response-rate-window"),
        ("evictable stall", time(limits.evictable_stall_min), "output stalled for so long is evicted for a new client"),
        ("linger", time(limits.linger_timeout), "input discarded after the last response, so that it is not lost"),
        ("linger of the refused", time(limits.refused_linger_timeout), "the same for who was only told that there is no room"),
        ("linger bytes", bytes(limits.linger_bytes_max), "and at most so many"),
        ("accept pause", time(limits.accept_pause), "after EMFILE, unless a close ends it earlier; --accept-pause"),
    ]
}

fn http(config: &Config) -> Rows {
    let (limits, timeouts) = (&config.http.limits, &config.http.timeouts);
    let rate = format!("{}/s", Size(config.http.body_rate_min.bytes_per_second));
    vec![
        ("head", bytes(limits.head_bytes_max), "431 beyond; --header-bytes-max"),
        ("headers", limits.headers_max.to_string(), "431 beyond"),
        ("target", bytes(limits.target_bytes_max), "414 beyond (RFC 9112 section 3)"),
        ("body", Size(limits.body_bytes_max).to_string(), "413 beyond; --body-bytes-max"),
        ("chunk extensions", bytes(limits.chunk_extension_bytes_max), "400 beyond, all chunks of a body together"),
        ("trailers", bytes(limits.trailer_bytes_max), "431 beyond"),
        ("half-close", as_flag(config.http.half_close), "who sends FIN while it is answered; --half-close"),
        ("header timeout", time(timeouts.header), "408; absolute; --header-timeout"),
        ("body rate", rate, "408 below, in any window in which we took what came; --body-rate-min"),
        ("body rate window", time(config.http.body_rate_min.window), "the first one is a period of grace; --body-rate-window"),
        ("idle timeout", time(timeouts.idle), "between requests; --idle-timeout"),
        ("request timeout", timeouts.request.map_or_else(|| "none".to_owned(), time), "head to last byte; absolute; --request-timeout"),
        (
            "job deadline",
            time(config.http.job_deadline),
            "a result is of no use later; --job-deadline, at most the request timeout if there is one",
        ),
        ("idle while draining", time(timeouts.drain_idle), "a request may be on the way when SIGTERM comes"),
    ]
}

fn pool(config: &Config) -> Rows {
    let pool = &config.pool;
    let policy = &pool.policy;
    vec![
        ("workers", pool.threads.to_string(), "the cores that the loops leave, at least 2; --workers"),
        ("queue", pool.limits.queue_jobs_max.to_string(), "jobs that may wait; 503 with Retry-After beyond; --queue-jobs-max"),
        (
            "wait",
            time(pool.limits.wait_max),
            "a job that would wait longer is refused at once; --queue-wait-max, at most half the job deadline",
        ),
        ("standing wait", time(pool.limits.standing_wait_max), "the same when no worker was free for so long; --queue-standing-wait-max"),
        ("discipline", discipline(policy.discipline), "which waiting job is next; --queue-discipline"),
        ("when full", when_full(policy.when_full), "what gives way; --queue-when-full, --queue-sample-percent"),
        ("bound", bound(policy.concurrency).to_owned(), "on jobs in flight: workers and queue, or less when latency rises; --queue-bound"),
        ("nice", format!("+{}", pool.nice_increment), "a woken loop preempts a computing worker"),
    ]
}

fn system_calls(config: &Config) -> Rows {
    let row = |probe: Probe| {
        let (value, without) = match (probe.error, probe.without) {
            (None, _) => ("answered".to_owned(), ""),
            (Some(error), Without::CannotStart) => {
                (format!("{error:?}"), "the server cannot run without it: a sandbox (seccomp) forbids it")
            }
            (Some(error), Without::Instead(instead)) => (format!("{error:?}"), instead),
        };
        (probe.call, value, without)
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
    let _ = writeln!(out, "  = {} of {} (RLIMIT_NOFILE, raised to the hard limit)\n", budget.descriptors_sum(), machine.descriptors_max);
    bill(out, "memory", &budget.memory, &mebibytes);
    let _ = writeln!(out, "  = {} of {} ({})", mebibytes(budget.memory_sum()), mebibytes(machine.memory_bytes_max), machine.memory_source);
}

fn bill(out: &mut String, title: &str, items: &[Item], show: &dyn Fn(u64) -> String) {
    let _ = writeln!(out, "{title}");
    for Item { what, count, reason } in items {
        let _ = writeln!(out, "  {what:<26}{:>16}  {reason}", show(*count));
    }
}

fn bytes(count: u32) -> String {
    Size(u64::from(count)).to_string()
}

fn time(time: std::time::Duration) -> String {
    Time(time).to_string()
}
