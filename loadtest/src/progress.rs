//! Progress on standard error: one line redrawn four times a second, or plain lines where standard error is not a terminal.
//!
//! Results are never printed here: standard output stays clean for them. Read next: `report.rs`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use server::units::Time;

use crate::generator::Watch;
use crate::output::note;
use crate::scenario::Scenario;
use crate::series::Second;
use crate::units::{about, microseconds};

/// How often the line is redrawn, per second. More would take the generator's processor time.
const REDRAWS_PER_SECOND: u8 = 4;

/// Where progress goes.
#[derive(Debug)]
pub enum Progress {
    /// Nowhere: `--no-progress`, `--quiet`.
    None,
    /// A bar on a terminal.
    Bar {
        /// The bar.
        bar: ProgressBar,
        /// The whole run.
        length: Duration,
    },
    /// A line a second.
    Lines {
        /// What is running: the scenario's side; empty for a plain run.
        name: String,
        /// The whole run.
        length: Duration,
    },
}

impl Progress {
    /// Progress of a run of `length`, named `name`, on standard error.
    #[must_use]
    pub fn new(name: &str, length: Duration, wanted: bool) -> Progress {
        let name = if name.is_empty() { String::new() } else { format!("{name} ") };
        if !wanted {
            return Progress::None;
        }
        if !std::io::stderr().is_terminal() {
            return Progress::Lines { name, length };
        }
        let milliseconds = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(milliseconds), ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND));
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:14} {wide_msg}") {
            bar.set_style(style.progress_chars("█░"));
        }
        bar.set_prefix(name);
        Progress::Bar { bar, length }
    }
}

/// `12s/30s`.
fn clock(elapsed: Duration, length: Duration) -> String {
    let elapsed = elapsed.min(length).as_secs();
    format!("{elapsed:>3}s/{}", Time(length))
}

/// `1000/s sched  998/s done  in-flight 41  oldest 3.4ms  p99(1s) 3.1ms  err 0  send-delay p99 80µs`. The quantile is that of the requests
/// that were due in this second and have ended: `–` if none has.
fn numbers(second: &Second) -> String {
    format!(
        "{}/s sched  {}/s done  in-flight {}  oldest {}  p99(1s) {}  err {}  send-delay p99 {}{}",
        second.scheduled,
        second.completed,
        second.in_flight,
        microseconds(second.oldest_us),
        second.p99.map_or_else(|| "–".to_owned(), |p99| p99.to_string()),
        second.errors,
        microseconds(second.send_delay_p99),
        if second.warmup { "  (warm-up)" } else { "" },
    )
}

impl Watch for Progress {
    fn tick(&mut self, elapsed: Duration, second: Option<&Second>) {
        match self {
            Progress::None => {}
            Progress::Bar { bar, length } => {
                bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
                if let Some(second) = second {
                    bar.set_message(format!("{} {}", clock(elapsed, *length), numbers(second)));
                }
            }
            Progress::Lines { name, length } => {
                if let Some(second) = second {
                    let at = Duration::from_secs(u64::from(second.t) + 1);
                    note(format_args!("{name}{}  {}", clock(at, *length), numbers(second)));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Progress::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

/// Progress of several scenarios: `[ 3/18] pool-starvation   about 2 min left`, redrawn on a terminal, else one line for each.
#[derive(Debug)]
pub struct ScenarioProgress {
    scenarios: &'static [Scenario],
    begun: Instant,
    /// Without `--long` the lengths are known before the first scenario has run.
    lengths_known: bool,
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl ScenarioProgress {
    /// Progress of these scenarios, which begin now.
    #[must_use]
    pub fn new(scenarios: &'static [Scenario], long: bool, wanted: bool) -> ScenarioProgress {
        ScenarioProgress { scenarios, begun: Instant::now(), lengths_known: !long, wanted, bar: None }
    }

    /// The scenario of that index begins.
    pub fn begin(&mut self, index: usize) {
        if !self.wanted {
            return;
        }
        let line = scenario_line(self.scenarios, index, self.begun.elapsed(), self.lengths_known);
        // A single scenario's load has a bar of its own.
        if self.scenarios.len() == 1 || !std::io::stderr().is_terminal() {
            return note(line);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND));
        if let Ok(style) = ProgressStyle::with_template("{wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(line);
        bar.enable_steady_tick(Duration::from_secs(1) / u32::from(REDRAWS_PER_SECOND));
        self.bar = Some(bar);
    }

    /// The scenario has ended: the terminal's line is free for its result.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `[ 3/18] pool-starvation   about 2 min left`. The rest is expected to take as long, compared with what is usual, as the scenarios so far.
fn scenario_line(scenarios: &[Scenario], index: usize, elapsed: Duration, lengths_known: bool) -> String {
    let usual = |scenarios: &[Scenario]| scenarios.iter().map(|scenario| scenario.takes.as_secs_f64()).sum::<f64>();
    let (before, rest) = scenarios.split_at(index);
    let slower = if index == 0 { 1.0 } else { elapsed.as_secs_f64() / usual(before).max(1.0) };
    let left = Duration::try_from_secs_f64(usual(rest) * slower).unwrap_or(Duration::MAX);
    let left = if index > 0 || lengths_known { format!("{} left", about(left)) } else { String::new() };
    let count = scenarios.len().to_string();
    let width = count.len();
    format!("[{:>width$}/{count}] {:<19}   {left}", index + 1, scenarios[index].slug).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::SCENARIOS;
    use crate::truth::bounds::Bound;

    #[test]
    fn the_progress_of_scenarios_counts_them_and_estimates_the_time_left_from_the_time_so_far() {
        let usual = |n: usize| SCENARIOS[..n].iter().map(|scenario| scenario.takes).sum::<Duration>();
        let total = usual(SCENARIOS.len());
        let first = scenario_line(SCENARIOS, 0, Duration::ZERO, true);
        assert_eq!(first, format!("[ 1/{}] loop-stall            {} left", SCENARIOS.len(), about(total)));
        let third = scenario_line(SCENARIOS, 2, 3 * usual(2), true);
        assert_eq!(third, format!("[ 3/{}] pool-starvation       {} left", SCENARIOS.len(), about(3 * (total - usual(2)))));
        // With --long nothing is known before the first has ended.
        assert_eq!(scenario_line(&SCENARIOS[..1], 0, Duration::ZERO, false), "[1/1] loop-stall");
    }

    #[test]
    fn a_progress_line_has_all_that_tells_server_from_generator() {
        let second = Second {
            t: 11,
            scheduled: 1000,
            completed: 998,
            in_flight: 41,
            oldest_us: 3_400,
            p99: Some(Bound::exactly(3_100)),
            send_delay_p99: 80,
            ..Second::default()
        };
        assert_eq!(clock(Duration::from_secs(12), Duration::from_secs(30)), " 12s/30s");
        assert_eq!(numbers(&second), "1000/s sched  998/s done  in-flight 41  oldest 3.4ms  p99(1s) 3.1ms  err 0  send-delay p99 80µs");
    }

    #[test]
    fn a_second_in_which_nothing_ended_has_no_latency_and_shows_the_oldest_request() {
        let stalled = Second { scheduled: 1000, in_flight: 1900, oldest_us: 1_900_000, ..Second::default() };
        assert_eq!(numbers(&stalled), "1000/s sched  0/s done  in-flight 1900  oldest 1.90s  p99(1s) –  err 0  send-delay p99 0µs");
    }
}
