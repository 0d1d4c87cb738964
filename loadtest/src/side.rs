//! One side of a scenario: a fresh server, the toolkit with which the scenario drives it, and what was measured.
//!
//! Each side has a process and a source address of its own, and the same seed. Read next: `contrast.rs`, which runs both sides and judges.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::args::Control;
use crate::child::{READY_TIMEOUT, STOP_GRACE, Server, this_program_as_server};
use crate::generator::{self, Outcome};
use crate::mistakes;
use crate::plan::{Class, Plan};
use crate::progress::Progress;
use crate::results_by_name::{self, Figure, WAKES_PER_REQUEST};
use crate::scenario::{DIRECTORY, MistakeIn, Scenario};
use crate::sys;
use crate::truth::hiccup::{self, Machine};
use crate::truth::verdict::Verdict;

/// Where the server listens in every scenario: ports of the system's choice.
const SERVER_ADDRESSES: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// How scenarios are run.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The seed of both sides.
    pub seed: u64,
    /// Long enough for graphs, rather than just long enough to judge.
    pub long: bool,
    /// Whether to show progress.
    pub progress: bool,
    /// Both sides are the same: the contrast must vanish.
    pub control: Option<Control>,
    /// Set by SIGINT, SIGTERM and SIGHUP.
    pub interrupted: &'a AtomicBool,
}

/// One load that was run against a side.
#[derive(Clone, Debug)]
pub struct Load {
    /// What was planned.
    pub plan: Plan,
    /// What was found.
    pub outcome: Outcome,
    /// Whether it can be trusted.
    pub verdict: Verdict,
}

/// What was measured of one side: loads, and figures of any other kind by name.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The loads, in order. The first one's classes are figures by name.
    pub loads: Vec<Load>,
    /// Other figures: descriptors, memory, context switches, connections that hang.
    pub figures: BTreeMap<String, Figure>,
    /// What the machine did meanwhile.
    pub machine: Machine,
    /// Whether a signal ended the measurement early.
    pub interrupted: bool,
}

impl Measured {
    /// Adds a figure that the scenario has measured itself.
    #[must_use]
    pub fn with(mut self, name: &str, figure: Figure) -> Measured {
        self.figures.insert(name.to_owned(), figure);
        self
    }

    /// The figure of that name: one of the scenario's own, or `FIGURE` of the first class, or `CLASS.FIGURE`.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<Figure> {
        if let Some(figure) = self.figures.get(name) {
            return Some(*figure);
        }
        let Load { plan, outcome, .. } = self.loads.first()?;
        // The server is on this machine as well: what delays one thread may delay each thread that the request needs.
        let pause_us = results_by_name::quantile_of(name).map_or(0, |quantile| outcome.machine.pause_us(quantile));
        let of = |index: usize, name: &str| Some(outcome.figure(index, name)?.lengthened_by((WAKES_PER_REQUEST - 1) * pause_us));
        of(0, name).or_else(|| {
            let (class, name) = name.split_once('.')?;
            of(plan.classes.iter().position(|known| known.name == class)?, name)
        })
    }
}

impl From<Load> for Measured {
    fn from(load: Load) -> Measured {
        Measured { interrupted: load.outcome.interrupted, loads: vec![load], ..Measured::default() }
    }
}

/// One side of a contrast while it is driven: the toolkit of a scenario.
#[derive(Debug)]
pub struct Side<'a> {
    /// Where the server serves.
    pub http: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Its process, for `/proc`.
    pub pid: u32,
    /// A source address that no other side or run has used lately: no TIME_WAIT of theirs is in the way.
    pub from: IpAddr,
    /// Whether this is the side with the mistake.
    pub broken: bool,
    /// The scenario stops the server itself, and the side fails if the server does not exit.
    ends_by_itself: bool,
    scenario: &'a Scenario,
    settings: &'a Settings<'a>,
    directory: Option<TempDir>,
}

impl<'a> Side<'a> {
    /// The directory that was made for this side, since its `server_args` have [`DIRECTORY`] in them.
    ///
    /// # Errors
    /// They have not.
    pub fn directory(&self) -> Result<&Path, String> {
        self.directory.as_ref().map(TempDir::path).ok_or_else(|| format!("the server_args of {} have no {DIRECTORY}", self.scenario.slug))
    }

    /// Whether to run long enough for graphs.
    #[must_use]
    pub fn long(&self) -> bool {
        self.settings.long
    }

    /// The server's process, to send it signals, for a scenario that ends the server while it drives it. From here on the side is measured
    /// only if the server has ended, in order, soon after the scenario.
    pub fn ends_by_itself(&mut self) -> Process {
        self.ends_by_itself = true;
        Process { pid: self.pid }
    }

