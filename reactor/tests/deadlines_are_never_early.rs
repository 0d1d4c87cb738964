//! A deadline never runs before its time, always runs after it, and one that was moved later runs once, later.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use reactor::{Config, Context, Handler, LoopContext, Origin};
use support::{PATIENCE, start, until};

/// Each byte that comes sets the deadline so many times 100 µs from now; what ran when is told.
struct Alarm {
    ran: Sender<(Instant, Instant)>,
}

impl Handler for Alarm {
    type Conn = Option<Instant>;
    type Mail = ();

    fn opened(&mut self, _origin: Origin, _cx: &mut Context<'_>) -> Option<Instant> {
        None
    }

    fn input(&mut self, due: &mut Option<Instant>, input: &[u8], cx: &mut Context<'_>) -> usize {
        let at = (input[0] != 0).then(|| Instant::now() + u32::from(input[0]) * Duration::from_micros(100));
        cx.deadline(at);
        *due = at;
        cx.write(&input[..1]);
        1
    }

    fn mail(&mut self, _due: &mut Option<Instant>, (): (), _cx: &mut Context<'_>) {}

    fn deadline(&mut self, due: &mut Option<Instant>, _cx: &mut Context<'_>) {
        let due = due.take().expect("no deadline runs that is not set, and none runs twice");
        self.ran.send((due, Instant::now())).unwrap();
    }
}

#[test]
fn no_deadline_runs_before_its_time_and_every_one_runs() {
    let (ran, heard) = channel();
    let server = start(Config::default(), Alarm { ran });
    let mut clients: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    for round in 0..5u8 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.write_all(&[1 + (i as u8 * 2).wrapping_add(round * 31) % 250]).unwrap();
        }
        for _ in 0..clients.len() {
            let (due, at) = heard.recv_timeout(PATIENCE).expect("each of them runs");
            assert!(at >= due, "{:?} early", due - at);
        }
    }
    assert!(heard.try_recv().is_err(), "more ran than were set");
}

#[test]
fn a_deadline_that_is_moved_later_runs_once_and_later() {
    let (ran, heard) = channel();
    let server = start(Config::default(), Alarm { ran });
    let mut client = server.connect();
    let mut echo = [0];
    // Each time moved to 20 ms from then, for many times as long; with each request, as a keep-alive timeout is.
    let started = Instant::now();
    let mut moved = 0;
    while started.elapsed() < Duration::from_millis(100) {
        client.write_all(&[200]).unwrap();
        client.read_exact(&mut echo).unwrap();
        moved += 1;
    }
    let ran: Vec<_> = std::iter::once(heard.recv_timeout(PATIENCE).unwrap()).chain(heard.try_iter()).collect();
    // On a machine that stops us for 20 ms one may have run in between; never early.
    assert!(ran.iter().all(|(due, at)| at >= due));
    assert!(ran.len() <= 1 + moved / 10, "{} ran of {moved} that were moved on", ran.len());
}

#[test]
fn a_deadline_that_was_cancelled_or_whose_connection_has_gone_never_runs() {
    let (ran, heard) = channel();
    let server = start(Config::default(), Alarm { ran });
    let mut cancelled = server.connect();
    cancelled.write_all(&[50, 0]).unwrap();
    cancelled.read_exact(&mut [0; 2]).unwrap();
    let mut gone = server.connect();
    gone.write_all(&[250]).unwrap();
    gone.read_exact(&mut [0]).unwrap();
    drop(gone);
    until("it is closed", || server.stats.connections_open.get() == 1);
    // The slot's next tenant inherits nothing, and its own deadline, later than both, is the only one that runs.
    let mut next = server.connect();
    next.write_all(&[255]).unwrap();
    let (due, at) = heard.recv_timeout(PATIENCE).unwrap();
    assert!(at >= due);
    assert!(heard.try_recv().is_err());
}

