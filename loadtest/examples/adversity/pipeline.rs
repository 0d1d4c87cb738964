//! One connection that pipelines `GET /` and counts the answers by their bytes: all answers to the same request have the same length.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use loadtest::response::{Expect, ResponseReader, Step};

use crate::client::REQUEST;

/// A non-blocking socket, and what it has sent and received so far.
#[derive(Debug)]
pub(crate) struct Pipeline {
    stream: TcpStream,
    response_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Pipeline {
    /// Takes over a connected socket on which no answer is outstanding. A response has `response_bytes`.
    ///
    /// # Errors
    /// fcntl(2).
    pub(crate) fn new(stream: TcpStream, response_bytes: u64) -> io::Result<Pipeline> {
        stream.set_nonblocking(true)?;
        Ok(Pipeline { stream, response_bytes, sent_bytes: 0, received_bytes: 0 })
    }

    /// Whole answers received.
    pub(crate) fn answered(&self) -> u64 {
        self.received_bytes / self.response_bytes
    }

    /// Requests of which at least one byte is sent.
    pub(crate) fn begun(&self) -> u64 {
        self.sent_bytes.div_ceil(REQUEST.len() as u64)
    }

    /// What is still to be sent of `requests` in total.
    pub(crate) fn unsent_bytes(&self, requests: u64) -> u64 {
        requests.saturating_mul(REQUEST.len() as u64).saturating_sub(self.sent_bytes)
    }

    /// All requests that were begun are whole and answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.received_bytes * REQUEST.len() as u64 == self.sent_bytes * self.response_bytes
    }

    /// One write of at most `block`, until `requests` are sent in total. `block` is [`REQUEST`] repeated at least twice.
    ///
    /// # Errors
    /// write(2), but not that the kernel takes nothing now.
    pub(crate) fn write(&mut self, block: &[u8], requests: u64) -> io::Result<()> {
        let request_bytes = REQUEST.len() as u64;
        let bytes = self.unsent_bytes(requests).min(block.len() as u64 - request_bytes);
        if bytes == 0 {
            return Ok(());
        }
        // A request that was cut is continued where it was cut.
        let from = (self.sent_bytes % request_bytes) as usize;
        match self.stream.write(&block[from..from + bytes as usize]) {
            Ok(n) => self.sent_bytes += n as u64,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// One read into `input`, whose content does not matter before or after.
    ///
    /// # Errors
    /// read(2), the end of the stream, an answer that is not 200 or has another length.
    pub(crate) fn read(&mut self, input: &mut [u8]) -> io::Result<()> {
        match self.stream.read(input) {
            Ok(0) => return Err(io::Error::other("the server closed a connection that pipelines")),
            Ok(n) => {
                self.received_bytes += n as u64;
                // The last answer that is wholly in this piece begins here; a whole one is a 200.
                let begin = (self.response_bytes - (self.received_bytes - n as u64) % self.response_bytes) % self.response_bytes;
                let first = input[..n].get(begin as usize..).unwrap_or_default();
                if first.len() >= 12 && !first.starts_with(b"HTTP/1.1 200") {
                    return Err(io::Error::other("a pipelined answer is not a 200, or has another length than the first"));
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// Connects, has one request served, and tells the length of its response. The socket still blocks.
///
/// # Errors
/// No connection, or no answer within five seconds.
pub(crate) fn connect_served(to: SocketAddr) -> io::Result<(TcpStream, u64)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(REQUEST)?;
    let mut input = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        filled += match stream.read(&mut input[filled..])? {
            0 => return Err(io::Error::other("no answer to the first request")),
            n => n,
        };
        let (used, step) = ResponseReader::default().read(&input[..filled], &Expect::default());
        if let Step::Done(_) = step {
            return Ok((stream, used as u64));
        }
    }
}
