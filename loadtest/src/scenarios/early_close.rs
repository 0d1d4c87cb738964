//! `early-close`: the server responds before the client has sent its whole request, and an immediate close turns the response into a reset.
//!
//! The clients do what most HTTP clients do: they send the request, give up when that fails, and read the response only after it succeeded.
//! A client that reads after the error finds the response, on Linux: bytes that arrived before a reset stay readable.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::contrast::Contrast;
use crate::kernel_sockets;
use crate::results_by_name::Figure;
use crate::scenario::{Code, MistakeIn, Row, Scenario};
use crate::side::{Measured, Side};
use crate::socket_client::{connect, read_answer};

/// Clients, one after the other.
const CLIENTS: u64 = 20;
/// What each sends: more than the buffers of both kernels hold together (`tcp_wmem`, `tcp_rmem`: 4 and 6 MiB), so that the client is still
/// writing when the response arrives.
const BODY_BYTES: usize = 12 << 20;
/// When a client gives up.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "early-close",
    title: "a close while the client is still sending",
    cause: "The server rejects a body by its length and closes; unread input makes the kernel send a reset, and the client, which is still writing, gets \
            an error and never reads the response.",
    load: "20 clients, one after the other, POST 12 MiB where 1 MiB is allowed, and read the response when they have sent everything.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--body-bytes-max", "1MiB"],
    drive,
    rows: &[
        Row::new("saw_status", "clients that read their 413").of("clients"),
        Row::new("write_errors", "clients whose write failed").of("clients"),
        Row::new("response_readable", "of these, clients that could have read the 413"),
        Row::new("resets_for_unread_input", "connections reset by the kernel for unread input"),
    ],
    expect: &[
        "broken.saw_status <= 4",
        "correct.saw_status == 20",
        "broken.write_errors >= 16",
        "correct.write_errors == 0",
        "broken.resets_for_unread_input >= 16",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --body-bytes-max 1MiB --mistake early-close",
        "python3 -c 'import http.client as h; c = h.HTTPConnection(\"127.0.0.1\", 8080); c.request(\"POST\", \"/echo\", bytes(12 << 20)); \
         print(c.getresponse().status)'    # ConnectionResetError or BrokenPipeError; without the mistake 413",
        "nstat -az TcpExtTCPAbortOnClose TcpExtTCPAbortOnData    # one more of either for each client",
        "strace -f -e trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,shutdown,close -p PID    # sendto and close; without the mistake shutdown(SHUT_WR) between them",
    ],
    code: Code { file: "reactor/src/close.rs", source: include_str!("../../../reactor/src/close.rs") },
    takes: Duration::from_secs(6),
};

/// What a client saw.
enum Seen {
    /// It sent everything, and read the response.
    Answer,
    /// Its write failed, and it gave up. `response_readable`: whether a read would have found the response.
    WriteError { response_readable: bool },
}

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let counter = || resets_for_unread_input().map_err(|e| format!("/proc/net/netstat: {e}"));
    let body = vec![b'x'; BODY_BYTES];
    let aborts_before = counter()?;
    let (mut saw_status, mut write_errors, mut readable) = (0, 0, 0);
    for _ in 0..CLIENTS {
        if side.interrupted().load(Ordering::Relaxed) {
            break;
        }
        match post(side.http, side.from, &body).map_err(|e| format!("a client failed: {e}"))? {
            Seen::Answer => saw_status += 1,
            Seen::WriteError { response_readable } => {
                write_errors += 1;
                readable += u64::from(response_readable);
            }
        }
    }
    Ok(Measured::default()
        .with("clients", Figure::count(CLIENTS))
        .with("saw_status", Figure::count(saw_status))
        .with("write_errors", Figure::count(write_errors))
        .with("response_readable", Figure::count(readable))
        .with("resets_for_unread_input", Figure::count(counter()? - aborts_before)))
}

/// Connections that the kernel reset because input was unread at the close, or arrived after it. Of all processes together.
fn resets_for_unread_input() -> io::Result<u64> {
    Ok(kernel_sockets::tcp_counter("TCPAbortOnClose")? + kernel_sockets::tcp_counter("TCPAbortOnData")?)
}

fn post(to: SocketAddr, from: IpAddr, body: &[u8]) -> io::Result<Seen> {
    let mut stream = connect(to, from)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    match stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)) {
        Ok(()) if is_refusal(&mut stream)? => Ok(Seen::Answer),
        Ok(()) => Err(io::Error::other("the response was not 413")),
        Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Ok(Seen::WriteError { response_readable: is_refusal(&mut stream).unwrap_or(false) })
        }
        Err(e) => Err(e),
    }
}

/// Reads the response: is it 413?
fn is_refusal(stream: &mut TcpStream) -> io::Result<bool> {
    read_answer(stream).map(|response| response.status == 413)
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (saw_status, correct) = text("saw_status");
    format!(
        "{saw_status} of 20 clients read the 413; {} got an error while they wrote, although {} of them could have read the response. With FIN first, and \
         input read and discarded until the client closes, {correct} of 20 read it.",
        text("write_errors").0,
        text("response_readable").0,
    )
}
