//! `partial-read`: the server takes each read for one request, so a request that arrives in two reads becomes two malformed ones.
//!
//! The order is fixed: a client sends the second half of its request when the server has read the first. Over a network the same happens
//! without intent, wherever a request does not fit a segment or the window.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::kernel_sockets;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{Client, GET, look_at_all};

/// Each request is cut once, and every place is tried.
const SPLITS: usize = GET.len() - 1;
/// Clients that send two requests in one segment, and others that send one.
const OTHERS: u64 = 20;
/// A client that has received nothing for this long hangs.
const QUIET: Duration = Duration::from_secs(1);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "partial-read",
    title: "each read is taken for one request",
    cause: "TCP keeps the order of bytes, not the boundaries of messages; a server that drops partial input loses half a request that arrives in two \
            reads, and a whole one when two arrive in one.",
    load: "26 clients send GET / (27 bytes) in two segments, cut at each place; 20 send two requests in one segment; 20 send one in one.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1"],
    drive,
    rows: &[
        Row::new("split_answered", "requests in two segments answered").of("splits"),
        Row::new("pairs_answered", "clients with two requests in one segment, both answered").of("others"),
        Row::new("whole_answered", "clients with one request in one segment, answered").of("others"),
        Row::new("rejected", "requests rejected with 400"),
        Row::new("unanswered", "requests without a response"),
    ],
    expect: &[
        "broken.split_answered <= 2",
        "correct.split_answered == 26",
        "broken.pairs_answered <= 2",
        "correct.pairs_answered == 20",
        "broken.whole_answered == 20",
        "correct.whole_answered == 20",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --mistake partial-read",
        "curl -s http://127.0.0.1:8080/                        # a second terminal, bash: 200",
        "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HT' >&3; sleep 0.1; printf 'TP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; timeout 1 cat <&3   # 400",
        "strace -s 40 -e trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg -p TID    # TID of loop-0: a read of 8 bytes, one of 19, then 400 is sent",
    ],
    code: Code { file: "reactor/src/visit.rs", source: include_str!("../../../reactor/src/visit.rs") },
    takes: Duration::from_secs(6),
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
    let answered = groups.map(|(clients, wanted)| Figure::count(clients.iter().filter(|client| client.served == wanted).count() as u64));
    let all = || groups.iter().flat_map(|(clients, wanted)| clients.iter().map(move |client| (client, wanted)));
    Ok(Measured::default()
        .with("splits", Figure::count(SPLITS as u64))
        .with("others", Figure::count(OTHERS))
        .with("split_answered", answered[0])
        .with("pairs_answered", answered[1])
        .with("whole_answered", answered[2])
        .with("rejected", Figure::count(all().map(|(client, _)| client.refused).sum()))
        .with("unanswered", Figure::count(all().map(|(client, wanted)| wanted.saturating_sub(client.answers())).sum())))
}

/// Clients that each send `requests` in one segment, and what they received.
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
    // This request was sent after all others: when it is answered, they have arrived.
    let mut last = [Client::connect(side.http, side.from).map_err(|e| format!("a client failed: {e}"))?];
    last[0].send(GET).map_err(|e| format!("a client failed: {e}"))?;
    look_at_all(&mut last, QUIET, side.interrupted(), |client| client.answers() > 0 || client.ended);
    let started = Instant::now();
    while kernel_sockets::receive_queues(server).map_err(|e| format!("/proc/net/tcp: {e}"))?.iter().any(|bytes| *bytes > 0) {
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
        "Of the 26 requests that arrived in two reads {split} were answered; in all, {} requests were rejected and {} got no response. With partial \
         input kept until the rest arrives, {correct} of the 26 were answered.",
        text("rejected").0,
        text("unanswered").0,
    )
}
