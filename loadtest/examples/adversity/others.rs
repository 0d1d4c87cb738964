//! The others: ten keep-alive connections whose requests are due at fixed times, and how long after that they were answered.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use loadtest::histogram::histogram;
use loadtest::units::as_us;

use crate::client::{Client, Found, REQUEST};

const CONNECTIONS: usize = 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Others {
    connections: Vec<(Client, Option<Instant>)>,
    every: Duration,
    next_due: Instant,
    /// Due, but no connection is free.
    waiting: VecDeque<Instant>,
    pub(crate) seen: Seen,
}

/// What was seen since the last [`Others::take_seen`].
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Microseconds from due to answered.
    pub(crate) response: Histogram<u64>,
    /// Microseconds from due until this program noticed: its own share.
    pub(crate) late: Histogram<u64>,
    /// Connections that ended, and answers that were not 200.
    pub(crate) errors: u64,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { response: histogram(), late: histogram(), errors: 0 }
    }
}

impl Others {
    /// Connects, and has each connection served once.
    ///
    /// # Errors
    /// As [`crate::client::open_served`].
    pub(crate) fn connect(to: SocketAddr, requests_per_second: u32) -> io::Result<Others> {
        let connections = crate::client::open_served(to, CONNECTIONS)?.into_iter().map(|client| (client, None)).collect();
        Ok(Others {
            connections,
            every: Duration::from_secs(1) / requests_per_second,
            next_due: Instant::now(),
            waiting: VecDeque::new(),
            seen: Seen::default(),
        })
    }

    /// Sends what is due and takes what has come.
    pub(crate) fn step(&mut self, now: Instant) {
        while self.next_due <= now {
            let _ = self.seen.late.record(as_us(now - self.next_due));
            self.waiting.push_back(self.next_due);
            self.next_due += self.every;
        }
        for (client, due) in &mut self.connections {
            if due.is_none()
                && let Some(first) = self.waiting.pop_front()
            {
                *due = Some(first);
                self.seen.errors += u64::from(client.send(REQUEST).is_err());
            }
            let Some(asked_for) = *due else { continue };
            match client.look() {
                Found::Nothing => continue,
                Found::Answer(200) => {}
                // The place stays taken by nobody; what it would have served waits for the others, and shows.
                Found::Answer(_) | Found::End => self.seen.errors += 1,
            }
            let _ = self.seen.response.record(as_us(asked_for.elapsed()));
            *due = None;
        }
    }

    /// Starts a new account. Requests that are under way go into it when they are answered.
    pub(crate) fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// Runs alone for `time`.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= until {
                return;
            }
            self.step(now);
        }
    }

    /// Forgets what was due while nobody looked, and begins with an empty account.
    pub(crate) fn restart(&mut self) {
        self.next_due = Instant::now();
        self.seen = Seen::default();
    }

    /// Waits for the answers that are still owed; what does not come is recorded at the time it has taken.
    pub(crate) fn finish(&mut self) -> Seen {
        let until = Instant::now() + Duration::from_secs(5);
        self.next_due = until + Duration::from_secs(3600);
        while (!self.waiting.is_empty() || self.connections.iter().any(|(_, due)| due.is_some())) && Instant::now() < until {
            self.step(Instant::now());
        }
        for due in self.waiting.drain(..).chain(self.connections.iter_mut().filter_map(|(_, due)| due.take())) {
            let _ = self.seen.response.record(as_us(due.elapsed()));
            self.seen.errors += 1;
        }
        self.take_seen()
    }
}
