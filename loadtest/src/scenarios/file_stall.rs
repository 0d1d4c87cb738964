//! `file-stall`: one request per second opens a file on a slow disk, on the loop's own thread.
//!
//! No disk is slow on demand, so the scenario holds a lease on the file (`F_SETLEASE`, fcntl(2)): a process that opens it waits in the
//! kernel until the holder releases the lease, here 300 ms later. File servers hold such leases for their clients. The thread that calls
//! open(2) sees what it would see of a slow disk: a call on a regular file that does not return and that no poller reports. The holder
//! knows when open(2) waits. It sends `GET /` during that time, so that the figure is a count of responses, none against many, and does
//! not depend on how busy the machine is.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::plan::Class;
use crate::results_by_name::Figure;
use crate::scenario::{Code, DIRECTORY, MistakeIn, Row, Scenario};
use crate::schedule::Schedule;
use crate::side::{Measured, Side};
use crate::socket_client::{Client, GET};
use crate::sys;

/// Requests per second of the clients that want no file, and their connections.
const VICTIMS_RATE: f64 = 1_000.0;
const VICTIMS_CONNECTIONS: u32 = 10;
/// Requests per second for the file.
const FILE_RATE: f64 = 1.0;
const FILE_NAME: &str = "slow.txt";
const FILE_CONTENT: &[u8] = b"Thank you for waiting.\n";
/// How long each open(2) takes. The loop is blocked for three tenths of the time, so that p90 shows it and a hiccup of the machine does not.
const OPEN_TAKES: Duration = Duration::from_millis(300);
/// Pause between two checks of the lease by its holder.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "file-stall",
    title: "disk calls on the event loop's thread",
    cause: "One request per second opens a file on the loop's own thread, and open(2) takes 300 ms; meanwhile the loop reads and answers no other connection.",
    load: "GET / 1,000 times per second over 10 connections; GET /files/slow.txt once per second, a file whose open(2) a lease delays by 300 ms.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "2", "--files-root", DIRECTORY],
    drive,
    rows: &[
        Row::new("answered_meanwhile", "responses to another client while open(2) waited"),
        Row::new("opened", "times that open(2) waited"),
        Row::new("response.p90", "GET /, p90 latency from when it was due"),
        Row::new("response.p50", "GET /, median latency from when it was due"),
        Row::new("response.max", "GET /, longest latency from when it was due"),
        Row::new("ok", "GET / answered").of("scheduled"),
        Row::new("file.ok", "GET /files/slow.txt answered").of("file.scheduled"),
        Row::new("file.response.p50", "GET /files/slow.txt, median latency"),
    ],
    expect: &[
        "broken.opened > 0",
        "broken.answered_meanwhile == 0",
        "correct.answered_meanwhile >= 10",
        "broken.response.p90 >= 100ms",
        "broken.file.ok > 0",
        "correct.file.ok > 0",
        "broken.file.response.p50 >= 250ms",
        "correct.file.response.p50 >= 250ms",
    ],
    happened,
    look: &[
        "cargo run --release -p server -- --loops 1 --files-root /tmp/files --mistake file-stall",
        "strace -r -T -e 'trace=?open,openat,openat2,epoll_wait,epoll_pwait,epoll_pwait2' -p TID    # TID of loop-0: an open that takes 0.3 s, on the thread that waits in epoll",
        "ps -T -o tid,comm,stat,wchan:20 -p PID                      # what loop-0 waits in: do_epoll_wait, or a file (state D on a real disk)",
        "curl -s http://127.0.0.1:9090/metrics | grep -e reactor_loop_lag -e loop_stalls",
    ],
    code: Code { file: "server/src/dispatch.rs", source: include_str!("../../../server/src/dispatch.rs") },
    takes: Duration::from_secs(11),
};

