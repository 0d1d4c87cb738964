//! Light clients next to an adversity: one that pings, one that connects under load, and short connections.
//!
//! Each `step` is one look that never blocks; the adversity calls it between its own calls. Read next: `pipelining.rs`.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use loadtest::histogram::{histogram, record};
use loadtest::units::as_us;

use crate::client::{Client, Found, LAST_REQUEST, REQUEST, open_served};

/// From the answer to one ping until the next is due.
const PING_EVERY: Duration = Duration::from_millis(1);
/// Short connections looked at between two calls of the adversity.
const SHORT_LOOKS_PER_STEP: usize = 2;

/// One connected client that sends a request, waits for the answer, and sends the next a millisecond later.
pub(crate) struct Light {
    address: SocketAddr,
    client: Client,
    due: Instant,
    is_sent: bool,
    last_look: Instant,
    seen: Seen,
}

/// What was seen since the last [`Light::take_seen`].
pub(crate) struct Seen {
    /// From due to answered.
    pub(crate) response: Histogram<u64>,
    /// The same, corrected as if a ping had been due each [`PING_EVERY`].
    pub(crate) at_any_moment: Histogram<u64>,
    /// From one look to the next: this program's own lateness.
    pub(crate) apart: Histogram<u64>,
    /// Connections that ended, and answers that were not 200.
    pub(crate) errors: u64,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { response: histogram(), at_any_moment: histogram(), apart: histogram(), errors: 0 }
    }
}

impl Seen {
    fn record(&mut self, took: Duration) {
        record(&mut self.response, took);
        // It fails only beyond two minutes, which is longer than a round may take.
        let _ = self.at_any_moment.record_correct(as_us(took), as_us(PING_EVERY));
    }
}

impl Light {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Light> {
        let client = open_served(address, 1)?.remove(0);
        let now = Instant::now();
        Ok(Light { address, client, due: now, is_sent: false, last_look: now, seen: Seen::default() })
    }

    pub(crate) fn step(&mut self) -> io::Result<()> {
        let now = Instant::now();
        record(&mut self.seen.apart, now - self.last_look);
        self.last_look = now;
        if !self.is_sent {
            if now < self.due {
                return Ok(());
            }
            self.is_sent = true;
            let _ = self.client.send(REQUEST); // A connection that broke shows at the next look.
        }
        match self.client.look() {
            Found::Nothing => return Ok(()),
            Found::Answer(200) => {}
            Found::Answer(_) => self.seen.errors += 1,
            Found::End => {
                self.seen.errors += 1;
                self.client = Client::connect(self.address, 4)?;
            }
        }
        let answered_at = Instant::now();
        self.seen.record(answered_at - self.due);
        (self.due, self.is_sent) = (answered_at + PING_EVERY, false);
        Ok(())
    }

    pub(crate) fn take_seen(&mut self) -> Seen {
        // A ping without an answer has taken at least so long.
        if self.is_sent {
            self.seen.record(self.due.elapsed());
        }
        std::mem::take(&mut self.seen)
    }

    /// Begins anew after a time without looks.
    pub(crate) fn restart(&mut self) {
        self.last_look = Instant::now();
        self.due = self.due.max(self.last_look);
    }
}

/// The light client that connects under load.
pub(crate) struct Newcomer {
    client: Client,
    pub(crate) came: Instant,
    /// What came first, and how long after connect(2).
    pub(crate) first: Option<(Found, Duration)>,
}

impl Newcomer {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Newcomer> {
        let came = Instant::now();
        let mut client = Client::connect(address, 5)?;
        client.send(REQUEST)?;
        Ok(Newcomer { client, came, first: None })
    }

    pub(crate) fn step(&mut self) {
        if self.first.is_none() {
            match self.client.look() {
                Found::Nothing => {}
                found => self.first = Some((found, self.came.elapsed())),
            }
        }
    }
}

/// A fixed number of connections at a time, each made for one request and replaced when the server has closed it.
pub(crate) struct Short {
    address: SocketAddr,
    /// The flag says that the request is answered.
    open: Vec<Option<(Client, bool)>>,
    next: usize,
    pub(crate) answered: u64,
    pub(crate) ended: u64,
    pub(crate) errors: u64,
}

impl Short {
    pub(crate) fn new(address: SocketAddr, at_once: usize) -> Short {
        Short { address, open: std::iter::repeat_with(|| None).take(at_once).collect(), next: 0, answered: 0, ended: 0, errors: 0 }
    }

    pub(crate) fn step(&mut self) -> io::Result<()> {
        for _ in 0..SHORT_LOOKS_PER_STEP.min(self.open.len()) {
            self.next = (self.next + 1) % self.open.len();
            let place = &mut self.open[self.next];
            let Some((client, is_answered)) = place else {
                let mut client = Client::connect(self.address, 6)?;
                let _ = client.send(LAST_REQUEST); // A connection that broke shows at the next look.
                *place = Some((client, false));
                continue;
            };
            match client.look() {
                Found::Nothing => {}
                Found::Answer(200) if !*is_answered => {
                    *is_answered = true;
                    self.answered += 1;
                }
                Found::End if *is_answered => {
                    self.ended += 1;
                    *place = None;
                }
                Found::Answer(_) | Found::End => {
                    self.errors += 1;
                    *place = None;
                }
            }
        }
        Ok(())
    }
}
