//! More bodies than the server has memory for, next to clients that never read: every upload gets a whole response, and the resident memory stays below the
//! sum that `--check` prints. The same where the address space is limited to little more than that sum: no allocation fails.

mod process;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use process::{PATIENCE, Server, command, get, sample};
use server::process::usage_of;

const FLAGS: [&str; 14] = [
    "--loops",
    "1",
    "--workers",
    "2",
    "--connections-max",
    "2000",
    "--body-memory-max",
    "8MiB",
    "--response-memory-max",
    "1MiB",
    "--buffer-memory-max",
    "8MiB",
    "--queue-jobs-max",
    "64",
];
const BODY_BYTES: usize = 1 << 20;
/// Ten times the bodies that fit.
const UPLOADS: usize = 80;
const NEVER_READ: usize = 600;

/// The server's command, in an address space of at most so many KiB.
fn limited(address_space_kib: Option<u64>) -> Command {
    let Some(kib) = address_space_kib else { return with_flags(command()) };
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", &kib.to_string()]);
    let plain = with_flags(command());
    limited.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

fn with_flags(mut command: Command) -> Command {
    command.args(FLAGS);
    command
}

/// The sum of memory that `--check` prints, in bytes.
fn sum_bytes(address_space_kib: Option<u64>) -> u64 {
    let output = process::run(limited(address_space_kib).arg("--check"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let memory = text.rsplit("\nmemory\n").next().expect("there is a sum");
    let sum = memory.lines().find_map(|line| line.trim().strip_prefix("= ")?.split_once("MiB of")?.0.parse::<u64>().ok());
    sum.unwrap_or_else(|| panic!("no sum of memory in:\n{text}")) << 20
}

/// Sends a whole body, or as much of it as is taken before the response, and returns the response's head.
fn upload(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect(to).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    let head = format!("POST /digest?rounds=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    // A server that rejects the body closes while the client still sends. The response is there to be read first.
    let sent = stream.write_all(&vec![b'x'; BODY_BYTES]);
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset && !response.is_empty() => {}
        Err(e) => panic!("no response: {e}, after {sent:?}"),
    }
    String::from_utf8_lossy(&response).split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

fn hold_out(address_space_kib: Option<u64>, sum: u64) {
    let server = Server::spawn(limited(address_space_kib).stderr(Stdio::null()));
    let never_read: Vec<TcpStream> = (0..NEVER_READ)
        .map(|_| {
            let mut stream = TcpStream::connect(server.http).expect("it accepts");
            stream.write_all(b"GET /bytes?n=1000000000 HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            stream
        })
        .collect();
    let to = server.http;
    let uploads: Vec<_> = (0..UPLOADS).map(|_| std::thread::spawn(move || upload(to))).collect();
    let (mut served, mut rejected) = (0, 0);
    for upload in uploads {
        let head = upload.join().expect("a whole response");
        match head.get(9..12) {
            Some("200") => served += 1,
            Some("503") if head.contains("\r\nRetry-After: ") => rejected += 1,
            _ => panic!("{head:?}"),
        }
    }
    assert!(served > 0 && served + rejected == UPLOADS, "{served} served, {rejected} rejected");
    let resident = usage_of(server.pid()).expect("it lives").resident_bytes_peak;
    assert!(resident <= sum, "{resident} bytes were resident, and the sum of --check is {sum}");
    process::wait_for("all bodies to be given back", || (sample(server.admin, "memory_bytes{budget=\"bodies\"}") == 0.0).then_some(()));
    assert!(sample(server.admin, "memory_peak_bytes{budget=\"bodies\"}") <= sample(server.admin, "memory_max_bytes{budget=\"bodies\"}"));
    assert_eq!(get(server.http, "/healthz").status, 200);
    drop(never_read);
}

#[test]
fn under_ten_times_the_bodies_the_resident_memory_stays_below_the_sum_of_check() {
    hold_out(None, sum_bytes(None));
}

#[test]
fn in_an_address_space_of_little_more_than_the_sum_no_allocation_fails() {
    // The sum counts address space where that is what is limited.
    let sum = sum_bytes(Some(1 << 20));
    hold_out(Some((sum >> 10) + 1024), sum);
}
