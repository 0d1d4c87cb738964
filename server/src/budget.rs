//! The sums of descriptors and of memory: whether all limits together fit this machine. A server that does not fit does not start.
//!
//! A limit that is only found when it is reached fails in accept(2), in open(2), in the log and in the allocator all at once (`fd-exhaustion`,
//! `buffer-per-connection`). Read next: `check.rs`, which prints it.

use reactor::os::descriptors::{DESCRIPTORS_RESERVED, fit_connections, raise_descriptor_limit};

use crate::config::{CONNECTIONS_MAX, Config};
use crate::connection::Conn;
use crate::dispatch::Mail;
use crate::process;
use crate::units::Size;

/// One line of a bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What takes them.
    pub what: String,
    /// How many descriptors, or bytes.
    pub count: u64,
    /// Why so many.
    pub reason: &'static str,
}

/// What this machine and this process's limits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Descriptors: the soft limit after it was raised.
    pub descriptors_max: u64,
    /// Bytes of memory.
    pub memory_bytes_max: u64,
    /// Where that number comes from.
    pub memory_source: &'static str,
}

impl Machine {
    /// Whether the limit counts reserved address space, and not only resident memory.
    pub(crate) fn limits_address_space(&self) -> bool {
        self.memory_source == "RLIMIT_AS"
    }

    /// Raises the descriptor limit to the hard one, and asks the kernel.
    ///
    /// # Errors
    /// getrlimit(2).
    pub fn prepare() -> std::io::Result<Machine> {
        let (memory_bytes_max, memory_source) = process::memory_limit();
        Ok(Machine { descriptors_max: raise_descriptor_limit()?, memory_bytes_max, memory_source })
    }
}

/// What a configuration takes of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Open connections of all loops together, after fitting.
    pub connections_max: u32,
    /// Nobody asked for a number, and the descriptor limit allows fewer than [`CONNECTIONS_MAX`].
    pub cut: bool,
    /// Who takes descriptors.
    pub descriptors: Vec<Item>,
    /// Who takes memory, in bytes. User memory: what the kernel takes for sockets is not ours to count.
    pub memory: Vec<Item>,
    /// What there is.
    pub machine: Machine,
    loops: u32,
    buffer_memory_bytes_max: u64,
}

/// Connections of the admin port: a few scrapers, a few people.
pub const ADMIN_CONNECTIONS_MAX: u32 = 64;
/// Bytes of pages of the admin port that wait for their readers.
pub const ADMIN_RESPONSES_BYTES_MAX: u64 = 2 << 20;
/// Refusals of the admin port beyond those.
pub const ADMIN_REFUSALS_MAX: u32 = 8;

/// epoll, timer, waker, spare, listener.
const DESCRIPTORS_PER_LOOP: u64 = 5;
/// The two sockets of a resolver (UDP, then TCP when the answer is long), or the directories on the way to a file (`beneath.rs`).
const DESCRIPTORS_PER_WORKER: u64 = 3;
/// Slot, protocol state and timer link of one connection; `connection.rs` asserts that they are at most 192 bytes.
const CONNECTION_BYTES: u64 = reactor::state_bytes::<Conn>() as u64;
/// What a channel adds to each message: its stamp and padding.
const MESSAGE_OVERHEAD_BYTES: u64 = 64;
/// Allowed for a request in flight, next to what the ledger counts: the box of the exchange, that of the service's answer, a small response. A request that is
/// answered at once has none of them.
const EXCHANGE_BYTES: u64 = 1 << 10;
/// Allowed for a waiting job: a boxed closure, its way back, and what the pool adds (worker-pool `Limits::queue_jobs_max`: about 100 bytes).
const JOB_BYTES: u64 = 512;
/// Allowed for what a thread touches of its 2 MiB of stack.
const STACK_BYTES: u64 = 128 << 10;
/// A stack of std::thread, with its guard page.
const STACK_RESERVED_BYTES: u64 = (2 << 20) + (16 << 10);
/// Allowed for mappings of the program and its libraries that are not resident.
const PROGRAM_RESERVED_BYTES: u64 = 16 << 20;
/// main, admin, watchdog, log, signals, pool-deadlines.
const OTHER_THREADS: u64 = 6;
/// Allowed for the program itself, its tables and its log queue. At rest all of it together is resident with under 8 MiB.
const PROGRAM_BYTES: u64 = 16 << 20;

