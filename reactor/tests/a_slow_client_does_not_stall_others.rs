//! A firehose, a peer that never reads, thousands of unfinished requests: each has its share, and everyone else is served meanwhile.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reactor::{BufferOwner, CloseReason, Config, Context, Handler, Origin, Pressure, Token};
use support::lines::{Lines, Told, wait_for, wait_for_close, wait_for_open};
use support::{ask, pattern, start, until};

/// Lines, and a firehose: whoever's first byte is `F` is read for ever, more slowly than it can send.
struct Hose {
    swallowed: Arc<AtomicU64>,
}

impl Handler for Hose {
    type Conn = bool;
    type Mail = ();

    fn opened(&mut self, _origin: Origin, _cx: &mut Context<'_>) -> bool {
        false
    }

    fn input(&mut self, is_hose: &mut bool, input: &[u8], cx: &mut Context<'_>) -> usize {
        *is_hose |= input[0] == b'F';
        if *is_hose {
            // Some work for each byte, so that the sender is the faster one and the socket never runs empty.
            let sum = (0..20).fold(0u64, |sum, _| input.iter().fold(sum, |sum, &byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))));
            assert_ne!(std::hint::black_box(sum), 1);
            self.swallowed.fetch_add(input.len() as u64, Ordering::Relaxed);
            return input.len();
        }
        cx.write(input)
    }

    fn mail(&mut self, _conn: &mut bool, (): (), _cx: &mut Context<'_>) {}
}

#[test]
fn a_firehose_leaves_everyone_else_their_turn() {
    let swallowed = Arc::new(AtomicU64::new(0));
    let server = start(Config::default(), Hose { swallowed: Arc::clone(&swallowed) });
    let hoses: Vec<TcpStream> = (0..2).map(|_| server.connect()).collect();
    let over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = hoses
        .into_iter()
        .map(|mut hose| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let water = [b'F'; 65_536];
                while !over.load(Ordering::Relaxed) {
                    hose.write_all(&water).unwrap();
                }
            })
        })
        .collect();
    until("the hoses run", || swallowed.load(Ordering::Relaxed) > 1 << 20);
    let mut victims: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    for round in 0..20 {
        for victim in &mut victims {
            ask(victim, &format!("round {round}"));
        }
    }
    let before = swallowed.load(Ordering::Relaxed);
    until("the hoses still run", || swallowed.load(Ordering::Relaxed) > before);
    over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn a_firehose_reads_no_more_than_its_share_of_a_turn() {
    let swallowed = Arc::new(AtomicU64::new(0));
    let server = start(Config::default(), Hose { swallowed: Arc::clone(&swallowed) });
    let mut hose = server.connect();
    let bytes = 8 << 20;
    hose.write_all(&vec![b'F'; bytes]).unwrap();
    until("all is swallowed", || swallowed.load(Ordering::Relaxed) == bytes as u64);
    let turns_min = bytes as u64 / (64 << 10);
    assert!(server.stats.turns.get() >= turns_min, "{} turns for {bytes} bytes", server.stats.turns.get());
}

#[test]
fn a_client_that_never_reads_is_closed_after_its_output_window_and_holds_little() {
    let (lines, heard) = Lines::new();
    let mut config = Config::default();
    config.limits.output_rate_window = Duration::from_millis(300);
    let high_water = u64::from(config.limits.output_high_water_bytes);
    let server = start(config, lines);
    let mut never_reads = server.connect();
    never_reads.write_all(b"many 100000000\n").unwrap();
    let token = wait_for_open(&heard);
    let mut other = server.connect();
    while server.stats.closes(CloseReason::WriteStalled).get() == 0 {
        ask(&mut other, "hello");
        assert!(server.stats.leased_bytes.get() <= high_water, "{} bytes are kept for one", server.stats.leased_bytes.get());
    }
    assert_eq!(wait_for_close(&heard, token), CloseReason::WriteStalled);
    assert_eq!(server.stats.resets.get(), 1, "what is cut short is reset, and counted so");
    until("its memory is back", || server.stats.leased_bytes.get() == 0);
}

/// What the kernel takes for a client that reads nothing and has room for little.
fn taken_for_a_client_that_never_reads(kernel_unsent_bytes_max: Option<u32>) -> u64 {
    let mut config = Config::default();
    config.limits.kernel_unsent_bytes_max = kernel_unsent_bytes_max;
    let server = start(config, Lines::silent());
    // Before it connects: afterwards the window is already offered.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("it works on loopback");
    socket.set_recv_buffer_size(4096).expect("it works on loopback");
    socket.connect(&server.address.into()).expect("it works on loopback");
    let mut never_reads: TcpStream = socket.into();
    never_reads.write_all(b"many 100000000\n").expect("it works on loopback");
    until("the kernel takes no more", || server.stats.short_writes.get() > 0 && server.stats.leased_bytes.get() > 0);
    // Two turns later nothing has changed: the loop waits for an edge.
    let mut other = server.connect();
    (0..3).for_each(|_| ask(&mut other, "a turn"));
    server.stats.bytes_written.get()
}

