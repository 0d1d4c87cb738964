//! Thousands of clients that ask for 1 GB and read nothing, and come back when they are reset. Next to them, in each second, 200 newcomers whose
//! head arrives in two pieces, and 200 downloads of 1 MB.
//!
//! The question is whether the memory that the 300 clients hold is missing for the newcomers: a request in two pieces needs a buffer for its first piece, and a download one
//! for what the kernel does not take. A newcomer is served when it gets a whole 200.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use loadtest::response::{Expect, ResponseReader, Step};
use reactor::os::bind_source_address;
use server::process::usage_of;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::Args;
use crate::target::Target;

pub(crate) const NEVER_READ: &[u8] = b"GET /bytes?n=1000000000 HTTP/1.1\r\nHost: x\r\n\r\n";
const SPLIT_FIRST: &[u8] = b"GET / HTTP/1.1\r\nHos";
const SPLIT_SECOND: &[u8] = b"t: x\r\nConnection: close\r\n\r\n";
const DOWNLOAD: &[u8] = b"GET /bytes?n=1000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// Newcomers of each kind in a second.
const PER_SECOND: u32 = 200;
/// Between the two pieces of a head: long enough for the first to be read alone.
const PAUSE: Duration = Duration::from_millis(20);
/// A newcomer that has no whole answer after this is not served.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connects of clients that never read. A flood of connects is another adversity.
const CONNECTS_PER_SECOND: u32 = 4000;
/// Of them, looked at in one step.
const LOOKS_PER_STEP: usize = 16;
/// Enough for the kernel to keep little of what no client reads.
pub(crate) const RECEIVE_BUFFER_BYTES: usize = 4096;

/// One newcomer.
struct Newcomer {
    stream: TcpStream,
    reader: ResponseReader,
    input: Vec<u8>,
    due: Instant,
    /// What is still to be sent, and when.
    unsent: Option<(Instant, &'static [u8])>,
    is_download: bool,
}

/// What became of the newcomers of one second, and of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    came: u32,
    served: u32,
    other_status: u32,
    broken: u32,
    nothing: u32,
}

pub(crate) fn run(args: &Args) -> io::Result<()> {
    for _ in 0..args.rounds {
        let target = Target::start(&args.server)?;
        round(&target, args.connections.unwrap_or(2000), args.time)?;
    }
    Ok(())
}

