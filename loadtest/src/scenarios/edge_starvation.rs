//! `edge-starvation`: the loop reads once for each event, so a client that sent more than one read holds, and then waits, hangs.
//!
//! The burst of a client is one write of less than half a receive window, so that the kernel delivers it in one piece, with one edge.
//! Afterwards each client sends one request more. On Linux each arrival makes an edge, whatever is still unread, and the server reads once
//! more. That is why a client that never stops sending does not show the failure.

use std::net::SocketAddr;
use std::time::Duration;

use crate::contrast::Contrast;
use crate::kernel_sockets;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{Client, GET, look_at_all};

/// Clients, and requests that each sends at once: 27,000 bytes.
const CLIENTS: u64 = 20;
const REQUESTS: usize = 1_000;
/// A client that has received nothing for this long hangs.
const QUIET: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "edge-starvation",
    title: "one read for each edge-triggered event",
    cause: "The loop reads once for each event; epoll reports no second event for the bytes that it leaves in the socket's receive buffer.",
    load: "20 clients send 1,000 GET / each in one write (27 kB) and then only wait; the server's read buffer holds 4 KiB.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--buffer-bytes-max", "4KiB", "--header-bytes-max", "2KiB"],
    drive,
    rows: &[
        Row::new("complete_clients", "clients that got all 1,000 responses").of("clients"),
        Row::new("answers_each", "responses to each client, of 1,000"),
        Row::new("hung_clients", "clients that hang").of("clients"),
        Row::new("unread_bytes_each", "bytes left unread in the receive buffer, per client"),
        Row::new("answers_to_one_more", "responses to each client after one request more"),
    ],
    expect: &[
        "broken.complete_clients == 0",
        "correct.complete_clients == 20",
        "broken.hung_clients == 20",
        "correct.hung_clients == 0",
        "correct.answers_each >= 3 * broken.answers_each",
        "broken.answers_to_one_more >= 5 * correct.answers_to_one_more",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --buffer-bytes-max 4KiB --header-bytes-max 2KiB --mistake edge-starvation",
        "for i in $(seq 1000); do printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'; done > burst      # a second terminal, bash",
        "exec 3<>/dev/tcp/127.0.0.1/8080; dd bs=32k < burst >&3; timeout 2 cat <&3 | grep -c '200 OK'    # 151, and without the mistake 1000",
        "ss -tn 'sport = :8080'                        # meanwhile: bytes in Recv-Q that the server does not read",
        "strace -f -e trace=read,readv,recvfrom,recvmsg,epoll_wait,epoll_pwait,epoll_pwait2 -p PID    # one read of 4096 bytes, then the loop waits",
    ],
    code: Code { file: "reactor/src/io.rs", source: include_str!("../../../reactor/src/io.rs") },
    takes: Duration::from_secs(6),
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
    let unread = kernel_sockets::receive_queues(server).map_err(|e| format!("/proc/net/tcp: {e}"))?;

    // One request more from each client, and another pause to see what it brings.
    for client in &mut clients {
        client.send(GET).map_err(fail)?;
    }
    let correct = REQUESTS as u64 + 1;
    look_at_all(&mut clients, QUIET / 4, side.interrupted(), |client| client.served == correct);
    let more = sum(&clients) - answers;

    let each = |total: u64| Figure::number(total as f64 / CLIENTS as f64);
    Ok(Measured::default()
        .with("clients", Figure::count(CLIENTS))
        .with("complete_clients", Figure::count(completed))
        .with("answers_each", each(answers))
        .with("hung_clients", Figure::count(CLIENTS - completed))
        .with("unread_bytes_each", each(unread.iter().sum()))
        .with("answers_to_one_more", each(more)))
}

fn sum(clients: &[Client]) -> u64 {
    clients.iter().map(|client| client.served).sum()
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (hung, _) = text("hung_clients");
    let (broken, correct) = text("answers_each");
    format!(
        "{hung} clients hung with {broken} of their 1,000 responses, while {} bytes of each were in the socket's receive buffer; reading until \
         EAGAIN, the server gave every client {correct}. One request more woke the loop for one more read: {} responses to each client.",
        text("unread_bytes_each").0,
        text("answers_to_one_more").0,
    )
}
