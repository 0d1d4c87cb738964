//! 300 clients ask for 4 MiB each and read nothing, next to 500 requests per second of other clients (`slow-consumer`, `kernel-send-memory`).
//!
//! Where are the bytes? Not in the resident memory of a good server, and of a bad one only a part: the kernel takes what it is given. `TCP … mem`
//! in `/proc/net/sockstat` has both ends of a loopback connection in it, so the clients' receive buffers too; `ss -tnm` is asked for the
//! server's part, the `w` of `skmem`: what waits to be sent or acknowledged, with the kernel's own overhead.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use loadtest::units::microseconds;
use server::process::{open_descriptors_of, usage_of};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::others::{Others, Seen};
use crate::target::Target;
use crate::{Args, summary};

const OTHERS_PER_SECOND: u32 = 500;
/// A server that still has them after this keeps them.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the server's descriptors.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const KIB: u64 = 1 << 10;

pub(crate) fn run(args: &Args) -> io::Result<()> {
    let clients = args.connections.unwrap_or(300);
    let (mut kernel, mut own, mut p99s, mut gone_after) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let target = Target::start(&args.server)?;
        let mut others = Others::connect(target.address, OTHERS_PER_SECOND)?;
        others.restart();
        others.run_for(args.time);
        let quiet = others.take_seen();
        let descriptors_before = open_descriptors_of(target.pid)?;
        let (kernel_before, resident_before) = (kernel_bytes()?, usage_of(target.pid)?.resident_bytes);
        others.restart();
        let begun = Instant::now();
        let never_read = ask(target.address, clients, &args.path, &mut others)?;
        others.run_for(args.time);
        let seen = others.take_seen();
        // Not while anybody's latency counts: `ss` takes a CPU for some milliseconds.
        let kernel_each = kernel_bytes()?.saturating_sub(kernel_before) / clients as u64;
        let resident_each = usage_of(target.pid)?.resident_bytes.saturating_sub(resident_before) / clients as u64;
        let own_each = write_queues(target.address)? / clients as u64;
        others.restart();
        let gone = loop {
            others.run_for(LOOK_EVERY);
            if open_descriptors_of(target.pid)? <= descriptors_before {
                break Some(begun.elapsed());
            }
            if begun.elapsed() > PATIENCE {
                break None;
            }
        };
        let kernel_after = kernel_bytes()?.saturating_sub(kernel_before) / clients as u64;
        let own_after = write_queues(target.address)? / clients as u64;
        let waiting = others.finish();
        drop(never_read);
        println!(
            "each of {clients}: {} KiB of kernel memory, {} of them in the server's socket; {} KiB of the server's own. Others {}; before {}; \
             until they are gone {}. Gone after {}, and then {} KiB of kernel memory each, {} in the server's socket",
            kernel_each / KIB,
            own_each / KIB,
            resident_each / KIB,
            shown(&seen),
            shown(&quiet),
            shown(&waiting),
            gone.map_or_else(|| format!("more than {PATIENCE:?}"), |time| format!("{:.1} s", time.as_secs_f64())),
            kernel_after / KIB,
            own_after / KIB,
        );
        kernel.push(kernel_each / KIB);
        own.push(own_each / KIB);
        p99s.push(seen.response.value_at_quantile(0.99));
        gone_after.push(gone.unwrap_or(PATIENCE).as_micros() as u64);
    }
    println!(
        "kernel memory each: median {} KiB, server's socket {} KiB; {}; {}",
        crate::median(kernel),
        crate::median(own),
        summary("others' p99", &p99s),
        summary("gone", &gone_after)
    );
    Ok(())
}

fn shown(seen: &Seen) -> String {
    format!(
        "p99 {} worst {} ({} answers, {} errors, late at most {})",
        microseconds(seen.response.value_at_quantile(0.99)),
        microseconds(seen.response.max()),
        seen.response.len(),
        seen.errors,
        microseconds(seen.late.max())
    )
}

/// Clients that have asked.
fn ask(to: SocketAddr, clients: usize, path: &str, others: &mut Others) -> io::Result<Vec<TcpStream>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let one = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
        socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 6), 0))))?;
        socket.connect(&SockAddr::from(to))?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(request.as_bytes())?;
        others.step(Instant::now());
        Ok(stream)
    };
    (0..clients).map(one).collect()
}

/// Memory of all TCP sockets of this machine.
fn kernel_bytes() -> io::Result<u64> {
    const PAGE_BYTES: u64 = 4096;
    let text = std::fs::read_to_string("/proc/net/sockstat")?;
    let pages = text.lines().find_map(|line| line.strip_prefix("TCP:")?.split_once(" mem ")?.1.trim().parse::<u64>().ok());
    pages.map(|pages| pages * PAGE_BYTES).ok_or_else(|| io::Error::other("no 'TCP: … mem' in /proc/net/sockstat"))
}

/// What the sockets of a port have queued for writing, all together.
fn write_queues(address: SocketAddr) -> io::Result<u64> {
    let output = Command::new("ss").args(["-tnmaH", "sport", "=", &format!(":{}", address.port())]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let queues = text.split("skmem:(").skip(1).filter_map(|memory| {
        let fields = memory.split_once(')')?.0;
        fields.split(',').find_map(|field| field.strip_prefix('w')?.parse::<u64>().ok())
    });
    Ok(queues.sum())
}
