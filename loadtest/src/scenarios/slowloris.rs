//! `slowloris`: each byte of a request's head extends its deadline, and no connection is evicted: 300 clients that send a byte now and then
//! occupy every connection of the server.
//!
//! A slow client whose connection is closed reconnects at once, as the attack does. The accept queue is first in, first out: a new client
//! queues behind all slow ones.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{Client, look_at_all};

/// Slow clients: more than the connection limit of the server.
const SLOW: usize = 400;
/// Length of the attack: longer than the header timeout of the server.
const ATTACK: Duration = Duration::from_secs(3);
/// Between two bytes of a slow client: a tenth of the header timeout.
const BYTE_EVERY: Duration = Duration::from_millis(200);
/// Pause between two new clients.
const NEWCOMER_EVERY: Duration = Duration::from_millis(50);
/// A new client that has received nothing for this long after the attack will receive nothing.
const QUIET: Duration = Duration::from_millis(500);

const HEAD_BEGUN: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nX: ";
const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "slowloris",
    title: "slow clients hold every connection, at a few bytes per second",
    cause: "A deadline that each byte extends is not a limit: a byte now and then keeps a connection open for ever, and without eviction as many such \
            clients as the connection limit allows lock out all others.",
    load: "A server with a limit of 300 connections and a header timeout of 2 s; 400 clients send a byte of a head every 200 ms and reconnect when \
           closed; next to them 20 new clients per second send one whole request each.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--connections-max", "300", "--header-timeout", "2s"],
    drive,
    rows: &[
        Row::new("answered", "new clients answered during the attack").of("new_clients"),
        Row::new("new_clients", "new clients during the attack"),
        Row::new("rejected", "new clients rejected with 503").of("new_clients"),
        Row::new("never_closed", "slow clients that kept their connection throughout").of("slow_clients"),
        Row::new("reconnected", "times that a slow client was closed and reconnected"),
    ],
    expect: &["broken.answered == 0", "correct.answered >= correct.new_clients", "broken.never_closed >= 250", "correct.never_closed == 0"],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --connections-max 300 --header-timeout 2s --mistake slowloris",
        "slowhttptest -H -c 400 -r 400 -i 1 -l 20 -u http://127.0.0.1:8080/      # and run curl meanwhile",
        "ss -tin state established 'sport = :8080'      # many connections, bytes_received tiny in each",
        "curl -s localhost:9090/metrics | grep -e http_evictions -e http_timeouts -e connections_closed   # the correct server counts",
    ],
    code: Code { file: "server/src/connection.rs", source: include_str!("../../../server/src/connection.rs") },
    takes: Duration::from_secs(8),
};

/// A slow client, and whether it has never reconnected.
struct Slow {
    client: Client,
    first: bool,
}

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let mut slow = (0..SLOW).map(|_| Ok(Slow { client: come(side, HEAD_BEGUN)?, first: true })).collect::<Result<Vec<_>, String>>()?;
    let mut newcomers: Vec<(Client, Instant)> = Vec::new();
    let begun = Instant::now();
    let (mut byte_due, mut newcomer_due) = (begun + BYTE_EVERY, begun);
    let mut came_back = 0;
    while begun.elapsed() < ATTACK && !side.interrupted().load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= byte_due {
            byte_due += BYTE_EVERY;
            for slow in &mut slow {
                slow.client.look();
                // If the server has closed the connection meanwhile, the next read shows it.
                if !slow.client.ended && slow.client.send(b"a").is_ok() {
                    continue;
                }
                *slow = Slow { client: come(side, HEAD_BEGUN)?, first: false };
                came_back += 1;
            }
        }
        if now >= newcomer_due {
            newcomer_due += NEWCOMER_EVERY;
            newcomers.push((come(side, LAST_REQUEST)?, now));
        }
        for (newcomer, _) in &mut newcomers {
            newcomer.look();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for slow in &mut slow {
        slow.client.look();
    }
    let held = slow.iter().filter(|slow| slow.first && !slow.client.ended).count() as u64;
    let (mut newcomers, came_at): (Vec<Client>, Vec<Instant>) = newcomers.into_iter().unzip();
    // The slow clients keep their connections until the new ones have been read, so the attack lasts for these too.
    look_at_all(&mut newcomers, QUIET, side.interrupted(), |client| client.answers() > 0 || client.ended);
    let served = newcomers.iter().map(|client| client.served).sum();
    let waited = newcomers.iter().zip(came_at).filter(|(client, _)| client.served > 0);
    let waited_max = waited.filter_map(|(client, came)| Some(client.last_answer?.saturating_duration_since(came))).max();
    drop(slow);

    let mut measured = Measured::default();
    if let Some(waited) = waited_max {
        measured = measured.with("waited_max", Figure::time(waited));
    }
    Ok(measured
        .with("answered", Figure::count(served))
        .with("slow_clients", Figure::count(SLOW as u64))
        .with("new_clients", Figure::count(newcomers.len() as u64))
        .with("rejected", Figure::count(newcomers.iter().map(|client| client.refused).sum()))
        .with("never_closed", Figure::count(held))
        .with("reconnected", Figure::count(came_back)))
}

fn come(side: &Side<'_>, bytes: &[u8]) -> Result<Client, String> {
    let client = Client::connect(side.http, side.from).and_then(|mut client| client.send(bytes).map(|()| client));
    client.map_err(|e| format!("a client failed: {e}"))
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    format!(
        "{} of 400 slow clients kept their connections all the time, and of {} new clients {} were answered. With a deadline that no byte extends, and \
         eviction of the oldest connection, {} kept theirs and {} were answered, each within {}.",
        text("never_closed").0,
        text("new_clients").0,
        text("answered").0,
        text("never_closed").1,
        text("answered").1,
        Contrast::text(&contrast.correct, "waited_max"),
    )
}
