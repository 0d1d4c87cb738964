//! How the run goes, on standard error: one line redrawn four times a second, or a plain line a second when nobody watches a terminal.
//!
//! Results are never printed here: standard output stays clean for them. Read next: `report.rs`.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use server::units::Time;

use crate::generator::Watch;
use crate::series::Second;
use crate::units::microseconds;

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

/// `1000/s sched  998/s done  in-flight 41  p99(1s) 3.1ms  err 0  send-delay p99 80µs`.
fn numbers(second: &Second) -> String {
    format!(
        "{}/s sched  {}/s done  in-flight {}  p99(1s) {}  err {}  send-delay p99 {}{}",
        second.scheduled,
        second.completed,
        second.in_flight,
        microseconds(second.p99),
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
                    eprintln!("{name}{}  {}", clock(at, *length), numbers(second));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_has_all_that_tells_server_from_generator() {
        let second = Second { t: 11, scheduled: 1000, completed: 998, in_flight: 41, p99: 3_100, send_delay_p99: 80, ..Second::default() };
        assert_eq!(clock(Duration::from_secs(12), Duration::from_secs(30)), " 12s/30s");
        assert_eq!(numbers(&second), "1000/s sched  998/s done  in-flight 41  p99(1s) 3.1ms  err 0  send-delay p99 80µs");
    }
}
