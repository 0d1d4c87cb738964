//! The summary on standard output: always the same lines in the same order, so that two of them can be compared by `diff`.
//!
//! Read next: `json.rs`.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use server::units::Time;

use crate::condition::{Condition, Judged, Judgement};
use crate::errors::hint;
use crate::generator::Outcome;
use crate::histogram::Record;
use crate::measure::one_connection::OneConnection;
use crate::plan::{Class, Plan};
use crate::results_by_name;
use crate::schedule::{Arrivals, WhenBusy};
use crate::truth::bounds::{is_supported, samples_needed};
use crate::truth::silence::Stalls;
use crate::truth::verdict::Verdict;
use crate::units::{as_us, grouped, microseconds, number};

/// What a summary is made of.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// What was asked for, as `GET http://…`.
    pub request: &'a str,
    /// What was planned.
    pub plan: &'a Plan,
    /// What was found; the first class is shown.
    pub outcome: &'a Outcome,
    /// Whether it can be trusted.
    pub verdict: &'a Verdict,
    /// The thresholds and what became of them.
    pub thresholds: &'a [(Condition, Judged)],
    /// What a pass on one connection found, if there was one.
    pub one_connection: Option<OneConnection>,
}

/// The whole summary, ending in a newline.
#[must_use]
pub fn summary(summary: &Summary<'_>) -> String {
    let Summary { request, plan, outcome, verdict, thresholds, one_connection } = summary;
    let (class, record) = (&plan.classes[0], &outcome.records[0]);
    let mut out = String::new();
    let connections = match class.connections_max {
        max if max == class.connections => format!("{max} conns"),
        max => format!("{} to {max} conns", class.connections),
    };
    let threads = if plan.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", plan.threads) };
    let warmup = if plan.warmup.is_zero() { String::new() } else { format!(" (+{} warmup)", Time(plan.warmup)) };
    let version = env!("CARGO_PKG_VERSION");
    line(
        &mut out,
        format_args!("loadtest {version}  {request}  {}, {connections}, {threads}, {}{warmup}", pace(class), Time(plan.duration)),
    );
    if outcome.interrupted {
        line(
            &mut out,
            format_args!("interrupted after {} of the measured time: what follows is partial", microseconds(as_us(outcome.measured))),
        );
    }
    out.push('\n');
    requests(&mut out, record);
    rates(&mut out, class, record, outcome);
    out.push('\n');
    latency(&mut out, class, record, verdict);
    out.push('\n');
    stalls(&mut out, plan, record, outcome);
    connections_made(&mut out, class, record);
    let p50 = record.clocks.service.value_at_quantile(0.5);
    if let Some(text) = one_connection.and_then(|one| one.line(p50, class.connections)) {
        line(&mut out, format_args!("one conn {text}"));
    }
    errors(&mut out, class, record);
    if class.schedule.when_busy == WhenBusy::Skip {
        let skipped = record.totals.skipped;
        line(&mut out, format_args!("warning  {CLOSED_LOOP_WARNING} ({skipped} arrivals were left out)"));
    }
    for (condition, judged) in *thresholds {
        line(&mut out, format_args!("fail-if  {condition}   {}", threshold(condition, judged)));
    }
    line(&mut out, format_args!("verdict  {}", verdict.line()));
    out
}

/// `FAILED (p99 is 300ms)`, `ok (p99 is 212ms)`, or `OPEN` with the reason.
fn threshold(condition: &Condition, judged: &Judged) -> String {
    let is = format!("{} is {}", condition.left, judged.left);
    match judged.judgement {
        Judgement::Holds => format!("FAILED ({is})"),
        Judgement::Fails => format!("ok ({is})"),
        Judgement::Open => match results_by_name::quantile_of(&condition.left).filter(|quantile| !is_supported(*quantile, judged.left.n)) {
            Some(quantile) => format!("OPEN ({is} of {} requests; at least {} are needed)", judged.left.n, samples_needed(quantile)),
            None => format!("OPEN ({is}, and the true value lies between {})", judged.left.bounds()),
        },
    }
}

/// Said before and after every closed-loop run.
pub const CLOSED_LOOP_WARNING: &str = "closed loop: while the server stalls nothing is sent, so its stalls are hardly seen";

