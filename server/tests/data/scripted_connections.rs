//! Several connections at once on a simulated system, as a script says: slow readers next to each other, with much buffer memory or little.
//!
//! The script is the fuzz target's input, and that of the test that replays its corpus. Each connection must get the responses that it gets when it
//! is alone, its bytes arrive at once, and its peer reads at once. When buffer memory is scarce, the loop may evict a connection. It then gets a
//! beginning of those responses, of which the last one may be cut short or replaced by an error response. The leased memory stays within its
//! limit after every turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::sim::{Hostility, Kernel, Rng, SimOs, SocketId};
use reactor::{Config, EventLoop, ListenerWakes, Stats};
use server::connection::{HttpHandler, HttpSettings};
use server::http::HttpLimits;
use server::http_stats::HttpStats;

use crate::scripted_connection::{Fixed, Got, HOUR, Scripted, got, nobody_works, owed, until_it_sleeps};

const CONNECTIONS_MAX: usize = 8;
/// Of each connection.
const SENT_BYTES_MAX: usize = 2 << 10;
/// Four of the largest buffers, the least that a loop accepts.
const SCARCE_MEMORY_BYTES: usize = 16 << 10;
const BUFFER_BYTES: u32 = 4 << 10;

/// What the first byte of the input chooses.
#[derive(Clone, Copy)]
struct Choices {
    is_memory_scarce: bool,
    is_hostile: bool,
    window_bytes: usize,
    is_visit_short: bool,
}

impl Choices {
    fn of(flags: u8) -> Choices {
        Choices {
            is_memory_scarce: flags & 1 != 0,
            is_hostile: flags & 2 != 0,
            window_bytes: [64, 256, 1 << 10, 64 << 10][usize::from(flags >> 2 & 3)],
            is_visit_short: flags & 16 != 0,
        }
    }

    fn config(self) -> Config {
        Config::with(|config| {
            let limits = &mut config.limits;
            (limits.connections_max, limits.refusals_max, limits.mail_max, limits.events_per_poll_max) =
                (2 * CONNECTIONS_MAX as u32, 1, 4, 4);
            (limits.output_rate_window, limits.linger_timeout) = (HOUR, HOUR / 2);
            (limits.buffer_bytes_max, limits.output_high_water_bytes, limits.output_low_water_bytes) = (BUFFER_BYTES, BUFFER_BYTES, 512);
            if self.is_memory_scarce {
                limits.buffer_memory_bytes_max = SCARCE_MEMORY_BYTES;
            }
            if self.is_visit_short {
                (limits.first_visit_messages_max, limits.visit_messages_max, limits.visit_reads_max, limits.visit_written_bytes_max) =
                    (1, 1, 1, 1);
            }
        })
    }
}

/// One peer.
struct Peer<'a> {
    id: SocketId,
    unsent: &'a [u8],
    output: Vec<u8>,
}

/// The loop and its peers.
struct Play<'a> {
    event_loop: EventLoop<HttpHandler<Fixed>, Scripted>,
    stats: Arc<Stats>,
    peers: Vec<Peer<'a>>,
    memory_bytes_max: u64,
}