#[test]
fn the_kernel_holds_little_for_a_client_that_never_reads() {
    let bounded = taken_for_a_client_that_never_reads(Config::default().limits.kernel_unsent_bytes_max);
    // What is unsent may pass the bound by one segment, which is at most 64 KiB; and the client's window takes a little.
    assert!(bounded <= 192 << 10, "{bounded} bytes");
    let left_to_the_kernel = taken_for_a_client_that_never_reads(None);
    assert!(left_to_the_kernel >= 2 * bounded, "the bound changes nothing: {left_to_the_kernel} bytes without, {bounded} with it");
}

#[test]
fn a_client_that_reads_slowly_but_reads_is_not_closed() {
    let (lines, heard) = Lines::new();
    let mut config = Config::default();
    config.limits.output_rate_window = Duration::from_millis(500);
    let server = start(config, lines);
    let mut client = server.connect();
    client.write_all(b"many 30000000\n").unwrap();
    wait_for_open(&heard);
    let expected = pattern(30_000_000);
    let mut read = 0;
    let mut piece = vec![0; 1_500_000];
    while read < expected.len() {
        // Many times the stall timeout in all, a fraction of it each. If we are kept waiting longer by a busy machine, so is the server.
        std::thread::sleep(Duration::from_millis(40));
        client.read_exact(&mut piece).unwrap();
        assert!(piece == expected[read..read + piece.len()], "the answer differs");
        read += piece.len();
    }
}

#[test]
fn unfinished_requests_beyond_the_memory_evict_only_the_oldest() {
    let (mut lines, heard) = Lines::new();
    lines.goodbye = "too slow\n";
    let mut config = Config::default();
    config.limits.buffer_bytes_min = 4096;
    config.limits.buffer_memory_bytes_max = 64 * 4096; // 64 small rests, or 4 large ones.
    let limit = config.limits.buffer_memory_bytes_max as u64;
    let server = start(config, lines);
    let mut good = server.connect();
    wait_for_open(&heard);
    let mut slow: Vec<(TcpStream, Token)> = Vec::new();
    let read = |bytes| until("it is read", || server.stats.bytes_read.get() == bytes);
    let mut sent = 0;
    for i in 0..300u64 {
        let mut client = server.connect();
        let token = wait_for(&heard, |told| if let Told::Opened(token) = told { Some(token) } else { None });
        client.write_all(b"GET / HTTP").unwrap();
        sent += 10;
        read(sent);
        slow.push((client, token));
        ask(&mut good, &format!("{i:05}"));
        sent += 6;
        assert!(server.stats.buffer_bytes.get() <= limit);
    }
    assert_eq!(server.stats.evictions(BufferOwner::Input).get(), 300 - 64);
    for (client, _) in &mut slow[..300 - 64] {
        let mut told = [0; 9];
        client.read_exact(&mut told).unwrap();
        assert_eq!(&told, b"too slow\n");
    }
    // The young ones are unharmed.
    for (client, _) in &mut slow[300 - 64..] {
        client.write_all(b"\n").unwrap();
        let mut back = [0; 11];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"GET / HTTP\n");
    }
    drop(slow);
    until("they are gone", || server.stats.connections_open.get() == 1);
    assert_eq!(server.stats.closes(CloseReason::InputEvicted).get(), 300 - 64);
}

#[test]
fn whole_requests_are_served_even_when_unsent_answers_hold_all_the_memory() {
    let mut config = Config::default();
    config.limits.buffer_memory_bytes_max = 4 * 65_536;
    let limit = config.limits.buffer_memory_bytes_max as u64;
    let server = start(config, Lines::silent());
    let stuck: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut client = server.connect();
            client.write_all(b"many 50000000\n").unwrap();
            client
        })
        .collect();
    until("all are stuck or gone", || server.stats.short_writes.get() + server.stats.closes(CloseReason::OutputEvicted).get() >= 20);
    let mut good = server.connect();
    for i in 0..200 {
        ask(&mut good, &format!("line {i}"));
        assert!(server.stats.buffer_bytes.get() <= limit);
    }
    drop(stuck);
}

