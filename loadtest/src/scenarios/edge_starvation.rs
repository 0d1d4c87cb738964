//! `edge-starvation`: one read for each event, and whoever sent more than that and fell silent is never heard to the end.
//!
//! The burst of a client is one write of less than half a receive window, so that the kernel delivers it in one piece, with one edge.
//! Its last act is one request more: on Linux each arrival makes an edge, whatever is still unread, and the server goes on by one read.
//! That is why a client that never stops sending does not show the fault.

use std::net::SocketAddr;
use std::time::Duration;

use crate::contrast::Contrast;
use crate::figures::{Figure, Unit};
use crate::proc;
use crate::raw::{Client, GET, look_at_all};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Clients, and requests that each sends at once: 27,000 bytes.
const CLIENTS: u64 = 20;
const REQUESTS: usize = 1_000;
/// A client to whom nothing has come for this long hangs.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "edge-starvation",
    title: "one read for each edge-triggered event",
    cause: "The loop reads once for each event, and for the bytes that it leaves in the kernel no second event comes.",
    load: "20 clients send 1000 GET / each in one write (27 kB) and then only wait; the server's read buffer holds 4 KiB.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--buffer-bytes-max", "4KiB", "--header-bytes-max", "2KiB"],
    drive,
    rows: &["completed", "answers_each", "hung", "unread_bytes_each", "answers_to_one_more"],
    expect: &[
        "broken.completed == 0%",
        "correct.completed == 100%",
        "broken.hung >= 20",
        "correct.hung == 0",
        "correct.answers_each >= 3 * broken.answers_each",
        "broken.answers_to_one_more >= 5 * correct.answers_to_one_more",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --buffer-bytes-max 4KiB --header-bytes-max 2KiB --mistake edge-starvation",
        "for i in $(seq 1000); do printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'; done > burst      # a second terminal, bash",
        "exec 3<>/dev/tcp/127.0.0.1/8080; dd bs=32k < burst >&3; timeout 2 cat <&3 | grep -c '200 OK'    # 151, and without the mistake 1000",
        "ss -tn 'sport = :8080'                        # meanwhile: bytes in Recv-Q that nobody reads",
        "strace -f -e trace=recvfrom,epoll_wait -p PID    # one recvfrom of 4096, and back to sleep",
    ],
    code: Code { file: "reactor/src/io.rs", source: include_str!("../../../reactor/src/io.rs") },
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let fail = |e: std::io::Error| format!("a client failed: {e}");
    let SocketAddr::V4(server) = side.http else { return Err("the server under test listens on IPv4".to_owned()) };
    let burst = GET.repeat(REQUESTS);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(side.http, side.from).map_err(fail)?);
    }
    for client in &mut clients {
        client.send(&burst).map_err(fail)?;
    }
    look_at_all(&mut clients, QUIET, side.interrupted(), |client| client.served == REQUESTS as u64);
    let answers = sum(&clients);
    let completed = clients.iter().filter(|client| client.served == REQUESTS as u64).count() as u64;
    let unread = proc::receive_queues(server).map_err(|e| format!("/proc/net/tcp: {e}"))?;

    // One request more each, and another pause to see what it moves.
    for client in &mut clients {
        client.send(GET).map_err(fail)?;
    }
    let correct = REQUESTS as u64 + 1;
    look_at_all(&mut clients, QUIET / 4, side.interrupted(), |client| client.served == correct);
    let more = sum(&clients) - answers;

    let each = |total: u64| Figure { value: total as f64 / CLIENTS as f64, unit: Unit::Number };
    Ok(Measured::default()
        .with("completed", Figure::share(completed, CLIENTS))
        .with("answers_each", each(answers))
        .with("hung", Figure::count(CLIENTS - completed))
        .with("unread_bytes_each", each(unread.iter().sum()))
        .with("answers_to_one_more", each(more)))
}

fn sum(clients: &[Client]) -> u64 {
    clients.iter().map(|client| client.served).sum()
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (hung, _) = text("hung");
    let (broken, correct) = text("answers_each");
    format!(
        "All {hung} clients hung with {broken} of their 1000 answers, while {} bytes of each lay unread in the kernel; read until it was empty, \
         every client got {correct}. One request more woke the loop for one more read: {} answers.",
        text("unread_bytes_each").0,
        text("answers_to_one_more").0,
    )
}
