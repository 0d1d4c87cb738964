//! With every worker held and the queue full: jobs are refused at once and counted by reason, and whoever asks how the server is gets an answer, on
//! both ports (`blocked-health-check`).

mod process;

use std::net::TcpStream;

use process::{Server, get, sample, send, wait_for};

/// Holds a worker, or a place in the queue, for longer than the test takes.
const HOLDS: &str = "/spin?ms=10000";

/// Sends so many jobs that hold, and waits until one runs and the others wait.
fn fill(server: &Server, jobs: usize) -> Vec<TcpStream> {
    let held: Vec<_> = (0..jobs).map(|_| send(server.http, "GET", HOLDS).expect("it accepts")).collect();
    wait_for("a full pool", || {
        let waiting = sample(server.admin, "pool_queue_depth{class=\"fast\"}") + sample(server.admin, "pool_jobs_running{class=\"fast\"}");
        (waiting == jobs as f64).then_some(())
    });
    held
}

#[track_caller]
fn refuses(server: &Server, reason: &str) {
    let count = |reason: &str| sample(server.admin, &format!("pool_jobs_rejected_total{{reason=\"{reason}\"}}"));
    let before = count(reason);
    let mut times = Vec::new();
    for _ in 0..40 {
        let answer = get(server.http, HOLDS);
        assert_eq!((answer.status, &*answer.body), (503, "busy\n"));
        times.push(answer.header("Retry-After").and_then(|value| value.parse::<u32>().ok()).expect("seconds"));
        assert_eq!(get(server.http, "/healthz").status, 200);
        assert_eq!(get(server.admin, "/healthz").status, 200);
        assert_eq!(get(server.admin, "/readyz").status, 200);
    }
    assert_eq!(count(reason) - before, 40.0, "{reason}");
    let all = ["queue_full", "slow_share_full", "limit_reached", "wait_too_long", "would_expire", "sampled", "stopping"];
    assert_eq!(all.iter().map(|reason| count(reason)).sum::<f64>(), 40.0, "for this reason and no other");
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 1, "those refused together must not return together: {times:?}");
}

#[test]
fn a_queue_that_is_full_by_number() {
    let server = Server::start(&["--loops", "1", "--workers", "1", "--queue-jobs-max", "2", "--job-deadline", "1m"]);
    let held = fill(&server, 3);
    refuses(&server, "queue_full");
    drop(held);
}

#[test]
fn a_queue_that_is_full_by_wait() {
    let server = Server::start(&["--loops", "1", "--workers", "1", "--queue-wait-max", "1ms", "--job-deadline", "1m"]);
    // How long a job takes, as far as the pool knows. One mean run of waiting is always granted.
    assert_eq!(get(server.http, "/spin?ms=20").status, 200);
    let held = fill(&server, 2);
    refuses(&server, "wait_too_long");
    drop(held);
}
