//! A failure, reproduced: the same load against the server with one mistake, then without, and a judgement of the difference.
//!
//! A [`Scenario`] is data and one function, `drive`, that does the same to either side through the small toolkit [`Side`]. Everything
//! else happens here: a fresh process and a fresh source address for each side, the same seed, the predicates. To add one, copy
//! `scenarios/loop_stall.rs`. Read next: `contrast.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::args::Control;
use crate::child::{READY_TIMEOUT, STOP_GRACE, Server, this_program_as_server};
use crate::condition::Condition;
use crate::contrast::{Contrast, judge};
use crate::figures::{self, Figure, WAKES_PER_REQUEST};
use crate::generator::{self, Outcome};
use crate::mistakes;
use crate::plan::{Class, Plan};
use crate::progress::Progress;
use crate::sys;
use crate::truth::hiccup::{self, Machine};
use crate::truth::verdict::Verdict;

/// Where the server listens in every scenario: ports of the system's choice.
const SERVER_ADDRESSES: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// Stands in `server_args` for the path of an empty directory, made for the side and gone after it; see [`Side::directory`].
pub const DIRECTORY: &str = "{directory}";

/// Whose mistake a scenario shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MistakeIn {
    /// The server's: it is started with `--mistake SLUG`.
    Server,
    /// The client's: [`Side::run`] applies the entry of `mistakes.rs` to the plan.
    Client,
}

/// The file that holds a mistake, so that its line can be named.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Its path in the repository.
    pub file: &'static str,
    /// Its content (`include_str!`), in which the marker is looked for.
    pub source: &'static str,
}

impl Code {
    /// `server/src/dispatch.rs:88`: the line marked for `slug`.
    #[must_use]
    pub fn location(&self, slug: &str) -> String {
        let marker = format!("MISTAKE({slug})");
        match self.source.lines().position(|line| line.contains(&marker)) {
            Some(index) => format!("{}:{}", self.file, index + 1),
            None => self.file.to_owned(),
        }
    }
}

/// One failure and how to show it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Joins the mistake, the marked line, the test and the page `docs/failures/<slug>.md`.
    pub slug: &'static str,
    /// A title of a few words.
    pub title: &'static str,
    /// One sentence: what is wrong, and why it hurts.
    pub cause: &'static str,
    /// One sentence: what is sent.
    pub load: &'static str,
    /// Whose mistake it is.
    pub mistake_in: MistakeIn,
    /// Server arguments of both sides, beside the addresses.
    pub server_args: &'static [&'static str],
    /// Applies the load to one side and returns what was measured.
    pub drive: fn(&mut Side<'_>) -> Result<Measured, String>,
    /// Figures to show, each with its label, the headline first. Every figure of `expect` is among them.
    pub rows: &'static [Row],
    /// What must be true; see `condition.rs`. Figures of a side are named `broken.…` and `correct.…`.
    pub expect: &'static [&'static str],
    /// One sentence: what happened, with the figures measured.
    pub happened: fn(&Contrast) -> String,
    /// Commands that show it from outside, each with what to look for.
    pub look: &'static [&'static str],
    /// Where the marked line is.
    pub code: Code,
    /// How long both sides take without `--long`, measured on a machine that did nothing else: for "about 2 min left".
    pub takes: Duration,
}

/// A figure of a scenario and what it is called where people read it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, as [`Measured::figure`] knows it.
    pub figure: &'static str,
    /// The label, in words that make sense without the page.
    pub label: &'static str,
    /// The figure that this one is a part of: `12 of 150`.
    pub of: Option<&'static str>,
    /// What stands behind a plain number: `MiB`. Empty for counts.
    pub unit: &'static str,
}

impl Row {
    /// A figure with its label.
    #[must_use]
    pub const fn new(figure: &'static str, label: &'static str) -> Row {
        Row { figure, label, of: None, unit: "" }
    }

    /// The same, shown as a part of the figure `whole`.
    #[must_use]
    pub const fn of(self, whole: &'static str) -> Row {
        Row { of: Some(whole), ..self }
    }

    /// The same, with a unit.
    #[must_use]
    pub const fn unit(self, unit: &'static str) -> Row {
        Row { unit, ..self }
    }
}

impl Scenario {
    /// The row of that figure.
    #[must_use]
    pub fn row(&self, figure: &str) -> Option<&'static Row> {
        self.rows.iter().find(|row| row.figure == figure)
    }

    /// The page that explains it.
    #[must_use]
    pub fn page(&self) -> String {
        format!("docs/failures/{}.md", self.slug)
    }
}

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
        let pause_us = figures::quantile_of(name).map_or(0, |quantile| outcome.machine.pause_us(quantile));
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

/// How often a contrast is measured at most.
const ATTEMPTS_MAX: usize = 3;

/// Runs both sides and judges. A result that is open is measured again, both sides, with fresh processes; one that is not shown never is.
///
/// # Errors
/// A sentence, when a side could not be measured: the server did not start, or died.
pub fn run(scenario: &'static Scenario, settings: &Settings<'_>) -> Result<Contrast, String> {
    let expect: Vec<Condition> = scenario.expect.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [first, second] = match settings.control {
        None => [true, false],
        Some(Control::Mistake) => [true; 2],
        Some(Control::Correct) => [false; 2],
    };
    judge_repeatedly(|| {
        let broken = run_side(scenario, settings, 0, first)?;
        let correct = run_side(scenario, settings, 1, second)?;
        Ok(Contrast { control: settings.control, ..judge(scenario, broken, correct, &expect)? })
    })
}