#[test]
fn clients_that_never_read_do_not_take_the_memory_from_those_that_do() {
    let mut config = Config::default();
    config.limits.buffer_memory_bytes_max = 8 * 65_536;
    let server = start(config, Lines::silent());
    let stuck: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut client = server.connect();
            client.write_all(b"many 50000000\n").unwrap();
            client
        })
        .collect();
    let ended = |reason| server.stats.closes(reason).get();
    until("all are stuck or evicted", || server.stats.short_writes.get() + ended(CloseReason::OutputEvicted) >= 40);
    for _ in 0..50 {
        let mut in_two_pieces = server.connect();
        let before = server.stats.bytes_read.get();
        in_two_pieces.write_all(b"hel").unwrap();
        until("the first piece is read", || server.stats.bytes_read.get() == before + 3);
        ask_rest(&mut in_two_pieces);
        let mut download = server.connect();
        download.write_all(b"many 1000000\n").unwrap();
        let mut all = vec![0; 1_000_000];
        download.read_exact(&mut all).unwrap();
    }
    assert_eq!(server.stats.evictions(BufferOwner::Input).get(), 0, "the output is above its share, and not the input");
    assert!(server.stats.evictions(BufferOwner::Output).get() > 0, "nothing was evicted, so nothing is shown");
    drop(stuck);
}

/// Completes a line of which `hel` was sent, and expects it back.
fn ask_rest(client: &mut TcpStream) {
    client.write_all(b"lo\n").expect("the server reads");
    let mut back = [0; 6];
    client.read_exact(&mut back).expect("the server answers");
    assert_eq!(&back, b"hello\n");
}

#[test]
fn after_a_peak_the_memory_goes_back() {
    let server = start(Config::default(), Lines::silent());
    let mut many: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    for client in &mut many {
        client.write_all(&pattern(20_000)).unwrap();
    }
    until("all is kept", || server.stats.leased_bytes.get() == 100 * 65_536);
    for client in &mut many {
        client.write_all(b"\n").unwrap();
        let mut back = vec![0; 20_001];
        client.read_exact(&mut back).unwrap();
    }
    until("no lease is left", || server.stats.leased_bytes.get() == 0);
    until("the buffers are freed", || server.stats.buffer_bytes.get() == 0);
}

#[test]
fn an_unfinished_request_does_not_grow_younger_by_another_byte() {
    let (lines, heard) = Lines::new();
    let mut config = Config::default();
    (config.limits.buffer_bytes_min, config.limits.buffer_bytes_max) = (4096, 4096);
    config.limits.output_high_water_bytes = 4096;
    config.limits.output_low_water_bytes = 1024;
    config.limits.buffer_memory_bytes_max = 4 * 4096;
    let server = start(config, lines);
    let mut slow: Vec<(TcpStream, Token)> = Vec::new();
    for kept in 1..=4 {
        let mut client = server.connect();
        let token = wait_for_open(&heard);
        client.write_all(b"G").unwrap();
        until("it is kept", || server.stats.leased_bytes.get() == 4096 * kept);
        slow.push((client, token));
    }
    slow[0].0.write_all(b"E").unwrap();
    until("it is read", || server.stats.bytes_read.get() == 5);
    assert_eq!(server.stats.buffer_waits.get(), 0);
    let mut newcomer = server.connect();
    newcomer.write_all(b"G").unwrap();
    let pressed = wait_for(&heard, |told| if let Told::Pressed(token, Pressure::BufferMemory) = told { Some(token) } else { None });
    assert_eq!(slow.iter().position(|(_, token)| *token == pressed), Some(0), "the first one has kept the others waiting for the longest");
    assert_eq!((server.stats.buffer_waits.get(), server.stats.evictions(BufferOwner::Input).get()), (1, 1));
}

#[test]
fn the_oldest_unfinished_request_that_outgrows_the_memory_gives_way_itself() {
    let (lines, heard) = Lines::new();
    let mut config = Config::default();
    config.limits.buffer_bytes_min = 4096;
    config.limits.buffer_bytes_max = 16_384;
    config.limits.output_high_water_bytes = 16_384;
    config.limits.buffer_memory_bytes_max = 4 * 16_384;
    config.limits.output_low_water_bytes = 1024;
    let server = start(config, lines);
    let mut slow: Vec<(TcpStream, Token)> = Vec::new();
    for kept in 1..=16 {
        let mut client = server.connect();
        let token = wait_for_open(&heard);
        client.write_all(b"G").unwrap();
        until("it is kept", || server.stats.leased_bytes.get() == 4096 * kept);
        slow.push((client, token));
    }
    // It needs 16 KiB where it had 4.
    slow[0].0.write_all(&support::pattern(5000)).unwrap();
    let pressed = wait_for(&heard, |told| if let Told::Pressed(token, Pressure::BufferMemory) = told { Some(token) } else { None });
    assert_eq!(pressed, slow[0].1);
    assert_eq!(wait_for_close(&heard, pressed), CloseReason::InputEvicted);
    assert_eq!(server.stats.evictions(BufferOwner::Input).get(), 1);
}
