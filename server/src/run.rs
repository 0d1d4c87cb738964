//! Runs a server from the command line to the exit code: what starts, in which order, and what stops it.
//!
//! Read next: `config.rs` and `budget.rs` (checks before anything starts), `shutdown.rs` (the end).

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use reactor::listen::HandOffTarget;
use reactor::listen::socket::{ListenOptions, ListenSocket, listen};
use reactor::{EventLoop, Handle, LinuxListener, ListenerWakes};
use worker_pool::{Pool, StartError, Submitter};

use crate::activation::Inherited;
use crate::admin::{self, AdminService};
use crate::args::{self, Args};
use crate::budget::{Budget, Machine};
use crate::check;
use crate::complaint::complain;
use crate::config::Config;
use crate::connection::{HttpHandler, HttpSettings};
use crate::dispatch::{Mail, RequestJob};
use crate::http_stats::HttpStats;
use crate::ledger::Ledger;
use crate::listeners::Listeners;
use crate::logging;
use crate::monitor::{LoopView, Monitor};
use crate::probe::{Without, probes};
use crate::service::Service;
use crate::shutdown::{self, Event};
use crate::source_limit::SourceLimit;
use crate::startup_log::{listening, log_settings};
use crate::watchdog::{LoopWatch, Watchdog};

/// The exit code of a failure at run time: a port in use, a loop that ended.
pub const RUNTIME: u8 = 1;
/// The exit code of a wrong flag, or of limits that do not fit.
pub const USAGE: u8 = 2;

/// Runs a whole program around a service and returns the exit code. `args` are those of `main`, with the program's name first.
///
/// `service` gets the configuration, may change it, and returns a constructor. The constructor is called once on each loop's own thread, so loops
/// share no service. `--check` calls `service` too, because a service may have memory budgets ([`Config::memory_budget`]). Call this at most once in
/// a process: it installs the signal handlers, the logger and the panic hook.
///
/// ```no_run
/// # use server::{answer::Answer, http::{Request, Response}, service::Service};
/// # struct Hello;
/// # impl Service for Hello {
/// #     fn call(&mut self, _: &Request<'_>, _: std::time::Instant) -> Answer { Response::text("hello").into() }
/// # }
/// fn main() -> std::process::ExitCode {
///     server::run::program(std::env::args_os(), |_config| || Hello)
/// }
/// ```
pub fn program<S, M>(args: impl IntoIterator<Item = OsString>, service: impl FnOnce(&mut Config) -> M) -> ExitCode
where
    S: Service + 'static,
    M: Fn() -> S + Clone + Send + 'static,
{
    let args: Vec<OsString> = args.into_iter().collect();
    let name = args::program_name(&args);
    let args = match args::parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match start(&args, service) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&name, &args.sources.named(&failure.complaint));
            ExitCode::from(failure.code)
        }
    }
}

/// Why a server did not start, or stopped with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One line.
    pub complaint: String,
}

impl Failure {
    fn usage(complaint: impl Display) -> Failure {
        Failure { code: USAGE, complaint: complaint.to_string() }
    }

    fn runtime(complaint: impl Display) -> Failure {
        Failure { code: RUNTIME, complaint: complaint.to_string() }
    }
}

fn start<S, M>(args: &Args, service: impl FnOnce(&mut Config) -> M) -> Result<(), Failure>
where
    S: Service + 'static,
    M: Fn() -> S + Clone + Send + 'static,
{
    #[cfg(feature = "mistakes")]
    if args.list_mistakes {
        print(&crate::demo::mistakes::list());
        return Ok(());
    }
    let mut config = Config::from_args(args).map_err(Failure::usage)?;
    let make_service = service(&mut config);
    if args.check {
        let inherited = Inherited::take().map_err(Failure::usage)?;
        let budget = Budget::of(&config, Machine::prepare().map_err(Failure::runtime)?);
        print(&check::report(&config, &args.sources, &inherited, &budget));
        return budget.map(drop).map_err(Failure::usage);
    }
    serve(&config, make_service)
}

