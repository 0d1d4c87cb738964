//! Requests that need no job wake no worker: 10,000 of them, counted by the kernel.

mod support;

use support::{Server, get, until};

/// Voluntary context switches of each worker thread of this process: proc(5), `/proc/[pid]/task/[tid]/status`.
fn switches() -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("procfs") {
        let path = task.expect("a task").path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if !name.starts_with("worker-") {
            continue;
        }
        let status = std::fs::read_to_string(path.join("status")).expect("a worker's status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("the line");
        found.push((name, line.trim().parse().expect("a number")));
    }
    found.sort();
    found
}

#[test]
fn ten_thousand_plain_requests_leave_the_workers_asleep() {
    let server = Server::routes();
    let mut client = server.connect();
    // Each worker has started, has done something, and sleeps again.
    client.send([get("/spin?ms=0"), get("/spin?ms=0")].concat());
    assert_eq!((client.response().status, client.response().status), (200, 200));
    let mut before = switches();
    until("the workers have gone to sleep", || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = switches();
        let settled = now == before;
        before = now;
        settled && before.len() == 2
    });
    for _ in 0..100 {
        client.send(get("/").repeat(100));
        for _ in 0..100 {
            assert_eq!(client.response().status, 200);
        }
    }
    assert_eq!(switches(), before);
    // The measure is not blind.
    client.send(get("/spin?ms=0"));
    assert_eq!(client.response().status, 200);
    until("a job shows", || switches() != before);
}
