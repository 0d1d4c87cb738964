//! What a request costs, and an idle connection, side by side: a C loop that does nothing else (`floor.c`), eagain, and nginx where it is installed.
//!
//! `cargo build --release -p server && cargo run --release -p loadtest --example side_by_side`. Servers take turns, each time anew: the
//! server on CPU 0, the generator on CPU 1, so that whatever else the machine does meets all of them. Compare only figures of one run.
//! Needs `wrk` and a C compiler. The load is wrk's, so that the program that judges is not one of ours.
//! Read next: `docs/numbers.md`, "CPU per request".

#[path = "../adversity/target.rs"]
#[allow(dead_code)] // The adversities use the rest.
mod target;
#[path = "../adversity/turns.rs"]
#[allow(dead_code)]
mod turns;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use socket2::SockRef;
use target::Target;

const FLOOR: &str = include_str!("floor.c");
/// What is asked for. Servers that answer something else are not comparable.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
/// Until what a server does after the last request is done.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// CPU time per request, or memory per idle connection, of servers that take turns.
#[derive(Debug, Parser)]
#[command(name = "side_by_side", max_term_width = 110)]
struct Args {
    /// How often each server is measured; the medians are shown.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long wrk runs each time, after one second that does not count.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Connections of wrk.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests in each write.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pipeline: u32,
    /// Measures instead the resident memory of so many connections that were served once and are idle.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    idle: Option<u32>,
    /// One more server; may be given several times. `{port}` becomes a free port. One process, which may have threads.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = more)]
    server: Vec<(String, String)>,
}

fn more(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if command.contains("{port}") => Ok((name.to_owned(), command.to_owned())),
        _ => Err("NAME=COMMAND is needed, with {port} in the command".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("side_by_side: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let descriptors_max = reactor::os::descriptors::raise_descriptor_limit()?;
    // Room to spare: near its limit the server closes who is idle.
    let ours = ours(args.idle.map(|many| many + many / 10 + 16))?;
    let mut servers = vec![("floor".to_owned(), format!("{} {{port}}", floor()?.display())), ("eagain".to_owned(), ours.clone())];
    match Command::new("nginx").arg("-v").output() {
        Ok(_) => servers.push(("nginx".to_owned(), "nginx".to_owned())),
        Err(_) => println!("nginx is not installed, and left out"),
    }
    servers.extend(args.server.iter().cloned());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average before: {}", load.split(' ').next().unwrap_or("?"));
    match args.idle {
        Some(many) if u64::from(many) + 100 > descriptors_max => {
            Err(io::Error::other(format!("--idle {many} needs more descriptors than the limit of {descriptors_max} (ulimit -n)")))
        }
        Some(many) => compare_memory(&servers, &ours, many),
        None => compare_cpu(&servers, args),
    }
}

/// The floor, compiled next to this program.
fn floor() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("floor");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped());
    let mut compiling = compiler.spawn().map_err(|e| missing("a C compiler, cc", &e))?;
    if let Some(mut source) = compiling.stdin.take() {
        source.write_all(FLOOR.as_bytes())?;
    }
    if compiling.wait()?.success() { Ok(program) } else { Err(io::Error::other("floor.c does not compile")) }
}

/// The server of this repository, as it was built last: `target/release/server` next to `target/release/examples/`.
fn ours(connections_max: Option<u32>) -> io::Result<String> {
    let program = std::env::current_exe()?.ancestors().nth(2).map(|release| release.join("server")).filter(|server| server.exists());
    let program = program.ok_or_else(|| io::Error::other("the server is not built: cargo build --release -p server"))?;
    let connections_max = connections_max.map(|many| format!(" --connections-max {many}")).unwrap_or_default();
    Ok(format!(
        "env RUST_LOG=warn {} --listen 127.0.0.1:{{port}} --admin 127.0.0.1:0 --loops 1 --workers 1{connections_max}",
        program.display()
    ))
}

fn missing(what: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{what} is needed (Debian: apt-get install wrk gcc libc6-dev): {e}"))
}

