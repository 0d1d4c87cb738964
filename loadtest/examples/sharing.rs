//! What each way to share a listening port costs and how evenly it spreads: the table behind the default (`herd`, `unbalanced-loops`).
//!
//! `cargo run --release -p loadtest --example sharing`. Loops of this process with a handler that greets, so that the loop alone is
//! measured; the table says, for 2 and 4 loops:
//!
//! - connections one at a time, each kept: wake-ups (voluntary context switches of the loops' threads) and turns that moved nothing, for
//!   each connection; and the largest loop over the mean once 100 are open;
//! - connections at 5,000 a second, each kept: CPU time of all loops for each connection; 99 of 100 greeted within; the largest loop over
//!   the mean of 2,000.
//!
//! Read next: `reactor/src/listen/socket.rs`.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reactor::listen::socket::{ListenOptions, listen};
use reactor::policy::ListenerSharing;
use reactor::{Config, Connect, Context, EventLoop, Handler, LinuxListener, LoopContext, Origin, Stats};

const ROUNDS: usize = 5;
const ONE_BY_ONE: usize = 500;
const FEW: usize = 100;
const MANY: u64 = 2000;
const MANY_PER_SECOND: u32 = 5000;
/// Between two connections that come one at a time: every loop sleeps again.
const APART: Duration = Duration::from_micros(300);

fn main() -> io::Result<()> {
    reactor::os::descriptors::raise_descriptor_limit()?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("medians of {ROUNDS}; load average before: {}", load.split(' ').next().unwrap_or("?"));
    println!("| way | loops | wake-ups | turns for nothing | balance of {FEW} | CPU µs | greeted, p99 µs | balance of {MANY} |");
    println!("|---|---|---|---|---|---|---|---|");
    let ways = [
        ("reuse-port", ListenerSharing::ReusePort),
        ("exclusive", ListenerSharing::Exclusive),
        ("hand-off", ListenerSharing::HandOff),
        ("herd (the mistake)", ListenerSharing::WakeAll),
    ];
    for loops in [2, 4] {
        // Rounds outside, ways inside: whatever else the machine does meets all of them.
        let mut results = ways.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for ((_, way), results) in ways.iter().zip(&mut results) {
                results.push(measure(*way, loops)?);
            }
        }
        for ((name, _), results) in ways.iter().zip(&results) {
            let [wakes, idle_turns, few, cpu_us, p99_us, many] = medians(results);
            println!("| {name} | {loops} | {wakes:.2} | {idle_turns:.2} | {few:.2} | {cpu_us:.1} | {p99_us:.0} | {many:.2} |");
        }
    }
    Ok(())
}

