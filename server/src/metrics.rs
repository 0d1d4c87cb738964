//! The page of `/metrics`, made at each scrape from the counters where they lie. Nothing is counted twice, nothing locks.
//!
//! Names have base units; labels are bounded: loops, reasons and classes that the program knows, nothing of a peer's. One line of the
//! tables below is one metric. Read next: `monitor.rs`, where the numbers come from.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use reactor::counter::HistogramSnapshot;
use reactor::{AcceptError, BufferOwner, CloseReason};
use worker_pool::{Class, OutcomeKind, Reason};

use crate::http::Refusal;
use crate::http_stats::HttpStats;
use crate::ledger::MemoryBudget;
use crate::metrics_format::{Format, text_of};
use crate::metrics_page::{Labels, Page, of_pool, of_reactor};
use crate::monitor::{LoopView, Monitor};
use crate::process;

/// Makes the page whenever it is asked for.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// The page of one server.
    #[must_use]
    pub fn new(monitor: Arc<Monitor>) -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Source(monitor)));
        Metrics { registry }
    }

    /// The page now, in this format.
    ///
    /// # Errors
    /// None that can be met: writing to a `String` does not fail.
    pub fn page(&self, format: Format) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(32 << 10);
        text::encode(&mut page, &self.registry)?;
        Ok(if format == Format::Text { text_of(&page) } else { page })
    }
}

type OfLoop = fn(&LoopView) -> u64;
type OfHttp = fn(&HttpStats) -> u64;
type OfBudget = fn(&MemoryBudget) -> u64;

/// Name, help, value. `/debug/state` shows the same.
pub(crate) const LOOP_COUNTERS: &[(&str, &str, OfLoop)] = &[
    ("reactor_turns", "Turns of the loop: returns from epoll_wait", |l| l.stats.turns.get()),
    ("reactor_turns_without_progress", "Turns in which nothing moved; many of them are a spin", |l| l.stats.turns_without_progress.get()),
    ("reactor_events", "Events that epoll_wait returned", |l| l.stats.events.get()),
    ("loop_stalls", "Callbacks that held the loop for 50 ms or longer, as the watchdog saw them", |l| l.watch.stalls()),
    ("reactor_reads", "Calls of read", |l| l.stats.reads.get()),
    ("reactor_writes", "Calls of write", |l| l.stats.writes.get()),
    ("reactor_short_writes", "Writes of which the kernel took less than was offered", |l| l.stats.short_writes.get()),
    ("reactor_budget_exits", "Visits that ended because a budget was spent", |l| l.stats.budget_exits.get()),
    ("reactor_buffer_waits", "Times that a rest found no room in the buffer pool at first", |l| l.stats.buffer_waits.get()),
    ("reactor_input_evictions", "Unfinished requests closed: buffer memory was full", |l| l.stats.evictions(BufferOwner::Input).get()),
    ("reactor_output_evictions", "Clients reset that did not read: buffer memory was full", |l| {
        l.stats.evictions(BufferOwner::Output).get()
    }),
    ("reactor_stale_tokens", "Events and wakes for a connection that had gone", |l| l.stats.stale_tokens.get()),
    ("reactor_wakes", "Turns that another thread's wake ended", |l| l.stats.wakes.get()),
    ("reactor_mail_delivered", "Results of jobs handed to their connection", |l| l.stats.mail_delivered.get()),
    ("reactor_mail_undelivered", "Results of jobs whose connection had gone", |l| l.stats.mail_undelivered.get()),
    ("reactor_panics", "Panics of callbacks, each of which closed a connection", |l| l.stats.panics.get()),
    ("connections_accepted", "Connections taken from the listener", |l| l.stats.accepts.get()),
    ("connections_adopted", "Connections that another loop accepted and handed over", |l| l.stats.adoptions.get()),
    ("reactor_adoption_failures", "Connections that another loop handed over and that were lost because the system refused", |l| {
        l.stats.adoption_failures.get()
    }),
    ("connections_reset", "Connections ended by a reset of ours, since something was cut short", |l| l.stats.resets.get()),
    ("reactor_connects", "Outbound connections begun", |l| l.stats.connects.get()),
    ("reactor_connect_failures", "Outbound connections that failed", |l| l.stats.connect_failures.get()),
    ("accept_pauses", "Times that accepting stopped for want of descriptors or memory", |l| l.stats.accept_pauses.get()),
];

const LOOP_BYTE_COUNTERS: &[(&str, &str, OfLoop)] = &[
    ("reactor_read", "Bytes read", |l| l.stats.bytes_read.get()),
    ("reactor_written", "Bytes that the kernel took", |l| l.stats.bytes_written.get()),
    ("reactor_discarded", "Bytes read and forgotten while lingering before a close", |l| l.stats.bytes_discarded.get()),
];

