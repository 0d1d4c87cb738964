//! The admin port: `/metrics`, `/healthz`, `/readyz`, `/debug/state`. It has its own thread and loop, so that it can report a stalled loop.
//!
//! The HTTP handler is the same as for the service. Only the service behind it differs, and no deliberate mistake affects it. Read next:
//! `metrics.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::{AcceptError, CloseReason};
use serde_json::{Value, json};
use worker_pool::{OutcomeKind, Reason};

use crate::answer::Answer;
use crate::budget::{ADMIN_CONNECTIONS_MAX, ADMIN_REFUSALS_MAX, ADMIN_RESPONSES_BYTES_MAX as RESPONSES_BYTES_MAX};
use crate::connection::{HttpSettings, Timeouts};
use crate::http::{Method, Request, Response};
use crate::ledger::{MemoryBudget, MemoryLimits};
use crate::metrics::{LOOP_COUNTERS, Metrics};
use crate::metrics_format::Format;
use crate::monitor::{LoopView, Monitor};
use crate::process;
use crate::service::Service;

/// The response to `/`.
const INDEX: &str = "/metrics      counters and histograms: OpenMetrics for a scraper that asks for it, else Prometheus text 0.0.4
/healthz      200 while the process lives
/readyz       200 while new clients are welcome, 503 while the server shuts down, or when no worker thread lives
/debug/state  loops, pool, process and threads, JSON
";

/// The service of the admin port.
#[derive(Debug)]
pub struct AdminService {
    monitor: Arc<Monitor>,
    metrics: Metrics,
}

impl AdminService {
    /// A service that shows the state of one server.
    #[must_use]
    pub fn new(monitor: Arc<Monitor>) -> AdminService {
        AdminService { metrics: Metrics::new(Arc::clone(&monitor)), monitor }
    }
}

impl Service for AdminService {
    fn call(&mut self, request: &Request<'_>, _now: Instant) -> Answer {
        let response = match request.path {
            "/" => Response::text(INDEX),
            "/healthz" => Response::text("ok\n"),
            "/readyz" if self.monitor.is_draining() => Response::text("draining\n").status(503),
            // Only a bug in this crate ends a worker. Without workers each job would hang, and the loops would look healthy.
            "/readyz" if self.monitor.pool.threads_alive() == 0 => Response::text("no worker lives\n").status(503),
            "/readyz" => Response::text("ready\n"),
            "/metrics" => {
                let format = Format::accepted(request.header_text("Accept").unwrap_or_default());
                match self.metrics.page(format) {
                    Ok(page) => Response::text(page).content_type(format.content_type()),
                    Err(e) => Response::text(format!("{e}\n")).status(500),
                }
            }
            "/debug/state" => Response::text(format!("{:#}\n", state(&self.monitor))).content_type("application/json"),
            _ => Response::text("not found; / lists what there is\n").status(404),
        };
        match request.method {
            Method::Get | Method::Head => Answer::Now(response.with_header("Cache-Control", "no-store")),
            _ => Answer::Now(Response::text("only GET and HEAD\n").status(405).with_header("Allow", "GET, HEAD")),
        }
    }
}

/// The configuration of the admin port's loop: no deliberate mistakes, and small limits.
#[must_use]
pub fn reactor_config() -> reactor::Config {
    reactor::Config::with(|config| {
        config.limits.connections_max = ADMIN_CONNECTIONS_MAX;
        config.limits.refusals_max = ADMIN_REFUSALS_MAX;
        config.limits.buffer_memory_bytes_max = 4 * (64 << 10);
        config.limits.mail_max = 1; // It has no jobs.
    })
}

/// The admin port's settings. After the other loops have finished, a scraper's idle connection delays the exit by at most `drain_idle`. That is long
/// enough to read a request that is already in the socket's receive buffer.
#[must_use]
pub fn http_settings() -> HttpSettings {
    let timeouts = Timeouts { drain_idle: Duration::from_millis(20), ..Timeouts::default() };
    // A few dozen pages whose clients do not read. Beyond that a page gets 503. Probes still get their response of one line.
    let memory = MemoryLimits { bodies_bytes_max: 0, responses_bytes_max: RESPONSES_BYTES_MAX };
    HttpSettings { timeouts, memory, ..HttpSettings::default() }
}

