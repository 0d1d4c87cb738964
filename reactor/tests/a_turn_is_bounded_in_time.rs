//! Each stage of a turn ends within its time and one interval of the clock, whatever waits; and a connection that asks for little does not wait for
//! a round over those that ask for much. The times are zero here, so each stage does one interval's work and the counts are exact.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reactor::limits::CLOCK_INTERVAL_VISITS;
use reactor::{CloseReason, Config, Context, EventLoop, Handler, LoopContext, Origin, Token};
use support::{connect, listener, prepare, reset};

/// Echoes bytes one at a time, each a message, and counts what happens.
#[derive(Default)]
struct Counts {
    tokens: Vec<Token>,
    messages: u32,
    mail: u32,
    deadlines: u32,
    closed: u32,
    deadline_after: Option<Duration>,
}

impl Handler for Counts {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _: Origin, cx: &mut Context<'_>) {
        self.tokens.push(cx.token());
        cx.deadline(self.deadline_after.map(|after| cx.now() + after));
    }

    fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
        self.messages += 1;
        cx.write(&input[..1])
    }

    fn mail(&mut self, (): &mut (), (): (), cx: &mut Context<'_>) {
        self.mail += 1;
        cx.write(b"m");
    }

    fn deadline(&mut self, (): &mut (), _: &mut Context<'_>) {
        self.deadlines += 1;
    }

    fn closed(&mut self, (): (), _: CloseReason, _cx: &mut LoopContext<'_>) {
        self.closed += 1;
    }
}

/// No stage has any time: each does the work of one interval of the clock.
fn hurried() -> Config {
    let mut config = Config::default();
    let limits = &mut config.limits;
    for time in [
        &mut limits.visits_time_max,
        &mut limits.accepts_time_max,
        &mut limits.mail_time_max,
        &mut limits.deadlines_time_max,
        &mut limits.connects_time_max,
        &mut limits.closes_time_max,
    ] {
        *time = Duration::ZERO;
    }
    limits.closes_per_turn_max = 256;
    limits.accepts_per_turn_max = 256;
    config
}

fn turns_until<H: Handler>(event_loop: &mut EventLoop<H>, what: &str, mut condition: impl FnMut(&H) -> bool) -> u32 {
    let started = Instant::now();
    let mut turns = 0;
    while !condition(event_loop.handler()) {
        assert!(started.elapsed() < support::PATIENCE, "never happened: {what}");
        event_loop.turn().unwrap();
        turns += 1;
    }
    turns
}

const HEAVY: usize = 200;

#[test]
fn a_light_client_is_answered_before_a_round_over_all_heavy_ones() {
    let mut server = prepare(hurried(), Counts::default());
    let mut light = connect(server.address);
    let mut heavy: Vec<TcpStream> = (0..HEAVY).map(|_| connect(server.address)).collect();
    turns_until(&mut server.event_loop, "all are accepted", |handler| handler.tokens.len() == HEAVY + 1);
    for client in &mut heavy {
        client.write_all(&[b'h'; 2000]).unwrap();
    }
    // Each has had its first visit, and most have nearly all of their messages left.
    for client in &mut heavy {
        client.set_nonblocking(true).unwrap();
        while client.read(&mut [0]).is_err() {
            server.event_loop.turn().unwrap();
        }
    }
    let before = server.event_loop.handler().messages;
    light.write_all(b"l").unwrap();
    light.set_nonblocking(true).unwrap();
    let mut answer = [0];
    while light.read(&mut answer).is_err() {
        server.event_loop.turn().unwrap();
    }
    let meanwhile = server.event_loop.handler().messages - before;
    // At the most two turns, each of one interval for either list; the last visit of an interval may exceed it by its whole quantum.
    let turn_max = 2 * 16 * CLOCK_INTERVAL_VISITS + Config::default().limits.visit_messages_max;
    let left = HEAVY as u32 * 2000 - before;
    assert!(meanwhile <= 2 * turn_max, "{meanwhile} messages of heavy clients came first, of {left} that waited");
    assert!(left > 4 * turn_max, "too few waited to show anything");
}

fn server_quantum() -> u32 {
    Config::default().limits.first_visit_messages_max
}