fn judge_repeatedly(mut attempt: impl FnMut() -> Result<Contrast, String>) -> Result<Contrast, String> {
    let mut attempts = Vec::new();
    loop {
        let contrast = attempt()?;
        if !contrast.is_open() || contrast.is_interrupted() || attempts.len() + 1 >= ATTEMPTS_MAX {
            return Ok(Contrast { attempts, ..contrast });
        }
        attempts.push(contrast.why_open());
    }
}

fn run_side(scenario: &'static Scenario, settings: &Settings<'_>, side: u32, broken: bool) -> Result<Measured, String> {
    let mistake: &[&str] = if broken && scenario.mistake_in == MistakeIn::Server { &["--mistake", scenario.slug] } else { &[] };
    let directory = scenario.server_args.contains(&DIRECTORY).then(TempDir::new).transpose().map_err(|e| format!("no directory: {e}"))?;
    let path = directory.as_ref().map(|directory| directory.path().to_str().ok_or("TMPDIR is not in UTF-8")).transpose()?;
    let args = SERVER_ADDRESSES.iter().chain(scenario.server_args).chain(mistake);
    let args = args.map(|arg| path.filter(|_| *arg == DIRECTORY).unwrap_or(arg));
    let mut server = Server::start(this_program_as_server(args)?, READY_TIMEOUT)?;
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
    use crate::scenarios::SCENARIOS;

    #[test]
    fn every_scenario_is_complete_and_its_predicates_are_conditions() {
        for scenario in SCENARIOS {
            let Scenario { slug, title, cause, load, rows, expect, look, code, .. } = scenario;
            assert!(slug.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{slug}");
            assert!(cause.ends_with('.') && load.ends_with('.') && !title.ends_with('.'), "{slug}: sentences and titles");
            assert!(!rows.is_empty() && !expect.is_empty() && !look.is_empty(), "{slug}");
            for text in *expect {
                let condition: Condition = text.parse().unwrap();
                for name in [Some(condition.left.as_str()), condition.right_figure().map(|(_, name)| name)].into_iter().flatten() {
                    let figure = name.strip_prefix("broken.").or_else(|| name.strip_prefix("correct."));
                    let figure = figure.unwrap_or_else(|| panic!("{slug}: {name} is of no side"));
                    assert!(scenario.row(figure).is_some(), "{slug}: {figure} has no row, and so no label");
                }
            }
            for row in *rows {
                assert!(row.label.contains(' ') && !row.label.contains('_'), "{slug}: '{}' is no label in words", row.label);
            }
            assert!(code.location(slug).contains(".rs:"), "{slug}: no MISTAKE({slug}) in {}", code.file);
        }
    }

    #[test]
    fn the_headline_of_every_scenario_fits_a_terminal() {
        for scenario in SCENARIOS {
            // Slug, state, label, `150 of 150` twice.
            assert!(scenario.rows[0].label.chars().count() <= 60, "{}: {}", scenario.slug, scenario.rows[0].label);
        }
    }

    #[test]
    fn an_open_contrast_is_measured_again_and_one_that_is_not_shown_never_is() {
        use crate::contrast::tests::{not_shown, open, shown};
        let run = |results: Vec<Contrast>| {
            let mut results = results.into_iter();
            let ended = judge_repeatedly(|| results.next().ok_or_else(|| "one attempt too many".to_owned()));
            (ended.map(|contrast| (contrast.state(), contrast.attempts.len())), results.len())
        };
        assert_eq!(run(vec![shown(), shown()]), (Ok(("shown", 0)), 1));
        assert_eq!(run(vec![open(), shown(), shown()]), (Ok(("shown", 1)), 1));
        assert_eq!(run(vec![not_shown(), shown()]), (Ok(("NOT SHOWN", 0)), 1));
        assert_eq!(run(vec![open(), not_shown(), shown()]), (Ok(("NOT SHOWN", 1)), 1));
        assert_eq!(run(vec![open(), open(), open(), shown()]), (Ok(("NOT TRUSTWORTHY", 2)), 1));
    }

    #[test]
    fn slugs_are_unique() {
        let mut slugs: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), SCENARIOS.len());
    }

    #[test]
    fn the_marked_line_is_named_by_its_number() {
        let code = Code { file: "a.rs", source: "one\n  two // MISTAKE(x-y): why\n" };
        assert_eq!((code.location("x-y"), code.location("other")), ("a.rs:2".to_owned(), "a.rs".to_owned()));
    }

    #[test]
    fn the_sides_of_a_run_have_source_addresses_of_their_own() {
        for process in [1, 127, 128, 65_535, 4_194_304] {
            let (a, b) = (source_address(process, 0), source_address(process, 1));
            assert!(a != b && a.is_loopback() && b.is_loopback(), "{a} {b}");
        }
    }
}
