//! After warming up, a message costs no allocation, and an idle connection none beyond its slot.
//!
//! The allocator counts for each thread by itself, so the test's own clients do not disturb the loop's count.

#[path = "support/counting.rs"]
mod counting;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reactor::{Config, Context, Handler, LoopContext, Origin};
use support::{ask, start, until};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// An echo that publishes its thread's count of allocations.
struct Echo {
    allocations: Arc<AtomicU64>,
}

impl Handler for Echo {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
        cx.deadline(Some(cx.now() + cx.spread(Duration::from_secs(60))));
        self.allocations.store(counting::of_this_thread(), Ordering::SeqCst);
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        cx.deadline(Some(cx.now() + cx.spread(Duration::from_secs(60))));
        self.allocations.store(counting::of_this_thread(), Ordering::SeqCst);
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return 0 };
        cx.write(&input[..end + 1])
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn closed(&mut self, (): (), _reason: reactor::CloseReason, _cx: &mut LoopContext<'_>) {
        self.allocations.store(counting::of_this_thread(), Ordering::SeqCst);
    }
}

#[test]
fn an_allocation_is_counted_at_all() {
    let before = counting::of_this_thread();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(counting::of_this_thread() - before, 1);
}

#[test]
fn ten_thousand_messages_whole_pipelined_and_cut_cost_no_allocation() {
    let allocations = Arc::new(AtomicU64::new(0));
    let server = start(Config::default(), Echo { allocations: Arc::clone(&allocations) });
    let mut clients: Vec<TcpStream> = (0..16).map(|_| server.connect()).collect();
    let talk = |clients: &mut Vec<TcpStream>, rounds: u32| {
        for round in 0..rounds {
            for client in clients.iter_mut() {
                ask(client, "a small message");
            }
            let client = &mut clients[round as usize % 16];
            let pipelined = b"one of many\n".repeat(100);
            client.write_all(&pipelined).unwrap();
            client.read_exact(&mut vec![0; pipelined.len()]).unwrap();
            // A rest that is kept in a lease in between.
            let read = server.stats.bytes_read.get();
            client.write_all(b"cut in ").unwrap();
            until("the first part is read", || server.stats.bytes_read.get() == read + 7);
            client.write_all(b"two\n").unwrap();
            client.read_exact(&mut [0; 11]).unwrap();
        }
    };
    talk(&mut clients, 20);
    let before = allocations.load(Ordering::SeqCst);
    let messages = 100 * (16 + 100 + 1);
    talk(&mut clients, 100);
    let cost = allocations.load(Ordering::SeqCst) - before;
    // The buffer of a kept rest goes back to the system when it was not needed for a second: on a slow machine that may happen in between,
    // and costs one allocation each time.
    assert!(cost <= 10, "{cost} allocations for {messages} messages");
}

#[test]
fn a_connection_that_comes_rests_and_goes_costs_no_allocation() {
    let allocations = Arc::new(AtomicU64::new(0));
    let server = start(Config::default(), Echo { allocations: Arc::clone(&allocations) });
    let come_and_go = |count: u64| {
        let clients: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
        until("they are open", || server.stats.accepts.get() == count);
        drop(clients);
        until("they are closed", || server.stats.connections_open.get() == 0);
    };
    // The lists of a turn (ready, closes) grow to their peak once.
    come_and_go(200);
    come_and_go(400);
    let before = allocations.load(Ordering::SeqCst);
    come_and_go(600);
    come_and_go(800);
    let cost = allocations.load(Ordering::SeqCst) - before;
    // A list that meets a longer burst than before doubles once; 400 connections do not.
    assert!(cost <= 4, "{cost} allocations for 400 connections");
}

#[test]
fn four_thousand_idle_connections_allocate_nothing_beyond_the_slots() {
    let allocations = Arc::new(AtomicU64::new(0));
    let server = start(Config::default(), Echo { allocations: Arc::clone(&allocations) });
    let warm: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
    until("they are open", || server.stats.accepts.get() == 10);
    let before = allocations.load(Ordering::SeqCst);
    // Two descriptors each, in this one process.
    let count = (reactor::os::descriptors::raise_descriptor_limit().unwrap().saturating_sub(600) / 2).min(4_000);
    assert!(count >= 100, "the descriptor limit leaves nothing to test with");
    let idle: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
    until("they are open", || server.stats.accepts.get() == 10 + count);
    let cost = allocations.load(Ordering::SeqCst) - before;
    assert!(cost <= 4, "{cost} allocations for {count} connections");
    assert_eq!(server.stats.buffer_bytes.get(), 0, "one at rest holds no buffer");
    drop((warm, idle));
}
