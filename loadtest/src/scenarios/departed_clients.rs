//! `departed-clients`: twenty clients wait behind a job and disconnect; does the worker run their jobs all the same?
//!
//! The load comes in rounds. Under a steady overload a first-in, first-out queue would reach each client just before it disconnects, with and
//! without the mistake. Here all of them have disconnected before their jobs are next. One client stays connected: its latency shows how
//! much of the worker's time the 20 cost.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::impatient_clients::ImpatientClients;
use crate::results_by_name::{Figure, Unit};
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::server_metrics;
use crate::side::{Measured, Side};
use crate::socket_client::{Client, look_at_all};

/// The job of the client that stays connected: longer than the 20 wait.
const STAYS: &[u8] = b"GET /spin?ms=100 HTTP/1.1\r\nHost: x\r\n\r\n";
/// The job of the clients that disconnect. All 20 together are two seconds of work.
const LEAVES: &str = "/spin?ms=100";
const CROWD: usize = 20;
/// How long those clients wait.
const PATIENCE: Duration = Duration::from_millis(50);
/// Rounds that are counted at least, however slow the machine is.
const ROUNDS_MIN: usize = 2;
/// A round that takes longer than this has another failure. Next to other programs a worker may get a twentieth of a core.
const ROUND_MAX: Duration = Duration::from_secs(120);
/// Time that workers spent on jobs of clients that had disconnected, and on all jobs.
const ABANDONED: &str = "pool_abandoned_run_seconds_total";
const RUN: &str = "pool_job_run_seconds_sum{class=\"fast\"}";
const CANCELLED: &str = "pool_jobs_ended_total{outcome=\"cancelled\"}";
/// Jobs that ran to their end.
const DONE: &str = "pool_jobs_ended_total{outcome=\"done\"}";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "departed-clients",
    title: "work for clients that have disconnected",
    cause: "The pool does not cancel waiting jobs whose client has disconnected: the worker runs them, and the clients that still wait, wait for that too.",
    load: "One client requests 100 ms of CPU, again and again; each time 20 others request the same, wait 50 ms and disconnect.",
    mistake_in: MistakeIn::Server,
    // A bound on the wait would reject most of the 20 at once, and hide what happens to the jobs that are admitted. The expected wait is 20 times
    // the measured run time, which a machine without a free CPU makes long: at 30 s the client that stays connected was rejected.
    server_args: &[
        "--loops",
        "1",
        "--workers",
        "1",
        "--queue-wait-max",
        "10m",
        "--queue-standing-wait-max",
        "10m",
        "--job-deadline",
        "20m",
    ],
    drive,
    rows: &[
        Row::new("surviving_client_mean", "client that stays connected, mean latency"),
        Row::new("jobs_for_each_response", "jobs run for each response to that client"),
        Row::new("surviving_client_answered", "responses to the client that stays connected"),
        Row::new("surviving_client_rejected", "requests of that client that were rejected"),
        Row::new("wasted_share", "share of worker time spent for disconnected clients"),
        Row::new("wasted_s", "worker time spent for disconnected clients").unit("s"),
        Row::new("worked_s", "worker time spent in all").unit("s"),
        Row::new("abandoned", "requests whose client disconnected"),
        Row::new("cancelled", "jobs cancelled because their client had disconnected"),
    ],
    // The client that stays waits for the jobs ahead of its own. Counted as jobs, the ratio is the same on every machine; as latency it is not,
    // since a worker gets more CPU at one time than at another.
    expect: &[
        "broken.jobs_for_each_response >= 10 * correct.jobs_for_each_response",
        "broken.surviving_client_mean > correct.surviving_client_mean",
        "broken.wasted_share >= 60%",
        "correct.wasted_share <= 12%",
        "broken.cancelled == 0",
        "correct.cancelled > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 1 --queue-wait-max 10m --queue-standing-wait-max 10m --job-deadline 20m --mistake departed-clients",
        "while :; do curl -s -o /dev/null -w '%{time_total}\\n' 'http://127.0.0.1:8080/spin?ms=100'; done     # a second terminal: the client that stays",
        "python3 -c 'import socket,struct,time,sys; s=[socket.create_connection((\"127.0.0.1\",8080)) for _ in range(20)]; \
         [c.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack(\"ii\",1,0)) for c in s]; \
         [c.send(b\"GET /spin?ms=100 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\") for c in s]; time.sleep(.05); [c.close() for c in s]'     # a third",
        "curl -s http://127.0.0.1:9090/metrics | grep -E '^pool_(abandoned_run|jobs_ended)'     # seconds worked for disconnected clients; jobs cancelled",
    ],
    code: Code { file: "worker-pool/src/queue.rs", source: include_str!("../../../worker-pool/src/queue.rs") },
    takes: Duration::from_secs(10),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let interrupted = side.interrupted();
    let length = Duration::from_secs(if side.long() { 20 } else { 4 });
    let mut stays = [Client::connect(side.http, side.from).map_err(fail)?];
    let mut crowd = ImpatientClients::new(side.http, side.from, LEAVES, PATIENCE);
    let (begin, mut times) = (Instant::now(), Vec::new());
    let mut before = None;
    let all_max = ROUND_MAX * (ROUNDS_MIN as u32 + 1);
    while (begin.elapsed() < length || times.len() < ROUNDS_MIN && begin.elapsed() < all_max) && !interrupted.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let (answers, served) = (stays[0].answers(), stays[0].served);
        stays[0].send(STAYS).map_err(fail)?;
        // The 20 send while the first job runs; their waiting time begins when all have sent.
        if before.is_none() {
            wait_until_running(side)?;
        }
        let due = Instant::now();
        (0..CROWD).for_each(|_| crowd.start(due));
        while crowd.waiting() > 0 && due.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        crowd.read_all().map_err(fail)?;
        crowd.disconnect_all().map_err(fail)?;
        look_at_all(&mut stays, ROUND_MAX, interrupted, |client| client.answers() > answers || client.ended);
        if stays[0].answers() == answers && !interrupted.load(Ordering::Relaxed) {
            return Err("the client that stays connected was not answered".to_owned());
        }
        match before {
            // The first round has no jobs of other clients before it.
            None => before = Some(server_metrics::metrics(side.admin).map_err(fail)?),
            Some(_) if stays[0].served > served => times.push(stays[0].last_answer.unwrap_or(asked).saturating_duration_since(asked)),
            // A rejection is quick, and is not a latency.
            Some(_) => {}
        }
    }
    if times.is_empty() && !interrupted.load(Ordering::Relaxed) {
        return Err(format!("every request of the client that stays connected was rejected, {} in all", stays[0].refused));
    }
    let page = server_metrics::metrics(side.admin).map_err(fail)?;
    let before = before.unwrap_or_default();
    let grown = |name: &str| match (server_metrics::sample(&page, name), server_metrics::sample(&before, name)) {
        (Ok(end), Ok(begin)) => Ok(end - begin),
        (Err(e), _) | (_, Err(e)) => Err(e.to_string()),
    };
    let (wasted, worked, done) = (grown(ABANDONED)?, grown(RUN)?, grown(DONE)?);
    let rounds = u32::try_from(times.len().max(1)).unwrap_or(u32::MAX);
    let mean = times.iter().sum::<Duration>() / rounds;
    let seconds = |value: f64| Figure::number(value);
    Ok(Measured::default()
        .with("jobs_for_each_response", Figure::number(done / f64::from(rounds)))
        .with("surviving_client_answered", Figure::count(stays[0].served))
        .with("surviving_client_rejected", Figure::count(stays[0].refused))
        .with("surviving_client_mean", Figure::time(mean))
        .with("wasted_share", Figure::exactly(wasted / worked.max(1e-9), Unit::Share))
        .with("wasted_s", seconds(wasted))
        .with("worked_s", seconds(worked))
        .with("abandoned", Figure::count(crowd.ended.abandoned))
        .with("cancelled", Figure::number(grown(CANCELLED)?)))
}

/// Waits until a worker runs the first job: the 20 must queue behind it.
fn wait_until_running(side: &Side<'_>) -> Result<(), String> {
    let until = Instant::now() + ROUND_MAX;
    while Instant::now() < until {
        let page = server_metrics::metrics(side.admin).map_err(|e| format!("/metrics: {e}"))?;
        if server_metrics::sample(&page, "pool_jobs_running{class=\"fast\"}").map_err(|e| e.to_string())? > 0.0 {
            return Ok(());
        }
    }
    Err("no worker started the first job".to_owned())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    format!(
        "{} of the worker's time went into jobs of clients that had disconnected; {} jobs ran for each response to the client that stayed, which \
         took {} on average. With those jobs cancelled it was {} of the time, and {} for each response, which took {} on average.",
        text("wasted_share").0,
        text("jobs_for_each_response").0,
        text("surviving_client_mean").0,
        text("wasted_share").1,
        text("jobs_for_each_response").1,
        text("surviving_client_mean").1,
    )
}