fn medians(results: &[[f64; 6]]) -> [f64; 6] {
    std::array::from_fn(|column| {
        let mut values: Vec<f64> = results.iter().map(|row| row[column]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

/// One row of the table, in its order.
fn measure(way: ListenerSharing, loops: usize) -> io::Result<[f64; 6]> {
    let (servers, address) = start(way, loops)?;
    let mut kept = Vec::with_capacity(ONE_BY_ONE);
    let mut few = 0.0;
    kept.push(greeted(address)?);
    thread::sleep(Duration::from_millis(50));
    let before = Used::of(&servers)?;
    while kept.len() <= ONE_BY_ONE {
        kept.push(greeted(address)?);
        thread::sleep(APART);
        if kept.len() == FEW {
            few = balance(&servers);
        }
    }
    let used = Used::of(&servers)?.since(&before);
    stop(servers)?;
    drop(kept);

    let (servers, address) = start(way, loops)?;
    let before = Used::of(&servers)?;
    let mut times = flood(address)?;
    let many = balance(&servers);
    let cpu = Used::of(&servers)?.since(&before).cpu;
    stop(servers)?;
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    let each = |n: u64| n as f64 / ONE_BY_ONE as f64;
    Ok([each(used.wakes), each(used.idle_turns), few, cpu.as_secs_f64() * 1e6 / MANY as f64, p99.as_secs_f64() * 1e6, many])
}

/// A client that has been accepted: the greeting says so.
fn greeted(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// The largest loop's connections over the mean. By those that each took, its own and those handed to it: the clients may be gone already.
fn balance(servers: &[Server]) -> f64 {
    let open: Vec<u64> = servers.iter().map(|server| server.stats.accepts.get()).collect();
    let (sum, max) = (open.iter().sum::<u64>(), open.iter().max().copied().unwrap_or(0));
    max as f64 * open.len() as f64 / sum.max(1) as f64
}

/// What the loops have used so far.
struct Used {
    wakes: u64,
    idle_turns: u64,
    cpu: Duration,
}

impl Used {
    fn of(servers: &[Server]) -> io::Result<Used> {
        let mut used = Used { wakes: 0, idle_turns: 0, cpu: Duration::ZERO };
        for server in servers {
            let status = std::fs::read_to_string(format!("/proc/self/task/{}/status", server.tid))?;
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            used.wakes += switches.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
            // Nanoseconds on a CPU come first (proc(5)).
            let schedstat = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", server.tid))?;
            let nanos = schedstat.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            used.cpu += Duration::from_nanos(nanos);
            used.idle_turns += server.stats.turns_without_progress.get();
        }
        Ok(used)
    }

    fn since(&self, before: &Used) -> Used {
        Used { wakes: self.wakes - before.wakes, idle_turns: self.idle_turns - before.idle_turns, cpu: self.cpu - before.cpu }
    }
}

/// One loop on its thread.
struct Server {
    stats: Arc<Stats>,
    handle: reactor::Handle,
    tid: String,
    thread: JoinHandle<io::Result<Greeter>>,
}

fn start(way: ListenerSharing, loops: usize) -> io::Result<(Vec<Server>, SocketAddr)> {
    let options = ListenOptions { reuse_port: way == ListenerSharing::ReusePort, ..ListenOptions::default() };
    let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)), options)?;
    let address = first.local_addr()?;
    let mut event_loops = Vec::new();
    for index in 0..loops {
        let mut event_loop = EventLoop::new(Config::default(), Greeter)?;
        let socket: Option<TcpListener> = match way {
            _ if index == 0 => Some(first.try_clone()?),
            ListenerSharing::ReusePort => Some(listen(address, options)?),
            ListenerSharing::Exclusive | ListenerSharing::WakeAll => Some(first.try_clone()?),
            ListenerSharing::HandOff => None,
        };
        if let Some(socket) = socket {
            event_loop.listen_on(LinuxListener::new(socket)?, way.wakes())?;
        }
        event_loops.push(event_loop);
    }
    if way == ListenerSharing::HandOff {
        let receivers = event_loops[1..].iter_mut().map(EventLoop::receiver).collect::<io::Result<_>>()?;
        event_loops[0].hand_off_to(receivers);
    }
    let run = |event_loop: EventLoop<Greeter>| {
        let (stats, handle) = (event_loop.stats(), event_loop.handle());
        let (tid_in, tid_out) = sync_channel(1);
        let thread = thread::Builder::new().name("loop".to_owned()).spawn(move || {
            let path = std::fs::read_link("/proc/thread-self")?;
            let tid = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let _ = tid_in.send(tid); // Whoever started us waits for it.
            event_loop.run()
        })?;
        let tid = tid_out.recv().map_err(|_| io::Error::other("a loop ended before it began"))?;
        Ok(Server { stats, handle, tid, thread })
    };
    Ok((event_loops.into_iter().map(run).collect::<io::Result<_>>()?, address))
}

fn stop(servers: Vec<Server>) -> io::Result<()> {
    for server in servers {
        server.handle.stop();
        server.thread.join().map_err(|_| io::Error::other("a loop has panicked"))??;
    }
    Ok(())
}

/// The service: one byte for each new connection.
struct Greeter;

impl Handler for Greeter {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
        cx.write(b"!");
    }

    fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}
}

/// Opens [`MANY`] connections on time, on a loop of this thread, and returns how long each took from due to greeted.
fn flood(to: SocketAddr) -> io::Result<Vec<Duration>> {
    let flood = Flood { to, begun: Instant::now(), asked: 0, times: Vec::with_capacity(MANY as usize), failure: None };
    let event_loop = EventLoop::new(Config::default(), flood)?;
    let done = event_loop.run()?;
    match done.failure {
        Some(e) => Err(e),
        None => Ok(done.times),
    }
}

/// The clients.
struct Flood {
    to: SocketAddr,
    begun: Instant,
    asked: u64,
    times: Vec<Duration>,
    failure: Option<io::Error>,
}

impl Flood {
    fn due(&self, number: u64) -> Instant {
        self.begun + Duration::from_secs(number) / MANY_PER_SECOND
    }
}

impl Handler for Flood {
    type Conn = u64;
    type Mail = ();

    fn opened(&mut self, origin: Origin, _cx: &mut Context<'_>) -> u64 {
        let Origin::Connected { tag } = origin else { unreachable!("it does not listen") };
        tag
    }

    fn input(&mut self, number: &mut u64, input: &[u8], cx: &mut Context<'_>) -> usize {
        self.times.push(cx.now().saturating_duration_since(self.due(*number)));
        if self.times.len() as u64 == MANY {
            cx.stop_loop();
        }
        input.len()
    }

    fn mail(&mut self, _: &mut u64, (): (), _cx: &mut Context<'_>) {}

    fn connect_failed(&mut self, _tag: u64, error: io::Error, cx: &mut LoopContext<'_>) {
        self.failure = Some(error);
        cx.stop();
    }

    fn next_wake(&self) -> Option<Instant> {
        (self.asked < MANY).then(|| self.due(self.asked))
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        while self.asked < MANY && self.due(self.asked) <= cx.now() {
            if cx.connect(Connect::new(self.to, self.asked, Duration::from_secs(5))).is_err() {
                return; // As many wait already: the next turn asks again.
            }
            self.asked += 1;
        }
    }
}
