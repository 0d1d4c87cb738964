//! `loop-stall`: one request in 2,000 does its work on the loop's thread, and all others wait for it.
//!
//! The victims have ten connections and no more. A tool that measures from sending would see ten late responses for each stall, and
//! none of the 190 requests that were due during the stall and found no free connection.

use std::time::Duration;

use crate::contrast::Contrast;
use crate::plan::Class;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::schedule::Schedule;
use crate::side::{Measured, Side};

/// Requests per second of the clients that suffer, and their connections.
const VICTIMS_RATE: f64 = 2_000.0;
const VICTIMS_CONNECTIONS: u32 = 10;
/// Stalls per second, over a connection of their own: one stall is a tenth of the time, far above the one percent that p99 leaves out.
const STALLS_RATE: f64 = 1.0;
/// The request that stalls the loop, for 100 ms: longer than any other delay on a machine of two cores, and what a password hash, a
/// template or a regular expression easily takes.
const STALL_PATH: &str = "/spin?ms=100";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "loop-stall",
    title: "CPU work on the event loop's thread",
    cause: "One request per second computes for 100 ms on the loop's own thread; until it is done the loop reads and answers no other connection.",
    load: "GET / 2,000 times per second over 10 connections; GET /spin?ms=100 once per second over another.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &[
        Row::new("response.p99", "GET /, p99 latency from when it was due"),
        Row::new("response.p50", "GET /, median latency from when it was due"),
        Row::new("response.max", "GET /, longest latency from when it was due"),
        Row::new("service.p99", "GET /, p99 latency from when it was sent"),
        Row::new("ok", "GET / answered").of("scheduled"),
        Row::new("errors", "GET / that failed"),
        Row::new("unfinished", "GET / without a response at the end"),
        Row::new("stall.ok", "GET /spin?ms=100 answered").of("stall.scheduled"),
        Row::new("stall.response.p50", "GET /spin?ms=100, median latency"),
    ],
    // A tenth of the requests falls due while the loop computes: a p99 below the half of 100 ms is no stall, however busy the machine is.
    expect: &[
        "broken.response.p99 >= 50ms",
        "broken.response.p99 >= 10 * correct.response.p99",
        "broken.response.p99 >= 5 * broken.service.p99",
        "broken.stall.ok > 0",
        "correct.stall.ok > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 1 --mistake loop-stall",
        "cargo run --release -p loadtest -- run http://127.0.0.1:8080/ -R 2000 -c 10 --max-connections 10 -d 60s    # a second terminal",
        "cargo run --release -p loadtest -- run 'http://127.0.0.1:8080/spin?ms=100' -R 1 -c 1 -d 60s                 # a third",
        "ps -T -o tid,comm,stat,pcpu,ni -p PID                             # loop-0 uses the CPU; without the mistake worker-0 does",
        "strace -r -e trace=epoll_wait,epoll_pwait,epoll_pwait2 -p TID 2>&1 | awk '$1 > 0.05'    # TID of loop-0: gaps of 0.1 s or more between two waits, once per second",
    ],
    code: Code { file: "server/src/dispatch.rs", source: include_str!("../../../server/src/dispatch.rs") },
    takes: Duration::from_secs(15),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let (warmup, duration) = (Duration::from_secs(1), Duration::from_secs(if side.long() { 30 } else { 6 }));
    let host = side.authority();
    let victims = Class::get("victims", &host, "/", Schedule::constant(VICTIMS_RATE, warmup + duration), VICTIMS_CONNECTIONS);
    let stall = Class::get("stall", &host, STALL_PATH, Schedule::constant(STALLS_RATE, warmup + duration), 1);
    let plan = side.plan(warmup, duration, vec![victims.expecting(b"Hello, World!"), stall]);
    Ok(side.run(plan)?.into())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (broken, correct) = text("response.p99");
    format!(
        "One percent of the GET / waited {broken} or longer while the loop computed for another client; with the work on the worker pool \
         p99 was {correct}. Measured from sending, p99 of the same stall would have been {}.",
        text("service.p99").0
    )
}
