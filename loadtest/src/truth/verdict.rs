//! Was the generator fit to judge? If it was late itself, or could not send what was due, its numbers are about itself.
//!
//! A generator can be late with an idle core (a slow timer), saturated with no single late arrival yet, or out of connections with neither.
//! Exit code 4 says that one of the rules was broken. Read next: `report.rs`.

use std::fmt;
use std::time::Duration;

use crate::generator::Outcome;
use crate::histogram::Record;
use crate::plan::{Class, Plan};
use crate::truth::bounds::is_supported;
use crate::truth::limits::Limit;
use crate::units::{as_us, grouped, microseconds};

/// A printed time may always be too long by this much: timers and the scheduler are no better on a busy machine.
const OWN_DELAY_ALWAYS_ALLOWED: Duration = Duration::from_millis(1);
/// And by this part of it: an error of a tenth does not change what a result says.
const OWN_DELAY_SHARE: f64 = 0.1;
/// The quantiles that are judged so, as far as there are samples enough for them.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];
/// The part of arrivals that must be handled before the schedule ends.
const HANDLED_SHARE_MIN: f64 = 0.99;
/// The part of a core above which a thread has no room for the next burst.
const CPU_SHARE_MAX: f64 = 0.9;
/// If this part of the requests found all connections busy, and half of all waited for one during a tenth of their time, the response time
/// is that of the generator's queue.
const FULL_SHARE_MAX: f64 = 0.5;
const WAIT_SHARE_MAX: f64 = 0.1;

/// What the generator did itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the result can be trusted.
    pub generator_ok: bool,
    /// If not, why.
    pub reasons: Vec<Reason>,
    /// The part of a core that each thread used.
    pub cpu_by_thread: Vec<f64>,
    /// The part of arrivals that were handled on time.
    pub handled_share: f64,
    /// What the machine took away meanwhile, if that was much.
    pub machine: Option<String>,
}

/// Why a result cannot be trusted.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// All connections that the plan allows waited for the server.
    ConnectionsBusy {
        /// The connections.
        connections: u32,
        /// The part of the requests that found them busy when they were due.
        share: f64,
        /// How many connections the rate needs at the measured latency.
        needed: u64,
        /// Requests that were not sent.
        not_sent: u64,
    },
    /// Anything else, in a sentence.
    Other(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ConnectionsBusy { connections, share, needed, not_sent } => {
                let (connections, share, needed) = (grouped(u64::from(*connections)), share * 100.0, grouped(*needed));
                let not_sent = with_not_sent(*not_sent);
                write!(
                    f,
                    "limited by --max-connections: all {connections} busy for {share:.0}% of the run; rate × latency needs about {needed}{not_sent}"
                )
            }
            Reason::Other(sentence) => f.write_str(sentence),
        }
    }
}

impl Reason {
    /// The same of a load in a scenario. Its connections are part of the load, so a server that keeps all of them waiting stalls; and what is
    /// judged are figures within bounds, which include the generator's delays.
    fn of_side(&self) -> String {
        match self {
            Reason::ConnectionsBusy { connections, share, not_sent, .. } => {
                let (connections, share) = (grouped(u64::from(*connections)), share * 100.0);
                let not_sent = match not_sent {
                    0 => String::new(),
                    n => format!("; {} requests were not sent, and count as lower bounds", grouped(*n)),
                };
                format!("all {connections} connections were waiting for the server when {share:.0}% of the requests were due{not_sent}")
            }
            Reason::Other(sentence) => format!("generator late, which the bounds of the figures include: {sentence}"),
        }
    }
}

impl Verdict {
    /// Judges a run.
    #[must_use]
    pub fn of(plan: &Plan, outcome: &Outcome) -> Verdict {
        let mut reasons = Vec::new();
        for (class, record) in plan.classes.iter().zip(&outcome.records) {
            reasons.extend(limited(class, record, outcome));
            reasons.extend(late(class, record));
        }
        let handled: u64 = outcome.records.iter().map(|record| record.totals.handled).sum();
        let scheduled: u64 = outcome.records.iter().map(|record| record.totals.scheduled).sum();
        let handled_share = if scheduled == 0 { 1.0 } else { handled as f64 / scheduled as f64 };
        if handled_share < HANDLED_SHARE_MIN {
            let busiest = outcome.cpu_by_thread.iter().copied().fold(0.0, f64::max);
            reasons.push(Reason::Other(format!(
                "limited by CPU: it handled {:.2}% of the arrivals in time and needs at least 99%; {}",
                handled_share * 100.0,
                advice(busiest)
            )));
        }
        for (thread, share) in outcome.cpu_by_thread.iter().enumerate() {
            if *share > CPU_SHARE_MAX {
                let share = share * 100.0;
                reasons.push(Reason::Other(format!(
                    "limited by CPU: its thread {thread} used {share:.0}% of a core, and above 90% has no time for bursts; lower -R or add --threads"
                )));
            }
        }
        let machine = outcome.machine.is_disturbed().then(|| outcome.machine.line());
        Verdict { generator_ok: reasons.is_empty(), reasons, cpu_by_thread: outcome.cpu_by_thread.clone(), handled_share, machine }
    }

