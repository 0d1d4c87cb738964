//! Signals, and how a server ends: on SIGTERM or SIGINT in order and within a grace time; on a second one, at least 500 ms later, at once.
//!
//! The order: `/readyz` fails; if asked for, a delay in which all are served as before; each loop accepts what the kernel has queued, stops
//! listening, finishes what is in flight with `Connection: close` and ends; then the pool; the admin port last, so that the end can be
//! watched, and it finishes what is under way there as well. Read next: `run.rs`.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use reactor::Handle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::clock::later;
use crate::monitor::Monitor;
use crate::units::Time;

/// What can end a server.
#[derive(Debug)]
pub enum Event {
    /// SIGTERM or SIGINT.
    Signal(i32),
    /// A loop has ended, asked or not.
    LoopEnded {
        /// Its thread's name.
        name: String,
        /// Why it could not go on.
        result: io::Result<()>,
    },
}

/// Beyond the grace time, at which a loop closes whatever is open: for its last turn.
const MARGIN: Duration = Duration::from_secs(1);

/// After the first signal that ends the server, others are taken for the same request for this long. Shells and orchestrators send two: the
/// terminal signals the whole process group, and the program that started the server passes its own signal on.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// What the thread `signals` does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Ends the server in order.
    Drain,
    /// Nothing: it repeats the first one.
    Repeats,
    /// Ends the process at once.
    Exit,
    /// Nothing: settings are read at the start only.
    Hangup,
    /// Writes the state of the server to the log.
    Dump,
}

/// Decides by the signals that came before. The clock is the caller's, so that tests need not wait.
#[derive(Debug, Default)]
struct Signalled {
    first: Option<Instant>,
}

impl Signalled {
    fn action(&mut self, signal: i32, now: Instant) -> Action {
        match (signal, self.first) {
            (SIGHUP, _) => Action::Hangup,
            (SIGUSR1, _) => Action::Dump,
            (_, None) => {
                self.first = Some(now);
                Action::Drain
            }
            (_, Some(first)) if now.saturating_duration_since(first) < SAME_REQUEST => Action::Repeats,
            (_, Some(_)) => Action::Exit,
        }
    }
}

/// Starts the thread `signals`, which nothing else can hold up. The first SIGTERM or SIGINT is sent to `events`. One that comes at least 500 ms
/// later ends the process with 128 + its number. SIGUSR1 calls `dump`. SIGHUP is logged and changes nothing.
///
/// # Errors
/// sigaction(2), or the thread cannot be started.
pub fn listen_for_signals(events: Sender<Event>, dump: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    crate::thread::start("signals", move || {
        let mut signalled = Signalled::default();
        for signal in signals.forever() {
            let name = name(signal);
            match signalled.action(signal, Instant::now()) {
                // The receiver is gone only when the server is ending.
                Action::Drain => drop(events.send(Event::Signal(signal))),
                Action::Repeats => {
                    log::info!("another signal within {} of the first is the same request signal={name}", Time(SAME_REQUEST))
                }
                Action::Exit => {
                    log::warn!("another signal ends the process at once signal={name}");
                    log::logger().flush();
                    std::process::exit(128 + signal);
                }
                Action::Hangup => {
                    log::warn!("settings are read at the start only, so nothing changes; restart to change them signal={name}")
                }
                Action::Dump => dump(),
            }
        }
    })
}

fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("unknown")
}

/// What becomes of the clients of a server that is told to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShutdownPolicy {
    /// Who is in the kernel's queue is accepted, and whatever is under way is finished.
    #[default]
    Drain,
    /// All connections and the listeners are closed as they are.
    StopAtOnce,
}

/// How an end goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What becomes of the clients.
    pub policy: ShutdownPolicy,
    /// After the signal, with nothing changed but that `/readyz` fails.
    pub delay: Duration,
    /// Then, for what is in flight.
    pub grace: Duration,
}

/// How the loops ended.
#[derive(Debug)]
pub struct ShutdownOutcome {
    /// When the grace time is over: nobody may hold the process up for longer.
    pub grace_ends: Instant,
    /// What went wrong: a loop that failed, or one that did not end in time.
    pub result: Result<(), String>,
}

