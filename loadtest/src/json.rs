//! A run as JSON, schema `loadtest/1`: all times in whole microseconds, and each histogram whole, so that runs can be merged and compared
//! exactly.
//!
//! The fields are part of the interface: they may be added to, and change only with the schema's number. Read next: `scenario.rs`.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use serde_json::{Map, Value, json};

use crate::condition::{Condition, Judged, Judgement};
use crate::generator::Outcome;
use crate::histogram::{Clocks, Record};
use crate::host;
use crate::measure::one_connection::OneConnection;
use crate::plan::{Class, Plan};
use crate::schedule::{Arrivals, WhenBusy};
use crate::truth::bounds::Times;
use crate::truth::limits::Limit;
use crate::truth::verdict::Verdict;
use crate::units::as_us;

/// What a document is made of.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The command line.
    pub command: &'a [String],
    /// The URL, or what stands for it.
    pub target: &'a str,
    /// What was planned.
    pub plan: &'a Plan,
    /// What was found.
    pub outcome: &'a Outcome,
    /// Whether it can be trusted.
    pub verdict: &'a Verdict,
    /// The thresholds and what became of them.
    pub thresholds: &'a [(Condition, Judged)],
    /// What a pass on one connection found, if there was one.
    pub one_connection: Option<OneConnection>,
    /// Which scenario and side this is, if it is one.
    pub scenario: Option<&'a Value>,
}

/// The document of a run.
#[must_use]
pub fn document(document: &Document<'_>) -> Value {
    let Document { command, target, plan, outcome, verdict, thresholds, one_connection, scenario } = document;
    let first = &outcome.records[0];
    let classes: Map<String, Value> = plan
        .classes
        .iter()
        .zip(&outcome.records)
        .map(|(class, record)| (class.name.clone(), class_value(class, record, outcome)))
        .collect();
    let thresholds: Vec<_> = thresholds
        .iter()
        .map(|(condition, judged)| json!({"expr": condition.to_string(), "value": judged.left.value, "ok": judged.judgement == Judgement::Fails, "open": judged.judgement == Judgement::Open}))
        .collect();
    json!({
        "schema": "loadtest/1",
        "tool": {"name": "loadtest", "version": env!("CARGO_PKG_VERSION"), "git": option_env!("LOADTEST_GIT_REVISION")},
        "command": command,
        "started": server::units::utc(outcome.started),
        "host": host::describe(),
        "config": {
            "target": target,
            "to": plan.to.to_string(),
            "threads": plan.threads,
            "warmup_us": as_us(plan.warmup),
            "duration_us": as_us(plan.duration),
            "drain_us": as_us(plan.drain),
            "seed": plan.seed,
        },
        "interrupted": outcome.interrupted,
        "totals": totals(first, outcome),
        "latency": latency(&first.clocks),
        "classes": classes,
        "errors": errors(first, plan.classes[0].timeout),
        "status": status(first),
        "one_connection": one_connection.map(|one| json!({"service_p50_us": one.p50_us, "answers": one.answers})),
        "series": outcome.series.first(),
        "thresholds": thresholds,
        "verdict": {
            "generator_ok": verdict.generator_ok,
            "reasons": verdict.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "cpu_by_thread": verdict.cpu_by_thread,
            "handled_share": verdict.handled_share,
            "machine": verdict.machine,
        },
        "scenario": scenario,
    })
}

/// The document of a side of a scenario that counts by hand and runs no load: figures, but no latencies.
#[must_use]
pub fn without_load(command: &[String], target: &str, scenario: &Value) -> Value {
    json!({
        "schema": "loadtest/1",
        "tool": {"name": "loadtest", "version": env!("CARGO_PKG_VERSION"), "git": option_env!("LOADTEST_GIT_REVISION")},
        "command": command,
        "host": host::describe(),
        "config": {"target": target},
        "scenario": scenario,
    })
}