    /// `generator OK (cpu 31%/28%, 99.96% of arrivals handled on time)`.
    #[must_use]
    pub fn line(&self) -> String {
        let reasons: Vec<_> = self.reasons.iter().map(Reason::to_string).collect();
        self.line_with(&format!("NOT TRUSTWORTHY, the generator: {}", reasons.join("; ")))
    }

    /// The same of a side of a scenario, whose result says itself whether it can be trusted.
    #[must_use]
    pub fn line_of_side(&self) -> String {
        let reasons: Vec<_> = self.reasons.iter().map(Reason::of_side).collect();
        self.line_with(&reasons.join("; "))
    }

    fn line_with(&self, if_not_ok: &str) -> String {
        let cpu: Vec<_> = self.cpu_by_thread.iter().map(|share| format!("{:.0}%", share * 100.0)).collect();
        let state = if self.generator_ok { "generator OK" } else { if_not_ok };
        let machine = self.machine.as_ref().map_or_else(String::new, |machine| format!("; the machine was busy: {machine}"));
        format!("{state} (cpu {}, {:.2}% of arrivals handled on time){machine}", cpu.join("/"), self.handled_share * 100.0)
    }
}

/// A thread that was late and used less than this part of a core was kept from running by the machine.
const CPU_SHARE_OF_A_BUSY_THREAD: f64 = 0.5;

/// What to do about a generator that is late, by the part of a core that its busiest thread used.
fn advice(cpu_share: f64) -> &'static str {
    if cpu_share < CPU_SHARE_OF_A_BUSY_THREAD {
        "it used little CPU itself: other programs kept it from running"
    } else {
        "lower -R or add --threads"
    }
}

/// Which of its own limits kept the generator from sending what was due.
fn limited(class: &Class, record: &Record, outcome: &Outcome) -> Option<Reason> {
    let totals = &record.totals;
    let not_sent = totals.not_sent.total();
    let full_share = totals.found_full as f64 / totals.scheduled.max(1) as f64;
    let wait = record.clocks.wait.value_at_quantile(0.5);
    let response = record.clocks.response.lower_bounds().value_at_quantile(0.5);
    let waits = full_share >= FULL_SHARE_MAX && wait > as_us(OWN_DELAY_ALWAYS_ALLOWED) && wait as f64 > response as f64 * WAIT_SHARE_MAX;
    let limit = totals.not_sent.worst().or(waits.then_some(Limit::Connections))?;
    let count = with_not_sent(not_sent);
    Some(Reason::Other(match limit {
        Limit::Connections => {
            let seconds = outcome.measured.as_secs_f64().max(1e-9);
            let needed = totals.scheduled as f64 / seconds * record.clocks.service.mean() / 1e6;
            // Two digits: the latency under more load is not known better.
            let unit = 10_f64.powf((needed.max(1.0).log10().floor() - 1.0).max(0.0));
            return Some(Reason::ConnectionsBusy {
                connections: class.connections_max,
                share: full_share,
                needed: ((needed / unit).round() * unit) as u64,
                not_sent,
            });
        }
        Limit::Descriptors => format!("limited by descriptors: connect(2) failed with EMFILE or ENFILE{count}; raise `ulimit -n`"),
        Limit::Ports => format!(
            "limited by ports: connect(2) failed with EADDRNOTAVAIL{count}; see `sysctl net.ipv4.ip_local_port_range`, and whether the server \
             keeps connections alive"
        ),
        Limit::Cpu => {
            let busiest = outcome.cpu_by_thread.iter().copied().fold(0.0, f64::max);
            format!("limited by CPU: it was too late to send{count}; {}", advice(busiest))
        }
    }))
}

fn with_not_sent(requests: u64) -> String {
    if requests > 0 { format!("; {} requests were not sent", grouped(requests)) } else { String::new() }
}

