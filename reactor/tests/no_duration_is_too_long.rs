//! No duration that the public types allow ends the loop or the process: each limit of time, and each argument that is one, may be anything
//! from zero to `Duration::MAX`, which means "no limit".
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use reactor::{CloseReason, Config, Connect, Context, Handler, Linux, LoopContext, Origin, Os, Pressure};
use support::scripted::{scripted, sim_address};

/// Any duration, and those at the ends of the types behind it more often.
fn duration() -> impl Strategy<Value = Duration> {
    let nanosecond = Duration::from_nanos(1);
    prop_oneof![
        Just(Duration::MAX),
        Just(Duration::ZERO),
        prop::sample::select(vec![
            nanosecond,
            Duration::MAX - nanosecond,
            Duration::from_secs(i64::MAX as u64),
            Duration::from_secs(i64::MAX as u64 + 1),
            Duration::from_millis(u64::MAX),
            Duration::from_nanos(u64::MAX),
            Duration::from_nanos(u64::MAX) + nanosecond,
            Duration::from_millis(u64::from(u32::MAX)),
            Duration::from_millis(i32::MAX as u64) + nanosecond,
        ]),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        (0..64_u32, any::<u64>()).prop_map(|(shift, secs)| Duration::from_secs(secs >> shift)),
    ]
}

/// The first connection gets more output than the kernel takes, the second is closed, the third is refused; and one goes out.
struct Everything {
    opened: u32,
    started: Option<Instant>,
    connect_timeout: Duration,
    closed: Vec<CloseReason>,
    spread: Vec<Duration>,
}

impl Handler for Everything {
    type Conn = ();
    type Mail = ();

    fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
        self.opened += 1;
        self.spread.push(cx.spread(self.connect_timeout));
        match self.opened {
            1 => {
                cx.write(&[0; 4096]);
            }
            2 => cx.close(),
            _ => cx.refuse(),
        }
    }

    fn input(&mut self, (): &mut (), input: &[u8], _cx: &mut Context<'_>) -> usize {
        input.len()
    }

    fn mail(&mut self, (): &mut (), (): (), _cx: &mut Context<'_>) {}

    fn pressed(&mut self, (): &mut (), _pressure: Pressure, _cx: &mut Context<'_>) {}

    fn closed(&mut self, (): (), reason: CloseReason, _cx: &mut LoopContext<'_>) {
        self.closed.push(reason);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.started
    }

    fn woke(&mut self, cx: &mut LoopContext<'_>) {
        self.started = None;
        cx.connect(Connect::new(sim_address(), 0, self.connect_timeout)).unwrap();
    }
}

proptest! {
    #[test]
    fn every_limit_of_time_may_be_any_duration(
        output_rate_window in duration(),
        evictable_stall_min in duration(),
        linger_timeout in duration(),
        refused_linger_timeout in duration(),
        accept_pause in duration(),
        connect_timeout in duration(),
        graces in prop::collection::vec(duration(), 1..3),
        errno in prop::sample::select(vec![libc::EMFILE, libc::EINVAL]),
    ) {
        let mut config = Config::default();
        let limits = &mut config.limits;
        (limits.output_rate_window, limits.linger_timeout) = (output_rate_window, linger_timeout);
        limits.evictable_stall_min = evictable_stall_min;
        (limits.refused_linger_timeout, limits.accept_pause) = (refused_linger_timeout, accept_pause);
        limits.kernel_unsent_bytes_max = Some(1024);
        prop_assert_eq!(config.check(), Ok(()));
        let handler =
            Everything { opened: 0, started: Some(Instant::now()), connect_timeout, closed: Vec::new(), spread: Vec::new() };
        let (mut event_loop, index) = scripted(config, handler);
        for _ in 0..3 {
            event_loop.os_mut().kernel().peer_connects(index);
        }
        for turn in 0..12 {
            match turn {
                3 => {
                    event_loop.os_mut().accept_errors.push_back(errno);
                    event_loop.os_mut().kernel().peer_connects(index);
                }
                6 => graces.iter().for_each(|grace| event_loop.handle().shut_down(*grace)),
                _ => {}
            }
            event_loop.os_mut().ahead += Duration::from_millis(1);
            if !event_loop.turn().unwrap() {
                break;
            }
        }
        let handler = event_loop.finish();
        for spread in handler.spread {
            prop_assert!(spread >= connect_timeout && spread <= connect_timeout.saturating_add(connect_timeout / 10));
        }
    }

    #[test]
    fn the_systems_timer_and_poll_take_any_duration(after in duration()) {
        let mut linux = Linux::new(8).unwrap();
        linux.set_timer(after).unwrap();
        // This one ends the poll.
        linux.set_timer(Duration::ZERO).unwrap();
        linux.poll(Some(after), &mut Vec::new()).unwrap();
    }
}

#[test]
fn a_limit_without_an_end_never_comes() {
    let mut config = Config::default();
    config.limits.output_rate_window = Duration::MAX;
    config.limits.linger_timeout = Duration::MAX;
    config.limits.kernel_unsent_bytes_max = Some(1024);
    let handler =
        Everything { opened: 0, started: Some(Instant::now()), connect_timeout: Duration::MAX, closed: Vec::new(), spread: Vec::new() };
    let (mut event_loop, index) = scripted(config, handler);
    for _ in 0..2 {
        event_loop.os_mut().kernel().peer_connects(index);
    }
    for _ in 0..5 {
        event_loop.turn().unwrap();
        event_loop.os_mut().ahead += Duration::from_secs(86_400 * 365);
    }
    assert_eq!(event_loop.handler().closed, []);
    assert_eq!(event_loop.stats().connections_connecting.get(), 1);
    assert_eq!(event_loop.stats().connections_lingering.get(), 1);
}
