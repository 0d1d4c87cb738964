//! The machine: what it took away from the generator and from the server while they were measured.
//!
//! A control thread, in the manner of jHiccup, only sleeps and looks at how late it woke. It has nothing to do with the requests, so its
//! delays are the machine's. Two more: the time that threads waited for a CPU (`run delay`, /proc/PID/task/TID/schedstat), and the time
//! that the hypervisor gave to others (`steal`, /proc/stat). Read next: `verdict.rs`.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::histogram::{histogram, record};
use crate::units::microseconds;

/// How long the control thread sleeps: as jHiccup.
const SLEEP: Duration = Duration::from_millis(1);
/// The machine is disturbed if its control thread woke this late at the 99th percentile,
const PAUSE_P99_US: u64 = 3_000;
/// or this late once,
const PAUSE_MAX_US: u64 = 20_000;
/// or if the threads that were watched waited for a CPU during this part of the time,
const RUN_DELAY_SHARE: f64 = 0.1;
/// or if the hypervisor took this part of the CPUs.
const STEAL_SHARE: f64 = 0.02;

/// What the machine did while something was measured.
#[derive(Clone, Debug)]
pub struct Machine {
    /// How late the control thread woke, once for each millisecond: a pause of 100 ms counts as 100 delays, of 100 ms, 99 ms, and so on.
    pub pauses: Histogram<u64>,
    /// For how long the threads of the watched processes waited for a CPU, added up; `None` if the kernel does not say.
    pub run_delay: Option<Duration>,
    /// The part of all CPUs that the hypervisor gave to others; `None` if the kernel does not say.
    pub steal_share: Option<f64>,
    /// How long it was watched.
    pub elapsed: Duration,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { pauses: histogram(), run_delay: None, steal_share: None, elapsed: Duration::ZERO }
    }
}

impl Machine {
    /// The delay that this part of the time did not exceed.
    #[must_use]
    pub fn pause_us(&self, quantile: f64) -> u64 {
        self.pauses.value_at_quantile(quantile)
    }

    /// The longest delay.
    #[must_use]
    pub fn pause_max(&self) -> Duration {
        Duration::from_micros(self.pauses.max())
    }

    fn run_delay_share(&self) -> f64 {
        self.run_delay.map_or(0.0, |delay| delay.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9))
    }

    /// Whether it took so much that a measurement may be about the machine.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.pause_us(0.99) >= PAUSE_P99_US
            || self.pauses.max() >= PAUSE_MAX_US
            || self.run_delay_share() >= RUN_DELAY_SHARE
            || self.steal_share.is_some_and(|share| share >= STEAL_SHARE)
    }

    /// `threads waited 1.31s of 6.00s for a CPU, steal 0.0%, a control thread woke up to 38ms late (p99 6.1ms)`.
    #[must_use]
    pub fn line(&self) -> String {
        let elapsed = microseconds(crate::units::as_us(self.elapsed));
        let mut parts = Vec::new();
        if let Some(delay) = self.run_delay {
            parts.push(format!("threads waited {} of {elapsed} for a CPU", microseconds(crate::units::as_us(delay))));
        }
        if let Some(share) = self.steal_share {
            parts.push(format!("steal {:.1}%", share * 100.0));
        }
        let (max, p99) = (microseconds(self.pauses.max()), microseconds(self.pause_us(0.99)));
        parts.push(format!("a control thread woke up to {max} late (p99 {p99})"));
        parts.join(", ")
    }
}

/// A control thread that runs, and what was read before it began.
#[derive(Debug)]
pub struct Control {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Histogram<u64>>>,
    /// Processes whose run delay is added up, each with what it was.
    processes: Vec<(u32, Option<Duration>)>,
    steal: Option<(u64, u64)>,
    began: Instant,
}

