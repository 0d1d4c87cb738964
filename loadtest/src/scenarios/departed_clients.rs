//! `departed-clients`: twenty clients wait behind a job, give up and leave; whether their jobs are done all the same.
//!
//! In rounds, because at a steady overload first come, first served would reach each client just before it leaves, with and without the
//! mistake. Here all of them have left before their turn comes. One client stays: what it gets done is what the worker has left.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::admin;
use crate::contrast::Contrast;
use crate::deserters::Deserters;
use crate::figures::{Figure, Unit};
use crate::raw::{Client, look_at_all};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// The job of the client that stays: longer than the patience of the others.
const STAYS: &[u8] = b"GET /spin?ms=100 HTTP/1.1\r\nHost: x\r\n\r\n";
/// The job of those who leave. All together are two seconds of work.
const LEAVES: &str = "/spin?ms=100";
const CROWD: usize = 20;
/// How long they wait.
const PATIENCE: Duration = Duration::from_millis(50);
/// A round that takes longer than this shows something else.
const ROUND_MAX: Duration = Duration::from_secs(30);
/// What the worker has done for clients that were gone, and in all.
const ABANDONED: &str = "pool_abandoned_run_seconds_total";
const RUN: &str = "pool_job_run_seconds_sum{class=\"fast\"}";
const CANCELLED: &str = "pool_jobs_ended_total{outcome=\"cancelled\"}";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "departed-clients",
    title: "work for clients that have left",
    cause: "Nobody looks whether a waiting job still has a client: those who gave up have left their work behind, and whoever stays waits for it.",
    load: "One client asks for 100 ms of CPU, again and again; each time 20 others ask for as much, wait for 50 ms and leave.",
    mistake_in: MistakeIn::Server,
    // A bound on the wait would refuse most of the crowd at the door, and hide that those who got in are not forgotten.
    server_args: &["--loops", "1", "--workers", "1", "--queue-wait-max", "30s", "--queue-standing-wait-max", "30s", "--job-deadline", "1m"],
    drive,
    rows: &["stayed.mean", "stayed.served", "wasted", "wasted_s", "worked_s", "left", "cancelled"],
    expect: &[
        "broken.stayed.mean >= 5 * correct.stayed.mean",
        "broken.wasted >= 60%",
        "correct.wasted <= 12%",
        "broken.cancelled == 0",
        "correct.cancelled > 0",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --workers 1 --queue-wait-max 30s --queue-standing-wait-max 30s --mistake departed-clients",
        "while :; do curl -s -o /dev/null -w '%{time_total}\\n' 'http://127.0.0.1:8080/spin?ms=100'; done     # a second terminal: it stays",
        "python3 -c 'import socket,struct,time,sys; s=[socket.create_connection((\"127.0.0.1\",8080)) for _ in range(20)]; \
         [c.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack(\"ii\",1,0)) for c in s]; \
         [c.send(b\"GET /spin?ms=100 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\") for c in s]; time.sleep(.05); [c.close() for c in s]'     # a third",
        "curl -s http://127.0.0.1:9090/metrics | grep -E '^pool_(abandoned_run|jobs_ended)'     # seconds worked for nobody; jobs cancelled",
    ],
    code: Code { file: "worker-pool/src/waiting.rs", source: include_str!("../../../worker-pool/src/waiting.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let interrupted = side.interrupted();
    let length = Duration::from_secs(if side.long() { 20 } else { 4 });
    let mut stays = [Client::connect(side.http, side.from).map_err(fail)?];
    let mut crowd = Deserters::new(side.http, side.from, LEAVES, PATIENCE);
    let (begin, mut times) = (Instant::now(), Vec::new());
    let mut before = None;
    while begin.elapsed() < length && !interrupted.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answers = stays[0].answers();
        stays[0].send(STAYS).map_err(fail)?;
        // They come while it runs, and their patience begins when all have come.
        if before.is_none() {
            look_until_running(side)?;
        }
        let due = Instant::now();
        (0..CROWD).for_each(|_| crowd.come(due));
        while crowd.waiting() > 0 && due.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        crowd.look().map_err(fail)?;
        crowd.leave().map_err(fail)?;
        look_at_all(&mut stays, ROUND_MAX, interrupted, |client| client.answers() > answers || client.ended);
        if stays[0].answers() == answers && !interrupted.load(Ordering::Relaxed) {
            return Err("the client that stays was not answered".to_owned());
        }
        match before {
            // The first round has no crowd before it.
            None => before = Some(admin::metrics(side.admin).map_err(fail)?),
            Some(_) => times.push(asked.elapsed()),
        }
    }
    let page = admin::metrics(side.admin).map_err(fail)?;
    let before = before.unwrap_or_default();
    let grown = |name: &str| match (admin::sample(&page, name), admin::sample(&before, name)) {
        (Ok(end), Ok(begin)) => Ok(end - begin),
        (Err(e), _) | (_, Err(e)) => Err(e.to_string()),
    };
    let (wasted, worked) = (grown(ABANDONED)?, grown(RUN)?);
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len().max(1)).unwrap_or(1);
    let seconds = |value: f64| Figure { value, unit: Unit::Number };
    Ok(Measured::default()
        .with("stayed.served", Figure::count(stays[0].served))
        .with("stayed.mean", Figure::time(mean))
        .with("wasted", Figure { value: wasted / worked.max(1e-9), unit: Unit::Share })
        .with("wasted_s", seconds(wasted))
        .with("worked_s", seconds(worked))
        .with("left", Figure::count(crowd.ended.left))
        .with("cancelled", Figure { value: grown(CANCELLED)?, unit: Unit::Number }))
}

/// Waits until a worker has the first job: the crowd must be behind it.
fn look_until_running(side: &Side<'_>) -> Result<(), String> {
    let until = Instant::now() + ROUND_MAX;
    while Instant::now() < until {
        let page = admin::metrics(side.admin).map_err(|e| format!("/metrics: {e}"))?;
        if admin::sample(&page, "pool_jobs_running{class=\"fast\"}").map_err(|e| e.to_string())? > 0.0 {
            return Ok(());
        }
    }
    Err("no worker took the first job".to_owned())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    format!(
        "{} of the worker's time went into jobs of clients that had left, and the one that stayed got {} answers, after {} each; with their jobs \
         cancelled it was {} of the time, and {} answers after {} each.",
        text("wasted").0,
        text("stayed.served").0,
        text("stayed.mean").0,
        text("wasted").1,
        text("stayed.served").1,
        text("stayed.mean").1,
    )
}
