//! Jobs of 20 ms of CPU, each due at a fixed time and given up when its client's patience ends; and how each of them ended.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use loadtest::histogram::histogram;
use loadtest::units::as_us;

use crate::client::{Client, Found};

/// One job. Any server under test needs this route; ours burns the CPU time of the thread, so that waiting for a CPU is no work.
const JOB: &[u8] = b"GET /spin?ms=20 HTTP/1.1\r\nHost: x\r\n\r\n";
/// Clients of the closed loop: enough to keep a pool busy, few enough to be far from any bound.
const CLOSED_LOOP: usize = 4;
/// Before one of them that was refused asks again.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// Their source address is 127.0.0.6.
const SOURCE: u8 = 6;

/// See the module.
#[derive(Debug)]
pub(crate) struct Jobs {
    to: SocketAddr,
    /// Connections that wait for their next request.
    idle: Vec<Client>,
    /// Connections with a job, and since when it is due.
    busy: Vec<(Client, Instant)>,
    /// Between two jobs; `None` sends no more.
    every: Option<Duration>,
    next_due: Instant,
    patience: Duration,
    /// Whether who leaves does so by a reset: with a FIN alone a server cannot know that nobody listens any more.
    leave_by_reset: bool,
    pub(crate) ended: Ended,
}

/// How jobs ended since the last [`Jobs::take_ended`].
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) offered: u64,
    /// Answered 200 while the client waited: microseconds since it was due.
    pub(crate) served: Histogram<u64>,
    /// Answered with another status.
    pub(crate) refused: Histogram<u64>,
    /// The client left before an answer.
    pub(crate) left: u64,
    /// The connection ended without an answer.
    pub(crate) broken: u64,
}

impl Default for Ended {
    fn default() -> Ended {
        Ended { offered: 0, served: histogram(), refused: histogram(), left: 0, broken: 0 }
    }
}

impl Jobs {
    pub(crate) fn new(to: SocketAddr, patience: Duration, leave_by_reset: bool) -> Jobs {
        Jobs {
            to,
            idle: Vec::new(),
            busy: Vec::new(),
            every: None,
            next_due: Instant::now(),
            patience,
            leave_by_reset,
            ended: Ended::default(),
        }
    }

    /// Jobs a second that a few clients get answered which each ask again as soon as they have their answer; who is refused asks again a little
    /// later.
    ///
    /// # Errors
    /// A connection cannot be made, or ends.
    pub(crate) fn capacity(to: SocketAddr, time: Duration) -> io::Result<f64> {
        let mut clients =
            (0..CLOSED_LOOP).map(|_| Ok((Client::connect(to, SOURCE)?, Some(Instant::now())))).collect::<io::Result<Vec<_>>>()?;
        let (mut answers, mut first) = (0_u32, None);
        let until = Instant::now() + time;
        loop {
            for (client, asks_at) in &mut clients {
                let now = Instant::now();
                if asks_at.is_some_and(|at| at <= now) {
                    *asks_at = None;
                    client.send(JOB)?;
                }
                if asks_at.is_some() {
                    continue;
                }
                match client.look() {
                    Found::Nothing => continue,
                    Found::Answer(200) => *asks_at = Some(now),
                    Found::Answer(_) => {
                        *asks_at = Some(now + REFUSED_PAUSE);
                        continue;
                    }
                    Found::End => return Err(io::Error::other("a connection of the closed loop ended")),
                }
                // The clock starts with an answer and stops with one: whole jobs in between.
                let Some(first) = first else {
                    first = Some(now);
                    continue;
                };
                answers += 1;
                if now >= until {
                    // Those that are still under way end before anything else is measured.
                    for (client, _) in clients.iter_mut().filter(|(_, asks_at)| asks_at.is_none()) {
                        let _ = client.wait(Duration::from_millis(200));
                    }
                    return Ok(f64::from(answers) / (now - first).as_secs_f64());
                }
            }
        }
    }

    /// From now on, so many jobs a second.
    pub(crate) fn start(&mut self, per_second: f64) {
        self.every = Some(Duration::from_secs_f64(1.0 / per_second));
        self.next_due = Instant::now();
    }

    /// No more jobs; those under way end as they would.
    pub(crate) fn stop(&mut self) {
        self.every = None;
    }

    /// Sends what is due, takes what has come, leaves where patience has ended.
    ///
    /// # Errors
    /// A connection cannot be made.
    pub(crate) fn step(&mut self, now: Instant) -> io::Result<()> {
        while let Some(every) = self.every
            && self.next_due <= now
        {
            let mut client = match self.idle.pop() {
                Some(client) => client,
                None => Client::connect(self.to, SOURCE)?,
            };
            self.ended.offered += 1;
            match client.send(JOB) {
                Ok(()) => self.busy.push((client, self.next_due)),
                Err(_) => self.ended.broken += 1,
            }
            self.next_due += every;
        }
        let mut i = 0;
        while let Some((client, due)) = self.busy.get_mut(i) {
            let found = client.look();
            let took = due.elapsed();
            let keeps = match found {
                Found::Nothing if took < self.patience => {
                    i += 1;
                    continue;
                }
                Found::Nothing => {
                    self.ended.left += 1;
                    if self.leave_by_reset {
                        client.reset_at_close()?;
                    }
                    false
                }
                Found::Answer(200) if took <= self.patience => {
                    let _ = self.ended.served.record(as_us(took));
                    true
                }
                Found::Answer(200) => {
                    self.ended.left += 1;
                    true
                }
                Found::Answer(_) => {
                    let _ = self.ended.refused.record(as_us(took));
                    true
                }
                Found::End => {
                    self.ended.broken += 1;
                    false
                }
            };
            let (client, _) = self.busy.swap_remove(i);
            if keeps {
                self.idle.push(client);
            }
        }
        Ok(())
    }

    /// Starts a new account. Jobs that are under way go into it when they end.
    pub(crate) fn take_ended(&mut self) -> Ended {
        std::mem::take(&mut self.ended)
    }
}

/// One job on a connection of its own: how long its answer took, and its status.
///
/// # Errors
/// A connection cannot be made, or nothing comes within `patience`.
pub(crate) fn one_job(to: SocketAddr, patience: Duration) -> io::Result<(Duration, u16)> {
    let begun = Instant::now();
    let mut client = Client::connect(to, SOURCE)?;
    client.send(JOB)?;
    match client.wait(patience) {
        Found::Answer(status) => Ok((begun.elapsed(), status)),
        other => Err(io::Error::other(format!("a single job got {other:?} within {patience:?}"))),
    }
}