/// One class: what was asked of it and what it gave.
fn class_value(class: &Class, record: &Record, outcome: &Outcome) -> Value {
    let schedule = &class.schedule;
    let arrivals = match schedule.arrivals {
        Arrivals::Constant => "constant".to_owned(),
        Arrivals::Poisson => "poisson".to_owned(),
        Arrivals::Burst(size) => format!("burst:{size}"),
        Arrivals::WhenFree => "when-free".to_owned(),
    };
    json!({
        "config": {
            "rate": schedule.rate,
            "arrivals": arrivals,
            "loop": match schedule.when_busy { WhenBusy::Queue => "open", WhenBusy::Skip => "closed" },
            "requests_max": schedule.count_max,
            "connections": class.connections,
            "connections_max": class.connections_max,
            "timeout_us": as_us(class.timeout),
            "connect_timeout_us": as_us(class.connect_timeout),
            "from": class.from.map(|from| from.to_string()),
            "request": String::from_utf8_lossy(class.request.split(|byte| *byte == b'\r').next().unwrap_or_default()),
            "request_bytes": class.request.len(),
        },
        "totals": totals(record, outcome),
        "latency": latency(&record.clocks),
        "errors": errors(record, class.timeout),
        "status": status(record),
    })
}

fn totals(record: &Record, outcome: &Outcome) -> Value {
    let totals = &record.totals;
    let elapsed_seconds = outcome.measured.as_secs_f64();
    let per_second = |count: u64| if elapsed_seconds > 0.0 { count as f64 / elapsed_seconds } else { 0.0 };
    let not_sent: Map<_, _> = Limit::ALL.map(|limit| (limit.name().to_owned(), json!(totals.not_sent.of(limit)))).into_iter().collect();
    json!({
        "scheduled": totals.scheduled,
        "handled": totals.handled,
        "sent": totals.sent,
        "completed": totals.completed(),
        "ok": totals.ok,
        "errors": totals.errors,
        "timeouts": totals.timeouts,
        "unfinished": totals.unfinished,
        "not_sent": totals.not_sent.total(),
        "not_sent_by_limit": not_sent,
        "ended_in_time": totals.ended_in_time,
        "ok_in_time": totals.ok_in_time,
        "opened_later": totals.opened_later,
        "skipped": totals.skipped,
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "elapsed_s": elapsed_seconds,
        "rate_offered": per_second(totals.scheduled),
        "rate_completed": per_second(totals.ended_in_time),
    })
}

fn latency(clocks: &Clocks) -> Value {
    let mut value = Map::new();
    value.insert("unit".to_owned(), json!("us"));
    value.insert("response".to_owned(), response(&clocks.response));
    value.extend(clocks.by_name().map(|(name, histogram)| (name.to_owned(), clock(histogram))));
    Value::Object(value)
}

/// The response times of all requests. A quantile in the region of requests that were given up is a lower bound, one in the region of failures
/// is null. The histograms are those of `response_ok` and `at_least`, the number of failures is `never`.
fn response(times: &Times) -> Value {
    let at = |quantile| times.quantile(quantile);
    json!({
        "count": times.len(),
        "known": times.known.len(),
        "at_least": times.at_least.len(),
        "never": times.never,
        "p50": at(0.5),
        "p90": at(0.9),
        "p95": at(0.95),
        "p99": at(0.99),
        "p999": at(0.999),
        "p9999": at(0.9999),
        "max": times.max(),
    })
}

fn clock(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile);
    json!({
        "count": histogram.len(),
        "min": histogram.min(),
        "mean": histogram.mean().round() as u64,
        "stdev": histogram.stdev().round() as u64,
        "p50": at(0.5),
        "p90": at(0.9),
        "p95": at(0.95),
        "p99": at(0.99),
        "p999": at(0.999),
        "p9999": at(0.9999),
        "p99999": at(0.99999),
        "max": histogram.max(),
        "hdr_v2": hdr_v2(histogram),
    })
}