const LOOP_GAUGES: &[(&str, &str, OfLoop)] = &[
    ("reactor_events_per_turn_max", "The most events of one turn", |l| l.stats.events_per_turn_max.get()),
    ("connections_max", "The loop's share of the connection limit", |l| l.stats.connections_max.get()),
];

const LOOP_BYTE_GAUGES: &[(&str, &str, OfLoop)] = &[
    ("reactor_buffers_leased", "Buffers leased for unfinished input and unsent output", |l| l.stats.leased_bytes.get()),
    ("reactor_buffers", "All buffers of the pool, leased or free", |l| l.stats.buffer_bytes.get()),
];

const HTTP_COUNTERS: &[(&str, &str, OfHttp)] = &[
    ("http_source_refusals", "Connections refused because their source address has too many", |h| h.source_refusals.get()),
    ("http_memory_refusals", "Requests, and pieces of streams, that a spent memory budget refused", |h| h.memory_refusals.get()),
    ("http_jobs_refused", "Jobs that the pool rejected or gave up, so that a client got a 503 or a response cut short", |h| {
        h.jobs_refused.get()
    }),
    ("http_stream_retries", "Jobs for the next piece of a response that the pool rejected, and that are asked for again", |h| {
        h.stream_retries.get()
    }),
    ("http_broken_streams", "Responses that broke off after their head was sent", |h| h.broken_streams.get()),
    ("http_late_results", "Results of jobs that came after their request had ended", |h| h.late_results.get()),
];

const HTTP_TIMEOUTS: &[(&str, OfHttp)] = &[
    ("header", |h| h.header_timeouts.get()),
    ("body", |h| h.body_timeouts.get()),
    ("idle", |h| h.idle_timeouts.get()),
    ("request", |h| h.request_timeouts.get()),
];

const HTTP_EVICTIONS: &[(&str, OfHttp)] =
    &[("idle", |h| h.idle_evictions.get()), ("head", |h| h.header_evictions.get()), ("body", |h| h.body_evictions.get())];

#[derive(Debug)]
struct Source(Arc<Monitor>);

impl Collector for Source {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let monitor = &*self.0;
        let now = Instant::now();
        let mut page = Page(encoder);
        server(&mut page, monitor)?;
        http(&mut page, monitor)?;
        loops(&mut page, monitor, now)?;
        memory(&mut page, monitor)?;
        pool(&mut page, monitor, now)?;
        log(&mut page, monitor)?;
        process(&mut page, monitor)
    }
}