/// `open loop, constant 1000/s`.
#[must_use]
pub fn pace(class: &Class) -> String {
    let schedule = &class.schedule;
    let rate = number(schedule.rate);
    let kind = match schedule.when_busy {
        WhenBusy::Queue => "open loop",
        WhenBusy::Skip => "CLOSED loop",
    };
    match schedule.arrivals {
        Arrivals::Constant => format!("{kind}, constant {rate}/s"),
        Arrivals::Poisson => format!("{kind}, poisson {rate}/s"),
        Arrivals::Burst(size) => format!("{kind}, bursts of {size}, {rate}/s"),
        Arrivals::WhenFree => format!("{kind}, as fast as the answers come"),
    }
}

fn requests(out: &mut String, record: &Record) {
    let totals = &record.totals;
    line(
        out,
        format_args!(
            "{:<14}{:>12}{:>12}{:>9}{:>9}{:>10}{:>12}{:>10}",
            "", "scheduled", "completed", "ok", "errors", "timeouts", "unfinished", "not sent"
        ),
    );
    line(
        out,
        format_args!(
            "{:<14}{:>12}{:>12}{:>9}{:>9}{:>10}{:>12}{:>10}",
            "requests",
            totals.scheduled,
            totals.completed(),
            totals.ok,
            totals.errors,
            totals.timeouts,
            totals.unfinished,
            totals.not_sent.total()
        ),
    );
}

/// Throughput, and what the answers were.
fn rates(out: &mut String, class: &Class, record: &Record, outcome: &Outcome) {
    let per_second = |count: u64| number(count as f64 / outcome.measured.as_secs_f64().max(1e-9));
    let totals = &record.totals;
    let due = match class.schedule.arrivals {
        Arrivals::WhenFree => String::new(),
        _ => format!(", {}/s were due", per_second(totals.scheduled)),
    };
    line(out, format_args!("{:<14}{}/s ended, {}/s good{due}", "rate", per_second(totals.ended_in_time), per_second(totals.ok_in_time)));
    let list = |redirects: bool| {
        let of = record.status.iter().filter(|(status, _)| (300..400).contains(*status) == redirects);
        of.map(|(status, count)| format!("{} × {status}", grouped(*count))).collect::<Vec<_>>().join(", ")
    };
    let redirects = list(true);
    let redirects = if redirects.is_empty() { None } else { Some(format!("3xx, not followed: {redirects}")) };
    let parts: Vec<_> = Some(list(false)).filter(|text| !text.is_empty()).into_iter().chain(redirects).collect();
    let status = if parts.is_empty() { "no answer".to_owned() } else { parts.join("; ") };
    line(out, format_args!("{:<14}{status}", "status"));
}

/// The columns: each quantile with its name.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

fn latency(out: &mut String, class: &Class, record: &Record, verdict: &Verdict) {
    let clocks = &record.clocks;
    let names: Vec<_> = QUANTILES.iter().map(|(name, _)| *name).chain(["max"]).collect();
    row(out, "latency", &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), "");
    // A closed loop has nothing to be late for: its response time is not what a user would see.
    let advice = if class.schedule.when_busy == WhenBusy::Skip || !verdict.generator_ok { "" } else { "      <- use this" };
    let response = &clocks.response;
    let all = QUANTILES.iter().map(|(_, quantile)| response.quantile(*quantile).filter(|_| is_supported(*quantile, response.len())));
    let all: Vec<_> = all.chain([response.max()]).collect();
    let from =
        if response.len() == response.known.len() { "from the moment it was due" } else { "all requests, from the moment each was due" };
    let meaning = format!("{from}{advice}");
    row(
        out,
        "response",
        &all.iter().map(|bound| bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string())).collect::<Vec<_>>(),
        &meaning,
    );
    if response.len() > response.known.len() {
        times(out, "successes", &response.known, &format!("the {} good answers alone", grouped(response.known.len())));
    }
    if !clocks.failed.is_empty() {
        times(out, "failures", &clocks.failed, &format!("until {} requests failed", grouped(clocks.failed.len())));
    }
    let p99 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99);
    let hidden = p99(&response.lower_bounds()).saturating_sub(p99(&clocks.service));
    let hides =
        if is_supported(0.99, clocks.service.len()) { format!("     (hides {} at p99)", microseconds(hidden)) } else { String::new() };
    times(out, "service", &clocks.service, &format!("from the moment it was sent{hides}"));
    if p99(&clocks.wait) as f64 > p99(&response.lower_bounds()) as f64 * WAIT_SHARE_SHOWN {
        times(out, "wait", &clocks.wait, "for a connection, since none was idle");
    }
    times(out, "connect", &clocks.connect, "");
    let lateness = if verdict.generator_ok { "generator lateness: OK" } else { "generator lateness: see the verdict" };
    times(out, "send delay", &clocks.send_delay, lateness);
}

