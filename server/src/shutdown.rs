//! How a server ends: on SIGTERM or SIGINT in order and within a grace time; on the second one at once.
//!
//! The order: `/readyz` fails; if asked for, a delay in which all are served as before; each loop accepts what the kernel has queued, stops
//! listening, finishes what is in flight with `Connection: close` and ends; then the pool; the admin port last, so that the end can be
//! watched, and it finishes what is under way there as well. Read next: `run.rs`.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use reactor::Handle;
use signal_hook::consts::{SIGINT, SIGTERM};
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

/// Sends the first signal to `events`; the second ends the process with 128 + its number, from a thread that nothing else can hold up.
///
/// # Errors
/// sigaction(2), or the thread cannot be started.
pub fn listen_for_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut is_first = true;
        for signal in signals.forever() {
            if !is_first {
                log::warn!("a second signal: ending at once signal={}", name(signal));
                log::logger().flush();
                std::process::exit(128 + signal);
            }
            is_first = false;
            // Nobody listens any more only when the server is ending anyway.
            let _ = events.send(Event::Signal(signal));
        }
    })?;
    Ok(())
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        _ => "other",
    }
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
pub struct Drained {
    /// When the grace time is over: nobody may hold the process up for longer.
    pub grace_ends: Instant,
    /// What went wrong: a loop that failed, or one that did not end in time.
    pub result: Result<(), String>,
}

/// Waits for a signal, or for a loop that ends unasked; then has all loops drain, and waits for them. After a signal it returns within the
/// delay, the grace and a second.
pub fn wait_and_drain(events: &Receiver<Event>, loops: &[Handle], monitor: &Monitor, ending: Ending) -> Drained {
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
            ShutdownPolicy::Drain => handle.drain(grace),
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
    Drained { grace_ends, result: complaint.map_or(Ok(()), Err) }
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
