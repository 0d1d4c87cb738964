//! `partial-read`: one read is taken for one request, and a request that comes in two reads is two that make no sense.
//!
//! Nothing is left to luck: the second half of a request is sent when the server has read the first. Over a network the same happens by
//! itself, wherever a request does not fit the segment, the window or the moment.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::figures::Figure;
use crate::proc;
use crate::raw::{Client, GET, look_at_all};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Each request is cut once, and each place is tried.
const SPLITS: usize = GET.len() - 1;
/// Clients that send two requests in one segment, and others that send one.
const OTHERS: u64 = 20;
/// A client to whom nothing has come for this long hangs.
const QUIET: Duration = Duration::from_secs(1);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "partial-read",
    title: "each read is taken for one request",
    cause: "TCP keeps the order of bytes and not the borders of messages; a server that forgets what is left of a read loses half a request when \
            it comes in two, and a whole one when two come together.",
    load: "26 clients send GET / (27 bytes) in two segments, cut at each place; 20 send two requests in one segment; 20 send one in one.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &["split_answered", "pairs_answered", "whole_answered", "refused", "forgotten"],
    expect: &[
        "broken.split_answered <= 10%",
        "correct.split_answered == 100%",
        "broken.pairs_answered <= 10%",
        "correct.pairs_answered == 100%",
        "broken.whole_answered == 100%",
        "correct.whole_answered == 100%",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake partial-read",
        "curl -s http://127.0.0.1:8080/                        # a second terminal, bash: all is well",
        "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HT' >&3; sleep 0.1; printf 'TP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; timeout 1 cat <&3   # 400",
        "strace -s 40 -e trace=recvfrom,sendto -p TID          # TID of loop-0: recvfrom returns 8 bytes, then 19, then 400 is sent",
    ],
    code: Code { file: "reactor/src/visit.rs", source: include_str!("../../../reactor/src/visit.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: io::Error| format!("a client failed: {e}");
    let mut split = connect(side, SPLITS as u64)?;
    for (n, client) in split.iter_mut().enumerate() {
        client.send(&GET[..=n]).map_err(fail)?;
    }
    all_read(side)?;
    for (n, client) in split.iter_mut().enumerate() {
        client.send(&GET[n + 1..]).map_err(fail)?;
    }
    look_at_all(&mut split, QUIET, side.interrupted(), |client| client.answers() > 0 || client.ended);
    let pairs = all_at_once(side, &GET.repeat(2), 2)?;
    let whole = all_at_once(side, GET, 1)?;

    let groups = [(&split, 1), (&pairs, 2), (&whole, 1)];
    let answered = groups.map(|(clients, wanted)| {
        let content = clients.iter().filter(|client| client.served == wanted).count() as u64;
        Figure::share(content, clients.len() as u64)
    });
    let all = || groups.iter().flat_map(|(clients, wanted)| clients.iter().map(move |client| (client, wanted)));
    Ok(Measured::default()
        .with("split_answered", answered[0])
        .with("pairs_answered", answered[1])
        .with("whole_answered", answered[2])
        .with("refused", Figure::count(all().map(|(client, _)| client.refused).sum()))
        .with("forgotten", Figure::count(all().map(|(client, wanted)| wanted.saturating_sub(client.answers())).sum())))
}

/// Clients that each send that in one segment, and their answers.
fn all_at_once(side: &Side<'_>, requests: &[u8], wanted: u64) -> Result<Vec<Client>, String> {
    let mut clients = connect(side, OTHERS)?;
    for client in &mut clients {
        client.send(requests).map_err(|e| format!("a client failed: {e}"))?;
    }
    look_at_all(&mut clients, QUIET, side.interrupted(), |client| client.answers() >= wanted || client.ended);
    Ok(clients)
}

fn connect(side: &Side<'_>, count: u64) -> Result<Vec<Client>, String> {
    let clients = (0..count).map(|_| Client::connect(side.http, side.from));
    clients.collect::<io::Result<_>>().map_err(|e| format!("a client failed: {e}"))
}

/// Waits until the server has read all that has been sent.
fn all_read(side: &Side<'_>) -> Result<(), String> {
    let SocketAddr::V4(server) = side.http else { return Err("the server under test listens on IPv4".to_owned()) };
    // Who is answered now, came after them: they have arrived.
    let mut last = [Client::connect(side.http, side.from).map_err(|e| format!("a client failed: {e}"))?];
    last[0].send(GET).map_err(|e| format!("a client failed: {e}"))?;
    look_at_all(&mut last, QUIET, side.interrupted(), |client| client.answers() > 0 || client.ended);
    let started = Instant::now();
    while proc::receive_queues(server).map_err(|e| format!("/proc/net/tcp: {e}"))?.iter().any(|bytes| *bytes > 0) {
        if side.interrupted().load(Ordering::Relaxed) || started.elapsed() > QUIET {
            return Err("the server under test does not read what it is sent".to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (split, correct) = text("split_answered");
    format!(
        "Of the requests that came in two reads {split} were answered, {} were refused and {} forgotten; with the rest of each read kept until \
         more has come it was {correct}.",
        text("refused").0,
        text("forgotten").0,
    )
}
