//! `early-close`: the answer is there before the request has been sent whole, and a close without more ado turns it into a reset.
//!
//! The clients do what most HTTP clients do: they send the request, take an error of that for the end, and read the answer only after it.
//! Those who look all the same find it, on Linux: what came before a reset stays readable.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::contrast::Contrast;
use crate::figures::Figure;
use crate::proc;
use crate::raw::{connect, read_answer};
use crate::scenario::{Code, Measured, MistakeIn, Scenario, Side};

/// Clients, one after the other.
const CLIENTS: u64 = 20;
/// What each wants to send: more than both kernels' buffers hold together (`tcp_wmem`, `tcp_rmem`: 4 and 6 MiB), so that the writing is
/// not over when the answer comes.
const BODY_BYTES: usize = 12 << 20;
/// When a client gives up.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "early-close",
    title: "a close while the client is still sending",
    cause: "The server refuses a body by its length and closes; input that it has not read makes the kernel send a reset, and the client, who is \
            still writing, gets an error and never looks at the answer.",
    load: "20 clients, one after the other, POST 12 MiB where 1 MiB is allowed, and read the answer when they have sent all.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "1", "--body-bytes-max", "1MiB"],
    drive,
    rows: &["told", "write_errors", "answer_lay_there", "resets_for_unread_input"],
    expect: &[
        "broken.told <= 20%",
        "correct.told == 100%",
        "broken.write_errors >= 16",
        "correct.write_errors == 0",
        "broken.resets_for_unread_input >= 16",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --body-bytes-max 1MiB --mistake early-close",
        "python3 -c 'import http.client as h; c = h.HTTPConnection(\"127.0.0.1\", 8080); c.request(\"POST\", \"/echo\", bytes(12 << 20)); \
         print(c.getresponse().status)'    # ConnectionResetError or BrokenPipeError; without the mistake 413",
        "nstat -az TcpExtTCPAbortOnClose TcpExtTCPAbortOnData    # one more of either for each",
        "strace -f -e trace=sendto,shutdown,close -p PID    # sendto and close; without the mistake shutdown(SHUT_WR) between them",
    ],
    code: Code { file: "reactor/src/close.rs", source: include_str!("../../../reactor/src/close.rs") },
};

/// What became of a client.
enum Seen {
    /// It sent everything, and read the answer.
    Answer,
    /// Its writing failed, and it gave up. `answer_lay_there`: what it would have found.
    WriteError { answer_lay_there: bool },
}

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let counter = || resets_for_unread_input().map_err(|e| format!("/proc/net/netstat: {e}"));
    let body = vec![b'x'; BODY_BYTES];
    let aborts_before = counter()?;
    let (mut told, mut write_errors, mut lay_there) = (0, 0, 0);
    for _ in 0..CLIENTS {
        if side.interrupted().load(Ordering::Relaxed) {
            break;
        }
        match post(side.http, side.from, &body).map_err(|e| format!("a client failed: {e}"))? {
            Seen::Answer => told += 1,
            Seen::WriteError { answer_lay_there } => {
                write_errors += 1;
                lay_there += u64::from(answer_lay_there);
            }
        }
    }
    Ok(Measured::default()
        .with("told", Figure::share(told, CLIENTS))
        .with("write_errors", Figure::count(write_errors))
        .with("answer_lay_there", Figure::count(lay_there))
        .with("resets_for_unread_input", Figure::count(counter()? - aborts_before)))
}

/// What the kernel has reset because bytes lay unread at the close, or came after it. Of all processes together.
fn resets_for_unread_input() -> io::Result<u64> {
    Ok(proc::tcp_counter("TCPAbortOnClose")? + proc::tcp_counter("TCPAbortOnData")?)
}

fn post(to: SocketAddr, from: IpAddr, body: &[u8]) -> io::Result<Seen> {
    let mut stream = connect(to, from)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    match stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)) {
        Ok(()) if is_refusal(&mut stream)? => Ok(Seen::Answer),
        Ok(()) => Err(io::Error::other("the answer was not 413")),
        Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Ok(Seen::WriteError { answer_lay_there: is_refusal(&mut stream).unwrap_or(false) })
        }
        Err(e) => Err(e),
    }
}

/// Reads the answer: 413?
fn is_refusal(stream: &mut TcpStream) -> io::Result<bool> {
    read_answer(stream).map(|response| response.status == 413)
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let (told, correct) = text("told");
    format!(
        "{told} of the clients learned that their body was too large; {} got an error while they wrote, though the answer lay in the socket of {} of \
         them. With FIN first, and what still comes read and forgotten, it was {correct}.",
        text("write_errors").0,
        text("answer_lay_there").0,
    )
}
