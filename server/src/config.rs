//! All limits and choices of the loops, the pool, HTTP and the process.
//!
//! Each number is documented at its own type (`reactor::Limits`, `worker_pool::Limits`, `http::HttpLimits`). This file says how the command line sets
//! them and which combinations are valid. Read next: `budget.rs`, which checks that they fit the machine.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use reactor::listen::socket::ListenAddress;

use crate::args::Args;
use crate::body_rate::BodyRateMin;
use crate::cgroup::{self, Limit};
use crate::connection::HttpSettings;
use crate::ledger::{MemoryBudget, MemoryLimits};
use crate::shutdown::ShutdownPolicy;

/// All choices and limits of a server. The default contains no deliberate mistake.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the service listens: 1 to [`LISTENERS_MAX`] addresses, which share one budget.
    pub listen: Vec<ListenAddress>,
    /// Whether a listener on `[::]` serves IPv6 only. If not, it serves IPv4 too.
    pub ipv6_only: bool,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    /// Number of event loops.
    pub loops: u32,
    /// Open connections of all loops together. `None`: the number that fits the machine, at most [`CONNECTIONS_MAX`].
    pub connections_max: Option<u32>,
    /// Bytes of unfinished input and unsent output of all loops together.
    pub buffer_memory_bytes_max: u64,
    /// One loop's limits and choices. `budget.rs` sets its `connections_max` and `buffer_memory_bytes_max` to the loop's share.
    pub reactor: reactor::Config,
    /// The worker pool's limits and choices.
    pub pool: worker_pool::Config,
    /// HTTP's limits and choices.
    pub http: HttpSettings,
    /// What happens to open connections on SIGTERM.
    pub shutdown: ShutdownPolicy,
    /// Delay between failing `/readyz` and starting to drain on SIGTERM. A load balancer sends clients until its checks have seen `/readyz` fail; a
    /// listener that closes earlier refuses them. HAProxy calls this `grace`. 0 is for a server without such checks.
    pub shutdown_delay: Duration,
    /// How long the server then waits for requests in flight. Kubernetes kills after 30 s (`terminationGracePeriodSeconds`), systemd after 90 s
    /// (`TimeoutStopSec`). Both count from the signal and so include the delay. 10 s is within both.
    pub shutdown_grace: Duration,
    /// The directory of `GET /files/PATH`.
    pub files_root: Option<PathBuf>,
    /// Budgets of the service's own memory; see [`Config::memory_budget`].
    pub service_budgets: Vec<Arc<MemoryBudget>>,
    /// Deliberate mistakes that are on, by slug.
    pub mistakes: Vec<&'static str>,
}

/// Upper bound of the default `connections_max`: what one loop has been measured with. Containers often allow a million descriptors, and a default
/// should not reserve a slot table for all of them.
pub const CONNECTIONS_MAX: u32 = 10_000;

/// Largest number of addresses to listen on. A service has one for each network that it is on. Each address costs every loop a descriptor.
pub const LISTENERS_MAX: usize = 16;

/// Mailbox slots for mail other than completions of jobs: connections that another loop hands over. Without a free slot the accepting loop keeps the
/// connection, so this bounds a burst and no connection is lost. The memory of each slot is allocated at the start.
const MAIL_BESIDE_JOBS: u32 = 1024;

/// Mailbox slots for completions when the pool has no limit. A test of such a pool cannot fill them, so the mailbox does not reject first and hide
/// the pool's queue. About 40 MiB.
const MAIL_OF_UNBOUNDED_JOBS: u32 = 1 << 18;

/// max(1, cores / 2): the workers use the other half.
#[must_use]
pub fn default_loops() -> u32 {
    (cores() / 2).max(1)
}

/// max(2, cores − loops): with two workers, one of them does not run slow jobs.
#[must_use]
pub fn default_workers() -> u32 {
    cores().saturating_sub(default_loops()).max(2)
}

fn cores() -> u32 {
    cpus().0
}

/// The number of CPUs that this process can use, at most 1024, and the CPU quota if that decides (`cgroup.rs`). Read once, so the defaults do not
/// change.
#[must_use]
pub fn cpus() -> &'static (u32, Option<Limit>) {
    static CPUS: OnceLock<(u32, Option<Limit>)> = OnceLock::new();
    CPUS.get_or_init(|| {
        let affinity = thread::available_parallelism().map_or(1, NonZero::get);
        cgroup::cpus(Path::new(cgroup::SYSTEM), u32::try_from(affinity).unwrap_or(1).min(1024))
    })
}

