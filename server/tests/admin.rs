//! The admin port: what a scraper, a load balancer and a person in trouble ask.

mod process;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use process::{Server, ask, get, sample, wait_for};

/// At EMFILE the page is asked for most. What needs a descriptor to be read is missing then; a zero would be believed.
#[test]
fn without_a_descriptor_left_the_pages_tell_no_zeros() {
    let server = Server::start(&[]);
    // Answered once, so accepted: they have their descriptors already.
    let clients = ["/metrics", "/debug/state"].map(|target| (target, answered_once(server.admin)));
    let limit = Command::new("prlimit").args(["--nofile=4:", "--pid", &server.pid().to_string()]).status();
    assert!(limit.expect("util-linux is there").success());
    let [page, state] = clients.map(|(target, mut client)| {
        write!(client, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("it reads");
        process::receive(client).expect("it answers").body
    });

    assert!(page.contains("\nprocess_max_fds 4\n"), "{page}");
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_threads{"] {
        assert!(!page.contains(&format!("\n{name}")), "{name} is told without being known: {page}");
    }
    // Linux 6.2 and later tell it all the same.
    let open = page.lines().find_map(|line| line.strip_prefix("process_open_fds "));
    assert!(open.is_none_or(|open| open.parse::<u32>().is_ok_and(|open| open > 4)), "{open:?}");
    assert!(state.contains("\"resident_bytes\": null") && state.contains("\"descriptors_max\": 4"), "{state}");
}

/// A connection that stays open after its first answer.
fn answered_once(admin: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(admin).expect("it listens");
    client.set_read_timeout(Some(process::PATIENCE)).expect("it is a socket");
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("it answers");
        answer.push(byte[0]);
    }
    client
}

/// A page of `/metrics` for a scraper that sends this field.
fn scrape(admin: SocketAddr, accept: &str) -> process::Answer {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    stream.set_read_timeout(Some(process::PATIENCE)).expect("it is a socket");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\n{accept}Connection: close\r\n\r\n").expect("it reads");
    process::receive(stream).expect("it answers")
}

const OPEN_METRICS: &str = "Accept: application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5, */*; q=0.1\r\n";

/// The text format 0.0.4: a counter's name in its TYPE is that of its samples, and nothing of OpenMetrics is there that older scrapers do not
/// know.
#[test]
fn a_scraper_that_does_not_ask_for_open_metrics_gets_the_older_format() {
    let server = Server::start(&["--loops", "2"]);
    get(server.http, "/spin?ms=1");
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain;version=0.0.4\r\n"] {
        let answer = scrape(server.admin, accept);
        assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"), "{accept}");
        assert!(!answer.body.contains("# EOF") && !answer.body.contains("# UNIT"), "{}", answer.body);
        let mut kinds: HashMap<&str, &str> = HashMap::new();
        let mut helped = HashSet::new();
        for line in answer.body.lines() {
            if let Some(words) = line.strip_prefix("# TYPE ") {
                let (name, kind) = words.split_once(' ').expect("a name and a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(helped.contains(name), "{name} has no help before its type");
                kinds.insert(name, kind);
            } else if let Some(words) = line.strip_prefix("# HELP ") {
                helped.insert(words.split(' ').next().expect("a name"));
            } else {
                let name = line.split(['{', ' ']).next().expect("a name");
                let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                let is_histogram = of_histogram.is_some_and(|family| kinds.get(family) == Some(&"histogram"));
                assert!(is_histogram || kinds.get(name).is_some_and(|kind| *kind != "histogram"), "{line} has no type of its own name");
            }
        }
        assert_eq!(kinds.get("http_requests_total"), Some(&"counter"));
        assert_eq!(kinds.get("server_build_info"), Some(&"gauge"));
        assert_eq!(kinds.get("pool_job_run_seconds"), Some(&"histogram"));
    }
    // The same samples as in the newer format.
    let samples = |page: &str| {
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').expect("a value").0.to_owned())
            .collect::<HashSet<_>>()
    };
    assert_eq!(samples(&scrape(server.admin, "").body), samples(&scrape(server.admin, OPEN_METRICS).body));
}

