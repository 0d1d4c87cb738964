//! One connection pipelines `GET /` as fast as it can, next to 100 requests per second of other clients (`firehose`).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadtest::units::microseconds;

use crate::client::REQUEST;
use crate::others::Others;
use crate::pipeline::{Pipeline, connect_served};
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
            let answered_before = firehose.pipeline.answered();
            let (begun, cpu_before) = (Instant::now(), target.cpu());
            firehose.run_beside(&mut others, args.time)?;
            let answered = (firehose.pipeline.answered() - answered_before) as f64;
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
    pipeline: Pipeline,
    block: Vec<u8>,
    input: Vec<u8>,
    /// Unanswered requests allowed; `u64::MAX` for no limit but the sockets'.
    depth: u64,
}

impl Firehose {
    fn connect(to: SocketAddr, depth: u64) -> io::Result<Firehose> {
        let (stream, response_bytes) = connect_served(to)?;
        let depth = if depth == 0 { u64::MAX } else { depth };
        Ok(Firehose {
            pipeline: Pipeline::new(stream, response_bytes)?,
            block: REQUEST.repeat(BLOCK_REQUESTS),
            input: vec![0; 128 << 10],
            depth,
        })
    }

    fn run_beside(&mut self, others: &mut Others, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            others.step(now);
            self.pipeline.write(&self.block, self.pipeline.answered().saturating_add(self.depth))?;
            self.pipeline.read(&mut self.input)?;
        }
    }

    /// Reads the answers that are still owed, so that the count is of whole ones.
    fn finish(&mut self) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            self.pipeline.write(&self.block, self.pipeline.begun())?;
            self.pipeline.read(&mut self.input)?;
            if self.pipeline.is_settled() {
                return Ok(());
            }
        }
        Err(io::Error::other("answers of the firehose are missing"))
    }
}
