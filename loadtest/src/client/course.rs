//! The course of a run on one thread: the start together with the other threads, the seconds that are reported, and the end.
//!
//! Read next: `supply.rs`.

use std::time::{Duration, Instant};

use server::clock::later;
use server::thread::cpu_time;

use super::Client;
use crate::class_load::ClassLoad;

/// How often the time series gets a value.
const INTERVAL: Duration = Duration::from_secs(1);

impl Client {
    /// Requests that have no answer yet are entered as unfinished, and the last interval is reported. After the loop has ended.
    pub fn end(&mut self, now: Instant) {
        for load in &mut self.loads {
            load.end(now);
        }
        self.now = now;
        self.report_interval();
        let ran = self.loads.iter().map(ClassLoad::schedule_ran).max().unwrap_or_default();
        let elapsed = self.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.measured = ran.min(elapsed).saturating_sub(self.warmup);
        self.intervals = None;
        if let (Some(started), None) = (self.started, self.cpu_share) {
            self.cpu_share = self.cpu_since_start(now.saturating_duration_since(started));
        }
    }

    /// Begins when all threads have their connections, so that no one measures while another still connects.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        if self.started.is_some() {
            return true;
        }
        let settled = self.loads.iter().all(|load| load.to_open(now) == 0) && self.connecting.is_empty();
        if settled && !self.at_gate {
            self.at_gate = true;
            self.gate.arrive(now);
        }
        let Some(start) = self.gate.open_at().filter(|at| *at <= now) else { return false };
        self.started = Some(start);
        self.next_interval = Some(start + INTERVAL);
        self.cpu_at_start = Some(cpu_time());
        for load in &mut self.loads {
            load.start(start);
        }
        true
    }

    /// Reports the seconds that have passed.
    pub(super) fn report(&mut self) {
        while let Some(at) = self.next_interval.filter(|at| *at <= self.now) {
            self.report_interval();
            self.next_interval = Some(at + INTERVAL);
        }
    }

    fn report_interval(&mut self) {
        if let Some(intervals) = &self.intervals {
            for load in &mut self.loads {
                let _ = intervals.send(load.account.next_interval(self.now)); // The main thread may have given up already.
            }
        }
    }

    fn cpu_since_start(&self, elapsed: Duration) -> Option<f64> {
        let used = cpu_time().saturating_sub(self.cpu_at_start?);
        (!elapsed.is_zero()).then(|| used.as_secs_f64() / elapsed.as_secs_f64())
    }

    /// Whether the run is over for this thread.
    pub(super) fn is_over(&mut self) -> bool {
        let Some(started) = self.started else { return false };
        let (now, over) = (self.now, later(started, self.length));
        if now >= over && self.cpu_share.is_none() {
            self.cpu_share = self.cpu_since_start(now - started);
        }
        now >= later(over, self.drain) || self.loads.iter().all(|load| load.is_settled(now))
    }
}