/// The histogram in HdrHistogram's V2 format, uncompressed, as base64: what `HistogramLogReader`s read.
fn hdr_v2(histogram: &Histogram<u64>) -> Option<String> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).ok()?;
    Some(base64(&bytes))
}

fn errors(record: &Record, timeout: Duration) -> Vec<Value> {
    let value = |((phase, kind), error): (&(crate::errors::Phase, crate::errors::Kind), &crate::errors::ErrorCount)| {
        json!({
            "phase": phase.label(),
            "kind": kind.label(),
            "errno": kind.errno(),
            "count": error.count,
            "first_at_s": error.first_at.as_secs_f64(),
            "sent_for_us": error.out.map(|(short, long)| [as_us(short), as_us(long)]),
            "cause": crate::errors::hint(*phase, *kind, error, timeout),
        })
    };
    record.errors.iter().map(value).collect()
}

fn status(record: &Record) -> Map<String, Value> {
    record.status.iter().map(|(status, count)| (status.to_string(), json!(count))).collect()
}

/// Base64 with padding (RFC 4648 section 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        for digit in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63];
            text.push(if digit <= group.len() { symbol as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    fn sample() -> Value {
        let (plan, outcome) = crate::report::tests::sample();
        let verdict = Verdict::of(&plan, &outcome);
        let condition: Condition = "p99>250ms".parse().unwrap();
        let judged = condition.judge(|name| outcome.figure(0, name)).unwrap();
        let command = ["loadtest".to_owned(), "run".to_owned()];
        document(&Document {
            command: &command,
            target: "http://127.0.0.1:8080/",
            plan: &plan,
            outcome: &outcome,
            verdict: &verdict,
            thresholds: &[(condition, judged)],
            one_connection: None,
            scenario: None,
        })
    }

    #[test]
    fn the_document_has_the_fields_of_its_schema() {
        let document = sample();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let sorted = |text: &str| {
            let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(
            keys(&document),
            sorted(
                "schema tool command started host config interrupted totals latency classes errors status one_connection series thresholds \
                 verdict scenario"
            )
        );
        assert_eq!(document["schema"], "loadtest/1");
        assert_eq!(
            keys(&document["latency"]),
            sorted("unit response response_ok at_least failed service first_byte wait connect send_delay")
        );
        assert_eq!(keys(&document["latency"]["response"]), sorted("count known at_least never p50 p90 p95 p99 p999 p9999 max"));
        assert_eq!(keys(&document["latency"]["service"]), sorted("count min mean stdev p50 p90 p95 p99 p999 p9999 p99999 max hdr_v2"));
        assert_eq!(
            keys(&document["totals"]),
            sorted(
                "scheduled handled sent completed ok errors timeouts unfinished not_sent not_sent_by_limit ended_in_time ok_in_time opened_later \
                 skipped bytes_in bytes_out elapsed_s rate_offered rate_completed"
            )
        );
        assert_eq!(document["totals"]["scheduled"], 30_000);
        assert_eq!(document["status"], json!({"200": 29_981, "503": 1}));
        assert_eq!(document["errors"][0]["errno"], libc::ECONNRESET);
        assert_eq!(document["thresholds"], json!([{"expr": "p99>250ms", "value": 212_095.0, "ok": true, "open": false}]));
        assert_eq!(document["verdict"]["generator_ok"], true);
        assert_eq!(document["classes"]["normal"]["config"]["request"], "GET / HTTP/1.1");
    }

    #[test]
    fn the_histogram_in_it_reads_back_whole() {
        let (_, outcome) = crate::report::tests::sample();
        let response = &outcome.records[0].clocks.response.known;
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(response, &mut bytes).unwrap();
        assert_eq!(sample()["latency"]["response_ok"]["hdr_v2"], base64(&bytes));
        let back: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(&back, response);
    }
}