#[test]
fn ten_thousand_deadlines_at_one_instant_run_within_a_budget_and_delay_no_other() {
    // Through `spread`, which this test also shows to be a tenth at most.
    struct Idle;
    impl Handler for Idle {
        type Conn = ();
        type Mail = ();
        fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
            let spread = cx.spread(Duration::from_millis(100));
            assert!(spread >= Duration::from_millis(100) && spread <= Duration::from_millis(110));
            cx.deadline(Some(cx.now() + Duration::from_millis(50)));
        }
        fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
            cx.deadline(None);
            cx.write(input)
        }
        fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}
    }
    let mut config = Config::default();
    config.limits.deadlines_per_turn_max = 4;
    config.limits.closes_per_turn_max = 4;
    let server = start(config, Idle);
    let mut witness = server.connect();
    support::ask(&mut witness, "hello");
    let clients: Vec<TcpStream> = (0..400).map(|_| server.connect()).collect();
    until("all were open", || server.stats.accepts.get() == 401);
    let before = server.stats.turns.get();
    while server.stats.connections_open.get() > 1 {
        support::ask(&mut witness, "meanwhile");
    }
    assert!(server.stats.turns.get() - before >= 1);
    drop(clients);
}

#[test]
fn a_precise_wake_is_never_early_and_finer_than_a_millisecond() {
    /// Wakes itself each 300 µs, from each time that was asked for, as a load generator does.
    struct Metronome {
        next: Option<Instant>,
        late: Vec<Duration>,
    }
    impl Handler for Metronome {
        type Conn = ();
        type Mail = ();
        fn opened(&mut self, _origin: Origin, _cx: &mut Context<'_>) {}
        fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
            input.len()
        }
        fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}
        fn next_wake(&self) -> Option<Instant> {
            self.next
        }
        fn woke(&mut self, cx: &mut LoopContext<'_>) {
            let due = self.next.expect("woken when nothing was asked for");
            let now = Instant::now();
            assert!(now >= due && cx.now() >= due, "woken early");
            self.late.push(now - due);
            self.next = Some(now + Duration::from_micros(300));
            if self.late.len() == 200 {
                cx.stop();
            }
        }
    }
    let metronome = Metronome { next: Some(Instant::now() + Duration::from_micros(300)), late: Vec::new() };
    let started = Instant::now();
    let mut late = reactor::EventLoop::new(Config::default(), metronome).unwrap().run().unwrap().late;
    assert!(started.elapsed() >= Duration::from_micros(300) * 200);
    late.sort();
    // Whole milliseconds would make every one of them at least 700 µs late; a busy machine delays some.
    assert!(late[20] < Duration::from_micros(700), "even the best tenth was {:?} late", late[20]);
}

#[test]
fn a_deadline_that_a_slow_callback_makes_late_is_counted_by_how_late_it_is() {
    /// Each input sets a deadline and then keeps the loop until well after it.
    struct Slow;
    const LATE: Duration = Duration::from_millis(20);

    impl Handler for Slow {
        type Conn = ();
        type Mail = ();
        fn opened(&mut self, _origin: Origin, _cx: &mut Context<'_>) {}
        fn input(&mut self, (): &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
            let due = cx.now() + Duration::from_millis(5);
            cx.deadline(Some(due));
            while Instant::now() < due + LATE {
                std::hint::spin_loop();
            }
            input.len()
        }
        fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}
        fn deadline(&mut self, (): &mut (), cx: &mut Context<'_>) {
            cx.write(b"!");
        }
    }

    let server = start(Config::default(), Slow);
    let mut client = server.connect();
    for _ in 0..3 {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    until("all are counted", || server.stats.loop_lag.snapshot().count() == 3);
    // Less the tick to which a deadline is rounded up.
    assert!(server.stats.loop_lag.snapshot().sum >= (LATE - Duration::from_millis(1)) * 3);
    assert!(server.stats.turn_duration.snapshot().sum >= LATE * 3);
}