/// Prints to stdout. Ignores errors: a closed stdout does not stop the server.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// Serves until a signal or a failed loop stops the server. `make_service` is called once on each loop's own thread, so loops share no service.
///
/// Call this before the program opens descriptors or starts threads: it takes the listening sockets that the process inherited (`activation.rs`). It
/// binds `config.listen` and `config.admin` only where no socket was inherited.
///
/// # Errors
/// The exit code and one line: limits that do not fit, inherited descriptors that are not listening sockets, a port in use, a thread that cannot be
/// started, a loop that failed.
pub fn serve<S, M>(config: &Config, make_service: M) -> Result<(), Failure>
where
    S: Service + 'static,
    M: Fn() -> S + Clone + Send + 'static,
{
    let inherited = Inherited::take().map_err(Failure::usage)?;
    config.check().map_err(Failure::usage)?;
    let machine = Machine::prepare().map_err(Failure::runtime)?;
    let budget = Budget::of(config, machine).map_err(Failure::usage)?;
    for probe in probes(config.files_root.is_some()) {
        if let (Without::CannotStart, Some(complaint)) = (probe.without, probe.complaint()) {
            return Err(Failure::runtime(complaint));
        }
    }
    crate::sys::set_up_allocator(budget.machine.limits_address_space());
    let (events, ended) = channel();
    // Before the ports are bound: a parent that reads the first line on stdout may send a signal immediately.
    let monitored = Arc::new(OnceLock::<Arc<Monitor>>::new());
    let dump = {
        let monitored = Arc::clone(&monitored);
        move || match monitored.get() {
            Some(monitor) => admin::log_state(monitor),
            None => log::info!("there is no state yet: the server is starting"),
        }
    };
    shutdown::listen_for_signals(events.clone(), dump).map_err(Failure::runtime)?;
    let is_inherited = (inherited.http.is_some(), inherited.admin.is_some());
    let listeners = match inherited.http {
        Some(socket) => Listeners::inherit(socket, config.loops, config.reactor.policy),
        None => Listeners::bind(&config.listen, config.ipv6_only, config.loops, config.reactor.policy),
    };
    let listeners = listeners.map_err(Failure::runtime)?;
    let admin_options = ListenOptions { ipv6_only: config.ipv6_only, ..ListenOptions::default() };
    let admin_listener = inherited.admin.map_or_else(|| listen(config.admin, admin_options), Ok).map_err(Failure::runtime)?;
    let listening = listening(&listeners.addresses, admin_listener.local_addr().map_err(Failure::runtime)?);

    let log = logging::start().map_err(Failure::runtime)?;
    log_settings(config, &budget);
    if is_inherited != (false, false) {
        log::info!("listening sockets were inherited http={} admin={}", is_inherited.0, is_inherited.1);
    }
    let pool = Pool::start(config.pool.clone()).map_err(|e| match e {
        StartError::Thread { name, source } => Failure::runtime(crate::thread::cannot_start(&name, &source)),
        e => Failure::usage(e),
    })?;

    let ledger = Arc::new(Ledger::new(config.http.memory, config.service_budgets.clone()));
    let (handles, views) = start_loops(config, &budget, listeners, &pool, &ledger, &make_service, &events).map_err(Failure::runtime)?;
    drop(events);

    let monitor = Arc::new(Monitor {
        started_at: SystemTime::now(),
        started: Instant::now(),
        loops: views,
        pool: pool.stats(),
        log: log.stats(),
        mistakes: config.mistakes.clone(),
        connections_max: budget.connections_max,
        ledger,
        draining: AtomicBool::new(false),
    });
    let _ = monitored.set(Arc::clone(&monitor));
    let _watchdog = Watchdog::start(Arc::clone(&monitor)).map_err(Failure::runtime)?;
    let admin = start_admin(admin_listener, pool.submitter(), Arc::clone(&monitor)).map_err(Failure::runtime)?;
    log::info!("{listening}");
    print(&format!("{listening}\n"));

    let ending = shutdown::Ending { policy: config.shutdown, delay: config.shutdown_delay, grace: config.shutdown_grace };
    let outcome = shutdown::wait_and_drain(&ended, &handles, &monitor, ending);
    // The loops have finished or the grace has passed: no client waits for a job any more. Running jobs get at most `POOL_GRACE`.
    let report = pool.shutdown(POOL_GRACE.min(config.shutdown_grace));
    log::info!("ended jobs_dropped={} worker_threads_left={}", report.jobs_dropped, report.threads_left);
    // The admin port finishes the responses in progress within the rest of the grace.
    let grace_left = || outcome.grace_ends.saturating_duration_since(Instant::now());
    admin.shut_down(grace_left());
    if !admin.wait(grace_left()) {
        log::debug!("the admin port was not done at the end of the grace");
    }
    drop(log);
    outcome.result.map_err(Failure::runtime)
}

/// Time for jobs that still run at shutdown. Their connections are closed already.
const POOL_GRACE: Duration = Duration::from_secs(1);

type Started = (Vec<Handle>, Vec<LoopView>);

fn start_loops<S, M>(
    config: &Config,
    budget: &Budget,
    listeners: Listeners,
    pool: &Pool<RequestJob>,
    ledger: &Arc<Ledger>,
    make_service: &M,
    events: &Sender<Event>,
) -> io::Result<Started>
where
    S: Service + 'static,
    M: Fn() -> S + Clone + Send + 'static,
{
    let Listeners { mut of_loops, hand_off, inherited, .. } = listeners;
    let sources = config.http.connections_per_source_max.map(|max| Arc::new(SourceLimit::new(max)));
    let mut started = Vec::new();
    let mut receivers = Vec::new();
    // In reverse order: loop 0 hands connections to all other loops, so their receivers must exist first.
    for index in (0..config.loops).rev() {
        let plan = Plan {
            name: format!("loop-{index}"),
            config: config.one_loop(budget.connections_of(index), budget.buffer_memory_of_one_loop()),
            http: config.http.clone(),
            listeners: of_loops.pop().unwrap_or_default(),
            inherited,
            pool: pool.submitter(),
            sources: sources.clone(),
            ledger: Some(Arc::clone(ledger)),
            receivers: if index == 0 && hand_off { std::mem::take(&mut receivers) } else { Vec::new() },
        };
        let (name, events) = (plan.name.clone(), events.clone());
        let (handle, view, receiver) = start_loop(plan, make_service.clone(), move |result| {
            // Sending fails only while the process exits, when the receiver has been dropped.
            let _ = events.send(Event::LoopEnded { name, result });
        })?;
        started.push((handle, view));
        receivers.push(receiver);
    }
    Ok(started.into_iter().rev().unzip())
}

