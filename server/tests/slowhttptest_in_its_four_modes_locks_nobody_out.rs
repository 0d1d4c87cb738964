//! slowhttptest, the usual tool for slow attacks (Debian's package of that name), in its four modes against the real server: more slow
//! clients than it has places, and everybody else is served throughout.
//!
//! Without the program each test says so and passes, unless `REQUIRE_TOOLS=1` asks for it, as CI does.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use process::{PATIENCE, Server};

/// slowhttptest looks at the service at its start and every 5 s.
const SECONDS: &str = "6";

fn slowhttptest(mode: &str, connections: u32, url: &str) -> Option<Child> {
    let mut command = Command::new("slowhttptest");
    let connections = connections.to_string();
    // All connections within a second; a piece of each every second; a probe of its own counts as unavailable after 5 s.
    command.args([mode, "-c", &connections, "-r", &connections, "-i", "1", "-l", SECONDS, "-p", "5", "-u", url]);
    match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => Some(child),
        Err(e) if e.kind() == ErrorKind::NotFound && std::env::var_os("REQUIRE_TOOLS").is_none_or(|value| value != "1") => {
            println!("skipped: slowhttptest is not installed (apt-get install slowhttptest)");
            None
        }
        Err(e) => panic!("slowhttptest (apt-get install slowhttptest): {e}"),
    }
}

/// One request of somebody else: its answer's first line.
fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

fn is_available_throughout(mode: &str, connections: u32, path: &str, flags: &[&str]) {
    let server = Server::start(&[&["--loops", "1", "--workers", "2"], flags].concat());
    let Some(mut attack) = slowhttptest(mode, connections, &format!("http://{}{path}", server.http)) else { return };
    let mut others = 0;
    while attack.try_wait().unwrap().is_none() {
        assert_eq!(ask(server.http), "HTTP/1.1 200 OK", "{mode}: other client {others}");
        others += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = attack.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && others > 0, "{mode}: {others} others, {said}{}", String::from_utf8_lossy(&output.stderr));
    // It colours its output, so the words do not stand side by side.
    let availability: Vec<&str> = said.lines().filter(|line| line.contains("service available")).collect();
    assert!(!availability.is_empty() && availability.iter().all(|line| line.contains("YES")), "{mode}: {said}");
}

/// Fewer places than slow clients.
const FEW: &[&str] = &["--connections-max", "150"];

#[test]
fn slow_headers() {
    is_available_throughout("-H", 250, "/", FEW);
}

#[test]
fn slow_bodies() {
    is_available_throughout("-B", 250, "/digest?rounds=1", FEW);
}

#[test]
fn many_ranges() {
    is_available_throughout("-R", 250, "/", FEW);
}

#[test]
fn slow_readers() {
    // Their requests are being answered, so none of them makes room, and the least rate of responses alone ends them: there must be places.
    is_available_throughout("-X", 250, "/bytes?n=10000000", &["--connections-max", "400", "--response-rate-window", "2s"]);
}
