//! What one request costs the HTTP machine: nanoseconds, median of rounds, no sockets.
//!
//! `cargo run --release -p server --example http_bench`; with a number, that many rounds of one case only
//! (for `valgrind --tool=callgrind`). Read next: `server/src/http/machine.rs`.

use reactor::OutputBuffer;
use server::http::{HttpDate, HttpLimits, Machine, Response, Step};
use std::hint::black_box;
use std::time::{Instant, SystemTime};

const REQUESTS_PER_ROUND: u32 = 100_000;

const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:21001\r\n\r\n";

const BROWSER: &[u8] = b"GET /spin?ms=10&x=abcdefgh HTTP/1.1\r\nHost: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\
    Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\nPriority: u=0, i\r\n\r\n";

/// One exchange: step, response, bytes. Returns the bytes written.
#[inline]
fn exchange(
    machine: &mut Machine,
    limits: &HttpLimits,
    date: &mut HttpDate,
    now: Instant,
    input: &[u8],
    output: &mut OutputBuffer,
) -> usize {
    let (used, step) = machine.step(limits, input);
    assert!(used == input.len());
    let Step::Request(request) = step else { panic!("no request") };
    let response = match request.path {
        "/missing" => Response::text("no").status(404),
        _ => Response::text("Hello, World!"),
    };
    let plan = machine.response_plan();
    output.clear();
    let mut output = output.output();
    let date = date.bytes(now);
    assert!(output.encode(|cursor| response.encode_head(&plan, date, cursor)), "no room");
    output.write(response.body_to_send(&plan));
    machine.answered();
    output.written_bytes()
}

/// Only what the input side costs.
fn read(machine: &mut Machine, limits: &HttpLimits, input: &[u8]) {
    let (used, step) = machine.step(limits, input);
    assert!(used == input.len());
    black_box(&step);
    machine.answered();
}

/// Nanoseconds per call: the median of `rounds`.
fn median(rounds: usize, mut call: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..REQUESTS_PER_ROUND {
                call();
            }
            start.elapsed().as_nanos() as f64 / f64::from(REQUESTS_PER_ROUND)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let limits = HttpLimits::default();
    let now = Instant::now();
    let mut date = HttpDate::new(now, SystemTime::now);
    let mut machine = Machine::new();
    let mut output = OutputBuffer::new(4096);
    let mut both = |rounds: usize, input: &[u8]| {
        median(rounds, || {
            let input = black_box(input);
            black_box(exchange(&mut machine, &limits, &mut date, now, input, &mut output));
        })
    };
    if let Some(rounds) = rounds {
        println!("step + encode, {} bytes: {:.1} ns", SMALL.len(), both(rounds, SMALL));
        return;
    }
    for (name, input) in [("small", SMALL), ("browser", BROWSER)] {
        println!("{name}, {} bytes: step + encode {:.1} ns", input.len(), both(51, input));
    }
    for (name, input) in [("small", SMALL), ("browser", BROWSER)] {
        let mut machine = Machine::new();
        let step = median(51, || read(&mut machine, &limits, black_box(input)));
        println!("{name}, {} bytes: step {step:.1} ns", input.len());
    }
}
