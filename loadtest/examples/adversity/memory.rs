//! Ten times the memory that the server allows for bodies, from thousands of connections at once: uploads of 1 MiB to `/digest`, next to clients that ask for
//! 1 GB and read nothing, and heads that never end.
//!
//! The server's resident memory must stay below the sum that its `--check` prints, and the sum must not be far above what was used, or it is no figure to plan
//! with. Every upload must get a whole response: 200, or 503 with Retry-After.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use server::process::usage_of;

use crate::Args;
use crate::newcomers::{NEVER_READ, RECEIVE_BUFFER_BYTES, connect};
use crate::target::Target;

const BODY_BYTES: usize = 1 << 20;
const UPLOAD: &[u8] = b"POST /digest?rounds=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1048576\r\n\r\n";
const HEAD_BEGUN: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nX: ";
/// An upload that has no whole response after this has none.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the server's memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Upload {
    stream: TcpStream,
    sent_bytes: usize,
    can_send: bool,
    input: Vec<u8>,
    begun: Instant,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    for _ in 0..args.rounds {
        round(args)?;
    }
    Ok(())
}

fn round(args: &Args) -> io::Result<()> {
    let connections = args.connections.unwrap_or(10_000);
    let sum_bytes = sum_of(&args.server)?;
    let target = Target::start(&args.server)?;
    // Four tenths upload, five tenths do not read, one tenth does not end its heads.
    let (uploads_max, never_read, endless) = (connections * 4 / 10, connections * 5 / 10, connections / 10);
    let mut idle = Vec::with_capacity(never_read + endless);
    let mut resident_bytes_peak = 0;
    let mut look_at = Instant::now();
    let mut look = |now: Instant| -> io::Result<()> {
        if look_at <= now {
            look_at = now + LOOK_EVERY;
            resident_bytes_peak = resident_bytes_peak.max(usage_of(target.pid)?.resident_bytes);
        }
        Ok(())
    };
    for n in 0..never_read + endless {
        let stream = connect(target.address, 6, Some(RECEIVE_BUFFER_BYTES))?;
        stream.set_nonblocking(false)?;
        (&stream).write_all(if n < never_read { NEVER_READ } else { HEAD_BEGUN })?;
        idle.push(stream);
        look(Instant::now())?;
    }
    let body = [UPLOAD, &vec![b'x'; BODY_BYTES][..]].concat();
    let mut buffer = vec![0; 4096];
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let (mut begun, until) = (0, Instant::now() + args.time);
    let mut uploads: Vec<Upload> = Vec::with_capacity(uploads_max);
    loop {
        let now = Instant::now();
        // A client that has its response sends the next body, until the time is up.
        if now < until {
            for _ in 0..(uploads_max - uploads.len()).min(1024) {
                let stream = connect(target.address, 7, None)?;
                uploads.push(Upload { stream, sent_bytes: 0, can_send: true, input: Vec::new(), begun: now });
                begun += 1;
            }
        } else if uploads.is_empty() {
            break;
        }
        for index in (0..uploads.len()).rev() {
            if let Some(status) = uploads[index].step(&body, &mut buffer) {
                *statuses.entry(status).or_default() += 1;
                uploads.swap_remove(index);
            }
            if index % 64 == 0 {
                look(Instant::now())?;
            }
        }
    }
    let peak = usage_of(target.pid)?.resident_bytes_peak.max(resident_bytes_peak);
    println!("{begun} uploads of 1 MiB from {uploads_max} connections at a time: {statuses:?}");
    println!(
        "{never_read} clients that never read, {endless} heads that never end; resident memory at most {} MiB, sum of --check {} MiB ({:.2} times \
         the peak)",
        peak >> 20,
        sum_bytes >> 20,
        sum_bytes as f64 / peak as f64
    );
    let verdict = if peak <= sum_bytes { "within the sum" } else { "ABOVE THE SUM" };
    println!("{verdict}");
    Ok(())
}

/// The sum of memory that the server prints with `--check`, in bytes.
fn sum_of(command: &str) -> io::Result<u64> {
    let command = command.replace("{port}", "0").replace("{admin}", "0");
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).arg("--check").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let memory = text.rsplit("\nmemory\n").next().unwrap_or_default();
    let sum = memory.lines().find_map(|line| line.trim().strip_prefix("= ")?.split_once("MiB of")?.0.parse::<u64>().ok());
    sum.map(|mebibytes| mebibytes << 20).ok_or_else(|| io::Error::other(format!("'{command} --check' prints no sum of memory: {text}")))
}

impl Upload {
    /// Sends more and reads what has arrived. How it ended, if it has: the status of a whole response, with whether a 503 says when to come back.
    fn step(&mut self, body: &[u8], buffer: &mut [u8]) -> Option<String> {
        if self.can_send && self.sent_bytes < body.len() {
            let end = body.len().min(self.sent_bytes + (64 << 10));
            match self.stream.write(&body[self.sent_bytes..end]) {
                Ok(n) => self.sent_bytes += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
                // The response comes before the error, if there is one.
                Err(_) => self.can_send = false,
            }
        }
        let ended = match self.stream.read(buffer) {
            Ok(0) => true,
            Ok(n) => {
                self.input.extend_from_slice(&buffer[..n]);
                // The server has answered: a client need not send the rest.
                self.can_send = false;
                false
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => false,
            Err(_) => true,
        };
        let response = String::from_utf8_lossy(&self.input);
        let Some((head, body)) = response.split_once("\r\n\r\n") else {
            return match ended {
                true => Some("no response".to_owned()),
                false => (self.begun.elapsed() > PATIENCE).then(|| "nothing in time".to_owned()),
            };
        };
        let length: usize = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        if body.len() < length {
            return ended.then(|| "a part of a response".to_owned());
        }
        let status = head.split(' ').nth(1).unwrap_or("?");
        Some(if status == "503" && !head.contains("\r\nRetry-After: ") { "503 without Retry-After".to_owned() } else { status.to_owned() })
    }
}