impl Default for Config {
    fn default() -> Config {
        let mut config = Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080)).into()],
            ipv6_only: false,
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            loops: default_loops(),
            connections_max: None,
            buffer_memory_bytes_max: 64 << 20,
            reactor: reactor::Config::default(),
            pool: worker_pool::Config::with(|pool| pool.threads = default_workers()),
            http: HttpSettings::default(),
            shutdown: ShutdownPolicy::default(),
            shutdown_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(10),
            files_root: None,
            service_budgets: Vec::new(),
            mistakes: Vec::new(),
        };
        config.derive();
        config
    }
}

impl Config {
    /// The configuration that the command line asks for, with the deliberate mistakes that it names.
    ///
    /// # Errors
    /// One sentence that names the flag, its value and what is allowed.
    pub fn from_args(args: &Args) -> Result<Config, String> {
        let mut config = Config {
            listen: args.listen.clone(),
            ipv6_only: args.ipv6_only,
            admin: args.admin,
            loops: args.loops,
            connections_max: args.connections_max,
            buffer_memory_bytes_max: args.buffer_memory_max.0,
            shutdown_delay: args.shutdown_delay.0,
            shutdown_grace: args.shutdown_grace.0,
            files_root: args.files_root.clone(),
            ..Config::default()
        };
        let buffer_bytes_max = in_range("--buffer-bytes-max", args.buffer_bytes_max, 4 << 10, 16 << 20)?;
        // A head is parsed in one piece, so it must fit one buffer.
        let head_bytes_max = in_range("--header-bytes-max", args.header_bytes_max, 64, buffer_bytes_max)?;

        config.reactor.policy.sharing = args.listener_sharing.into();
        config.reactor.policy.half_close = args.half_close.into();
        config.http.half_close = args.half_close.into();
        config.reactor.policy.when_nearly_full = args.when_nearly_full.into();
        let limits = &mut config.reactor.limits;
        limits.buffer_bytes_max = buffer_bytes_max;
        limits.output_high_water_bytes = limits.output_high_water_bytes.min(buffer_bytes_max);
        limits.output_low_water_bytes = limits.output_low_water_bytes.min(limits.output_high_water_bytes / 4);
        limits.kernel_unsent_bytes_max = match args.send_buffer_max.0 {
            Some(bytes) => Some(in_range("--send-buffer-max", crate::units::Size(bytes), 4 << 10, 1 << 30)?),
            None => None,
        };
        limits.output_rate_min = in_range("--response-rate-min", args.response_rate_min, 0, u32::MAX)?;
        limits.output_rate_window = args.response_rate_window.0;
        limits.accept_pause = args.accept_pause.0;

        let http = &mut config.http;
        http.limits.head_bytes_max = head_bytes_max;
        http.limits.target_bytes_max = http.limits.target_bytes_max.min(head_bytes_max);
        http.limits.body_bytes_max = args.body_bytes_max.0;
        http.timeouts.header = args.header_timeout.0;
        http.connections_per_source_max = args.connections_per_source_max;
        http.body_rate_min = BodyRateMin { bytes_per_second: args.body_rate_min.0, window: args.body_rate_window.0 };
        http.memory = MemoryLimits { bodies_bytes_max: args.body_memory_max.0, responses_bytes_max: args.response_memory_max.0 };
        http.timeouts.idle = args.idle_timeout.0;
        http.timeouts.request = args.request_timeout.map(|time| time.0);
        // A result that arrives after the request has timed out cannot be sent.
        http.job_deadline = args.request_timeout.map_or(args.job_deadline.0, |time| args.job_deadline.0.min(time.0));

        args.pool.apply(&mut config.pool);
        config.derive();

        #[cfg(feature = "mistakes")]
        for slug in &args.mistake {
            crate::demo::mistakes::switch_on(slug, &mut config)?;
        }
        // A mistake may have changed a number that `derive` reads.
        config.derive();
        config.check()?;
        Ok(config)
    }

