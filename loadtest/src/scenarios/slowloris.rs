//! `slowloris`: each byte of a request's head moves its deadline, and nobody makes room: 300 clients that send a byte now and then keep all places.
//!
//! A slow client whose connection ends comes back at once, as the attack does. The accept queue is first in, first out: whoever comes new comes
//! behind all slow ones.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::figures::Figure;
use crate::raw::{Client, look_at_all};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Slow clients: more than the server has places for.
const SLOW: usize = 400;
/// How long they go on: longer than the header timeout of the server.
const ATTACK: Duration = Duration::from_secs(3);
/// Between two bytes of a slow client: a tenth of the header timeout.
const BYTE_EVERY: Duration = Duration::from_millis(200);
/// Between two newcomers.
const NEWCOMER_EVERY: Duration = Duration::from_millis(50);
/// A newcomer to whom nothing has come for this long after the attack gets nothing.
const QUIET: Duration = Duration::from_millis(500);

const HEAD_BEGUN: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nX: ";
const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "slowloris",
    title: "slow clients keep every place, at a few bytes a second",
    cause: "A deadline that each byte moves is no limit: a byte now and then keeps a connection for ever, and where nobody makes room, as many \
            such clients as there are places keep everybody else out.",
    load: "A server with 300 places and a header timeout of 2 s; 400 clients send a byte of a head every 200 ms and come back when closed; \
           beside them 20 newcomers a second with one whole request each.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--connections-max", "300", "--header-timeout", "2s"],
    drive,
    rows: &["served", "newcomers", "told_503", "held_throughout", "slow_came_back"],
    expect: &["broken.served == 0%", "correct.served == 100%", "broken.held_throughout >= 250", "correct.held_throughout == 0"],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --connections-max 300 --header-timeout 2s --mistake slowloris",
        "slowhttptest -H -c 400 -r 400 -i 1 -l 20 -u http://127.0.0.1:8080/      # and curl it meanwhile",
        "ss -tin state established 'sport = :8080'      # many connections, bytes_received tiny in each",
        "curl -s localhost:9090/metrics | grep -e http_evictions -e http_timeouts -e connections_closed   # the correct one counts",
    ],
    code: Code { file: "server/src/connection.rs", source: include_str!("../../../server/src/connection.rs") },
};

/// A slow client, and whether it is the first in its place.
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
                // Where the server has closed meanwhile, the next look tells.
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
    // The attack is not over for those who wait: their slow rivals keep their connections until the last has been looked at.
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
        .with("served", Figure::share(served, newcomers.len() as u64))
        .with("newcomers", Figure::count(newcomers.len() as u64))
        .with("told_503", Figure::count(newcomers.iter().map(|client| client.refused).sum()))
        .with("held_throughout", Figure::count(held))
        .with("slow_came_back", Figure::count(came_back)))
}

fn come(side: &Side<'_>, bytes: &[u8]) -> Result<Client, String> {
    let client = Client::connect(side.http, side.from).and_then(|mut client| client.send(bytes).map(|()| client));
    client.map_err(|e| format!("a client failed: {e}"))
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    format!(
        "{} of 400 slow clients kept their connections all the time, and of {} newcomers {} were served; with a deadline that no byte moves and \
         the oldest making room, {} kept theirs and {} were served, each within {}.",
        text("held_throughout").0,
        text("newcomers").0,
        text("served").0,
        text("held_throughout").1,
        text("served").1,
        Contrast::text(&contrast.correct, "waited_max"),
    )
}