#[test]
fn the_metrics_page_is_well_formed_open_metrics() {
    let server = Server::start(&["--loops", "2"]);
    for target in ["/", "/nowhere", "/spin?ms=1", "/bytes?n=100000"] {
        get(server.http, target);
    }
    let answer = scrape(server.admin, OPEN_METRICS);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(answer.body.ends_with("# EOF\n"));
    assert_eq!(answer.body.matches("# EOF").count(), 1);

    // OpenMetrics 1.0: a family's lines stand together behind its TYPE; a sample appears once; counters end in _total.
    let mut families: HashMap<&str, &str> = HashMap::new();
    let mut family = "";
    let mut seen = HashSet::new();
    for line in answer.body.lines() {
        if let Some(words) = line.strip_prefix("# TYPE ") {
            let (name, kind) = words.split_once(' ').expect("a name and a type");
            assert!(families.insert(name, kind).is_none(), "{name} comes twice");
            family = name;
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(seen.insert(series), "{series} comes twice");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
            let suffix =
                series.split('{').next().and_then(|name| name.strip_prefix(family)).unwrap_or_else(|| panic!("{line} is not of {family}"));
            let allowed: &[&str] = match families[family] {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                kind => panic!("unknown type {kind}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            assert!(!series.contains("{}"), "{line}");
        }
    }
    for name in [
        "http_requests",
        "http_request_duration_seconds",
        "reactor_loop_lag_seconds",
        "reactor_turn_duration_seconds",
        "loop_stalls",
        "connections",
        "connections_closed",
        "accept_errors",
        "pool_queue_depth",
        "pool_queue_oldest_age_seconds",
        "pool_job_queue_seconds",
        "pool_job_run_seconds",
        "pool_jobs_rejected",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_threads",
        "log_lines",
    ] {
        assert!(families.contains_key(name), "{name} is missing");
    }
}

#[test]
fn histograms_are_cumulative_and_agree_with_their_count() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        get(server.http, "/spin?ms=1");
    }
    let page = get(server.admin, "/metrics").body;
    let mut buckets: HashMap<String, Vec<u64>> = HashMap::new();
    for line in page.lines().filter(|line| line.contains("_bucket{")) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = series.split_once("_bucket{").expect("it was filtered");
        let others: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|label| !label.starts_with("le=")).collect();
        let series = if others.is_empty() { format!("{name}_count") } else { format!("{name}_count{{{}}}", others.join(",")) };
        buckets.entry(series).or_default().push(value.parse().expect("a count"));
    }
    assert!(buckets.len() >= 5);
    for (count, values) in buckets {
        assert!(values.is_sorted(), "{count}: {values:?}");
        let line = page.lines().find_map(|line| line.strip_prefix(&count)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no {count}"));
        assert_eq!(line.parse(), Ok(*values.last().expect("there is +Inf")), "{count}");
    }
    assert_eq!(sample(server.admin, "pool_job_run_seconds_count{class=\"fast\"}"), 20.0);
}

#[test]
fn what_happens_is_counted_where_it_belongs() {
    let server = Server::start(&["--loops", "1"]);
    for (target, times) in [("/", 3), ("/nowhere", 2), ("/spin?ms=1", 4)] {
        (0..times).for_each(|_| drop(get(server.http, target)));
    }
    assert_eq!(get(server.http, "no-slash").status, 400);
    for (name, value) in [
        ("http_requests_total{code_class=\"2xx\"}", 7.0),
        ("http_requests_total{code_class=\"4xx\"}", 3.0),
        ("http_requests_total{code_class=\"5xx\"}", 0.0),
        ("http_refusals_total{reason=\"target\"}", 1.0),
        ("connections_accepted_total{loop=\"loop-0\"}", 10.0),
        ("pool_jobs_ended_total{outcome=\"done\"}", 4.0),
        ("server_draining", 0.0),
    ] {
        assert_eq!(sample(server.admin, name), value, "{name}");
    }
    // Each closed its connection; the last of them is closed after its answer was read here.
    wait_for("ten closes", || (sample(server.admin, "connections{loop=\"loop-0\",state=\"open\"}") == 0.0).then_some(()));
    assert!(sample(server.admin, "process_resident_memory_bytes") > 1e6);
    assert!(sample(server.admin, "process_open_fds") >= 10.0);
}

#[cfg(feature = "mistakes")]
#[test]
fn a_mistake_that_is_on_is_shown() {
    let correct = Server::start(&[]);
    let wrong = Server::start(&["--mistake", "loop-stall"]);
    let name = "server_mistake_active{slug=\"loop-stall\"}";
    assert_eq!(sample(correct.admin, name), 0.0);
    assert_eq!(sample(wrong.admin, name), 1.0);
    let state: serde_json::Value = serde_json::from_str(&get(wrong.admin, "/debug/state").body).expect("it is JSON");
    assert_eq!(state["mistakes"], serde_json::json!(["loop-stall"]));
}

