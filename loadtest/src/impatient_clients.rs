//! Clients with a time limit: each sends one request when it is due, and disconnects if it has no response in time. The next client uses a
//! connection that is idle, or a new one.
//!
//! They disconnect with a reset. After a plain close the connection is half-closed, as a client that still listens may leave it
//! (RFC 9112 section 9.6), and a server learns only from its own response that the client is gone. Read next: `socket_client.rs`, one such
//! client; `scenarios/unbounded_queue.rs`, which uses them.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::socket_client::Client;

/// An open loop of such clients.
#[derive(Debug)]
pub struct ImpatientClients {
    to: SocketAddr,
    from: IpAddr,
    request: Vec<u8>,
    patience: Duration,
    idle: Vec<Client>,
    /// Clients that wait for a response, by the time at which they were due.
    waiting: VecDeque<Waiting>,
    /// The counts so far.
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

/// How the requests of these clients ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Requests that were due.
    pub requests: u64,
    /// Answered with a status below 400, in time.
    pub answered: u64,
    /// Answered with another status.
    pub rejected: u64,
    /// Not answered in time: the client disconnected.
    pub abandoned: u64,
    /// The server closed the connection without a response, or it could not be established.
    pub failed: u64,
}

impl ImpatientClients {
    /// No client yet.
    #[must_use]
    pub fn new(to: SocketAddr, from: IpAddr, target: &str, patience: Duration) -> ImpatientClients {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
        ImpatientClients { to, from, request, patience, idle: Vec::new(), waiting: VecDeque::new(), ended: Ended::default() }
    }

    /// Starts one more client, which was due at that time.
    pub fn start(&mut self, due: Instant) {
        self.ended.requests += 1;
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
            Err(_) => self.ended.failed += 1,
        }
    }

    /// Reads what every waiting client has received, and disconnects those whose time is up. It costs a read(2) for each client.
    ///
    /// # Errors
    /// setsockopt(2).
    pub fn read_all(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for waiting in &mut self.waiting {
            let Some(client) = &mut waiting.client else { continue };
            client.look();
            if client.answers() > waiting.answers_before {
                let served = client.served > waiting.served_before;
                *(if served { &mut self.ended.answered } else { &mut self.ended.rejected }) += 1;
            } else if client.ended {
                self.ended.failed += 1;
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
                self.ended.abandoned += 1;
            }
        }
        Ok(())
    }

    /// Clients that still wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.iter().filter(|waiting| waiting.client.is_some()).count()
    }

    /// Disconnects all clients that wait.
    ///
    /// # Errors
    /// setsockopt(2).
    pub fn disconnect_all(&mut self) -> io::Result<()> {
        for client in self.waiting.drain(..).filter_map(|waiting| waiting.client) {
            client.reset()?;
            self.ended.abandoned += 1;
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
    fn a_client_that_is_answered_keeps_its_connection_and_one_that_is_not_resets_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = ImpatientClients::new(listener.local_addr().unwrap(), Ipv4Addr::LOCALHOST.into(), "/", LONG);
        let now = Instant::now();
        clients.start(now);
        let (mut answering, _) = listener.accept().unwrap();
        for (status, served) in [("200 OK", 1), ("503 Busy", 1), ("200 OK", 2)] {
            let mut request = [0; 64];
            assert!(answering.read(&mut request).unwrap() > 0);
            write!(answering, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            while clients.waiting() > 0 {
                clients.read_all().unwrap();
            }
            assert_eq!(clients.ended.answered, served);
            clients.start(now); // On the same connection: the test accepts no other.
        }
        clients.patience = Duration::ZERO;
        clients.read_all().unwrap();
        assert_eq!(clients.ended, Ended { requests: 4, answered: 2, rejected: 1, abandoned: 1, failed: 0 });
        let error = answering.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