/// What one loop needs to start.
struct Plan {
    name: String,
    config: reactor::Config,
    http: HttpSettings,
    listeners: Vec<(ListenSocket, ListenerWakes)>,
    inherited: bool,
    pool: Submitter<RequestJob>,
    sources: Option<Arc<SourceLimit>>,
    /// The ledger that all loops share. `None`: the handler has its own.
    ledger: Option<Arc<Ledger>>,
    /// The loops that this loop hands connections to.
    receivers: Vec<HandOffTarget<Mail>>,
}

impl Plan {
    fn build<S: Service>(self, service: S, http_stats: Arc<HttpStats>) -> io::Result<EventLoop<HttpHandler<S>>> {
        let mut handler = HttpHandler::new(service, self.http, self.pool, http_stats);
        handler.share_sources(self.sources);
        if let Some(ledger) = self.ledger {
            handler.share_ledger(ledger);
        }
        let mut event_loop = EventLoop::new(self.config, handler)?;
        let mailer = event_loop.mailer();
        event_loop.handler_mut().set_mailer(mailer);
        for (listener, wakes) in self.listeners {
            let listener = LinuxListener::new(listener)?;
            if self.inherited {
                event_loop.listen_on_inherited(listener, wakes)?;
            } else {
                event_loop.listen_on(listener, wakes)?;
            }
        }
        event_loop.hand_off_to(self.receivers);
        Ok(event_loop)
    }
}

/// The scheduler's slice of a loop's thread. A loop wakes for some microseconds of work. With a short slice it runs immediately; otherwise it waits
/// for the slice of the worker on its core (1.4 to 3 ms). Niceness alone does not make a thread preempt another since Linux 6.6 (EEVDF). This is the
/// shortest slice that the kernel allows. Measured: docs/numbers.md, "Overload".
pub const LOOP_SLICE: Duration = Duration::from_micros(100);

/// Starts a loop on its own thread. The loop is built there, so its handler need not be `Send`.
fn start_loop<S, M>(
    plan: Plan,
    make_service: M,
    at_its_end: impl FnOnce(io::Result<()>) + Send + 'static,
) -> io::Result<(Handle, LoopView, HandOffTarget<Mail>)>
where
    S: Service + 'static,
    M: FnOnce() -> S + Send + 'static,
{
    let name = plan.name.clone();
    let http = Arc::new(HttpStats::default());
    let (ready, started) = sync_channel(1);
    let (thread_name, http_stats) = (name.clone(), Arc::clone(&http));
    crate::thread::start(&name, move || {
        if let Err(e) = crate::thread::ask_for_slices(LOOP_SLICE) {
            log::debug!("{thread_name} keeps the usual slices: {e}");
        }
        let built = plan.build(make_service(), http_stats).and_then(|mut event_loop| Ok((event_loop.receiver()?, event_loop)));
        let (receiver, event_loop) = match built {
            Ok(built) => built,
            Err(e) => return drop(ready.send(Err(io::Error::new(e.kind(), format!("{thread_name}: {e}"))))),
        };
        let tid = crate::process::this_thread();
        let _ = ready.send(Ok((event_loop.handle(), event_loop.stats(), receiver, tid)));
        at_its_end(event_loop.run().map(drop));
    })?;
    let (handle, stats, receiver, tid) = started.recv().map_err(|_| io::Error::other(format!("{name} ended before it began")))??;
    Ok((handle, LoopView { name, tid, stats, http, watch: LoopWatch::default() }, receiver))
}

fn start_admin(listener: TcpListener, pool: Submitter<RequestJob>, monitor: Arc<Monitor>) -> io::Result<Handle> {
    let plan = Plan {
        name: "admin".to_owned(),
        config: admin::reactor_config(),
        http: admin::http_settings(),
        listeners: vec![(listener.into(), ListenerWakes::All)],
        inherited: false, // The admin loop drains last, and answers the clients in its accept queue.
        pool,
        sources: None,
        ledger: None,
        receivers: Vec::new(),
    };
    let (handle, ..) = start_loop(
        plan,
        move || AdminService::new(monitor),
        |result| {
            if let Err(e) = result {
                log::error!("admin ended: {e}");
            }
        },
    )?;
    Ok(handle)
}