fn compare_cpu(servers: &[(String, String)], args: &Args) -> io::Result<()> {
    Command::new("wrk").arg("-v").output().map_err(|e| missing("wrk", &e))?;
    let script = (args.pipeline > 1).then(|| pipeline_script(args.pipeline)).transpose()?;
    let mut results = vec![Vec::new(); servers.len()];
    for _ in 0..args.rounds {
        for ((name, command), results) in servers.iter().zip(&mut results) {
            let server = Target::start(command)?;
            wrk(server.address, args, 1, script.as_deref())?;
            let before = server.cpu();
            let (requests, per_second) = wrk(server.address, args, args.seconds, script.as_deref())?;
            if requests == 0 {
                return Err(io::Error::other(format!("{name} answered nothing")));
            }
            let cpu_us = (server.cpu() - before).as_secs_f64() * 1e6 / requests as f64;
            results.push([per_second, cpu_us]);
        }
    }
    println!("{} connections, {} requests a write, medians of {} rounds", args.connections, args.pipeline, args.rounds);
    println!("| server | requests/s | CPU per request | × floor | above floor |\n|---|---|---|---|---|");
    let floor_us = median(results[0].iter().map(|[_, cpu_us]| *cpu_us));
    for ((name, _), results) in servers.iter().zip(&results) {
        let per_second = median(results.iter().map(|[per_second, _]| *per_second));
        let cpu_us = median(results.iter().map(|[_, cpu_us]| *cpu_us));
        println!("| {name} | {per_second:.0} | {cpu_us:.2} µs | {:.2} | {:.2} µs |", cpu_us / floor_us, cpu_us - floor_us);
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Has wrk write several requests at once.
fn pipeline_script(requests: u32) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("pipeline.lua");
    let script =
        format!("local all\ninit = function() all = string.rep(wrk.format(), {requests}) end\nrequest = function() return all end\n");
    std::fs::write(&path, script)?;
    Ok(path)
}

/// Runs wrk on CPU 1: requests answered, and a second.
fn wrk(server: SocketAddr, args: &Args, seconds: u32, script: Option<&Path>) -> io::Result<(u64, f64)> {
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "wrk", "-t1", &format!("-c{}", args.connections), &format!("-d{seconds}s"), &format!("http://{server}/")]);
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    loadtest::sys::die_with_parent(&mut command);
    let output = command.output().map_err(|e| missing("taskset", &e))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |before: &str| said.lines().find_map(|line| line.trim().strip_prefix(before)?.trim().parse::<f64>().ok());
    let requests = said.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse::<u64>().ok());
    // Answers that are errors, or none, are cheaper than the ones that were asked for.
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        return Err(io::Error::other(format!("not every request was answered:\n{said}")));
    }
    let measured = requests.zip(number("Requests/sec:"));
    measured.ok_or_else(|| io::Error::other(format!("wrk failed:\n{said}{}", String::from_utf8_lossy(&output.stderr))))
}

fn compare_memory(servers: &[(String, String)], ours: &str, many: u32) -> io::Result<()> {
    println!("resident memory of {many} idle connections, each served once");
    println!("| server | with one | with all | bytes for each |\n|---|---|---|---|");
    let mut ours_with_all = 0;
    for (name, command) in servers {
        let server = Target::start(command)?;
        let mut clients = vec![served_once(server.address)?];
        thread::sleep(SETTLED_AFTER);
        let with_one = server.resident_kib();
        for _ in 1..many {
            clients.push(served_once(server.address)?);
        }
        thread::sleep(SETTLED_AFTER);
        let with_all = server.resident_kib();
        if command == ours {
            ours_with_all = with_all;
        }
        println!("| {name} | {with_one} KiB | {with_all} KiB | {:.0} |", bytes_each(with_one, with_all, many - 1));
    }
    // The other way: what is there for connections before any has come (the slab, the wheel) counts too.
    let small = Target::start(&self::ours(Some(16))?)?;
    let _client = served_once(small.address)?;
    thread::sleep(SETTLED_AFTER);
    let without = small.resident_kib();
    println!(
        "| eagain, against itself with `--connections-max 16` | {without} KiB | {ours_with_all} KiB | {:.0} |",
        bytes_each(without, ours_with_all, many)
    );
    Ok(())
}

fn bytes_each(before_kib: u64, after_kib: u64, connections: u32) -> f64 {
    (after_kib as f64 - before_kib as f64) * 1024.0 / f64::from(connections)
}

fn served_once(server: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    // Its end is a reset, so that ten thousand of them leave no TIME_WAIT to the next server's.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.write_all(REQUEST)?;
    let mut answer = [0; 1024];
    let mut bytes = 0;
    while !answer[..bytes].ends_with(b"Hello, World!") {
        match stream.read(&mut answer[bytes..])? {
            0 => return Err(io::Error::other(format!("not the answer that is compared: {}", String::from_utf8_lossy(&answer[..bytes])))),
            more => bytes += more,
        }
    }
    Ok(stream)
}