#[cfg(feature = "mistakes")]
#[test]
fn a_stalled_loop_is_seen_from_the_admin_port_while_it_is_stalled() {
    let server = Server::start(&["--loops", "1", "--mistake", "loop-stall"]);
    // Three seconds of CPU on the only loop. All that follows happens meanwhile, on another loop.
    let stalling = process::send(server.http, "GET", "/spin?ms=3000").expect("it accepts");
    let running = wait_for("the stall", || {
        let state: serde_json::Value = serde_json::from_str(&get(server.admin, "/debug/state").body).expect("it is JSON");
        let running = state["loops"][0]["running"].clone();
        (running["held_seconds_least"].as_f64() >= Some(0.05)).then_some(running)
    });
    assert_eq!(running["callback"], "input");
    wait_for("the watchdog", || (sample(server.admin, "loop_stalls_total{loop=\"loop-0\"}") == 1.0).then_some(()));
    assert!(sample(server.admin, "reactor_callback_age_seconds{loop=\"loop-0\"}") >= 0.05);
    assert_eq!(process::receive(stalling).expect("it is answered in the end").status, 200);
    // Over: nothing is held any more.
    wait_for("the end of it", || (sample(server.admin, "reactor_callback_age_seconds{loop=\"loop-0\"}") == 0.0).then_some(()));
}

#[test]
fn the_state_names_loops_and_threads_and_how_they_are() {
    let server = Server::start(&["--loops", "2", "--workers", "3"]);
    let answer = get(server.admin, "/debug/state");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let state: serde_json::Value = serde_json::from_str(&answer.body).expect("it is JSON");
    assert_eq!(state["pid"], server.pid());
    assert_eq!(state["draining"], false);
    assert!(state["loops"][0]["counters"]["reactor_turns"].is_u64());
    assert_eq!(state["loops"][0]["closed"]["panicked"], 0);
    for (index, view) in state["loops"].as_array().expect("a list").iter().enumerate() {
        assert_eq!(view["name"], format!("loop-{index}"));
    }
    // A thread that was started names itself when it first runs.
    wait_for("the threads' names", || {
        let state: serde_json::Value = serde_json::from_str(&get(server.admin, "/debug/state").body).expect("it is JSON");
        let threads = state["threads"].as_array().expect("a list");
        let is_there = |name: &str| {
            let thread = threads.iter().find(|thread| thread["name"] == name);
            thread.is_some_and(|thread| ["R", "S", "D"].contains(&thread["state"].as_str().expect("a letter")))
        };
        let names = ["loop-0", "loop-1", "worker-0", "worker-1", "worker-2", "admin", "watchdog", "log", "signals"];
        names.into_iter().all(is_there).then_some(())
    });
    let state: serde_json::Value = serde_json::from_str(&get(server.admin, "/debug/state").body).expect("it is JSON");
    for view in state["loops"].as_array().expect("a list") {
        let threads = state["threads"].as_array().expect("a list");
        assert!(threads.iter().any(|thread| thread["tid"] == view["tid"] && thread["name"] == view["name"]), "{view}");
    }
}

#[test]
fn health_readiness_and_what_is_not_there() {
    let server = Server::start(&[]);
    assert_eq!((get(server.admin, "/healthz").status, get(server.admin, "/readyz").status), (200, 200));
    assert!(get(server.admin, "/").body.contains("/metrics"));
    assert_eq!(get(server.admin, "/nowhere").status, 404);
    let refused = ask(server.admin, "POST", "/metrics");
    assert_eq!((refused.status, refused.header("Allow")), (405, Some("GET, HEAD")));
    let head = ask(server.admin, "HEAD", "/metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    // The service's port knows nothing of it.
    assert_eq!(get(server.http, "/metrics").status, 404);
}

/// The mistake kills what a panic should not: with the correct pool no request can.
#[cfg(feature = "mistakes")]
#[test]
fn a_server_without_a_living_worker_is_not_ready() {
    let server = Server::start(&["--workers", "1", "--mistake", "worker-panic"]);
    assert_eq!(get(server.admin, "/readyz").status, 200);
    // Nobody answers it: the thread takes the answer along.
    let mut lost = TcpStream::connect(server.http).expect("it listens");
    lost.write_all(b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
    wait_for("no worker to live", || (get(server.admin, "/readyz").status == 503).then_some(()));
    assert_eq!(get(server.admin, "/healthz").status, 200);
}