/// By how much the generator's own delays may have lengthened what is printed.
fn late(class: &Class, record: &Record) -> Option<Reason> {
    let clocks = &record.clocks;
    QUANTILES.iter().find_map(|(name, quantile)| {
        let known = &clocks.response.known;
        if !is_supported(*quantile, known.len()) {
            return None;
        }
        let (value, low) = (known.value_at_quantile(*quantile), clocks.response_low.value_at_quantile(*quantile));
        let allowed = as_us(OWN_DELAY_ALWAYS_ALLOWED).max((value as f64 * OWN_DELAY_SHARE) as u64);
        let own = value.saturating_sub(low);
        (own > allowed).then(|| {
            let (value, own, allowed) = (microseconds(value), microseconds(own), microseconds(allowed));
            Reason::Other(format!(
                "up to {own} of the {name} of {value} in class '{}' may be its own delay; {allowed} is allowed",
                class.name
            ))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    /// A run of 1,000 requests, of which 20 took as long as `response_us`, of that `own_us` the generator's delay.
    fn judge(response_us: u64, own_us: u64, handled: u64, cpu: f64) -> Verdict {
        let (plan, mut outcome) = sample();
        let mut record = Record::default();
        for (clock, slow) in [(&mut record.clocks.response.known, response_us), (&mut record.clocks.response_low, response_us - own_us)] {
            clock.record_n(20, 980).unwrap();
            clock.record_n(slow, 20).unwrap();
        }
        (record.totals.scheduled, record.totals.handled) = (10_000, handled);
        outcome.records = vec![record];
        outcome.cpu_by_thread = vec![0.1, cpu];
        Verdict::of(&plan, &outcome)
    }

    #[test]
    fn a_punctual_generator_with_room_to_spare_is_trusted() {
        let verdict = judge(2_000, 900, 10_000, 0.5);
        assert!(verdict.generator_ok, "{verdict:?}");
        assert_eq!(verdict.line(), "generator OK (cpu 10%/50%, 100.00% of arrivals handled on time)");
    }

    #[test]
    fn the_generators_delay_counts_against_a_millisecond_or_a_tenth_of_the_time() {
        assert!(!judge(2_000, 1_100, 10_000, 0.5).generator_ok);
        assert!(judge(90_000, 8_000, 10_000, 0.5).generator_ok, "8 ms do not matter to 90");
        let late = judge(90_000, 9_500, 10_000, 0.5);
        assert!(!late.generator_ok && late.reasons[0].to_string().contains("9.5ms of the p99 of 90ms"), "{late:?}");
    }

    #[test]
    fn unhandled_arrivals_and_a_full_core_each_spoil_the_verdict() {
        assert!(judge(2_000, 20, 9_900, 0.5).generator_ok);
        assert!(judge(2_000, 20, 9_899, 0.1).reasons[0].to_string().ends_with("other programs kept it from running"));
        let lost = judge(2_000, 20, 9_899, 0.5);
        assert!(!lost.generator_ok && lost.reasons[0].to_string().contains("98.99%"), "{lost:?}");
        assert!(judge(2_000, 20, 10_000, 0.9).generator_ok);
        let full = judge(2_000, 20, 10_000, 0.91);
        assert!(!full.generator_ok && full.line().contains("limited by CPU: its thread 1 used 91%"), "{full:?}");
    }

    #[test]
    fn a_limit_of_the_generator_is_named_with_what_it_would_need() {
        // 3,000 requests a second, each of which takes a second, over 1,024 connections, for ten seconds.
        let (mut plan, mut outcome) = sample();
        plan.classes[0].connections_max = 1024;
        outcome.measured = Duration::from_secs(10);
        let mut record = Record::default();
        record.clocks.service.record_n(1_000_000, 10_000).unwrap();
        (record.totals.scheduled, record.totals.handled, record.totals.found_full) = (30_000, 30_000, 29_100);
        (0..20_000).for_each(|_| record.totals.not_sent.count(Limit::Connections));
        outcome.records = vec![record];
        let verdict = Verdict::of(&plan, &outcome);
        let [reason] = &verdict.reasons[..] else { panic!("{verdict:?}") };
        assert_eq!(
            reason.to_string(),
            "limited by --max-connections: all 1,024 busy for 97% of the run; rate × latency needs about 3,000; 20,000 requests were not sent"
        );
        // In a scenario the connections belong to the load, and no flag is at fault.
        let of_side = verdict.line_of_side();
        let expected = "all 1,024 connections were waiting for the server when 97% of the requests were due; 20,000 requests were not sent, and count as \
                        lower bounds (cpu ";
        assert!(!verdict.generator_ok && of_side.starts_with(expected), "{of_side}");
    }

    #[test]
    fn a_queue_of_the_generators_own_is_its_limit_even_if_all_was_sent_in_the_end() {
        let (plan, mut outcome) = sample();
        let record = &mut outcome.records[0];
        record.totals.found_full = record.totals.scheduled;
        assert!(Verdict::of(&plan, &outcome).generator_ok, "nothing waited");
        outcome.records[0].clocks.wait.record_n(400_000, 30_000).unwrap();
        let verdict = Verdict::of(&plan, &outcome);
        assert!(verdict.reasons[0].to_string().starts_with("limited by --max-connections: all 64 busy for 100% of the run"), "{verdict:?}");
    }

    #[test]
    fn a_run_without_arrivals_names_no_limit() {
        let (plan, mut outcome) = sample();
        outcome.records = vec![Record::default()];
        let verdict = Verdict::of(&plan, &outcome);
        assert!(verdict.generator_ok, "{verdict:?}");
    }
}