#[test]
fn connections_that_found_no_time_in_their_turn_come_before_those_with_work_left() {
    let mut server = prepare(hurried(), Counts::default());
    let mut light: Vec<TcpStream> = (0..40).map(|_| connect(server.address)).collect();
    let mut heavy: Vec<TcpStream> = (0..HEAVY).map(|_| connect(server.address)).collect();
    turns_until(&mut server.event_loop, "all are accepted", |handler| handler.tokens.len() == HEAVY + 40);
    for client in &mut heavy {
        client.write_all(&[b'h'; 2000]).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    for client in &mut heavy {
        while client.read(&mut [0]).is_err() {
            server.event_loop.turn().unwrap();
        }
    }
    // More than one interval of the clock serves: the rest waits on the list of new ones.
    for client in &mut light {
        client.write_all(b"l").unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let mut turns = 0;
    for client in &mut light {
        while client.read(&mut [0]).is_err() {
            server.event_loop.turn().unwrap();
            turns += 1;
        }
    }
    // Behind the heavy ones they would wait for a round over all of those, one or two in a turn.
    let turns_max = 2 + 40_u32.div_ceil(CLOCK_INTERVAL_VISITS);
    assert!(turns <= turns_max, "{turns} turns for 40 light clients");
}

#[test]
fn heavy_clients_are_not_starved_by_those_that_come_back_with_little() {
    let mut server = prepare(hurried(), Counts::default());
    let mut heavy = connect(server.address);
    let mut light: Vec<TcpStream> = (0..100).map(|_| connect(server.address)).collect();
    turns_until(&mut server.event_loop, "all are accepted", |handler| handler.tokens.len() == 101);
    heavy.write_all(&[b'h'; 20_000]).unwrap();
    heavy.set_nonblocking(true).unwrap();
    turns_until(&mut server.event_loop, "the heavy client has work left", |handler| handler.messages >= server_quantum());
    let mut answered = 0;
    let mut turns = 0;
    while answered < 20_000 {
        // In every turn more light clients are runnable than their half of it can serve.
        for client in &mut light {
            client.write_all(b"l").unwrap();
        }
        server.event_loop.turn().unwrap();
        turns += 1;
        let mut bytes = [0; 65_536];
        answered += heavy.read(&mut bytes).unwrap_or(0);
        assert!(turns < 1000, "{answered} of 20000 messages of the heavy client were answered in {turns} turns");
    }
}

#[test]
fn a_stage_ends_within_its_time_and_one_interval_of_the_clock() {
    let mut server = prepare(hurried(), Counts { deadline_after: Some(Duration::ZERO), ..Counts::default() });
    let mut clients: Vec<TcpStream> = (0..100).map(|_| connect(server.address)).collect();
    let stats = server.event_loop.stats();
    let interval = CLOCK_INTERVAL_VISITS;
    let (mut accepts, mut deadlines, mut mail, mut closed) = (0, 0, 0, 0);
    let mut check = |server: &support::Prepared<Counts>| {
        let handler = server.event_loop.handler();
        let now = (stats.accepts.get() as u32, handler.deadlines, handler.mail, handler.closed);
        for (what, before, now) in
            [("accepts", accepts, now.0), ("deadlines", deadlines, now.1), ("mail", mail, now.2), ("closes", closed, now.3)]
        {
            assert!(now - before <= interval, "{} {what} in one turn", now - before);
        }
        (accepts, deadlines, mail, closed) = now;
    };
    while server.event_loop.handler().deadlines < 100 {
        server.event_loop.turn().unwrap();
        check(&server);
    }
    let mailer = server.event_loop.mailer();
    for token in server.event_loop.handler().tokens.clone() {
        mailer.reserve(token).unwrap().send(()).unwrap();
    }
    while server.event_loop.handler().mail < 100 {
        server.event_loop.turn().unwrap();
        check(&server);
    }
    clients.drain(..).for_each(reset);
    while server.event_loop.handler().closed < 100 {
        server.event_loop.turn().unwrap();
        check(&server);
    }
}

#[test]
fn a_stage_with_time_is_bounded_by_its_counts() {
    let mut config = Config::default();
    config.limits.accepts_time_max = Duration::MAX;
    config.limits.accepts_per_turn_max = 50;
    let mut server = prepare(config, Counts::default());
    let _clients: Vec<TcpStream> = (0..120).map(|_| connect(server.address)).collect();
    let stats = server.event_loop.stats();
    for accepted in [50, 100, 120] {
        server.event_loop.turn().unwrap();
        assert_eq!(stats.accepts.get(), accepted);
    }
}

#[test]
fn churn_does_not_fill_the_table_with_dead_sockets() {
    let config = Config::default();
    let (accepts_max, closes_max) = (config.limits.accepts_per_turn_max, config.limits.closes_per_turn_max);
    assert!(accepts_max > closes_max, "else there is nothing to show");
    let mut server = prepare(config, Counts::default());
    let stats = server.event_loop.stats();
    for _ in 0..200 {
        // None of them lives longer than this line.
        (0..accepts_max).for_each(|_| reset(connect(server.address)));
        server.event_loop.turn().unwrap();
        let open = stats.connections_open.get();
        assert!(open <= 2 * u64::from(accepts_max), "{open} sockets are held for clients that have all gone");
    }
    assert!(stats.accepts.get() >= 200 * u64::from(closes_max) / 2, "and it goes on accepting: {}", stats.accepts.get());
}

#[test]
fn connections_that_another_loop_accepted_count_as_accepts() {
    let mut config = Config::default();
    config.limits.accepts_per_turn_max = 8;
    let mut receiving = EventLoop::new(config, Counts::default()).unwrap();
    let socket = listener();
    let address = socket.local_addr().unwrap();
    let mut accepting_config = Config::default();
    accepting_config.limits.connections_max = 1;
    let mut accepting = support::prepare_on(socket, reactor::ListenerWakes::All, accepting_config, Counts::default());
    accepting.event_loop.hand_off_to(vec![receiving.receiver().unwrap()]);
    let accepting = accepting.run();
    let _clients: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    support::until("all are accepted, or wait at the door", || accepting.stats.accepts.get() >= 1);
    let mut adopted = 0;
    while adopted < 49 {
        receiving.turn().unwrap();
        let now = receiving.handler().tokens.len();
        assert!(now - adopted <= 8, "{} adopted in one turn", now - adopted);
        adopted = now;
    }
}