    /// Adds a budget for memory that the service holds itself, such as the values of a store. `--check` includes its limit in the sum. The metrics
    /// show its use as `name`. `reason` says in a few words what the memory is for.
    pub fn memory_budget(&mut self, name: &'static str, bytes_max: u64, reason: &'static str) -> Arc<MemoryBudget> {
        let budget = MemoryBudget::new(name, bytes_max, reason);
        self.service_budgets.push(Arc::clone(&budget));
        budget
    }

    /// Sets the limits that follow from other limits.
    fn derive(&mut self) {
        // A job may wait in the queue for half of its deadline. The other half is for the job itself, and for jobs ahead of it that take longer than
        // usual.
        let wait = &mut self.pool.limits;
        wait.wait_max = wait.wait_max.min(self.http.job_deadline / 2);
        wait.standing_wait_max = wait.standing_wait_max.min(wait.wait_max);
        // Each admitted job reserves a mailbox slot for its completion, in the loop that submitted it. One loop may have submitted all jobs in
        // flight.
        let rules = worker_pool::ResolvedConfig::of(&self.pool);
        let jobs_in_flight_max = if rules.unbounded() { MAIL_OF_UNBOUNDED_JOBS } else { rules.in_flight_max };
        self.reactor.limits.mail_max = jobs_in_flight_max.saturating_add(MAIL_BESIDE_JOBS);
    }

    /// Checks that the parts fit each other. `budget.rs` checks that they fit the machine.
    ///
    /// # Errors
    /// One sentence that names the value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() || self.listen.len() > LISTENERS_MAX {
            return Err(format!("--listen is given {} times; 1 to {LISTENERS_MAX} addresses are allowed", self.listen.len()));
        }
        let takes_free_port = |address: &ListenAddress| matches!(address, ListenAddress::Ip(address) if address.port() == 0);
        let is_twice = |(at, address): &(usize, &ListenAddress)| !takes_free_port(address) && self.listen[..*at].contains(address);
        if let Some((_, twice)) = self.listen.iter().enumerate().find(is_twice) {
            return Err(format!("--listen has {twice} twice; each address is allowed once"));
        }
        if let Some(connections_max) = self.connections_max.filter(|wanted| *wanted < self.loops) {
            return Err(format!("--connections-max is {connections_max}; each of the {} loops needs at least one", self.loops));
        }
        let least = u64::from(self.loops) * 4 * u64::from(self.reactor.limits.buffer_bytes_max);
        if self.buffer_memory_bytes_max < least {
            return Err(format!(
                "--buffer-memory-max is {}; at least {} are needed: 4 buffers of --buffer-bytes-max for each of {} loops",
                crate::units::Size(self.buffer_memory_bytes_max),
                crate::units::Size(least),
                self.loops
            ));
        }
        if let Some(root) = &self.files_root
            && !root.is_dir()
        {
            return Err(format!("--files-root is {}; it must be a directory", root.display()));
        }
        self.one_loop(1, 4 * u64::from(self.reactor.limits.buffer_bytes_max)).check().map_err(|e| e.to_string())?;
        self.pool.check().map_err(|e| e.to_string())
    }

    /// The configuration of one loop with its share of connections and buffer memory.
    #[must_use]
    pub fn one_loop(&self, connections_max: u32, buffer_memory_bytes_max: u64) -> reactor::Config {
        let mut config = self.reactor.clone();
        config.limits.connections_max = connections_max;
        // Of a small limit at most an eighth is kept free, so that idle connections can use most of it.
        config.limits.free_slots_min = config.limits.free_slots_min.min(connections_max / 8);
        // The connections accepted in two turns must fit the free slots: the loop evicts for those of one turn in the next turn.
        config.limits.accepts_per_turn_max = config.limits.accepts_per_turn_max.min((config.limits.free_slots_min / 2).max(1));
        config.limits.buffer_memory_bytes_max = usize::try_from(buffer_memory_bytes_max).unwrap_or(usize::MAX);
        config
    }
}

fn in_range(flag: &str, size: crate::units::Size, least: u32, most: u32) -> Result<u32, String> {
    match u32::try_from(size.0) {
        Ok(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "{flag} is {size}; {} to {} are allowed",
            crate::units::Size(u64::from(least)),
            crate::units::Size(u64::from(most))
        )),
    }
}