/// Waits for a signal, or for a loop that ends unasked; then has all loops drain, and waits for them. After a signal it returns within the
/// delay, the grace and a second.
pub fn wait_and_drain(events: &Receiver<Event>, loops: &[Handle], monitor: &Monitor, ending: Ending) -> ShutdownOutcome {
    let Ending { policy, delay, grace } = ending;
    let mut running = loops.len();
    let mut complaint = None;
    let mut next = events.recv();
    if let Ok(Event::Signal(signal)) = next {
        // Before anything else: who asks must not send anybody any more while we can still serve whom it has sent already.
        monitor.draining.store(true, Ordering::Relaxed);
        log::info!("ending signal={} delay={} grace={}", name(signal), Time(delay), Time(grace));
        next = wait_out(events, delay).unwrap_or(Ok(Event::Signal(signal)));
    }
    match next {
        Ok(Event::Signal(_)) => {}
        Ok(Event::LoopEnded { name, result }) => {
            running -= 1;
            complaint = Some(ended_unasked(&name, &result));
        }
        Err(RecvError) => complaint = Some("nobody is left to wait for".to_owned()),
    }
    monitor.draining.store(true, Ordering::Relaxed);
    log::info!("draining loops={running}");
    for handle in loops {
        match policy {
            ShutdownPolicy::Drain => handle.shut_down(grace),
            ShutdownPolicy::StopAtOnce => handle.stop(), // MISTAKE(ungraceful-shutdown): requests under way get no answer, and the kernel resets whoever is in the queue.
        }
    }

    let grace_ends = later(Instant::now(), grace);
    let until = later(grace_ends, MARGIN);
    while running > 0 {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::LoopEnded { name, result }) => {
                running -= 1;
                if let Err(e) = result {
                    complaint.get_or_insert(format!("{name}: {e}"));
                }
            }
            // The signal thread ends the process by itself at the second one; the first may also come after a loop has failed.
            Ok(Event::Signal(_)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                loops.iter().for_each(Handle::stop);
                complaint.get_or_insert(format!("{running} of {} loops did not end within the grace time of {}", loops.len(), Time(grace)));
                break;
            }
        }
    }
    ShutdownOutcome { grace_ends, result: complaint.map_or(Ok(()), Err) }
}

/// What ends the delay early, if anything does: a loop that ends, after which the clients of the others are not served as before. (The
/// second signal does not come here: it ends the process.)
fn wait_out(events: &Receiver<Event>, delay: Duration) -> Option<Result<Event, RecvError>> {
    match events.recv_timeout(delay) {
        Ok(event) => Some(Ok(event)),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Err(RecvError)),
    }
}

fn ended_unasked(name: &str, result: &io::Result<()>) -> String {
    match result {
        Ok(()) => format!("{name} ended without being asked"),
        Err(e) => format!("{name}: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_ends_the_process_only_half_a_second_after_the_first() {
        let start = Instant::now();
        for first in [SIGTERM, SIGINT] {
            for second in [SIGTERM, SIGINT] {
                let mut signalled = Signalled::default();
                let mut at = |signal, ms| signalled.action(signal, start + Duration::from_millis(ms));
                assert_eq!(at(first, 0), Action::Drain);
                assert_eq!(at(second, 0), Action::Repeats);
                assert_eq!(at(second, 499), Action::Repeats, "counted from the first one");
                assert_eq!(at(second, 500), Action::Exit);
            }
        }
    }

    #[test]
    fn a_hangup_and_a_dump_are_not_the_first_of_two_signals() {
        let now = Instant::now();
        let mut signalled = Signalled::default();
        for (signal, action) in [
            (SIGHUP, Action::Hangup),
            (SIGUSR1, Action::Dump),
            (SIGTERM, Action::Drain),
            (SIGHUP, Action::Hangup),
            (SIGUSR1, Action::Dump),
            (SIGTERM, Action::Repeats),
        ] {
            assert_eq!(signalled.action(signal, now), action);
        }
    }
}
