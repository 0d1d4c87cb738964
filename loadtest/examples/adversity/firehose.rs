//! One connection pipelines `GET /` as fast as it can, beside 100 requests a second of others (failure mode R2).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use loadtest::units::microseconds;

use crate::client::REQUEST;
use crate::others::Others;
use crate::target::Target;
use crate::{Args, summary};

const OTHERS_PER_SECOND: u32 = 100;
/// Before anything is counted: buffers grow, and windows open.
const WARM_UP: Duration = Duration::from_millis(300);
/// Requests in the block that is sent from. One write of it is about a socket buffer's worth.
const BLOCK_REQUESTS: usize = 2048;

pub(crate) fn run(args: &Args) -> io::Result<()> {
    for &depth in &args.depth {
        let (mut p99s, mut worsts, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            let target = Target::start(&args.server)?;
            let mut others = Others::connect(target.address, OTHERS_PER_SECOND)?;
            let mut firehose = Firehose::connect(target.address, depth)?;
            others.restart();
            firehose.run_beside(&mut others, WARM_UP)?;
            others.take_seen();
            let answered_before = firehose.answered();
            let (begun, cpu_before) = (Instant::now(), target.cpu());
            firehose.run_beside(&mut others, args.time)?;
            let answered = (firehose.answered() - answered_before) as f64;
            let rate = answered / begun.elapsed().as_secs_f64();
            let cpu_us = (target.cpu() - cpu_before).as_secs_f64() * 1e6 / answered;
            let seen = others.finish();
            firehose.finish()?;
            let [p50, p99, late] =
                [seen.response.value_at_quantile(0.5), seen.response.value_at_quantile(0.99), seen.late.value_at_quantile(0.99)];
            println!(
                "depth {depth}: {rate:.0} requests/s, {cpu_us:.2} µs of CPU each; others p50 {} p99 {} worst {} ({} answers, {} errors, late p99 {})",
                microseconds(p50),
                microseconds(p99),
                microseconds(seen.response.max()),
                seen.response.len(),
                seen.errors,
                microseconds(late),
            );
            p99s.push(p99);
            worsts.push(seen.response.max());
            rates.push(rate as u64);
        }
        println!(
            "depth {depth}: median {} requests/s, lowest {}; {}; {}",
            crate::median(rates.clone()),
            rates.iter().min().unwrap_or(&0),
            summary("others' p99", &p99s),
            summary("others' worst", &worsts)
        );
    }
    Ok(())
}

/// The connection that pipelines.
struct Firehose {
    stream: TcpStream,
    block: Vec<u8>,
    input: Vec<u8>,
    /// Unanswered requests allowed; `u64::MAX` for no limit but the sockets'.
    depth: u64,
    response_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Firehose {
    fn connect(to: SocketAddr, depth: u64) -> io::Result<Firehose> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        // All answers to the same request have the same length, so counting bytes counts answers. The first one says how long.
        stream.write_all(REQUEST)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut input = vec![0; 128 << 10];
        let response_bytes = read_response(&mut stream, &mut input)?;
        stream.set_nonblocking(true)?;
        let depth = if depth == 0 { u64::MAX } else { depth };
        Ok(Firehose { stream, block: REQUEST.repeat(BLOCK_REQUESTS), input, depth, response_bytes, sent_bytes: 0, received_bytes: 0 })
    }

    fn answered(&self) -> u64 {
        self.received_bytes / self.response_bytes
    }

    fn run_beside(&mut self, others: &mut Others, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            others.step(now);
            self.write()?;
            self.read()?;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let may_be_sent = self.answered().saturating_add(self.depth).saturating_mul(REQUEST.len() as u64);
        let bytes = may_be_sent.saturating_sub(self.sent_bytes).min(self.block.len() as u64 - REQUEST.len() as u64);
        if bytes == 0 {
            return Ok(());
        }
        // A request that was cut is continued where it was cut.
        let from = (self.sent_bytes % REQUEST.len() as u64) as usize;
        match self.stream.write(&self.block[from..from + bytes as usize]) {
            Ok(n) => self.sent_bytes += n as u64,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        match self.stream.read(&mut self.input) {
            Ok(0) => return Err(io::Error::other("the server closed the firehose")),
            Ok(n) => {
                self.received_bytes += n as u64;
                // The last answer that is wholly in this piece begins here; a whole one is a 200.
                let begin = (self.response_bytes - (self.received_bytes - n as u64) % self.response_bytes) % self.response_bytes;
                let first = self.input[..n].get(begin as usize..).unwrap_or_default();
                if first.len() >= 12 && !first.starts_with(b"HTTP/1.1 200") {
                    return Err(io::Error::other("an answer of the firehose is not a 200, or of another length than the first"));
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Reads the answers that are still owed, so that the count is of whole ones.
    fn finish(&mut self) -> io::Result<()> {
        let rest = self.sent_bytes % REQUEST.len() as u64;
        let mut unsent = if rest == 0 { &[][..] } else { &REQUEST[rest as usize..] };
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            match self.stream.write(unsent) {
                Ok(n) => {
                    self.sent_bytes += n as u64;
                    unsent = &unsent[n..];
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            self.read()?;
            if unsent.is_empty() && self.received_bytes == self.sent_bytes / REQUEST.len() as u64 * self.response_bytes {
                return Ok(());
            }
        }
        Err(io::Error::other("answers of the firehose are missing"))
    }
}

/// The length of one response.
fn read_response(stream: &mut TcpStream, input: &mut [u8]) -> io::Result<u64> {
    let mut filled = 0;
    loop {
        filled += match stream.read(&mut input[filled..])? {
            0 => return Err(io::Error::other("no answer to the first request")),
            n => n,
        };
        let (used, step) = loadtest::response::ResponseReader::default().read(&input[..filled], &Default::default());
        if let loadtest::response::Step::Done(_) = step {
            return Ok(used as u64);
        }
    }
}
