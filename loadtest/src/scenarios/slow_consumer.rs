//! `slow-consumer`: the server produces a response as fast as it can, and buffers it for a client that does not read.
//!
//! The clients set a small receive buffer, so that the kernels hold little and the server must buffer the rest. The size of the response,
//! 4 MiB, and `--buffer-memory-max` limit how much that is: with the mistake and without these limits, a few clients would exhaust the
//! memory of the machine.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::connect_with_small_receive_buffer;

/// Clients that send a request and never read.
const CLIENTS: u64 = 100;
const REQUEST: &[u8] = b"GET /bytes?n=4194304 HTTP/1.1\r\nHost: x\r\n\r\n";
/// The receive buffer that each sets (SO_RCVBUF, socket(7)).
const RECEIVE_BYTES: usize = 4096;
/// The server has stopped buffering when its memory has not grown for this long.
const QUIET: Duration = Duration::from_millis(700);
/// The most time that the scenario waits for that.
const PATIENCE: Duration = Duration::from_secs(4);
const LOOK_PAUSE: Duration = Duration::from_millis(10);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "slow-consumer",
    title: "output without a bound for a client that does not read",
    cause: "The server buffers what a client does not read and continues to produce, so a client that stops reading costs as much memory as its \
            response is long.",
    load: "100 clients with a receive buffer of 4 KiB request 4 MiB each and read nothing.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--buffer-memory-max", "512MiB"],
    drive,
    rows: &[
        Row::new("memory_growth_mib", "memory growth for 100 clients that do not read").unit("MiB"),
        Row::new("memory_kib_each", "memory growth per client").unit("KiB"),
        Row::new("connected", "clients still connected").of("clients"),
    ],
    expect: &[
        "broken.memory_growth_mib >= 10 * correct.memory_growth_mib",
        "broken.memory_growth_mib >= 200",
        "correct.memory_kib_each <= 128",
        "correct.connected == 100",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --buffer-memory-max 512MiB --mistake slow-consumer",
        "for i in $(seq 100); do exec {fd}<>/dev/tcp/127.0.0.1/8080; printf 'GET /bytes?n=4194304 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&$fd; done    # bash",
        "grep VmRSS /proc/PID/status                   # hundreds of megabytes; without the mistake ten",
        "curl -s http://127.0.0.1:9090/metrics | grep -E 'buffers_leased|short_writes'    # who holds them",
        "ss -tnm 'sport = :8080'                       # skmem w: the kernel's part is small on both sides",
    ],
    code: Code { file: "reactor/src/progress.rs", source: include_str!("../../../reactor/src/progress.rs") },
    takes: Duration::from_secs(4),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let resident = || process::usage_of(side.pid).map(|usage| usage.resident_bytes).map_err(|e| format!("/proc/{}/status: {e}", side.pid));
    // Connections cost a little memory themselves, which is not part of the figure.
    let connect = |_| connect_with_small_receive_buffer(side.http, side.from, RECEIVE_BYTES).map_err(fail);
    let mut clients = (0..CLIENTS).map(connect).collect::<Result<Vec<TcpStream>, _>>()?;
    wait_until_still(resident, side)?;
    let before = resident()?;
    for client in &mut clients {
        client.write_all(REQUEST).map_err(fail)?;
    }
    let after = wait_until_still(resident, side)?;
    let grown = after.saturating_sub(before) as f64;
    let connected = clients.iter().filter(|client| client.take_error().is_ok_and(|error| error.is_none())).count() as u64;
    Ok(Measured::default()
        .with("memory_growth_mib", Figure::number(grown / f64::from(1 << 20)))
        .with("memory_kib_each", Figure::number(grown / 1024.0 / CLIENTS as f64))
        .with("clients", Figure::count(CLIENTS))
        .with("connected", Figure::count(connected)))
}

/// Waits until the memory has not grown for [`QUIET`]; returns the largest value.
fn wait_until_still(resident: impl Fn() -> Result<u64, String>, side: &Side<'_>) -> Result<u64, String> {
    let begun = Instant::now();
    let (mut most, mut grown_at) = (resident()?, begun);
    while grown_at.elapsed() < QUIET && begun.elapsed() < PATIENCE && !side.interrupted().load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_PAUSE);
        let now = resident()?;
        if now > most {
            (most, grown_at) = (now, Instant::now());
        }
    }
    Ok(most)
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (broken, correct) = text("memory_growth_mib");
    let (broken_each, correct_each) = text("memory_kib_each");
    format!(
        "100 clients that read nothing made the server grow by {broken} MiB, {broken_each} KiB for each; with water marks it grew by {correct} MiB, \
         {correct_each} KiB for each, independent of the size of the response."
    )
}
