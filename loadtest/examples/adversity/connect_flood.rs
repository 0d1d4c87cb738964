//! 5,000 connections at 40,000 a second, next to 500 requests per second of other clients (`accept-flood`, `listen-overflow`).

use std::io;
use std::time::{Duration, Instant};

use loadtest::units::microseconds;

use crate::client::{Client, Found, REQUEST};
use crate::others::Others;
use crate::target::Target;
use crate::{Args, summary};

const OTHERS_PER_SECOND: u32 = 500;
const CONNECTS_PER_SECOND: u32 = 40_000;
/// Connects between two looks at the others, when they are late: about 100 µs.
const CONNECTS_PER_STEP: u32 = 4;

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let (mut quiet_worsts, mut worsts, mut all_overflows) = (Vec::new(), Vec::new(), 0);
    for _ in 0..args.rounds {
        let target = Target::start(&args.server)?;
        let mut others = Others::connect(target.address, OTHERS_PER_SECOND)?;
        others.restart();
        others.run_for(args.time);
        let quiet = others.take_seen();
        let connections = args.connections.unwrap_or(5000);
        let mut clients: Vec<Client> = Vec::with_capacity(connections);
        let overflows_before = overflows()?;
        let begun = Instant::now();
        while clients.len() < connections {
            let now = Instant::now();
            for _ in 0..CONNECTS_PER_STEP {
                let due = begun + Duration::from_secs(1) / CONNECTS_PER_SECOND * clients.len() as u32;
                if clients.len() < connections && due <= now {
                    clients.push(Client::connect(target.address, 3)?);
                }
            }
            others.step(now);
        }
        let opened_in = begun.elapsed();
        others.run_for(args.time);
        let seen = others.finish();
        let overflows = overflows()? - overflows_before;
        let mut served = 0;
        for client in &mut clients {
            client.reset_at_close()?;
            served += usize::from(client.send(REQUEST).is_ok() && client.wait(Duration::from_secs(2)) == Found::Answer(200));
        }
        println!(
            "{connections} opened at {:.0}/s: {overflows} overflows, {served} served; others' worst {} (before: {}), p99 {} ({} errors, late at most {})",
            connections as f64 / opened_in.as_secs_f64(),
            microseconds(seen.response.max()),
            microseconds(quiet.response.max()),
            microseconds(seen.response.value_at_quantile(0.99)),
            seen.errors,
            microseconds(seen.late.max()),
        );
        quiet_worsts.push(quiet.response.max());
        worsts.push(seen.response.max());
        all_overflows += overflows;
    }
    println!("{all_overflows} overflows; {}; {}", summary("others' worst", &worsts), summary("with nobody connecting", &quiet_worsts));
    Ok(())
}

/// Connections that found the accept queue full, of all sockets of this network namespace (`TcpExt: ListenOverflows`).
fn overflows() -> io::Result<u64> {
    loadtest::kernel_sockets::tcp_counter("ListenOverflows")
}
