//! `examples/key_value.rs` as a real process, asked by curl and by raw sockets.

#[path = "process/example.rs"]
mod example;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use example::{Example, PATIENCE};

const VALUE_BYTES_MAX: usize = 256 << 10;
const MEMORY_BYTES_MAX: usize = 64 << 20;

fn start() -> Example {
    Example::start("key_value", &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--loops", "2"])
}

/// One connection, kept.
struct Client(TcpStream);

impl Client {
    fn connect(server: &Example) -> Client {
        let stream = TcpStream::connect(server.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Client(stream)
    }

    fn send(&mut self, head: &str, body: &[u8]) {
        self.0.write_all(format!("{head} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).expect("send");
        self.0.write_all(body).expect("send");
    }

    /// Status and body of the next response.
    fn answer(&mut self) -> (u16, Vec<u8>) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("ASCII");
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a whole body");
        (head[9..12].parse().expect("a status"), body)
    }

    fn ask(&mut self, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.send(head, body);
        self.answer()
    }
}

#[test]
fn what_is_put_is_got_until_it_is_deleted_on_whatever_loop() {
    let server = start();
    let value: Vec<u8> = (0..=255).cycle().take(VALUE_BYTES_MAX).collect();
    assert_eq!(Client::connect(&server).ask("PUT /keys/a%2Fb", &value), (201, vec![]));
    // Sixteen connections: it would be a strange hash that put them all on one loop.
    for _ in 0..16 {
        assert!(Client::connect(&server).ask("GET /keys/a/b", b"") == (200, value.clone()));
    }
    let mut client = Client::connect(&server);
    assert_eq!(client.ask("PUT /keys/a%2Fb", b"other"), (204, vec![]));
    assert_eq!(client.ask("GET /keys/a%2fb", b""), (200, b"other".to_vec()));
    assert_eq!(client.ask("PUT /keys/empty", b""), (201, vec![]));
    assert_eq!(client.ask("GET /keys/empty", b""), (200, vec![]));
    assert_eq!(client.ask("DELETE /keys/a/b", b""), (204, vec![]));
    assert_eq!(client.ask("DELETE /keys/a/b", b"").0, 404);
    assert_eq!(client.ask("GET /keys/a/b", b"").0, 404);
}

#[test]
fn each_limit_has_its_own_answer() {
    let server = start();
    let longest = "k".repeat(255);
    for (request, body, status) in [
        (format!("PUT /keys/{longest}"), 1, 201),
        (format!("GET /keys/{longest}"), 0, 200),
        (format!("PUT /keys/{longest}k"), 1, 414),
        (format!("GET /keys/{longest}k"), 0, 414),
        ("PUT /keys/big".to_owned(), VALUE_BYTES_MAX, 201),
        ("PUT /keys/big".to_owned(), VALUE_BYTES_MAX + 1, 413),
        ("GET /keys/".to_owned(), 0, 404),
        ("GET /elsewhere".to_owned(), 0, 404),
        ("GET /keys/%zz".to_owned(), 0, 400),
        ("POST /keys/a".to_owned(), 0, 405),
        ("BREW /keys/a".to_owned(), 0, 501),
        ("OPTIONS /keys/a".to_owned(), 0, 204),
    ] {
        let mut client = Client::connect(&server);
        assert_eq!(client.ask(&request, &vec![b'v'; body]).0, status, "{request} with {body} bytes");
    }
    // Nobody knows the length of this one beforehand.
    let mut client = Client::connect(&server);
    client.0.write_all(b"PUT /keys/big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("send");
    client.0.write_all(format!("{:x}\r\n", VALUE_BYTES_MAX + 1).as_bytes()).expect("send");
    client.0.write_all(&vec![b'w'; VALUE_BYTES_MAX + 1]).expect("send");
    client.0.write_all(b"\r\n0\r\n\r\n").expect("send");
    assert_eq!(client.answer().0, 413);
    let (status, value) = Client::connect(&server).ask("GET /keys/big", b"");
    assert!(status == 200 && value == vec![b'v'; VALUE_BYTES_MAX], "what was refused has replaced nothing");
}

#[test]
fn when_the_memory_is_full_puts_are_refused_until_something_is_deleted() {
    let server = start();
    let mut client = Client::connect(&server);
    let value = vec![b'v'; VALUE_BYTES_MAX];
    let mut kept = 0;
    loop {
        let (status, _) = client.ask(&format!("PUT /keys/{kept}"), &value);
        if status == 507 {
            break;
        }
        assert_eq!(status, 201);
        kept += 1;
        assert!(kept <= MEMORY_BYTES_MAX / VALUE_BYTES_MAX, "more than fits");
    }
    assert_eq!(kept, MEMORY_BYTES_MAX / (VALUE_BYTES_MAX + 200), "all but what keys cost is used");
    assert!(server.resident_bytes() < (MEMORY_BYTES_MAX + (24 << 20)) as u64, "{}", server.resident_bytes());

    let mut client = Client::connect(&server);
    assert_eq!(client.ask("GET /keys/0", b"").0, 200, "reading goes on");
    assert_eq!(client.ask("DELETE /keys/0", b"").0, 204);
    assert_eq!(client.ask("PUT /keys/again", &value).0, 201);
    for key in 1..kept {
        assert_eq!(client.ask(&format!("DELETE /keys/{key}"), b"").0, 204);
    }
    assert_eq!(client.ask("PUT /keys/again", &value).0, 204);
}

#[test]
fn a_body_that_never_ends_gives_its_room_back_when_its_client_goes() {
    let server = start();
    let announced = format!("PUT /keys/x HTTP/1.1\r\nHost: a\r\nContent-Length: {VALUE_BYTES_MAX}\r\n\r\n");
    // All but one byte of each: together more than there is room for.
    let mut clients: Vec<Client> = (0..MEMORY_BYTES_MAX / VALUE_BYTES_MAX).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.0.write_all(announced.as_bytes()).expect("send");
        // One of them is told that there is no room while it still sends.
        let _ = client.0.write_all(&vec![b'v'; VALUE_BYTES_MAX - 1]);
    }
    let put = || Client::connect(&server).ask("PUT /keys/y", &vec![b'v'; VALUE_BYTES_MAX]).0;
    let until = Instant::now() + PATIENCE;
    while put() != 507 {
        assert!(Instant::now() < until, "bodies on their way take no room");
    }
    drop(clients);
    while put() == 507 {
        assert!(Instant::now() < until, "their room is not given back");
    }
}

#[test]
fn curl_can_use_it() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "curl is not installed");
        return eprintln!("curl is not installed: nothing was tested");
    }
    let server = start();
    let url = format!("http://{}/keys/a%20key", server.address);
    let curl = |args: &[&str], input: &[u8]| {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--write-out", "\n%{http_code}"])
            .args(args)
            .arg(&url);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl starts");
        child.stdin.take().expect("it is piped").write_all(input).expect("curl reads");
        let output = child.wait_with_output().expect("curl ends");
        assert!(output.status.success(), "curl {args:?}: {}", output.status);
        output.stdout
    };
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(curl(&["-X", "DELETE"], b""), b"not found\n\n404");
    // From a pipe: chunked, and with Expect: 100-continue.
    assert_eq!(curl(&["-T", "-"], &value), b"\n201");
    assert_eq!(curl(&["-T", "-", "-H", "Expect: 100-continue"], &value), b"\n204");
    assert!(curl(&[], b"") == [&value[..], b"\n200"].concat());
    assert_eq!(curl(&["-X", "PUT", "--data-binary", "@-"], b"short"), b"\n204");
    assert_eq!(curl(&[], b""), b"short\n200");
    assert_eq!(curl(&["-X", "DELETE"], b""), b"\n204");
    assert_eq!(curl(&["-T", "-"], &vec![0; VALUE_BYTES_MAX + 1]), b"a value has at most 262144 bytes\n\n413");
}
