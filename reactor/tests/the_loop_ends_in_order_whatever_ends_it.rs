//! The end of a loop: every connection, connect and piece of mail that was admitted gets its last callback, also when a system call of the loop
//! itself fails; a drain notifies each connection once and ends at the earliest time that was asked for; and the loop sleeps only on a
//! timer that is armed.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use reactor::{CloseReason, Config, Connect, Context, EventLoop, Handler, LoopContext, Origin, Pressure, Token};
use support::scripted::{Scripted, scripted, sim_address};

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Opened(Token),
    Pressed(Token),
    Closed(Token, CloseReason),
    ConnectFailed(u64),
    Undelivered(u32),
}

/// Stays open until its peer ends, and reports what it is told. Connects when it gets input.
#[derive(Default)]
struct Stays {
    told: Heard,
    deadline: Option<Duration>,
}

impl Stays {
    fn tell(&self, told: Told) {
        self.told.borrow_mut().push(told);
    }
}

impl Handler for Stays {
    type Conn = Token;
    type Mail = u32;

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) -> Token {
        self.tell(Told::Opened(cx.token()));
        cx.deadline(self.deadline.map(|after| cx.now() + after));
        cx.token()
    }

    fn input(&mut self, _token: &mut Token, input: &[u8], cx: &mut Context<'_>) -> usize {
        for tag in input {
            cx.connect(Connect::new(sim_address(), u64::from(*tag), Duration::MAX)).unwrap();
        }
        input.len()
    }

    fn pressed(&mut self, token: &mut Token, _pressure: Pressure, _cx: &mut Context<'_>) {
        self.tell(Told::Pressed(*token));
    }

    fn mail(&mut self, _token: &mut Token, _mail: u32, _cx: &mut Context<'_>) {}

    fn undelivered(&mut self, mail: u32, _cx: &mut LoopContext<'_>) {
        self.tell(Told::Undelivered(mail));
    }

    fn closed(&mut self, token: Token, reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.tell(Told::Closed(token, reason));
    }

    fn connect_failed(&mut self, tag: u64, _error: io::Error, _cx: &mut LoopContext<'_>) {
        self.tell(Told::ConnectFailed(tag));
    }
}

/// What the handler was told, also when it is gone.
type Heard = Rc<RefCell<Vec<Told>>>;

/// A loop with `connections` open connections, and their peers.
fn open(config: Config, connections: usize) -> (EventLoop<Stays, Scripted>, Vec<u32>, Heard) {
    let handler = Stays::default();
    let told = Rc::clone(&handler.told);
    let (mut event_loop, index) = scripted(config, handler);
    let peers = (0..connections).map(|_| event_loop.os_mut().kernel().peer_connects(index).unwrap()).collect();
    event_loop.turn().unwrap();
    (event_loop, peers, told)
}

#[test]
fn after_a_failed_poll_everything_that_was_admitted_gets_its_last_callback() {
    let mut config = Config::default();
    config.limits.connects_per_turn_max = 1;
    let (mut event_loop, peers, told) = open(config, 1);
    let Told::Opened(token) = told.borrow_mut().remove(0) else { panic!("it was opened first") };
    // Two attempts: the first has begun, the second waits for the next turn.
    event_loop.os_mut().kernel().peer_sends(peers[0], &[1, 2]);
    event_loop.turn().unwrap();
    let mailer = event_loop.mailer();
    mailer.reserve(token).unwrap().send(7).unwrap();
    event_loop.os_mut().poll_error = Some(io::Error::from_raw_os_error(libc::ENOMEM));
    let error = event_loop.run().err().unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    let mut told = told.borrow_mut();
    for last in [Told::Closed(token, CloseReason::LoopEnded), Told::ConnectFailed(1), Told::ConnectFailed(2), Told::Undelivered(7)] {
        let place = told.iter().position(|told| *told == last);
        let Some(place) = place else { panic!("{last:?} is missing among {told:?}") };
        told.remove(place);
    }
    assert_eq!(*told, []);
}

#[test]
fn a_connection_in_a_reused_slot_is_notified_of_a_shutdown_once() {
    let mut config = Config::default();
    // One slot is notified in a turn.
    config.limits.closes_per_turn_max = 1;
    let (mut event_loop, peers, told) = open(config, 8);
    event_loop.handle().shut_down(Duration::from_secs(60));
    event_loop.turn().unwrap();
    event_loop.os_mut().kernel().peer_ends(peers[7]);
    event_loop.turn().unwrap();
    event_loop.os_mut().kernel().peer_sends(peers[0], &[1]);
    event_loop.turn().unwrap();
    let connecting = event_loop.os_mut().connecting[0];
    event_loop.os_mut().kernel().peer_accepts(connecting);
    for _ in 0..12 {
        event_loop.turn().unwrap();
    }
    let told = told.borrow();
    let Some(Told::Opened(newcomer)) = told.iter().rfind(|told| matches!(told, Told::Opened(_))) else { panic!("{told:?}") };
    assert_eq!(newcomer.slot(), 7, "the newcomer has the slot that was closed");
    for token in told.iter().filter_map(|told| if let Told::Opened(token) = told { Some(token) } else { None }) {
        let notified = told.iter().filter(|told| **told == Told::Pressed(*token)).count();
        let is_gone = told.contains(&Told::Closed(*token, CloseReason::PeerClosed));
        assert_eq!(notified, usize::from(!is_gone), "{token:?}: {told:?}");
    }
}

#[test]
fn of_several_shutdowns_the_one_that_ends_first_counts() {
    let seconds = Duration::from_secs;
    // (what was asked for and after how long, when the loop ends)
    for (orders, end) in [
        (vec![(0, 10)], 10),
        (vec![(0, 10), (1, 2)], 3),
        (vec![(0, 10), (1, 60)], 10),
        (vec![(0, 60), (0, 2)], 2),
        (vec![(0, 2), (0, 60)], 2),
        (vec![(0, u64::MAX), (5, 1)], 6),
    ] {
        let (mut event_loop, _, told) = open(Config::default(), 1);
        let mut second = 0;
        loop {
            for (_, grace) in orders.iter().filter(|(after, _)| *after == second) {
                event_loop.handle().shut_down(seconds(*grace));
            }
            // A timer event, so that no poll waits: time passes by the script alone.
            event_loop.os_mut().events = vec![Scripted::timer_event()];
            if !event_loop.turn().unwrap() {
                break;
            }
            event_loop.os_mut().ahead += seconds(1);
            second += 1;
            assert!(second < 100, "{orders:?} never ends");
        }
        assert_eq!(second, end, "{orders:?}");
        drop(event_loop.finish());
        assert!(matches!(told.borrow().last(), Some(Told::Closed(_, CloseReason::LoopEnded))));
    }
}

#[test]
fn a_timer_that_fires_early_is_armed_again() {
    let handler = Stays { deadline: Some(Duration::from_secs(5)), ..Stays::default() };
    let (mut event_loop, index) = scripted(Config::default(), handler);
    event_loop.os_mut().kernel().peer_connects(index).unwrap();
    event_loop.turn().unwrap();
    let begun = event_loop.os_mut().timers.len();
    event_loop.os_mut().events = vec![Scripted::timer_event()];
    event_loop.turn().unwrap();
    assert_eq!(event_loop.os_mut().timers.len(), begun + 1, "the deadline set a timer");
    event_loop.os_mut().events = vec![Scripted::timer_event()];
    event_loop.turn().unwrap();
    assert_eq!(event_loop.os_mut().timers.len(), begun + 2, "the timer had fired: nothing would have ended the next poll");
}