    /// Set by SIGINT, SIGTERM and SIGHUP: every loop that waits checks it.
    #[must_use]
    pub fn interrupted(&self) -> &'a AtomicBool {
        self.settings.interrupted
    }

    /// The `Host` of requests.
    #[must_use]
    pub fn authority(&self) -> String {
        self.http.to_string()
    }

    /// A plan against this side: one generator thread, since two cores have a server to run too.
    #[must_use]
    pub fn plan(&self, warmup: Duration, duration: Duration, classes: Vec<Class>) -> Plan {
        let classes = classes.into_iter().map(|class| Class { from: Some(class.from.unwrap_or(self.from)), ..class }).collect();
        Plan { to: self.http, classes, threads: 1, warmup, duration, drain: Duration::from_secs(2), seed: self.settings.seed }
    }

    /// Runs a plan; on the broken side of a client's mistake, with the mistake.
    ///
    /// # Errors
    /// As [`generator::run`].
    pub fn run(&mut self, mut plan: Plan) -> Result<Load, String> {
        if self.broken && self.scenario.mistake_in == MistakeIn::Client && !mistakes::apply(self.scenario.slug, &mut plan) {
            return Err(format!("there is no client's mistake '{}'", self.scenario.slug));
        }
        let name = format!("{}, {}", self.scenario.slug, if self.broken { "with the mistake" } else { "correct" });
        let mut progress = Progress::new(&name, plan.length(), self.settings.progress);
        let outcome = generator::run(&plan, &mut progress, self.settings.interrupted)?;
        let verdict = Verdict::of(&plan, &outcome);
        Ok(Load { plan, outcome, verdict })
    }
}

/// The process of a server under test. Its number stays valid while the side is driven: only after that is the process waited for.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// Sends a signal.
    ///
    /// # Errors
    /// A sentence with what kill(2) says.
    pub fn signal(self, signal: i32) -> Result<(), String> {
        sys::signal(self.pid, signal).map_err(|e| format!("cannot signal the server under test: {e}"))
    }
}

/// Runs one side: `side` is 0 or 1.
///
/// # Errors
/// A sentence: the server did not start or died, or the scenario could not be driven.
pub fn run_side(scenario: &'static Scenario, settings: &Settings<'_>, side: u32, broken: bool) -> Result<Measured, String> {
    let mistake: &[&str] = if broken && scenario.mistake_in == MistakeIn::Server { &["--mistake", scenario.slug] } else { &[] };
    let directory = scenario.server_args.contains(&DIRECTORY).then(TempDir::new).transpose().map_err(|e| format!("no directory: {e}"))?;
    let path = directory.as_ref().map(|directory| directory.path().to_str().ok_or("TMPDIR is not in UTF-8")).transpose()?;
    let args = SERVER_ADDRESSES.iter().chain(scenario.server_args).chain(mistake);
    let args = args.map(|arg| path.filter(|_| *arg == DIRECTORY).unwrap_or(arg));
    let mut server = Server::start(this_program_as_server(args), READY_TIMEOUT)?;
    let mut side = Side {
        http: server.http,
        admin: server.admin,
        pid: server.pid,
        from: source_address(std::process::id(), side),
        broken,
        ends_by_itself: false,
        scenario,
        settings,
        directory,
    };
    let control = hiccup::Control::begin(Some(server.pid)).map_err(|e| format!("cannot start the control thread: {e}"))?;
    let measured = (scenario.drive)(&mut side);
    let machine = control.end();
    let ends_by_itself = side.ends_by_itself;
    if !ends_by_itself && !server.is_alive() {
        return Err(format!("the server under test died; it wrote: {}", server.stderr_tail().trim_end()));
    }
    let mut measured = measured?;
    measured.machine = machine;
    measured.interrupted |= settings.interrupted.load(Ordering::Relaxed);
    if ends_by_itself {
        return match server.ended_within(STOP_GRACE) {
            Some(status) if status.success() => Ok(measured),
            Some(status) => Err(format!("the server under test ended with {status}; it wrote: {}", server.stderr_tail().trim_end())),
            None => Err(format!("the server under test did not end within {STOP_GRACE:?} of the scenario that had told it to")),
        };
    }
    let ended = server.stop(STOP_GRACE);
    if ended.killed {
        log::warn!("the server under test did not end within {STOP_GRACE:?} of SIGTERM and was killed");
    }
    Ok(measured)
}

/// An address of 127.64.0.0/10, different for each process and side: any of 127.0.0.0/8 can be bound without privilege.
fn source_address(process: u32, side: u32) -> IpAddr {
    let [_, high, middle, low] = (process * 2 + side).to_be_bytes();
    Ipv4Addr::new(127, 64 | high & 63, middle, low).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sides_of_a_run_have_source_addresses_of_their_own() {
        for process in [1, 127, 128, 65_535, 4_194_304] {
            let (a, b) = (source_address(process, 0), source_address(process, 1));
            assert!(a != b && a.is_loopback() && b.is_loopback(), "{a} {b}");
        }
    }
}
