//! The clients of a soak: steady ones, short connections, slow ones, and malformed requests. All are driven by one thread, a tick at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use loadtest::socket_client::{Client, connect_with_small_receive_buffer};

/// Between two ticks.
pub(crate) const TICK: Duration = Duration::from_millis(10);

const STEADY_CLIENTS: usize = 20;
const SLOW_HEADS: usize = 100;
const SLOW_READERS: usize = 30;
const SLOW_UPLOADS: usize = 20;

/// What steady clients ask for, in turn. Each is answered 200.
const STEADY: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /digest?rounds=10 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /bytes?n=20000 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /sleep?ms=20 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n again\r\n0\r\n\r\n",
    b"GET /spin?us=100 HTTP/1.1\r\nHost: x\r\n\r\n",
];

/// What short connections send, in turn, and what they do then.
const SHORT: [(&[u8], Leaves); 8] = [
    (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Leaves::AfterResponse),
    (b"GET /bytes?n=100000 HTTP/1.1\r\nHost: x\r\n\r\n", Leaves::ByReset),
    (b"GET /sleep?ms=1000 HTTP/1.1\r\nHost: x\r\n\r\n", Leaves::AtOnce),
    (b"GET /spin?us=500 HTTP/1.1\r\nHost: x\r\n\r\n", Leaves::ByReset),
    (b"GET / HT", Leaves::AtOnce),
    (b"POST /digest?rounds=10 HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nhello", Leaves::AtOnce),
    (b"GET /panic HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Leaves::AfterResponse),
    (b"nonsense\r\n\r\n", Leaves::AfterResponse),
];

/// How a short connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    AfterResponse,
    /// close(2) with the response outstanding.
    AtOnce,
    /// A reset with the response outstanding.
    ByReset,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) steady_requests: u64,
    /// 503: the pool had no capacity. Allowed, since other programs may use the CPUs.
    pub(crate) steady_rejected: u64,
    /// A steady client's connection ended: nothing in this load is a reason for that.
    pub(crate) steady_lost: u64,
    pub(crate) short_connections: u64,
    pub(crate) slow_heads_closed: u64,
    pub(crate) slow_downloads: u64,
    pub(crate) slow_uploads: u64,
    /// connect(2) failed.
    pub(crate) connects_failed: u64,
}

/// A client that a slow one becomes again when its connection has ended.
struct Slow {
    stream: Option<TcpStream>,
    due: Instant,
    sent: usize,
}

/// All clients.
pub(crate) struct Load {
    to: SocketAddr,
    tick: u64,
    /// Each with the number of requests that it has sent.
    steady: Vec<Option<(Client, u64)>>,
    short: Vec<(Client, Instant)>,
    heads: Vec<Slow>,
    readers: Vec<Slow>,
    uploads: Vec<Slow>,
    pub(crate) counts: Counts,
}

/// The time within which all slow clients have begun, one after the other. Less than the warm-up.
pub(crate) const RAMP: Duration = Duration::from_secs(8);

fn slow_clients(n: usize) -> Vec<Slow> {
    let now = Instant::now();
    (0..n).map(|index| Slow { stream: None, due: now + RAMP * index as u32 / n as u32, sent: 0 }).collect()
}

impl Load {
    pub(crate) fn new(to: SocketAddr) -> Load {
        Load {
            to,
            tick: 0,
            steady: (0..STEADY_CLIENTS).map(|_| None).collect(),
            short: Vec::new(),
            heads: slow_clients(SLOW_HEADS),
            readers: slow_clients(SLOW_READERS),
            uploads: slow_clients(SLOW_UPLOADS),
            counts: Counts::default(),
        }
    }

