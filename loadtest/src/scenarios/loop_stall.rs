//! `loop-stall`: one request in 2,000 does its work on the loop's thread, and all others wait for it.
//!
//! The victims have ten connections and no more: whoever measured from sending would see ten late answers for each stall, and the
//! 200 requests that should have been sent meanwhile not at all.

use std::time::Duration;

use crate::contrast::Contrast;
use crate::plan::Class;
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};
use crate::schedule::Schedule;

/// Requests a second of those who suffer, and their connections.
const VICTIMS_RATE: f64 = 2_000.0;
const VICTIMS_CONNECTIONS: u32 = 10;
/// Stalls a second, over a connection of their own: one stall is a tenth of the time, far above the one percent that a p99 forgives.
const STALLS_RATE: f64 = 1.0;
/// How long one is. Long against every other delay on a machine of two cores, and what a hash, a template or a regex easily takes.
const STALL_PATH: &str = "/spin?ms=100";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "loop-stall",
    title: "CPU work on the event loop's thread",
    cause: "One request a second burns 100 ms of CPU on the loop's own thread, and meanwhile no other connection is read or answered.",
    load: "GET / 2000 times a second over 10 connections; GET /spin?ms=100 once a second over another.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &["response.p99", "response.p50", "response.max", "service.p99", "ok", "errors", "unfinished", "stall.response.p50"],
    expect: &[
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
        "ps -T -o tid,comm,stat,pcpu,ni -p PID                             # it is loop-0 that computes, not worker-0",
        "strace -r -e trace=epoll_wait -p TID 2>&1 | awk '$1 > 0.05'       # TID of loop-0: 0.1 s between two epoll_wait, once a second",
    ],
    code: Code { file: "server/src/dispatch.rs", source: include_str!("../../../server/src/dispatch.rs") },
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
        "One percent of the light requests waited {broken} or longer while the loop worked for somebody else; with the work on the pool it \
         was {correct}. Measured from sending, the same stall would look like {}.",
        text("service.p99").0
    )
}