/// The wait for a connection is shown if its p99 is more than this part of the response's.
const WAIT_SHARE_SHOWN: f64 = 0.05;

/// A row of a clock: a dash where fewer than ten samples are above the quantile.
fn times(out: &mut String, name: &str, histogram: &Histogram<u64>, meaning: &str) {
    let at = |quantile: f64| {
        let supported = is_supported(quantile, histogram.len());
        if supported { microseconds(histogram.value_at_quantile(quantile)) } else { "-".to_owned() }
    };
    let max = if histogram.is_empty() { "-".to_owned() } else { microseconds(histogram.max()) };
    let texts: Vec<_> = QUANTILES.iter().map(|(_, quantile)| at(*quantile)).chain([max]).collect();
    row(out, name, &texts, meaning);
}

fn row(out: &mut String, name: &str, texts: &[String], meaning: &str) {
    let columns: String = texts.iter().map(|text| format!("{text:>8}")).collect();
    line(out, format_args!("{name:<14}{columns}   {meaning}"));
}

/// Times in which requests waited and no answer came.
fn stalls(out: &mut String, plan: &Plan, record: &Record, outcome: &Outcome) {
    let quiet = record.quiet.as_deref().unwrap_or_default();
    let service_p50 = record.clocks.service.value_at_quantile(0.5);
    let stalls = Stalls::among(quiet, plan.warmup, outcome.measured, record.totals.ended_in_time, service_p50);
    if let Some(stalls) = stalls {
        line(out, format_args!("stalls   {}", stalls.line()));
    }
}

/// A SYN that the listener drops is sent again after a second (RFC 6298 section 2.1), so a connect that takes this long was dropped once.
const CONNECT_RETRIED_US: u64 = 950_000;

fn connections_made(out: &mut String, class: &Class, record: &Record) {
    let opened = record.totals.opened_later;
    if opened > 0 {
        let (opened, max) = (grouped(opened), grouped(u64::from(class.connections_max)));
        line(
            out,
            format_args!(
                "opened   {opened} connections during the run, because a request was due and none was idle (at most {max} at a time)"
            ),
        );
    }
    let connect = &record.clocks.connect;
    let retried = connect.len() - connect.count_between(0, CONNECT_RETRIED_US);
    if retried > 0 {
        let retried = grouped(retried);
        line(
            out,
            format_args!(
                "connect  {retried} took about 1 s or more: the listen queue was full, and the kernel sent the SYN again; see Recv-Q in `ss -lnt`, \
                 and `nstat -az TcpExtListenOverflows`"
            ),
        );
    }
}

/// Most frequent first, with the phase, the errno or kind, and the likely cause. Then the requests that did not end.
fn errors(out: &mut String, class: &Class, record: &Record) {
    let totals = &record.totals;
    let mut errors: Vec<_> = record.errors.iter().collect();
    errors.sort_by_key(|(key, error)| (std::cmp::Reverse(error.count), **key));
    let mut rows: Vec<(u64, String, String)> = errors
        .into_iter()
        .map(|((phase, kind), error)| {
            (error.count, format!("{} {}", phase.label(), kind.label()), hint(*phase, *kind, error, class.timeout))
        })
        .collect();
    let others = [
        (totals.unfinished, "unfinished", "no answer had come when the run ended"),
        (totals.not_sent.total(), "not sent", "the generator's own limits: see the verdict; not an error of the server"),
    ];
    rows.extend(others.into_iter().filter(|(count, ..)| *count > 0).map(|(count, name, why)| (count, name.to_owned(), why.to_owned())));
    if rows.is_empty() {
        line(out, format_args!("errors   none"));
    }
    let count_len = rows.iter().map(|(count, ..)| count.to_string().len()).max().unwrap_or(0);
    let name_len = rows.iter().map(|(_, name, _)| name.len()).max().unwrap_or(0);
    for (index, (count, name, why)) in rows.iter().enumerate() {
        let label = if index == 0 { "errors" } else { "" };
        line(out, format_args!("{label:<8} {count:>count_len$}  {name:<name_len$}   {why}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let start = out.len();
    let _ = out.write_fmt(text); // Writing to a String cannot fail.
    let end = out[start..].trim_end().len();
    out.truncate(start + end);
    out.push('\n');
}

#[cfg(test)]
#[path = "report_tests.rs"]
pub(crate) mod tests;