impl Budget {
    /// Adds up what the configuration takes, and fits the connections under the descriptor limit.
    ///
    /// # Errors
    /// One sentence with the figures when it does not fit.
    pub fn of(config: &Config, machine: Machine) -> Result<Budget, String> {
        let mut descriptors = descriptors_beside_connections(config);
        let reserved: u64 = descriptors.iter().map(|item| item.count).sum();
        let (connections_max, cut) = fit(config, machine, reserved)?;
        if connections_max < config.loops {
            return Err(format!(
                "--loops is {}; each needs at least one connection, and the descriptor limit of {} leaves {connections_max} (raise it: ulimit -n)",
                config.loops, machine.descriptors_max
            ));
        }
        descriptors.insert(0, item("connections", connections_max.into(), "one each; --connections-max"));
        if config.files_root.is_some() {
            descriptors.insert(1, item("files", connections_max.into(), "each connection may have one under way; --files-root"));
        }
        let memory = memory(config, machine, connections_max);
        let needed: u64 = memory.iter().map(|item| item.count).sum();
        if needed > machine.memory_bytes_max {
            return Err(format!(
                "the limits add up to {} of memory, and {} allows {}: lower --buffer-memory-max, --body-memory-max, \
                 --response-memory-max, --connections-max or --queue-jobs-max (see --check)",
                mebibytes(needed),
                machine.memory_source,
                mebibytes(machine.memory_bytes_max)
            ));
        }
        Ok(Budget {
            connections_max,
            cut,
            descriptors,
            memory,
            machine,
            loops: config.loops,
            buffer_memory_bytes_max: config.buffer_memory_bytes_max,
        })
    }

    /// The connections of one loop, 0 for the first: the shares differ by one at most, and add up to the whole.
    #[must_use]
    pub fn connections_of(&self, index: u32) -> u32 {
        self.connections_max / self.loops + u32::from(index < self.connections_max % self.loops)
    }

    /// The buffer memory of each loop.
    #[must_use]
    pub fn buffer_memory_of_one_loop(&self) -> u64 {
        self.buffer_memory_bytes_max / u64::from(self.loops)
    }

    /// Descriptors together.
    #[must_use]
    pub fn descriptors_sum(&self) -> u64 {
        self.descriptors.iter().map(|item| item.count).sum()
    }

    /// Memory together, bytes.
    #[must_use]
    pub fn memory_sum(&self) -> u64 {
        self.memory.iter().map(|item| item.count).sum()
    }
}

/// How many connections, and whether they are fewer than there would be without the descriptor limit. With `--files-root` each may hold
/// a file besides its socket.
fn fit(config: &Config, machine: Machine, reserved: u64) -> Result<(u32, bool), String> {
    let fit = |wanted, files| {
        let room = fit_connections(wanted, machine.descriptors_max, reserved + files);
        room.map_err(|e| format!("--connections-max: {e}"))
    };
    let has_files = config.files_root.is_some();
    match config.connections_max {
        Some(wanted) => Ok((fit(Some(wanted), if has_files { u64::from(wanted) } else { 0 })?, false)),
        None => {
            let room = fit(None, 0)?;
            let room = if has_files { room / 2 } else { room };
            Ok((room.min(CONNECTIONS_MAX), room < CONNECTIONS_MAX))
        }
    }
}

fn item(what: impl Into<String>, count: u64, reason: &'static str) -> Item {
    Item { what: what.into(), count, reason }
}

fn descriptors_beside_connections(config: &Config) -> Vec<Item> {
    let (loops, workers) = (u64::from(config.loops), u64::from(config.pool.threads));
    let refusals = u64::from(config.reactor.limits.refusals_max);
    // Inherited, there is one socket; then this is a few too many.
    let more_listeners = config.listen.len().saturating_sub(1) as u64;
    let mut items = vec![
        item(format!("refusals ({loops} loops x {refusals})"), loops * refusals, "accepted beyond the limit, only to be told so"),
        item(format!("loops ({loops} x {DESCRIPTORS_PER_LOOP})"), loops * DESCRIPTORS_PER_LOOP, "epoll, timer, waker, spare, listener"),
        item(
            "admin port",
            u64::from(ADMIN_CONNECTIONS_MAX + ADMIN_REFUSALS_MAX) + DESCRIPTORS_PER_LOOP,
            "its connections, refusals and its own loop",
        ),
        item(
            format!("workers ({workers} x {DESCRIPTORS_PER_WORKER})"),
            workers * DESCRIPTORS_PER_WORKER,
            "the way to a file, or the sockets of a name resolver",
        ),
        item("reserve", DESCRIPTORS_RESERVED, "standard streams, signals, /proc, libraries, whoever inspects the process"),
    ];
    if more_listeners > 0 {
        let what = format!("listeners ({loops} loops x {more_listeners})");
        items.insert(2, item(what, loops * more_listeners, "a socket of each loop for each further --listen"));
    }
    items
}