fn server(page: &mut Page<'_>, monitor: &Monitor) -> fmt::Result {
    let version: Labels<'_> = &[("version", env!("CARGO_PKG_VERSION"))];
    page.family("server_build", "What is running", None, MetricType::Info, |family| family.info(version))?;
    page.gauge("server_draining", "1 while the server shuts down", u64::from(monitor.is_draining()))?;
    #[cfg(feature = "mistakes")]
    page.family("server_mistake_active", "1 for each deliberate mistake that is on", None, MetricType::Gauge, |family| {
        for slug in
            crate::demo::mistakes::PUBLIC.iter().chain(monitor.mistakes.iter().filter(|slug| !crate::demo::mistakes::PUBLIC.contains(slug)))
        {
            family.gauge(&[("slug", slug)], u64::from(monitor.mistakes.contains(slug)))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn http(page: &mut Page<'_>, monitor: &Monitor) -> fmt::Result {
    let sum = |of: &dyn Fn(&HttpStats) -> u64| monitor.loops.iter().map(|view| of(&view.http)).sum::<u64>();
    page.family("http_requests", "Requests answered, by the class of the status", None, MetricType::Counter, |family| {
        for (class, name) in [(2, "2xx"), (3, "3xx"), (4, "4xx"), (5, "5xx")] {
            family.counter(&[("code_class", name)], sum(&|http| http.responses(class).get()))?;
        }
        Ok(())
    })?;
    page.family("http_refusals", "Requests refused before they reached the service, by reason", None, MetricType::Counter, |family| {
        for refusal in Refusal::ALL {
            family.counter(&[("reason", refusal.label())], sum(&|http| http.refusals(refusal).get()))?;
        }
        Ok(())
    })?;
    page.family("http_timeouts", "Connections closed by a timeout", None, MetricType::Counter, |family| {
        for (kind, of) in HTTP_TIMEOUTS {
            family.counter(&[("kind", kind)], sum(of))?;
        }
        Ok(())
    })?;
    let help = "Connections closed near the connection limit to make room for newcomers, by what they were waiting for";
    page.family("http_evictions", help, None, MetricType::Counter, |family| {
        HTTP_EVICTIONS.iter().try_for_each(|(kind, of)| family.counter(&[("waiting_for", kind)], sum(of)))
    })?;
    for (name, help, of) in HTTP_COUNTERS {
        page.family(name, help, None, MetricType::Counter, |family| family.counter(&[], sum(of)))?;
    }
    page.gauge("http_requests_in_flight", "Requests that are being answered", sum(&|http| http.in_flight.get()))?;
    let mut duration = HistogramSnapshot::default();
    monitor.loops.iter().for_each(|view| duration.add(&view.http.duration.snapshot()));
    let help =
        "From the beginning of the loop's turn that read the request's head to the end of the one that wrote the last byte of the response";
    page.family("http_request_duration", help, Some(Unit::Seconds), MetricType::Histogram, |family| of_reactor(family, &[], &duration))
}

fn loops(page: &mut Page<'_>, monitor: &Monitor, now: Instant) -> fmt::Result {
    let tables = [
        (LOOP_COUNTERS, None, MetricType::Counter),
        (LOOP_BYTE_COUNTERS, Some(Unit::Bytes), MetricType::Counter),
        (LOOP_GAUGES, None, MetricType::Gauge),
        (LOOP_BYTE_GAUGES, Some(Unit::Bytes), MetricType::Gauge),
    ];
    for (table, unit, kind) in tables {
        for (name, help, of) in table {
            page.family(name, help, unit.clone(), kind, |family| {
                monitor.loops.iter().try_for_each(|view| {
                    let labels: Labels<'_> = &[("loop", &view.name)];
                    if matches!(kind, MetricType::Counter) { family.counter(labels, of(view)) } else { family.gauge(labels, of(view)) }
                })
            })?;
        }
    }
    page.loops("connections", "Connections by state", MetricType::Gauge, monitor, |family, view| {
        for (state, count) in view.connections() {
            family.gauge(&[("loop", &view.name), ("state", state)], count)?;
        }
        Ok(())
    })?;
    page.loops("connections_closed", "Connections that ended, by reason", MetricType::Counter, monitor, |family, view| {
        CloseReason::ALL
            .iter()
            .try_for_each(|reason| family.counter(&[("loop", &view.name), ("reason", reason.label())], view.stats.closes(*reason).get()))
    })?;
    page.loops("accept_errors", "Failures of accept, by errno", MetricType::Counter, monitor, |family, view| {
        AcceptError::ALL
            .iter()
            .try_for_each(|error| family.counter(&[("loop", &view.name), ("errno", error.label())], view.stats.accept_errors(*error).get()))
    })?;
    let seconds = Some(Unit::Seconds);
    let help = "For how long the callback that runs now has held the loop, as the watchdog saw it";
    page.family("reactor_callback_age", help, seconds.clone(), MetricType::Gauge, |family| {
        monitor.loops.iter().try_for_each(|view| family.seconds(&[("loop", &view.name)], view.watch.held()))
    })?;
    let help = "For how long the present turn has lasted; 0 while the loop sleeps";
    page.family("reactor_turn_age", help, seconds.clone(), MetricType::Gauge, |family| {
        let age = |view: &LoopView| view.stats.turn_age(now).unwrap_or_default();
        monitor.loops.iter().try_for_each(|view| family.seconds(&[("loop", &view.name)], age(view)))
    })?;
    page.family("reactor_loop_lag", "How late deadlines ran", seconds.clone(), MetricType::Histogram, |family| {
        monitor.loops.iter().try_for_each(|view| of_reactor(family, &[("loop", &view.name)], &view.stats.loop_lag.snapshot()))
    })?;
    let help = "From a return of epoll_wait to the next call: how long everyone else waited";
    page.family("reactor_turn_duration", help, seconds, MetricType::Histogram, |family| {
        monitor.loops.iter().try_for_each(|view| of_reactor(family, &[("loop", &view.name)], &view.stats.turn_duration.snapshot()))
    })
}

fn pool(page: &mut Page<'_>, monitor: &Monitor, now: Instant) -> fmt::Result {
    let pool = &monitor.pool;
    page.family("pool_queue_depth", "Jobs that wait, by class", None, MetricType::Gauge, |family| {
        Class::ALL.iter().try_for_each(|class| family.gauge(&[("class", class.as_str())], pool.waiting(*class).into()))
    })?;
    page.family("pool_jobs_running", "Jobs that run, by class", None, MetricType::Gauge, |family| {
        Class::ALL.iter().try_for_each(|class| family.gauge(&[("class", class.as_str())], pool.running(*class).into()))
    })?;
    let seconds = Some(Unit::Seconds);
    page.family("pool_queue_oldest_age", "How long the oldest job has waited", seconds.clone(), MetricType::Gauge, |family| {
        family.seconds(&[], pool.oldest_age(now))
    })?;
    page.gauge("pool_threads", "Worker threads that live", pool.threads_alive().into())?;
    page.gauge("pool_jobs_in_flight_max", "Jobs in flight that are allowed now", pool.limit().into())?;
    page.family("pool_jobs_admitted", "Jobs that the pool took", None, MetricType::Counter, |family| family.counter(&[], pool.admitted()))?;
    page.family("pool_jobs_ended", "Jobs that ended, by outcome", None, MetricType::Counter, |family| {
        OutcomeKind::ALL.iter().try_for_each(|kind| family.counter(&[("outcome", kind.as_str())], pool.outcomes(*kind)))
    })?;
    page.family("pool_jobs_rejected", "Jobs that the pool did not take, by reason", None, MetricType::Counter, |family| {
        Reason::ALL.iter().try_for_each(|reason| family.counter(&[("reason", reason.as_str())], pool.rejections(*reason)))
    })?;
    let help = "Run time spent on jobs that nobody waited for any more";
    page.family("pool_abandoned_run", help, seconds.clone(), MetricType::Counter, |family| {
        family.counter_seconds(pool.abandoned_run_time())
    })?;
    let help = "From admission until a worker took the job";
    page.family("pool_job_queue", help, seconds.clone(), MetricType::Histogram, |family| {
        Class::ALL.iter().try_for_each(|class| of_pool(family, *class, pool.time_in_queue(*class)))
    })?;
    page.family("pool_job_run", "Run time of jobs", seconds, MetricType::Histogram, |family| {
        Class::ALL.iter().try_for_each(|class| of_pool(family, *class, pool.run_time(*class)))
    })
}

fn memory(page: &mut Page<'_>, monitor: &Monitor) -> fmt::Result {
    let ledger = &monitor.ledger;
    let bytes = Some(Unit::Bytes);
    let gauges: [(_, _, OfBudget); 3] = [
        ("memory", "Memory that is charged to a budget", MemoryBudget::held_bytes),
        ("memory_max", "The limit of a budget", MemoryBudget::bytes_max),
        ("memory_peak", "The most that was ever charged to a budget at a time", MemoryBudget::held_bytes_peak),
    ];
    for (name, help, of) in gauges {
        page.family(name, help, bytes.clone(), MetricType::Gauge, |family| {
            ledger.budgets().try_for_each(|budget| family.gauge(&[("budget", budget.name())], of(budget)))
        })?;
    }
    page.family("memory_refusals", "Times that a budget had too little left", None, MetricType::Counter, |family| {
        ledger.budgets().try_for_each(|budget| family.counter(&[("budget", budget.name())], budget.refusals()))
    })
}

fn log(page: &mut Page<'_>, monitor: &Monitor) -> fmt::Result {
    let log = &monitor.log;
    page.family("log_lines", "Log lines by what became of them", None, MetricType::Counter, |family| {
        for (fate, count) in [("written", log.written()), ("dropped", log.dropped()), ("suppressed", log.suppressed())] {
            family.counter(&[("fate", fate)], count)?;
        }
        Ok(())
    })
}

fn process(page: &mut Page<'_>, monitor: &Monitor) -> fmt::Result {
    let seconds = Some(Unit::Seconds);
    // What cannot be read, since no descriptor is left for it, is left out: a counter that is 0 for one scrape looks like a new process.
    if let Some(open) = process::open_descriptors() {
        page.gauge("process_open_fds", "Open descriptors", open)?;
    }
    page.gauge("process_max_fds", "The descriptor limit now; it can be changed from outside", monitor.descriptors_max())?;
    if let Some(usage) = process::usage() {
        let bytes = [
            ("process_resident_memory", "Resident memory", usage.resident_bytes),
            ("process_resident_memory_peak", "The most resident memory there ever was", usage.resident_bytes_peak),
            ("process_virtual_memory", "Address space", usage.virtual_bytes),
        ];
        for (name, help, count) in bytes {
            page.family(name, help, Some(Unit::Bytes), MetricType::Gauge, |family| family.gauge(&[], count))?;
        }
        page.family("process_cpu", "CPU time", seconds.clone(), MetricType::Counter, |family| family.counter_seconds(usage.cpu))?;
    }
    page.family("process_start_time", "When the process started, since 1970", seconds, MetricType::Gauge, |family| {
        family.seconds(&[], monitor.started_at.duration_since(UNIX_EPOCH).unwrap_or_default())
    })?;
    let threads = process::threads();
    if threads.is_empty() {
        return Ok(());
    }
    page.family("process_threads", "Threads by state, as ps shows it", None, MetricType::Gauge, |family| {
        for state in ["R", "S", "D", "Z", "T"] {
            let count = threads.iter().filter(|thread| state.starts_with(thread.state)).count();
            family.gauge(&[("state", state)], count as u64)?;
        }
        Ok(())
    })
}