    /// A source address for each kind of client, so that none runs out of ports: a short connection leaves one in TIME_WAIT for a minute.
    fn source(&self, kind: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 80, kind, (self.tick / 100 % 50) as u8 + 1))
    }

    /// Everything that is due now.
    pub(crate) fn tick(&mut self) {
        self.tick += 1;
        self.steady();
        self.short();
        let now = Instant::now();
        let (heads, readers, uploads) = (self.source(3), self.source(4), self.source(5));
        let Load { to, counts, .. } = self;
        for slow in self.heads.iter_mut().filter(|slow| slow.due <= now) {
            slow.due = now + Duration::from_secs(2);
            if is_closed(slow, |_| {}) {
                counts.slow_heads_closed += 1;
            }
            step(slow, counts, || connect_with_small_receive_buffer(*to, heads, 4096), &[b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"a", b"a"]);
        }
        for slow in self.readers.iter_mut().filter(|slow| slow.due <= now) {
            slow.due = now + Duration::from_millis(100);
            let mut read = 0;
            // 2,000 bytes each 100 ms.
            if is_closed(slow, |bytes| read += bytes) {
                counts.slow_downloads += 1;
            }
            let request: &[&[u8]] = &[b"GET /bytes?n=300000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b""];
            step(slow, counts, || connect_with_small_receive_buffer(*to, readers, 4096), request);
        }
        for slow in self.uploads.iter_mut().filter(|slow| slow.due <= now) {
            slow.due = now + Duration::from_millis(200);
            if is_closed(slow, |_| {}) {
                counts.slow_uploads += 1;
            }
            let head: &[u8] = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10000\r\n\r\n";
            let piece: &[u8] = &[b'u'; 500];
            let mut pieces = vec![head];
            pieces.resize(21, piece);
            pieces.push(b"");
            step(slow, counts, || connect_with_small_receive_buffer(*to, uploads, 4096), &pieces);
        }
    }

    fn steady(&mut self) {
        let source = self.source(1);
        let tick = self.tick;
        for (index, place) in self.steady.iter_mut().enumerate() {
            let Some((client, sent)) = place else {
                match Client::connect(self.to, source) {
                    Ok(client) => *place = Some((client, 0)),
                    Err(_) => self.counts.connects_failed += 1,
                }
                continue;
            };
            let rejected = client.refused;
            client.look();
            self.counts.steady_rejected += client.refused - rejected;
            // One request at a time, and one for each client in five ticks.
            if client.ended {
                self.counts.steady_lost += 1;
                *place = None;
            } else if (tick + index as u64).is_multiple_of(5) && client.answers() == *sent {
                let request = STEADY[(tick / 5 + index as u64) as usize % STEADY.len()];
                if client.send(request).is_ok() {
                    *sent += 1;
                    self.counts.steady_requests += 1;
                }
            }
        }
    }

    fn short(&mut self) {
        let now = Instant::now();
        self.short.retain_mut(|(client, until)| {
            client.look();
            !client.ended && now < *until
        });
        // 100 a second.
        let (request, leaves) = SHORT[self.tick as usize % SHORT.len()];
        let Ok(mut client) = Client::connect(self.to, self.source(2)) else {
            self.counts.connects_failed += 1;
            return;
        };
        self.counts.short_connections += 1;
        if client.send(request).is_err() {
            return;
        }
        match leaves {
            Leaves::AfterResponse => self.short.push((client, now + Duration::from_secs(5))),
            Leaves::AtOnce => drop(client),
            Leaves::ByReset => drop(client.reset()),
        }
    }
}

/// Reads a little of what has arrived. True if the connection has ended: then it is forgotten.
fn is_closed(slow: &mut Slow, mut received: impl FnMut(usize)) -> bool {
    let Some(stream) = &mut slow.stream else { return false };
    let mut piece = [0; 2000];
    match stream.read(&mut piece) {
        Ok(0) => {}
        Ok(n) => {
            received(n);
            return false;
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return false,
        Err(_) => {}
    }
    (slow.stream, slow.sent) = (None, 0);
    true
}

/// Connects, or sends the next piece. The last piece is sent again and again.
fn step(slow: &mut Slow, counts: &mut Counts, connect: impl FnOnce() -> io::Result<TcpStream>, pieces: &[&[u8]]) {
    if slow.stream.is_none() {
        match connect().and_then(|stream| stream.set_nonblocking(true).map(|()| stream)) {
            Ok(stream) => slow.stream = Some(stream),
            Err(_) => counts.connects_failed += 1,
        }
    }
    let Some(stream) = &mut slow.stream else { return };
    let piece = pieces[slow.sent.min(pieces.len() - 1)];
    // A piece is far smaller than a send buffer: it is taken whole, or the connection has ended, which the next read says.
    if !piece.is_empty() && stream.write(piece).is_ok() || piece.is_empty() {
        slow.sent += 1;
    }
}
