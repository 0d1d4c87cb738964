//! How long the server's turns lasted, by its own account: what of the others' waiting was its doing, and what the machine's.
//!
//! From the histogram `reactor_turn_duration_seconds` on the admin port. Its bounds are powers of two, so "at most 256 µs" is all that
//! can be said of a turn of 140 µs. It is measured by the clock: where other programs have the server's CPU in the middle of a turn, their
//! time is in it. Read next: `mass_close.rs`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use loadtest::units::microseconds;

/// How long the admin port may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A turn that others can tell: half of what a close of all may cost them. A bound of the histogram.
const LONG_US: u64 = 512;

/// Turns so far: how many lasted at most so many microseconds, for all loops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(BTreeMap<u64, u64>);

impl Turns {
    /// Asks the admin port.
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub(crate) fn read(admin: SocketAddr) -> io::Result<Turns> {
        let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let mut turns = Turns::default();
        for line in page.lines().filter_map(|line| line.strip_prefix("reactor_turn_duration_seconds_bucket{")) {
            let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
            if let Some((bound, count)) = bound.and_then(|bound| bound.parse::<f64>().ok()).zip(count) {
                // Infinity becomes the largest number.
                *turns.0.entry((bound * 1e6).round() as u64).or_default() += count;
            }
        }
        Ok(turns)
    }

    /// The bound of the longest turn since `before`, in microseconds; 0 if there was none.
    pub(crate) fn longest_since(&self, before: &Turns) -> u64 {
        let new = |bound: &u64| self.0[bound] - before.0.get(bound).copied().unwrap_or(0);
        let all = self.0.keys().map(new).max().unwrap_or(0);
        if all == 0 { 0 } else { self.0.keys().copied().find(|bound| new(bound) == all).unwrap_or(0) }
    }

    /// `the server's longest turn <= 1.0ms, 3 of 900 over 512µs`.
    pub(crate) fn text_since(&self, before: &Turns) -> String {
        let new = |bound: u64| self.0.get(&bound).copied().unwrap_or(0) - before.0.get(&bound).copied().unwrap_or(0);
        let (all, longest) = (new(u64::MAX), microseconds(self.longest_since(before)));
        format!("the server's longest turn <= {longest}, {} of {all} over {}", all - new(LONG_US), microseconds(LONG_US))
    }
}