/// Logs what `/debug/state` shows: a line of JSON for each loop, for each eight threads, and for the rest. A single line could be longer than
/// [`crate::logging::LINE_BYTES_MAX`].
pub(crate) fn log_state(monitor: &Monitor) {
    let mut state = state(monitor);
    let mut list = |name: &str| match state.get_mut(name).map(Value::take) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let (loops, threads) = (list("loops"), list("threads"));
    if let Some(fields) = state.as_object_mut() {
        fields.remove("loops");
        fields.remove("threads");
    }
    log::info!("state {state}");
    for view in loops {
        log::info!("state {}", json!({ "loops": [view] }));
    }
    for threads in threads.chunks(8) {
        log::info!("state {}", json!({ "threads": threads }));
    }
}

fn state(monitor: &Monitor) -> Value {
    let now = Instant::now();
    let pool = &monitor.pool;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": now.saturating_duration_since(monitor.started).as_secs_f64(),
        "draining": monitor.is_draining(),
        "mistakes": monitor.mistakes,
        "connections_max": monitor.connections_max,
        "loops": monitor.loops.iter().map(|view| one_loop(view, now)).collect::<Vec<_>>(),
        "memory": monitor.ledger.budgets().map(|budget| (budget.name().to_owned(), one_budget(budget))).collect::<serde_json::Map<_, _>>(),
        "pool": {
            "threads": pool.threads_alive(),
            "busy": pool.threads_busy(),
            "queue_depth": pool.depth(),
            "oldest_age_seconds": pool.oldest_age(now).as_secs_f64(),
            "jobs_in_flight_max": pool.limit(),
            "admitted": pool.admitted(),
            "ended": object(OutcomeKind::ALL.iter().map(|kind| (kind.as_str(), pool.outcomes(*kind)))),
            "rejected": object(Reason::ALL.iter().map(|reason| (reason.as_str(), pool.rejections(*reason)))),
        },
        "log": {
            "written": monitor.log.written(),
            "dropped": monitor.log.dropped(),
            "suppressed": monitor.log.suppressed(),
        },
        "process": one_process(monitor),
        "threads": process::threads().iter().map(thread).collect::<Vec<_>>(),
    })
}

/// `null` is a value that could not be read because no descriptor was free.
fn one_process(monitor: &Monitor) -> Value {
    let usage = process::usage();
    json!({
        "resident_bytes": usage.map(|usage| usage.resident_bytes),
        "resident_bytes_peak": usage.map(|usage| usage.resident_bytes_peak),
        "cpu_seconds": usage.map(|usage| usage.cpu.as_secs_f64()),
        "descriptors": process::open_descriptors(),
        "descriptors_max": monitor.descriptors_max(),
    })
}

fn one_budget(budget: &MemoryBudget) -> Value {
    json!({
        "bytes": budget.held_bytes(),
        "bytes_max": budget.bytes_max(),
        "bytes_peak": budget.held_bytes_peak(),
        "refusals": budget.refusals(),
    })
}

fn one_loop(view: &LoopView, now: Instant) -> Value {
    let stats = &view.stats;
    let running = stats.running(now).map(|running| {
        let slot = (running.slot != reactor::Stats::NO_SLOT).then_some(running.slot);
        json!({
            "callback": running.callback.label(),
            "slot": slot,
            "turn_age_seconds": running.turn_age.as_secs_f64(),
            "held_seconds_least": view.watch.held().as_secs_f64(),
        })
    });
    json!({
        "name": view.name,
        "tid": view.tid,
        "running": running,
        "turn_age_seconds": stats.turn_age(now).map(|age| age.as_secs_f64()),
        "connections": object(view.connections().into_iter().chain([("max", stats.connections_max.get())])),
        "requests_in_flight": view.http.in_flight.get(),
        "buffers_leased_bytes": stats.leased_bytes.get(),
        "counters": object(LOOP_COUNTERS.iter().map(|(name, _, of)| (*name, of(view)))),
        "closed": object(CloseReason::ALL.iter().map(|reason| (reason.label(), stats.closes(*reason).get()))),
        "accept_errors": object(AcceptError::ALL.iter().map(|error| (error.label(), stats.accept_errors(*error).get()))),
    })
}

fn object(fields: impl Iterator<Item = (&'static str, u64)>) -> Value {
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value.into())).collect())
}

fn thread(thread: &process::Thread) -> Value {
    json!({
        "tid": thread.tid,
        "name": thread.name,
        "state": thread.state.to_string(),
        "cpu_seconds": thread.cpu.as_secs_f64(),
        "voluntary_switches": thread.voluntary_switches,
        "involuntary_switches": thread.involuntary_switches,
    })
}
