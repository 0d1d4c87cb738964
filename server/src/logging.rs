//! A log that never blocks: lines go into a bounded queue, and a thread of its own writes them. What finds no room is dropped and counted.
//!
//! write(2) to a pipe blocks when nobody reads the pipe, and a loop that logs would then stop for all its connections (`log-stall`).
//! Here only the thread `log` can block. `RUST_LOG` filters as env_logger does; without it, `info`. Warnings and errors of one
//! place in the code appear once a second at most, with the number of those left out: a flood of them is a failure mode too.
//!
//! A line is `TIME LEVEL THREAD TARGET MESSAGE key=value…`, time in UTC. Read next: `run.rs`, which starts it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, Log, Metadata, Record};

use crate::units::utc;

/// Lines that may wait to be written. With [`LINE_BYTES_MAX`] it bounds the memory at 4 MiB; at 200 bytes a line it holds what a pipe of
/// 64 KiB (pipe(7)) takes three times over.
pub const LINES_MAX: usize = 1024;

/// Longer lines are cut: a peer must not choose how much we write.
pub const LINE_BYTES_MAX: usize = 4096;

/// How long [`Log::flush`] waits at most.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Places in the code that are told apart when repeated lines are left out. Two that fall together share one line a second.
const SITES: usize = 512;

/// What the log counts.
#[derive(Debug, Default)]
pub struct LogStats {
    written: AtomicU64,
    dropped: AtomicU64,
    suppressed: AtomicU64,
}

impl LogStats {
    /// Lines handed to the system.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines lost because the queue was full or the output failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Warnings and errors left out because the same place had one in the same second.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }
}

/// Starts the log on stderr, and sends panics through it. Call it once.
///
/// # Errors
/// The thread cannot be started. (A logger that is there already stays: then this one is not used.)
pub fn start() -> io::Result<LogGuard> {
    let (logger, writer) = Logger::new();
    let stats = logger.stats();
    crate::thread::start("log", move || writer.run(&mut io::stderr()))?;
    log::set_max_level(logger.filter.filter());
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(LogGuard { stats })
}

/// Writes what is queued when it goes out of scope, within a second at most: also when main panics.
#[derive(Debug)]
pub struct LogGuard {
    stats: Arc<LogStats>,
}

impl LogGuard {
    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Arc<LogStats> {
        Arc::clone(&self.stats)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

/// The default hook writes to stderr on the thread that panicked: a loop, often, and the pipe may be full.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    // What panic!() makes: a &str without arguments, a String with them.
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message");
    let location = info.location();
    // The place of the panic, not of this line, so that different panics are not taken for repetitions.
    let (file, line) = location.map_or(("?", 0), |location| (location.file(), location.line()));
    log::logger().log(
        &Record::builder()
            .level(Level::Error)
            .target("panic")
            .file(Some(file))
            .line(Some(line))
            .args(format_args!("panicked: {message} at={file}:{line}"))
            .build(),
    );
}

enum Message {
    Line(String),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

/// The end that the program logs to.
struct Logger {
    filter: env_logger::Logger,
    queue: SyncSender<Message>,
    stats: Arc<LogStats>,
    repetitions: Repetitions,
    started: Instant,
}

/// The end that writes.
struct Writer {
    queue: Receiver<Message>,
    stats: Arc<LogStats>,
}

impl Logger {
    fn new() -> (Logger, Writer) {
        let filter = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).build();
        let (queue, lines) = sync_channel(LINES_MAX);
        let stats = Arc::new(LogStats::default());
        let writer = Writer { queue: lines, stats: Arc::clone(&stats) };
        (Logger { filter, queue, stats, repetitions: Repetitions::default(), started: Instant::now() }, writer)
    }

    fn stats(&self) -> Arc<LogStats> {
        Arc::clone(&self.stats)
    }

    /// How many were left out at this place before this line; `None` to leave this one out as well.
    fn admit(&self, record: &Record<'_>) -> Option<u32> {
        if record.level() > Level::Warn {
            return Some(0);
        }
        let mut hasher = DefaultHasher::new();
        (record.file(), record.line(), record.target()).hash(&mut hasher);
        self.repetitions.admit(hasher.finish(), self.started.elapsed().as_secs() as u32)
    }

    /// The one place where a line leaves the thread that logs.
    fn hand_over(&self, line: String) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let Some(left_out) = self.admit(record) else {
            self.stats.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let thread = thread::current();
        self.hand_over(line(record, left_out, SystemTime::now(), thread.name().unwrap_or("-")));
    }

    /// Waits until everything logged before is written, for a second at most.
    fn flush(&self) {
        let (written, done) = sync_channel(1);
        let until = Instant::now() + FLUSH_MAX;
        let mut message = Message::Flush(written);
        // A full queue is a reason to wait here, and nowhere else: the process is about to end.
        while let Err(refused) = self.queue.try_send(message) {
            let std::sync::mpsc::TrySendError::Full(back) = refused else { return };
            if Instant::now() >= until {
                return;
            }
            message = back;
            thread::sleep(Duration::from_millis(1));
        }
        let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Writer {
    /// Until the logger is gone. Blocks in write(2) as long as it likes: nobody waits for this thread.
    fn run(self, out: &mut impl Write) {
        let mut told_dropped = 0;
        while let Ok(message) = self.queue.recv() {
            match message {
                Message::Line(text) => self.write(out, &text),
                Message::Flush(written) => {
                    let _ = out.flush();
                    let _ = written.try_send(());
                }
            }
            let dropped = self.stats.dropped();
            if dropped != told_dropped {
                let text = format!("{} WARN  log - lines were lost: the output is too slow dropped={dropped}\n", utc(SystemTime::now()));
                told_dropped = dropped;
                self.write(out, &text);
            }
        }
    }

    fn write(&self, out: &mut impl Write, text: &str) {
        // An output that is closed is no reason to end: the service is worth more than its log.
        let counter = if out.write_all(text.as_bytes()).is_ok() { &self.stats.written } else { &self.stats.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One line with its end. What a peer sent may be in the message: control characters are escaped, so that nobody writes lines of their own.
fn line(record: &Record<'_>, left_out: u32, now: SystemTime, thread: &str) -> String {
    let message = record.args().to_string();
    let mut line = format!("{} {:<5} {thread} {} ", utc(now), record.level(), record.target());
    for char in message.chars() {
        if line.len() >= LINE_BYTES_MAX {
            line.push('…');
            break;
        }
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    if left_out > 0 {
        let _ = write!(line, " suppressed={left_out}");
    }
    line.push('\n');
    line
}

/// Who logged in which second, and how many were left out since: one word for each place, so that no lock is needed.
struct Repetitions([AtomicU64; SITES]);

impl Default for Repetitions {
    fn default() -> Repetitions {
        Repetitions([const { AtomicU64::new(0) }; SITES])
    }
}

impl Repetitions {
    fn admit(&self, site: u64, second: u32) -> Option<u32> {
        let slot = &self.0[(site % SITES as u64) as usize];
        // High half: the second of the last line, plus 1. Low half: lines left out since.
        let this_second = u64::from(second) + 1;
        let next = |word: u64| if word >> 32 == this_second { word.saturating_add(1) } else { this_second << 32 };
        let (Ok(before) | Err(before)) = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(next(word)));
        (before >> 32 != this_second).then_some(before as u32)
    }
}

#[cfg(test)]
#[path = "logging_tests.rs"]
mod tests;
