//! `slow-consumer`: an answer is made as fast as it can be, and kept for a client that does not read it.
//!
//! The clients ask for little receive buffer, so that the kernels hold little and the rest must be somewhere else. How much is limited by what
//! was asked for, 4 MiB each, and by `--buffer-memory-max`: with the mistake on and neither, a few clients would end the machine.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use server::process;

use crate::contrast::Contrast;
use crate::figures::{Figure, Unit};
use crate::raw::connect_with_little_room;
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Clients that ask and never read.
const CLIENTS: u64 = 100;
const REQUEST: &[u8] = b"GET /bytes?n=4194304 HTTP/1.1\r\nHost: x\r\n\r\n";
/// The receive buffer that each asks for (SO_RCVBUF, socket(7)).
const RECEIVE_BYTES: usize = 4096;
/// The server has made what it will make when its memory has not grown for this long.
const QUIET: Duration = Duration::from_millis(700);
/// And it is looked at no longer than this.
const PATIENCE: Duration = Duration::from_secs(4);
const LOOK_PAUSE: Duration = Duration::from_millis(10);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "slow-consumer",
    title: "output without a bound for a client that does not read",
    cause: "What a client does not take is queued, and more is made and queued behind it, so a client that stops reading costs as much memory as \
            there is to say to it.",
    load: "100 clients with a receive buffer of 4 KiB ask once for 4 MiB each and read nothing.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--buffer-memory-max", "512MiB"],
    drive,
    rows: &["memory_growth_mib", "memory_kib_each", "connected"],
    expect: &[
        "broken.memory_growth_mib >= 10 * correct.memory_growth_mib",
        "broken.memory_growth_mib >= 200",
        "correct.memory_kib_each <= 128",
        "correct.connected == 100%",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --buffer-memory-max 512MiB --mistake slow-consumer",
        "for i in $(seq 100); do exec {fd}<>/dev/tcp/127.0.0.1/8080; printf 'GET /bytes?n=4194304 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&$fd; done    # bash",
        "grep VmRSS /proc/PID/status                   # hundreds of megabytes; without the mistake ten",
        "curl -s http://127.0.0.1:9090/metrics | grep -E 'buffers_leased|short_writes'    # where they are",
        "ss -tnm 'sport = :8080'                       # skmem w: the kernel's part is small on both sides",
    ],
    code: Code { file: "reactor/src/water_marks.rs", source: include_str!("../../../reactor/src/water_marks.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let resident = || process::usage_of(side.pid).map(|usage| usage.resident_bytes).map_err(|e| format!("/proc/{}/status: {e}", side.pid));
    // Connections cost a little themselves: they are not what is measured.
    let connect = |_| connect_with_little_room(side.http, side.from, RECEIVE_BYTES).map_err(fail);
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
        .with("memory_growth_mib", Figure { value: grown / f64::from(1 << 20), unit: Unit::Number })
        .with("memory_kib_each", Figure { value: grown / 1024.0 / CLIENTS as f64, unit: Unit::Number })
        .with("connected", Figure::share(connected, CLIENTS)))
}

/// Waits until the memory has not grown for a while; returns the most that it was.
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
         {correct_each} KiB for each, whatever they had asked for."
    )
}
