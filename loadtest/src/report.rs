//! The summary on standard output: always the same lines in the same order, so that two of them can be compared by `diff`.
//!
//! Read next: `json.rs`.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use server::units::Time;

use crate::condition::{Condition, Judged};
use crate::errors::cause;
use crate::generator::Outcome;
use crate::histogram::Record;
use crate::plan::{Class, Plan};
use crate::schedule::{Arrivals, WhenBusy};
use crate::units::{as_us, microseconds, number};
use crate::verdict::Verdict;

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
}

/// The whole summary, ending in a newline.
#[must_use]
pub fn summary(summary: &Summary<'_>) -> String {
    let Summary { request, plan, outcome, verdict, thresholds } = summary;
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
    out.push('\n');
    latency(&mut out, record, verdict);
    out.push('\n');
    errors(&mut out, record);
    if class.schedule.when_busy == WhenBusy::Skip {
        let skipped = record.totals.skipped;
        line(&mut out, format_args!("warning  {CLOSED_LOOP_WARNING} ({skipped} arrivals were left out)"));
    }
    for (condition, judged) in *thresholds {
        let state = if judged.holds { "FAILED" } else { "ok" };
        line(&mut out, format_args!("fail-if  {condition}   {state} ({} is {})", condition.left, judged.left));
    }
    line(&mut out, format_args!("verdict  {}", verdict.line()));
    out
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
        format_args!("{:<14}{:>12}{:>12}{:>9}{:>9}{:>10}{:>12}", "", "scheduled", "completed", "ok", "errors", "timeouts", "unfinished"),
    );
    line(
        out,
        format_args!(
            "{:<14}{:>12}{:>12}{:>9}{:>9}{:>10}{:>12}",
            "requests",
            totals.scheduled,
            totals.completed(),
            totals.ok,
            totals.errors,
            totals.timeouts,
            totals.unfinished
        ),
    );
}

fn latency(out: &mut String, record: &Record, verdict: &Verdict) {
    let clocks = &record.clocks;
    let p99 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99);
    let hidden = p99(&clocks.response).saturating_sub(p99(&clocks.service));
    let lateness = if verdict.generator_ok { "generator lateness: OK" } else { "generator lateness: see the verdict" };
    line(out, format_args!("{:<14}{:>8}{:>8}{:>8}{:>8}{:>8}", "latency", "p50", "p90", "p99", "p99.9", "max"));
    for (name, histogram, meaning) in [
        ("response", &clocks.response, "from the moment it was due      <- use this".to_owned()),
        ("service", &clocks.service, format!("from the moment it was sent     (hides {} at p99)", microseconds(hidden))),
        ("connect", &clocks.connect, String::new()),
        ("send delay", &clocks.send_delay, lateness.to_owned()),
    ] {
        let times = if histogram.is_empty() {
            ["-"; 5].map(str::to_owned)
        } else {
            let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
            [at(0.5), at(0.9), at(0.99), at(0.999), microseconds(histogram.max())]
        };
        let [p50, p90, p99, p999, max] = times;
        line(out, format_args!("{name:<14}{p50:>8}{p90:>8}{p99:>8}{p999:>8}{max:>8}   {meaning}"));
    }
}

/// Most frequent first, with the phase, the errno or kind, and the likely cause.
fn errors(out: &mut String, record: &Record) {
    if record.errors.is_empty() {
        line(out, format_args!("errors   none"));
        return;
    }
    let mut errors: Vec<_> = record.errors.iter().collect();
    errors.sort_by_key(|(key, error)| (std::cmp::Reverse(error.count), **key));
    let names: Vec<_> = errors.iter().map(|((phase, kind), _)| format!("{} {}", phase.label(), kind.label())).collect();
    let count_len = errors[0].1.count.to_string().len();
    let name_len = names.iter().map(String::len).max().unwrap_or(0);
    for (index, (((phase, kind), error), name)) in errors.iter().zip(&names).enumerate() {
        let label = if index == 0 { "errors" } else { "" };
        line(out, format_args!("{label:<8} {:>count_len$}  {name:<name_len$}   {}", error.count, cause(*phase, *kind)));
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