impl Control {
    /// Begins to watch the machine, and the threads of this process and of `server`.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn begin(server: Option<u32>) -> io::Result<Control> {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || watch(&stop))?;
        let processes = std::iter::once(std::process::id()).chain(server).map(|pid| (pid, run_delay(pid))).collect();
        Ok(Control { over, thread: Some(thread), processes, steal: cpu_times(), began: Instant::now() })
    }

    /// Ends it. Call it while the server still runs, or its run delay is not known.
    #[must_use]
    pub fn end(mut self) -> Machine {
        let elapsed = self.began.elapsed();
        let run_delay = self.processes.iter().filter_map(|(pid, before)| Some(run_delay(*pid)?.saturating_sub((*before)?)));
        let run_delay = self.processes.iter().any(|(_, before)| before.is_some()).then(|| run_delay.sum());
        let steal_share = self
            .steal
            .zip(cpu_times())
            .map(|((steal, all), (steal_now, all_now))| steal_now.saturating_sub(steal) as f64 / all_now.saturating_sub(all).max(1) as f64);
        self.over.store(true, Ordering::Relaxed);
        let pauses = self.thread.take().and_then(|thread| thread.join().ok());
        Machine { pauses: pauses.unwrap_or_else(histogram), run_delay, steal_share, elapsed }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn watch(over: &AtomicBool) -> Histogram<u64> {
    let mut pauses = histogram();
    let mut before = Instant::now();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(SLEEP);
        let now = Instant::now();
        note_pause(&mut pauses, now.saturating_duration_since(before).saturating_sub(SLEEP));
        before = now;
    }
    pauses
}

/// Whatever had been due during the pause was late as well, by what was left of it.
fn note_pause(pauses: &mut Histogram<u64>, late: Duration) {
    record(pauses, late);
    let mut left = late;
    while left > SLEEP {
        left -= SLEEP;
        record(pauses, left);
    }
}

/// The time that the threads of a process have waited for a CPU so far: the second number of /proc/PID/task/TID/schedstat, in nanoseconds
/// (Documentation/scheduler/sched-stats.rst). A thread that has ended is not in it.
fn run_delay(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let delays = tasks.flatten().filter_map(|task| second_number(&fs::read_to_string(task.path().join("schedstat")).ok()?));
    let (count, sum) = delays.fold((0, 0), |(count, sum), delay| (count + 1, sum + delay));
    (count > 0).then(|| Duration::from_nanos(sum))
}

fn second_number(text: &str) -> Option<u64> {
    text.split_whitespace().nth(1)?.parse().ok()
}

/// The ticks that the hypervisor took, and all ticks of all CPUs: the line `cpu` of /proc/stat (proc_stat(5)).
fn cpu_times() -> Option<(u64, u64)> {
    steal_of(&fs::read_to_string("/proc/stat").ok()?)
}

fn steal_of(stat: &str) -> Option<(u64, u64)> {
    // user nice system idle iowait irq softirq steal; guest times are in user already.
    let ticks: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8).filter_map(|tick| tick.parse().ok()).collect();
    Some((*ticks.get(7)?, ticks.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_delays_everything_that_was_due_in_it() {
        let mut pauses = histogram();
        note_pause(&mut pauses, Duration::from_millis(100));
        assert_eq!(pauses.len(), 100);
        assert!((49_000..=51_100).contains(&pauses.value_at_quantile(0.5)), "{}", pauses.value_at_quantile(0.5));
    }

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(second_number("1053372 271828 12\n"), Some(271_828));
        assert_eq!(steal_of("cpu  10 1 5 80 2 0 1 7 3 0\ncpu0 1 2 3\n"), Some((7, 106)));
        assert_eq!(steal_of("intr 1 2\n"), None);
    }

    #[test]
    fn a_machine_that_took_much_is_disturbed_and_says_what() {
        let mut machine = Machine { elapsed: Duration::from_secs(6), ..Machine::default() };
        assert!(!machine.is_disturbed());
        machine.run_delay = Some(Duration::from_millis(1_310));
        assert!(machine.is_disturbed());
        machine.steal_share = Some(0.004);
        machine.pauses.record_n(1_000, 99).unwrap();
        machine.pauses.record(38_000).unwrap();
        assert_eq!(
            machine.line(),
            "threads waited 1.31s of 6.00s for a CPU, steal 0.4%, a control thread woke up to 38ms late (p99 1.0ms)"
        );
    }

    #[test]
    fn a_control_thread_wakes_and_ends() {
        let control = Control::begin(None).unwrap();
        while run_delay(std::process::id()).is_some() && control.began.elapsed() < 3 * SLEEP {
            std::thread::yield_now();
        }
        let machine = control.end();
        assert!(machine.elapsed >= 3 * SLEEP || machine.run_delay.is_none(), "{machine:?}");
    }
}
