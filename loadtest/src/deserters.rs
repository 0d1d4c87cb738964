//! Clients that do not wait for ever: each asks once, at the time it is due, and leaves when its patience ends. The next one takes a
//! connection that was answered, or a new one.
//!
//! They leave by a reset. After a plain close the server's side of a connection is half-closed, which a client that still listens does
//! as well (RFC 9112 section 9.6), and a server learns only from its own answer that nobody is there. Read next: `raw.rs`, one such client;
//! `scenarios/unbounded_queue.rs`, which uses them.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::raw::Client;

/// An open loop of such clients.
#[derive(Debug)]
pub struct Deserters {
    to: SocketAddr,
    from: IpAddr,
    request: Vec<u8>,
    patience: Duration,
    idle: Vec<Client>,
    /// Those who wait, by the time at which they were due.
    waiting: VecDeque<Waiting>,
    /// What became of all so far.
    pub ended: Ended,
}

#[derive(Debug)]
struct Waiting {
    /// `None` when it was answered.
    client: Option<Client>,
    answers_before: u64,
    served_before: u64,
    due: Instant,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// All who came.
    pub asked: u64,
    /// Answered below 400 while they waited.
    pub served: u64,
    /// Answered with another status.
    pub refused: u64,
    /// Not answered in time.
    pub left: u64,
    /// The server ended the connection without an answer, or none could be made.
    pub broken: u64,
}

impl Deserters {
    /// Nobody yet.
    #[must_use]
    pub fn new(to: SocketAddr, from: IpAddr, target: &str, patience: Duration) -> Deserters {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
        Deserters { to, from, request, patience, idle: Vec::new(), waiting: VecDeque::new(), ended: Ended::default() }
    }

    /// One more, who was due at that time.
    pub fn come(&mut self, due: Instant) {
        self.ended.asked += 1;
        let client = match self.idle.pop() {
            Some(client) => Ok(client),
            None => Client::connect(self.to, self.from),
        };
        let sent = client.and_then(|mut client| client.send(&self.request).map(|()| client));
        match sent {
            Ok(client) => {
                let (answers_before, served_before) = (client.answers(), client.served);
                self.waiting.push_back(Waiting { client: Some(client), answers_before, served_before, due });
            }
            Err(_) => self.ended.broken += 1,
        }
    }

    /// Takes the answers that have come, and leaves where patience has ended. A look at each of them: not more often than the answers are
    /// worth.
    ///
    /// # Errors
    /// setsockopt(2).
    pub fn look(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for waiting in &mut self.waiting {
            let Some(client) = &mut waiting.client else { continue };
            client.look();
            if client.answers() > waiting.answers_before {
                let served = client.served > waiting.served_before;
                *(if served { &mut self.ended.served } else { &mut self.ended.refused }) += 1;
            } else if client.ended {
                self.ended.broken += 1;
            } else {
                continue;
            }
            let client = waiting.client.take().filter(|client| !client.ended);
            self.idle.extend(client);
        }
        while let Some(first) = self.waiting.front()
            && (first.client.is_none() || now.saturating_duration_since(first.due) >= self.patience)
        {
            if let Some(Waiting { client: Some(client), .. }) = self.waiting.pop_front() {
                client.reset()?;
                self.ended.left += 1;
            }
        }
        Ok(())
    }

    /// Those who still wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.iter().filter(|waiting| waiting.client.is_some()).count()
    }

    /// All who wait leave now.
    ///
    /// # Errors
    /// setsockopt(2).
    pub fn leave(&mut self) -> io::Result<()> {
        for client in self.waiting.drain(..).filter_map(|waiting| waiting.client) {
            client.reset()?;
            self.ended.left += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_is_answered_stays_and_who_is_not_leaves_by_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Deserters::new(listener.local_addr().unwrap(), Ipv4Addr::LOCALHOST.into(), "/", LONG);
        let now = Instant::now();
        clients.come(now);
        let (mut answering, _) = listener.accept().unwrap();
        for (status, served) in [("200 OK", 1), ("503 Busy", 1), ("200 OK", 2)] {
            let mut request = [0; 64];
            assert!(answering.read(&mut request).unwrap() > 0);
            write!(answering, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            while clients.waiting() > 0 {
                clients.look().unwrap();
            }
            assert_eq!(clients.ended.served, served);
            clients.come(now); // On the same connection: nobody else is accepted.
        }
        clients.patience = Duration::ZERO;
        clients.look().unwrap();
        assert_eq!(clients.ended, Ended { asked: 4, served: 2, refused: 1, left: 1, broken: 0 });
        let error = answering.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