fn round(target: &Target, connections: usize, time: Duration) -> io::Result<()> {
    let mut stuck: Vec<Option<TcpStream>> = Vec::new();
    stuck.resize_with(connections, || None);
    let (mut next, mut connects, mut resets) = (0, 0_u32, 0_u64);
    let begun = Instant::now();
    // The newcomers come when all clients that never read are connected.
    let mut newcomers_begin = None;
    let seconds = time.as_secs().max(1) as usize;
    let mut tallies = vec![[Tally::default(); 2]; seconds];
    let (mut newcomers, mut due, mut count): (Vec<Newcomer>, _, u32) = (Vec::new(), begun, 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = Instant::now();
        for _ in 0..LOOKS_PER_STEP.min(stuck.len()) {
            next = (next + 1) % stuck.len();
            match &stuck[next] {
                Some(stream) if stream.take_error()?.is_none() => {}
                Some(_) => {
                    resets += 1;
                    stuck[next] = None;
                }
                None if begun + Duration::from_secs(1) / CONNECTS_PER_SECOND * connects <= now => {
                    let stream = connect(target.address, 6, Some(RECEIVE_BUFFER_BYTES))?;
                    // Not connected yet: the request is small and waits in the socket's buffer only afterwards.
                    stream.set_nonblocking(false)?;
                    (&stream).write_all(NEVER_READ)?;
                    stream.set_nonblocking(true)?;
                    stuck[next] = Some(stream);
                    connects += 1;
                }
                None => {}
            }
        }
        if newcomers_begin.is_none() && connects as usize >= connections {
            (newcomers_begin, due) = (Some(now), now);
        }
        let Some(first) = newcomers_begin else { continue };
        let is_over = count >= PER_SECOND * 2 * seconds as u32;
        if is_over && newcomers.is_empty() {
            break;
        }
        while !is_over && due <= now {
            let is_download = count % 2 == 1;
            let unsent = if is_download { (due, DOWNLOAD) } else { (due, SPLIT_FIRST) };
            let stream = connect(target.address, 7, None)?;
            newcomers.push(Newcomer {
                stream,
                reader: ResponseReader::default(),
                input: Vec::new(),
                due,
                unsent: Some(unsent),
                is_download,
            });
            tallies[second_of(first, due, seconds)][usize::from(is_download)].came += 1;
            count += 1;
            due = first + Duration::from_secs(1) / (PER_SECOND * 2) * count;
        }
        newcomers.retain_mut(|newcomer| {
            let tally = &mut tallies[second_of(first, newcomer.due, seconds)][usize::from(newcomer.is_download)];
            match newcomer.look(now, &mut buffer) {
                None if newcomer.due.elapsed() < PATIENCE => return true,
                None => tally.nothing += 1,
                Some(Ok((200, body_bytes))) if !newcomer.is_download || body_bytes == 1_000_000 => tally.served += 1,
                Some(Ok(_)) => tally.other_status += 1,
                Some(Err(())) => tally.broken += 1,
            }
            false
        });
    }
    for (kind, name) in ["heads in two pieces", "downloads of 1 MB"].into_iter().enumerate() {
        let sum = |of: fn(&Tally) -> u32| tallies.iter().map(|second| of(&second[kind])).sum::<u32>();
        let all = tallies.iter().filter(|second| second[kind].served == second[kind].came).count();
        println!(
            "{name}: {} of {} served ({} got another status, {} a broken connection, {} nothing); all of them in {all} of {seconds} seconds",
            sum(|tally| tally.served),
            sum(|tally| tally.came),
            sum(|tally| tally.other_status),
            sum(|tally| tally.broken),
            sum(|tally| tally.nothing),
        );
    }
    let usage = usage_of(target.pid)?;
    println!(
        "{connections} clients that never read: {connects} connects, {resets} resets seen; the server's resident memory {} MiB, at most {} MiB",
        usage.resident_bytes >> 20,
        usage.resident_bytes_peak >> 20
    );
    Ok(())
}

fn second_of(first: Instant, at: Instant, seconds: usize) -> usize {
    (at.saturating_duration_since(first).as_secs() as usize).min(seconds - 1)
}

pub(crate) fn connect(to: SocketAddr, source: u8, receive_buffer_bytes: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    // No TIME_WAIT at this end, which would keep the port for a minute.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    bind_source_address(&socket, Ipv4Addr::new(127, 0, 0, source).into())?;
    match socket.connect(&SockAddr::from(to)) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket.into()),
    }
}

impl Newcomer {
    /// Sends what is due and reads what has arrived. The status and the length of the body when the response is whole, `Err` when it will not be.
    fn look(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Result<(u16, u64), ()>> {
        if let Some((at, bytes)) = self.unsent
            && at <= now
        {
            match self.stream.write(bytes) {
                // A head of this size goes out in one piece.
                Ok(_) if bytes == SPLIT_FIRST => self.unsent = Some((now + PAUSE, SPLIT_SECOND)),
                Ok(_) => self.unsent = None,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return None,
                // A response may have come before the error.
                Err(_) => self.unsent = None,
            }
        }
        let n = match self.stream.read(buffer) {
            Ok(0) => return Some(Err(())),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return None,
            Err(_) => return Some(Err(())),
        };
        self.input.extend_from_slice(&buffer[..n]);
        let (used, step) = self.reader.read(&self.input, &Expect::default());
        self.input.drain(..used);
        match step {
            Step::NeedBytes => None,
            Step::Done(response) => Some(Ok((response.status, response.body_bytes))),
            Step::Broken(_) => Some(Err(())),
        }
    }
}
