//! Runs a plan: a thread and a loop each, one start, one stop, and everything added up at the end.
//!
//! Read next: `truth/verdict.rs`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use reactor::os::descriptors::raise_descriptor_limit;
use reactor::{Config, EventLoop, Handle};
use server::run::LOOP_SLICE;
use server::thread::ask_for_slices;

use crate::client::Client;
use crate::histogram::Record;
use crate::plan::Plan;
use crate::results_by_name::{self, Figure};
use crate::series::{Second, Series};
use crate::start::StartGate;
use crate::truth::hiccup::{Control, Machine};

/// How often the main thread looks up: for the progress line (4 Hz) and for an interrupt.
const LOOK_UP: Duration = Duration::from_millis(250);
/// Descriptors that are not connections: epoll, eventfd and timerfd of each thread, standard streams, the result file, the child's pipes.
const DESCRIPTORS_RESERVED: u64 = 64;

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When it began.
    pub started: SystemTime,
    /// How long the measured part of the schedule ran; shorter than planned if it was interrupted, or if a count of requests ended it.
    pub measured: Duration,
    /// Each class of the plan.
    pub records: Vec<Record>,
    /// Each class second by second.
    pub series: Vec<Vec<Second>>,
    /// The part of a core that each generator thread used.
    pub cpu_by_thread: Vec<f64>,
    /// What the machine did meanwhile.
    pub machine: Machine,
    /// Whether it was stopped before its time.
    pub interrupted: bool,
}

impl Outcome {
    /// The figure of that name of a class, within its bounds: what the machine delayed the generator by may be in every time.
    #[must_use]
    pub fn figure(&self, class: usize, name: &str) -> Option<Figure> {
        let figure = results_by_name::of(self.records.get(class)?, self.measured, name)?;
        let pause_us = results_by_name::quantile_of(name).map_or(0, |quantile| self.machine.pause_us(quantile));
        Some(figure.lengthened_by(pause_us))
    }
}

/// Receives the intervals of a run.
pub trait Watch {
    /// Called about four times a second, and with each complete second of the first class.
    fn tick(&mut self, elapsed: Duration, second: Option<&Second>);
}

/// Discards them.
impl Watch for () {
    fn tick(&mut self, _elapsed: Duration, _second: Option<&Second>) {}
}

/// Runs the plan to its end, or until `interrupted`.
///
/// # Errors
/// One sentence, when the system refuses what the generator itself needs. What the server does is never an error here but a result.
pub fn run(plan: &Plan, watch: &mut dyn Watch, interrupted: &AtomicBool) -> Result<Outcome, String> {
    check_descriptors(plan)?;
    let gate = Arc::new(StartGate::new(plan.threads));
    let (intervals_in, intervals) = mpsc::channel();
    let control = Control::begin(None).map_err(|e| format!("cannot start the control thread: {e}"))?;
    let (started, begun) = (SystemTime::now(), Instant::now());
    let mut threads: Vec<JoinHandle<io::Result<Client>>> = Vec::new();
    let mut handles: Vec<Handle> = Vec::new();
    let mut trouble: Option<String> = None;
    for thread in 0..plan.threads {
        let client = Client::new(plan, thread, Arc::clone(&gate), intervals_in.clone(), begun);
        match start_thread(thread, client) {
            Ok((handle, thread)) => {
                handles.push(handle);
                threads.push(thread);
            }
            Err(e) => trouble = Some(format!("cannot start generator thread {thread}: {e}")),
        }
    }
    drop(intervals_in);
    if trouble.is_some() {
        handles.iter().for_each(Handle::stop);
    }

    // Only these threads take part in a class, and only they report it.
    let shares = plan.classes.iter().map(|class| class.shares(plan.threads)).collect();
    let mut series = Series::new(shares, u32::try_from(plan.warmup.as_secs()).unwrap_or(u32::MAX));
    let mut stopping = false;
    loop {
        let second = match intervals.recv_timeout(LOOK_UP) {
            Ok(interval) => series.take(interval),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        watch.tick(begun.elapsed(), second.as_ref());
        if interrupted.load(Ordering::Relaxed) && !stopping {
            stopping = true;
            handles.iter().for_each(Handle::stop);
        }
    }

    let mut records = vec![Record::default(); plan.classes.len()];
    let (mut cpu_by_thread, mut measured) = (Vec::new(), Duration::ZERO);
    for thread in threads {
        match thread.join() {
            Ok(Ok(client)) => {
                cpu_by_thread.push(client.cpu_share.unwrap_or(0.0));
                measured = measured.max(client.measured);
                client.merge_into(&mut records);
            }
            Ok(Err(e)) => trouble = Some(format!("a generator loop failed: {e}")),
            Err(_) => trouble = Some("a generator thread panicked".to_owned()),
        }
    }
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    Ok(Outcome { started, measured, records, series: series.finish(), cpu_by_thread, machine: control.end(), interrupted: stopping })
}

/// A thread named for `ps -T`, with its loop running.
fn start_thread(thread: u32, client: Client) -> io::Result<(Handle, JoinHandle<io::Result<Client>>)> {
    // A closing connection keeps its slot until the peer has closed too, while its successor is already there: hence twice.
    let connections_max = u32::try_from(client.connections_max() * 2 + 16).unwrap_or(u32::MAX);
    let config = Config::with(|config| {
        config.limits.connections_max = connections_max;
        config.limits.connects_waiting_max = connections_max;
    });
    let (ready_in, ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("generator-{thread}")).spawn(move || {
        if let Err(e) = ask_for_slices(LOOP_SLICE) {
            log::debug!("the generator may be late on a busy machine: {e}");
        }
        let event_loop = match EventLoop::new(config, client) {
            Ok(event_loop) => event_loop,
            Err(e) => {
                let _ = ready_in.send(Err(e));
                return Err(io::Error::other("not started"));
            }
        };
        let _ = ready_in.send(Ok(event_loop.handle()));
        let mut client = event_loop.run()?;
        client.end(Instant::now());
        Ok(client)
    })?;
    let handle = ready.recv().unwrap_or_else(|_| Err(io::Error::other("it ended at once")))?;
    Ok((handle, thread))
}

fn check_descriptors(plan: &Plan) -> Result<(), String> {
    let connections: u64 = plan.classes.iter().map(|class| u64::from(class.connections_max)).sum();
    let needed = connections + DESCRIPTORS_RESERVED;
    let limit = raise_descriptor_limit().map_err(|e| format!("cannot read the descriptor limit: {e}"))?;
    if needed > limit {
        return Err(format!(
            "{connections} connections need {needed} descriptors and the hard limit is {limit}: lower --max-connections or raise `ulimit -Hn`"
        ));
    }
    Ok(())
}
