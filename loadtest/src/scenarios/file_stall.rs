//! `file-stall`: one request a second opens a file on a disk that takes its time, on the loop's own thread.
//!
//! No disk is slow on demand, so the file is held by a lease (`F_SETLEASE`, fcntl(2)): who opens it waits in the kernel until the holder
//! lets go, here 300 ms later. File servers hold such leases for their clients. To the thread that calls open(2) it is what a slow disk is: a
//! call on a regular file that does not return and of which no poller tells. And the holder knows when somebody waits: it spends that time
//! asking for `GET /`, so that what the loop answers meanwhile is a count, none against many, on however busy a machine.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::contrast::Contrast;
use crate::figures::Figure;
use crate::plan::Class;
use crate::raw::{Client, GET};
use crate::scenario::{Code, DIRECTORY, Measured, MistakeIn, Scenario, Side};
use crate::schedule::Schedule;
use crate::sys;

/// Requests a second of those who want no file, and their connections.
const VICTIMS_RATE: f64 = 1_000.0;
const VICTIMS_CONNECTIONS: u32 = 10;
/// Requests a second for the file.
const FILE_RATE: f64 = 1.0;
const FILE_NAME: &str = "slow.txt";
const FILE_CONTENT: &[u8] = b"Thank you for waiting.\n";
/// How long each opening takes. Three tenths of the time are bad, so that p90 shows it and nobody's hiccup does.
const OPEN_TAKES: Duration = Duration::from_millis(300);
/// Between two looks of the holder at its lease.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

pub(super) const SCENARIO: Scenario = Scenario {
    slug: "file-stall",
    title: "disk calls on the event loop's thread",
    cause: "One request a second opens a file on the loop's own thread, open(2) takes 300 ms, and meanwhile no other connection is read or answered.",
    load: "GET / 1000 times a second over 10 connections; GET /files/slow.txt once a second, a file that somebody holds a lease on for 300 ms.",
    mistake_in: MistakeIn::Server,
    server_args: &["--loops", "1", "--workers", "2", "--files-root", DIRECTORY],
    drive,
    rows: &["answered_meanwhile", "opened", "response.p90", "response.p50", "response.max", "ok", "file.ok", "file.response.p50"],
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
        "strace -r -T -e trace=openat,openat2,epoll_wait -p TID      # TID of loop-0: an open that takes 0.3 s, on the thread of epoll_wait",
        "ps -T -o tid,comm,stat,wchan:20 -p PID                      # what loop-0 waits in: do_epoll_wait, or a file (D, of a real disk)",
        "curl -s http://127.0.0.1:9090/metrics | grep -e reactor_loop_lag -e loop_stalls",
    ],
    code: Code { file: "server/src/dispatch.rs", source: include_str!("../../../server/src/dispatch.rs") },
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

/// What the holder of the lease has seen.
#[derive(Default)]
struct Held {
    /// How often somebody wanted the file.
    opened: u64,
    /// What a client that wanted no file was answered while somebody waited for it.
    answered_meanwhile: u64,
}

/// Runs `during` while opening the file takes [`OPEN_TAKES`].
fn held<T>(path: &Path, prober: Prober, during: impl FnOnce() -> T) -> io::Result<(T, Held)> {
    let file = File::options().read(true).write(true).open(path)?;
    // The first one here, so that a file system without leases is known before the load begins.
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

/// Holds the lease; lets go some time after somebody has asked, and takes it again when they are done.
fn hold(file: &File, mut prober: Prober, over: &AtomicBool) -> io::Result<Held> {
    let mut held = Held::default();
    let mut is_held = true;
    while !over.load(Ordering::Relaxed) {
        if !is_held {
            is_held = match sys::take_lease(file) {
                Ok(()) => true,
                // As long as somebody has the file open there is none.
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
    // Closing the file would end it as well; whoever waits need not wait for that.
    if is_held {
        sys::end_lease(file)?;
    }
    Ok(held)
}

/// A client that asks for `GET /`, again when it has its answer.
struct Prober {
    client: Client,
    asked: u64,
}

impl Prober {
    /// How many answers come in that time.
    fn answers_within(&mut self, time: Duration) -> io::Result<u64> {
        let until = Instant::now() + time;
        self.client.look(); // What has come since the last time does not count.
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
        "While open(2) waited for the disk, a client that wanted no file got {broken} answers, and a tenth of all requests took {late} or longer; with the disk calls on \
         the pool it got {correct}. The file itself took as long either way: {} and {}.",
        text("file.response.p50").0,
        text("file.response.p50").1,
    )
}
