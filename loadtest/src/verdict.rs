//! Was the generator fit to judge? If it was late itself, its numbers are about itself.
//!
//! Lateness and CPU, both: a generator can be late with an idle core (a slow timer), and saturated with no single late arrival yet.
//! Exit code 4 says that one of the rules was broken. Read next: `report.rs`.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::generator::Outcome;
use crate::plan::Plan;
use crate::units::{as_us, microseconds};

/// The send delay's 99th percentile may always be this long: timers and the scheduler are no better on a busy machine.
const SEND_DELAY_ALWAYS_ALLOWED: Duration = Duration::from_millis(1);
/// And this part of the response time's 99th percentile: an error of a tenth does not change what a result says.
const SEND_DELAY_SHARE_OF_RESPONSE: f64 = 0.1;
/// The part of arrivals that must be handled before the schedule ends.
const HANDLED_SHARE_MIN: f64 = 0.99;
/// The part of a core above which a thread has no room for the next burst.
const CPU_SHARE_MAX: f64 = 0.9;

/// What the generator did itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the result can be trusted.
    pub generator_ok: bool,
    /// If not, why: one sentence each.
    pub reasons: Vec<String>,
    /// The part of a core that each thread used.
    pub cpu_by_thread: Vec<f64>,
    /// The part of arrivals that were handled on time.
    pub handled_share: f64,
}

impl Verdict {
    /// Judges a run.
    #[must_use]
    pub fn of(plan: &Plan, outcome: &Outcome) -> Verdict {
        let classes = plan.classes.iter().zip(&outcome.records);
        let classes: Vec<_> =
            classes.map(|(class, record)| (class.name.as_str(), &record.clocks.send_delay, &record.clocks.response)).collect();
        let handled = outcome.records.iter().map(|record| record.totals.handled).sum();
        let scheduled = outcome.records.iter().map(|record| record.totals.scheduled).sum();
        Verdict::judge(&classes, handled, scheduled, &outcome.cpu_by_thread)
    }

    /// The rules, on numbers alone: send delay and response of each class, arrivals, CPU.
    #[must_use]
    pub fn judge(classes: &[(&str, &Histogram<u64>, &Histogram<u64>)], handled: u64, scheduled: u64, cpu_by_thread: &[f64]) -> Verdict {
        let mut reasons = Vec::new();
        for (name, send_delay, response) in classes {
            let p99 = send_delay.value_at_quantile(0.99);
            let of_response = response.value_at_quantile(0.99) as f64 * SEND_DELAY_SHARE_OF_RESPONSE;
            let limit = as_us(SEND_DELAY_ALWAYS_ALLOWED).max(of_response as u64);
            if p99 >= limit {
                reasons.push(format!(
                    "its p99 lateness was {} in class '{name}'; under {} is needed",
                    microseconds(p99),
                    microseconds(limit)
                ));
            }
        }
        let handled_share = if scheduled == 0 { 1.0 } else { handled as f64 / scheduled as f64 };
        if handled_share < HANDLED_SHARE_MIN {
            reasons.push(format!("it handled {:.2}% of the arrivals in time; at least 99% are needed", handled_share * 100.0));
        }
        for (thread, share) in cpu_by_thread.iter().enumerate() {
            if *share > CPU_SHARE_MAX {
                reasons.push(format!("its thread {thread} used {:.0}% of a core; at most 90% leave room for bursts", share * 100.0));
            }
        }
        Verdict { generator_ok: reasons.is_empty(), reasons, cpu_by_thread: cpu_by_thread.to_vec(), handled_share }
    }

    /// `generator OK (cpu 31%/28%, 99.96% of arrivals handled on time)`.
    #[must_use]
    pub fn line(&self) -> String {
        let cpu: Vec<_> = self.cpu_by_thread.iter().map(|share| format!("{:.0}%", share * 100.0)).collect();
        let state = if self.generator_ok {
            "generator OK".to_owned()
        } else {
            format!("NOT TRUSTWORTHY, the generator: {}", self.reasons.join("; "))
        };
        format!("{state} (cpu {}, {:.2}% of arrivals handled on time)", cpu.join("/"), self.handled_share * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::histogram;

    /// 1,000 samples, of which the slowest 20 take `slow_us`.
    fn clock(slow_us: u64) -> Histogram<u64> {
        let mut clock = histogram();
        clock.record_n(20, 980).unwrap();
        clock.record_n(slow_us, 20).unwrap();
        clock
    }

    fn judge(send_delay_us: u64, response_us: u64, handled: u64, cpu: f64) -> Verdict {
        Verdict::judge(&[("normal", &clock(send_delay_us), &clock(response_us))], handled, 10_000, &[0.1, cpu])
    }

    #[test]
    fn a_punctual_generator_with_room_to_spare_is_trusted() {
        let verdict = judge(900, 2_000, 10_000, 0.5);
        assert!(verdict.generator_ok, "{verdict:?}");
        assert_eq!(verdict.line(), "generator OK (cpu 10%/50%, 100.00% of arrivals handled on time)");
    }

    #[test]
    fn lateness_counts_against_a_millisecond_or_a_tenth_of_the_response() {
        assert!(!judge(1_100, 2_000, 10_000, 0.5).generator_ok);
        assert!(judge(8_000, 90_000, 10_000, 0.5).generator_ok, "8 ms do not matter to 90");
        let late = judge(9_500, 90_000, 10_000, 0.5);
        assert!(!late.generator_ok && late.reasons[0].contains("lateness"), "{late:?}");
    }

    #[test]
    fn unhandled_arrivals_and_a_full_core_each_spoil_the_verdict() {
        assert!(judge(20, 2_000, 9_900, 0.5).generator_ok);
        let lost = judge(20, 2_000, 9_899, 0.5);
        assert!(!lost.generator_ok && lost.reasons[0].contains("98.99%"), "{lost:?}");
        assert!(judge(20, 2_000, 10_000, 0.9).generator_ok);
        let full = judge(20, 2_000, 10_000, 0.91);
        assert!(!full.generator_ok && full.line().contains("thread 1 used 91%"), "{full:?}");
    }

    #[test]
    fn a_run_without_arrivals_blames_nobody() {
        let verdict = Verdict::judge(&[("normal", &histogram(), &histogram())], 0, 0, &[]);
        assert!(verdict.generator_ok, "{verdict:?}");
    }
}