fn memory(config: &Config, machine: Machine, connections_max: u32) -> Vec<Item> {
    let limits = &config.reactor.limits;
    let loops = u64::from(config.loops);
    let slots = u64::from(connections_max) + loops * u64::from(limits.refusals_max);
    let mail_bytes = size_of::<Mail>() as u64 + MESSAGE_OVERHEAD_BYTES;
    let threads = loops + u64::from(config.pool.threads) + OTHER_THREADS;
    let mut items = vec![
        item("buffers", config.buffer_memory_bytes_max, "unfinished input and unsent output; --buffer-memory-max"),
        item(
            "scratch",
            loops * 3 * u64::from(limits.buffer_bytes_max),
            "each loop: one to read into, one to write from, one lease in hand",
        ),
        item("bodies", config.http.memory.bodies_bytes_max, "request bodies in memory and in jobs; --body-memory-max"),
        item("responses", config.http.memory.responses_bytes_max, "job outputs and responses not sent yet; --response-memory-max"),
        item("requests in flight", u64::from(connections_max) * EXCHANGE_BYTES, "1 KiB each, next to bodies and responses"),
        item("connections", slots * CONNECTION_BYTES, "slot, protocol state and timer link: at most 192 bytes each"),
        item("mailboxes", loops * u64::from(limits.mail_max) * mail_bytes, "room for the result of every job in flight, in each loop"),
        item("job queue", u64::from(config.pool.limits.queue_jobs_max) * JOB_BYTES, "waiting jobs; --queue-jobs-max"),
        item(
            "admin port",
            4 * (64 << 10) + ADMIN_RESPONSES_BYTES_MAX + (1 << 20),
            "its buffers, pages that wait for their readers, and one in the making",
        ),
        item(format!("stacks of {threads} threads"), threads * STACK_BYTES, "what is touched of 2 MiB each"),
        item("program", PROGRAM_BYTES, "code, tables, log queue"),
    ];
    if machine.limits_address_space() {
        let reserved_bytes = threads * (STACK_RESERVED_BYTES - STACK_BYTES) + PROGRAM_RESERVED_BYTES;
        items.push(item("address space", reserved_bytes, "stacks, code and libraries that are not resident; RLIMIT_AS counts them"));
    }
    items.extend(config.service_budgets.iter().map(|budget| item(budget.name(), budget.bytes_max(), budget.reason())));
    items
}

/// Rounded up, for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 { Size(bytes.next_multiple_of(1 << 10)).to_string() } else { format!("{}MiB", bytes.div_ceil(1 << 20)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LARGE: Machine = Machine { descriptors_max: 1 << 20, memory_bytes_max: 1 << 40, memory_source: "a test" };

    proptest! {
        #[test]
        fn whatever_fits_adds_up_to_no_more_than_there_is(
            loops in 1..9u32,
            wanted in proptest::option::of(1..2_000_000u32),
            has_files: bool,
            descriptors_max in 0..1_100_000u64,
            memory_bytes_max in 0..1u64 << 33,
        ) {
            let files_root = has_files.then(|| "/".into());
            let config = Config { loops, connections_max: wanted, files_root, ..Config::default() };
            let machine = Machine { descriptors_max, memory_bytes_max, memory_source: "a test" };
            if let Ok(budget) = Budget::of(&config, machine) {
                prop_assert!(budget.descriptors_sum() <= descriptors_max);
                prop_assert!(budget.memory_sum() <= memory_bytes_max);
                prop_assert!(wanted.is_none_or(|wanted| wanted == budget.connections_max));
                let shares: Vec<u32> = (0..loops).map(|index| budget.connections_of(index)).collect();
                prop_assert_eq!(shares.iter().sum::<u32>(), budget.connections_max);
                prop_assert!(shares.iter().all(|share| *share > 0));
            }
        }
    }

    #[test]
    fn without_a_number_the_connections_are_cut_to_what_fits() {
        let roomy = Budget::of(&Config::default(), LARGE).expect("it fits");
        assert_eq!((roomy.connections_max, roomy.cut), (CONNECTIONS_MAX, false));
        let tight = Budget::of(&Config::default(), Machine { descriptors_max: 1024, ..LARGE }).expect("it fits");
        assert!(tight.cut && tight.connections_max < 1024);
        assert_eq!(tight.descriptors_sum(), 1024, "all of them have a purpose");
        let with_files = Config { files_root: Some("/".into()), ..Config::default() };
        let half = Budget::of(&with_files, Machine { descriptors_max: 1024, ..LARGE }).expect("it fits");
        assert_eq!(half.connections_max, tight.connections_max / 2, "a socket and a file each");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_figures() {
        let many = Config { connections_max: Some(5000), ..Config::default() };
        let error = Budget::of(&many, Machine { descriptors_max: 4096, ..LARGE }).expect_err("it does not fit");
        assert!(error.contains("--connections-max") && error.contains("5000") && error.contains("4096"), "{error}");
        let error = Budget::of(&Config::default(), Machine { memory_bytes_max: 32 << 20, ..LARGE }).expect_err("it does not fit");
        assert!(error.contains("--buffer-memory-max") && error.contains("32MiB"), "{error}");
        let error = Budget::of(&Config::default(), Machine { descriptors_max: 64, ..LARGE }).expect_err("it does not fit");
        assert!(error.contains("64"), "{error}");
    }
}