fn drive(side: &mut Side<'_>) -> Result<Measured, String> {
    let path = side.directory()?.join(FILE_NAME);
    fs::write(&path, FILE_CONTENT).map_err(|e| format!("{}: {e}", path.display()))?;
    let (warmup, duration) = (Duration::from_secs(1), Duration::from_secs(if side.long() { 30 } else { 4 }));
    let host = side.authority();
    let victims = Class::get("victims", &host, "/", Schedule::constant(VICTIMS_RATE, warmup + duration), VICTIMS_CONNECTIONS);
    let file = Class::get("file", &host, &format!("/files/{FILE_NAME}"), Schedule::constant(FILE_RATE, warmup + duration), 1);
    let plan = side.plan(warmup, duration, vec![victims.expecting(b"Hello, World!"), file.expecting(FILE_CONTENT)]);
    let prober = Prober { client: Client::connect(side.http, side.from).map_err(|e| format!("a client failed: {e}"))?, asked: 0 };
    let (load, held) = held(&path, prober, || side.run(plan)).map_err(|e| {
        format!("{}: {e}; the file system must know leases (fcntl(2)): set TMPDIR to a directory on another", path.display())
    })?;
    Ok(Measured::from(load?).with("opened", Figure::count(held.opened)).with("answered_meanwhile", Figure::count(held.answered_meanwhile)))
}

/// What the holder of the lease saw.
#[derive(Default)]
struct Held {
    /// How often open(2) of the file waited for the lease.
    opened: u64,
    /// Responses to a client that wanted no file while open(2) waited.
    answered_meanwhile: u64,
}

/// Runs `during` while opening the file takes [`OPEN_TAKES`].
fn held<T>(path: &Path, prober: Prober, during: impl FnOnce() -> T) -> io::Result<(T, Held)> {
    let file = File::options().read(true).write(true).open(path)?;
    // Taken here first, so that a file system without leases is noticed before the load begins.
    sys::take_lease(&file)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hold = || hold(&file, prober, &over);
        let holder = std::thread::Builder::new().name("lease".to_owned()).spawn_scoped(scope, hold)?;
        let result = during();
        over.store(true, Ordering::Relaxed);
        let held = holder.join().map_err(|_| io::Error::other("the holder of the lease panicked"))?;
        Ok((result, held?))
    })
}

/// Holds the lease, releases it [`OPEN_TAKES`] after open(2) began to wait, and takes it again when the file is closed.
fn hold(file: &File, mut prober: Prober, over: &AtomicBool) -> io::Result<Held> {
    let mut held = Held::default();
    let mut is_held = true;
    while !over.load(Ordering::Relaxed) {
        if !is_held {
            is_held = match sys::take_lease(file) {
                Ok(()) => true,
                // While the server has the file open, the kernel grants no lease.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
                Err(e) => return Err(e),
            };
        } else if sys::lease_is_wanted(file)? {
            held.opened += 1;
            held.answered_meanwhile += prober.answers_within(OPEN_TAKES)?;
            sys::end_lease(file)?;
            is_held = false;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    // Closing the file would end the lease as well; an open(2) that waits need not wait for that.
    if is_held {
        sys::end_lease(file)?;
    }
    Ok(held)
}

/// A client that sends `GET /` again whenever it has its response.
struct Prober {
    client: Client,
    asked: u64,
}

impl Prober {
    /// How many responses arrive in that time.
    fn answers_within(&mut self, time: Duration) -> io::Result<u64> {
        let until = Instant::now() + time;
        self.client.look(); // Responses from before do not count.
        let before = self.client.answers();
        while Instant::now() < until {
            self.client.look();
            if self.client.answers() == self.asked {
                self.client.send(GET)?;
                self.asked += 1;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(self.client.answers() - before)
    }
}

fn happened(contrast: &Contrast) -> String {
    let text = |name| (Contrast::text(&contrast.broken, name), Contrast::text(&contrast.correct, name));
    let ((broken, correct), (late, _)) = (text("answered_meanwhile"), text("response.p90"));
    format!(
        "While open(2) waited, a client that wanted no file got {broken} responses, and a tenth of all GET / took {late} or longer; with \
         the disk calls on the worker pool it got {correct}. The file itself took as long either way: {} and {}.",
        text("file.response.p50").0,
        text("file.response.p50").1,
    )
}
