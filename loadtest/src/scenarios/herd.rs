//! `herd`: one listening socket in the epoll of every loop, and each new connection wakes them all.
//!
//! Both sides share one socket, so that a single flag is the difference: `EPOLLEXCLUSIVE` (`--listener-sharing exclusive`). The default,
//! a socket for each loop, has no herd either. Clients connect one at a time, when all loops sleep. They send nothing and stay connected
//! until the count is complete: a request or a close would cost a wake-up of its own, on both sides, and hide a part of the ratio.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client;

/// Loops; `server_args` says the same.
const LOOPS: usize = 4;
/// Connections, one after the other.
const CONNECTIONS: usize = 500;
/// From the end of connect(2) to the first check whether the loops sleep again. The wake-ups happen within connect(2): on loopback the
/// client's own thread delivers its packets. This pause is the margin for a wake-up that the kernel deferred.
const SETTLE: Duration = Duration::from_micros(300);
/// Loops that do not go back to sleep for this long have another failure than this one.
const SLEEP_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "herd",
    title: "every loop wakes for each new connection",
    cause: "One listening socket is in the epoll of all loops without EPOLLEXCLUSIVE: the kernel wakes every loop, and only one can accept the connection.",
    load: "500 clients connect, one at a time, when all four loops sleep; they send no request and do not disconnect.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "4", "--workers", "1", "--listener-sharing", "exclusive"],
    drive,
    rows: &[
        Row::new("switches_per_accept", "loop wake-ups per connection"),
        Row::new("loops_woken", "loops that woke for at least half of the connections"),
        Row::new("connections", "connections made"),
    ],
    // The loops that wake together wait for each other, which looks like a busy machine: a ratio of two small counts is then open, and the bound
    // on the correct side alone is not.
    expect: &[
        "broken.switches_per_accept >= 3 * correct.switches_per_accept",
        "broken.loops_woken == 4",
        "correct.loops_woken <= 1",
        "correct.connections >= 500",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 4 --mistake herd",
        "for i in $(seq 100); do sleep 0.01; exec {fd}<>/dev/tcp/127.0.0.1/8080; done      # a second terminal, bash",
        "grep -H ^voluntary /proc/PID/task/*/status      # before and after: each loop has gone to sleep 100 times more",
        "strace -f -e trace=epoll_wait,epoll_pwait,epoll_pwait2,accept,accept4 -e inject=accept,accept4:delay_enter=200 -p PID    # with slow accepts EAGAIN shows",
    ],
    code: Code { file: "reactor/src/listen/socket.rs", source: include_str!("../../../reactor/src/listen/socket.rs") },
    takes: Duration::from_secs(5),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("/proc/{}: {e}", side.pid);
    let mut loops = process::threads_of(side.pid).map_err(fail)?;
    loops.retain(|thread| thread.name.starts_with("loop-"));
    let loops: Vec<u32> = loops.iter().map(|thread| thread.tid).collect();
    if loops.len() != LOOPS {
        return Err(format!("the server has {} threads that are named loop-…; there should be {LOOPS}", loops.len()));
    }
    let switches_of = |tid: &u32| process::thread_of(side.pid, *tid).map(|thread| thread.voluntary_switches);
    let switches = || loops.iter().map(switches_of).collect::<Result<Vec<_>, _>>().map_err(fail);
    wait_for_sleep(side.pid, &loops)?;
    let before = switches()?;
    let mut open = Vec::with_capacity(CONNECTIONS);
    while open.len() < CONNECTIONS && !side.interrupted().load(Ordering::Relaxed) {
        open.push(socket_client::connect(side.http, side.from).map_err(|e| format!("a client failed: {e}"))?);
        std::thread::sleep(SETTLE);
        wait_for_sleep(side.pid, &loops)?;
    }
    let more: Vec<u64> = switches()?.iter().zip(&before).map(|(after, before)| after - before).collect();
    let per_accept = more.iter().sum::<u64>() as f64 / open.len().max(1) as f64;
    // A loop counts as woken when it woke for at least half of the connections: once or twice may be its own deadlines.
    let woken = more.iter().filter(|switches| **switches * 2 > open.len() as u64).count() as u64;
    Ok(Measured::default()
        .with("switches_per_accept", Figure::number(per_accept))
        .with("loops_woken", Figure::count(woken))
        .with("connections", Figure::count(open.len() as u64)))
}

/// Waits until every loop is in state S: the loops that the last connection woke sleep again.
fn wait_for_sleep(pid: u32, loops: &[u32]) -> Result<(), String> {
    let until = Instant::now() + SLEEP_TIMEOUT;
    for tid in loops {
        // A loop that was woken and waits for a processor is in state R.
        while process::thread_of(pid, *tid).map_err(|e| format!("/proc/{pid}: {e}"))?.state != 'S' {
            if Instant::now() > until {
                return Err(format!("a loop has not gone to sleep for {SLEEP_TIMEOUT:?}"));
            }
            std::thread::yield_now();
        }
    }
    Ok(())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (broken, correct) = text("switches_per_accept");
    format!(
        "Each connection caused {broken} wake-ups of loop threads, and one of them accepted it; with EPOLLEXCLUSIVE on the same socket it \
         caused {correct}."
    )
}