impl<'a> Play<'a> {
    fn start(config: Config, hostility: Hostility, seed: u8, window_bytes: usize, sent: &[&'a [u8]]) -> Play<'a> {
        let memory_bytes_max = config.limits.buffer_memory_bytes_max as u64;
        let mut http = HttpSettings::default();
        (http.timeouts.header, http.timeouts.idle, http.timeouts.request) = (HOUR, HOUR, Some(HOUR));
        http.limits = limits();
        let mut kernel = Kernel::new(Rng::new(seed.into()), hostility, window_bytes, window_bytes);
        let listener = kernel.listen();
        let peers =
            sent.iter().map(|unsent| Peer { id: kernel.peer_connects(listener).expect("somebody listens"), unsent, output: Vec::new() });
        let peers = peers.collect();
        let os = SimOs::new(kernel);
        let listener = os.listener(listener);
        let handler = HttpHandler::new(Fixed, http, nobody_works(), Arc::new(HttpStats::default()));
        let scripted = Scripted { os, now: Instant::now(), sleeps: false };
        let mut event_loop = EventLoop::with_os(config, scripted, handler).expect("the limits fit");
        event_loop.listen_on(listener, ListenerWakes::All).expect("registered");
        let stats = event_loop.stats();
        Play { event_loop, stats, peers, memory_bytes_max }
    }

    fn turn(&mut self) {
        assert!(self.event_loop.turn().expect("no system call fails here"), "nobody has ended the loop");
        let leased_bytes = self.stats.leased_bytes.get();
        assert!(leased_bytes <= self.memory_bytes_max, "{leased_bytes} bytes are leased, the limit is {}", self.memory_bytes_max);
    }

    fn run_until_it_sleeps(&mut self) {
        until_it_sleeps(|| {
            self.turn();
            self.event_loop.os_mut().sleeps
        });
    }

    fn send(&mut self, index: usize, bytes_max: usize) -> usize {
        let peer = &mut self.peers[index];
        let bytes = peer.unsent.len().min(bytes_max);
        let sent = self.event_loop.os_mut().os.kernel().peer_sends(peer.id, &peer.unsent[..bytes]);
        peer.unsent = &peer.unsent[sent..];
        sent
    }

    fn read(&mut self, index: usize, bytes_max: usize) -> usize {
        let peer = &mut self.peers[index];
        let before = peer.output.len();
        self.event_loop.os_mut().os.kernel().peer_reads(peer.id, bytes_max, &mut peer.output);
        peer.output.len() - before
    }

    /// One step of the script: two bytes, whose connection it is and what it does.
    fn act(&mut self, whose: u8, what: u8) {
        let index = usize::from(whose) % self.peers.len();
        let n = usize::from(what >> 3) + 1;
        match what & 7 {
            0 => drop(self.send(index, n)),
            1 => drop(self.send(index, n * 16)),
            2 => drop(self.send(index, usize::MAX)),
            3 => drop(self.read(index, n)),
            4 => drop(self.read(index, n * 64)),
            5 => self.turn(),
            6 => self.event_loop.os_mut().now += Duration::from_millis(10) * n as u32,
            _ => self.run_until_it_sleeps(),
        }
    }

    /// Everything is sent, everything is read, and every peer closes. Returns what each got.
    fn finish(mut self) -> Vec<Vec<u8>> {
        let all = 0..self.peers.len();
        let mut closing = false;
        loop {
            self.run_until_it_sleeps();
            let moved: usize = all.clone().map(|index| self.send(index, usize::MAX) + self.read(index, usize::MAX)).sum();
            if moved > 0 {
                continue;
            }
            // What is due at a time.
            self.event_loop.os_mut().now += Duration::from_millis(60);
            self.run_until_it_sleeps();
            if all.clone().map(|index| self.read(index, usize::MAX)).sum::<usize>() > 0 {
                continue;
            }
            if closing {
                break;
            }
            closing = true;
            for peer in &self.peers {
                self.event_loop.os_mut().os.kernel().peer_ends(peer.id);
            }
        }
        self.event_loop.os_mut().now += 3 * HOUR;
        self.run_until_it_sleeps();
        assert_eq!(self.stats.connections_open.get(), 0, "a peer that has sent and read everything is closed");
        assert_eq!(self.stats.leased_bytes.get(), 0, "its buffers are given back");
        assert_eq!(self.stats.panics.get(), 0, "a callback has panicked");
        self.peers.into_iter().map(|peer| peer.output).collect()
    }
}

fn limits() -> HttpLimits {
    HttpLimits { head_bytes_max: 1 << 10, body_bytes_max: 1 << 10, ..HttpLimits::default() }
}

/// One input of the fuzz target, and of the test that replays its corpus.
///
/// Byte 0 chooses memory, windows and how hostile the system is; byte 1 is its seed; byte 2 the number of connections; byte 3 the number of steps of
/// the script, which follow, two bytes each. The remaining bytes are what the peers send: each has a length of two bytes before it, of which the
/// last one takes what is left.
pub(crate) fn any_script(input: &[u8]) {
    let [flags, seed, connections, steps, rest @ ..] = input else { return };
    let choices = Choices::of(*flags);
    let (script, mut rest) = rest.split_at(rest.len().min(2 * usize::from(*steps)));
    let connections = usize::from(*connections) % CONNECTIONS_MAX + 1;
    let mut sent = Vec::new();
    for _ in 0..connections {
        let [high, low, bytes @ ..] = rest else {
            sent.push(&rest[..0]);
            continue;
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (own, others) = bytes.split_at(length.min(bytes.len()));
        sent.push(&own[..own.len().min(SENT_BYTES_MAX)]);
        rest = others;
    }
    let one_in = |n: u64| if choices.is_hostile { n } else { 0 };
    let hostility = Hostility {
        interrupted_one_in: one_in(3),
        short_write_one_in: one_in(3),
        spurious_one_in: one_in(5),
        call_nanos: 1,
        ..Hostility::default()
    };
    let mut play = Play::start(choices.config(), hostility, *seed, choices.window_bytes, &sent);
    for step in script.chunks_exact(2) {
        play.act(step[0], step[1]);
    }
    let may_be_evicted = choices.is_memory_scarce;
    for (index, (output, sent)) in play.finish().iter().zip(&sent).enumerate() {
        compare(index, output, sent, may_be_evicted);
    }
}

/// What one connection gets when it is alone.
fn alone(sent: &[u8]) -> Vec<u8> {
    let calm = Hostility { call_nanos: 1, ..Hostility::default() };
    let choices = Choices { is_memory_scarce: false, is_hostile: false, window_bytes: 64 << 10, is_visit_short: false };
    let mut outputs = Play::start(choices.config(), calm, 0, choices.window_bytes, &[sent]).finish();
    outputs.pop().unwrap_or_default()
}

fn compare(index: usize, output: &[u8], sent: &[u8], may_be_evicted: bool) {
    let owed = owed(&limits(), sent);
    let (together, alone) = (got(output, &owed), got(&alone(sent), &owed));
    // A body that turns out to be malformed is answered 400, or cuts its response short, if a part of that was sent. Which one depends on when its
    // bytes arrive.
    let breaks = owed.iter().any(|owed| owed.breaks);
    let is_last = |at: usize| at + 1 >= together.len().min(alone.len());
    for (at, (here, there)) in together.iter().zip(&alone).enumerate() {
        if is_last(at) && breaks || is_last(at) && may_be_evicted && is_beginning(here, there) {
            continue;
        }
        assert!(here == there, "response {at} of connection {index} is {here:?}, and {there:?} when it is alone");
    }
    let differ = together.len() != alone.len() && !breaks;
    assert!(
        !differ || may_be_evicted && together.len() < alone.len(),
        "connection {index} got {together:?}, and {alone:?} when it is alone"
    );
}

/// Whether an evicted connection may get this instead: a beginning of the response, or an error response that closes.
fn is_beginning(here: &Got, there: &Got) -> bool {
    let is_cut = !here.whole && there.body.starts_with(&here.body);
    // The status line itself may be cut.
    is_cut || here.status == 0 || (matches!(here.status, 408 | 503) && here.closes)
}
