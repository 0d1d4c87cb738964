//! `drain_read` against scripted sockets: nothing is lost or read twice, budgets hold, and each exit means what it says.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};

use proptest::prelude::*;
use reactor::policy::DrainPolicy;
use reactor::{ReadStop, drain_read};

/// What the socket does at one call.
#[derive(Clone, Debug)]
enum Step {
    /// So many bytes have arrived: a read gives them all, or what fits, and the rest at the next read.
    Bytes(usize),
    /// A signal came first.
    Interrupted,
    WouldBlock,
    Reset,
    End,
}

/// A socket that follows a script. Behind its last step it has nothing, for ever.
struct Scripted {
    steps: VecDeque<Step>,
    next_byte: u8,
    calls: u32,
}

impl Scripted {
    fn new(steps: impl IntoIterator<Item = Step>) -> Scripted {
        Scripted { steps: steps.into_iter().collect(), next_byte: 0, calls: 0 }
    }
}

impl Read for Scripted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "a read into nothing returns 0, which looks like the end");
        self.calls += 1;
        match self.steps.pop_front() {
            None => Err(ErrorKind::WouldBlock.into()),
            Some(Step::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Some(Step::Interrupted) => Err(ErrorKind::Interrupted.into()),
            Some(Step::Reset) => {
                self.steps.push_front(Step::Reset);
                Err(ErrorKind::ConnectionReset.into())
            }
            Some(Step::End) => {
                self.steps.push_front(Step::End);
                Ok(0)
            }
            Some(Step::Bytes(bytes)) => {
                let n = bytes.min(into.len());
                for place in &mut into[..n] {
                    *place = self.next_byte;
                    self.next_byte = self.next_byte.wrapping_add(1);
                }
                if n < bytes {
                    self.steps.push_front(Step::Bytes(bytes - n));
                }
                Ok(n)
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..200usize).prop_map(Step::Bytes),
        1 => Just(Step::Interrupted),
        1 => Just(Step::WouldBlock),
    ]
}

fn last_step() -> impl Strategy<Value = Option<Step>> {
    prop_oneof![Just(None), Just(Some(Step::End)), Just(Some(Step::Reset))]
}

fn policy() -> impl Strategy<Value = DrainPolicy> {
    prop_oneof![Just(DrainPolicy::UntilShortRead), Just(DrainPolicy::UntilWouldBlock)]
}

proptest! {
    #[test]
    fn every_exit_means_what_it_says_and_every_byte_comes_once_and_in_order(
        steps in prop::collection::vec(step(), 0..30),
        last in last_step(),
        buffer_bytes in 0..400usize,
        reads_max in 1..8u32,
        policy in policy(),
        short_read_is_empty in any::<bool>(),
    ) {
        let mut socket = Scripted::new(steps.iter().cloned().chain(last.clone()));
        let mut expected = 0u8;
        let mut total = 0;
        // As the loop does it: again and again, until an exit says that only an event can go on.
        let mut rounds = 0;
        loop {
            rounds += 1;
            prop_assert!(rounds < 20_000, "no progress");
            let mut into = vec![0; buffer_bytes];
            let calls_before = socket.calls;
            let steps_before = socket.steps.clone();
            let outcome = match drain_read(&mut socket, &mut into, reads_max, policy, short_read_is_empty) {
                Ok(outcome) => outcome,
                Err(e) => {
                    prop_assert_eq!(e.kind(), ErrorKind::ConnectionReset);
                    prop_assert!(matches!(socket.steps.front(), Some(Step::Reset)));
                    return Ok(());
                }
            };
            prop_assert_eq!(outcome.calls, socket.calls - calls_before);
            prop_assert!(outcome.calls <= reads_max && outcome.bytes <= buffer_bytes);
            for &byte in &into[..outcome.bytes] {
                prop_assert_eq!(byte, expected);
                expected = expected.wrapping_add(1);
            }
            prop_assert!(into[outcome.bytes..].iter().all(|&byte| byte == 0), "bytes beyond what was counted");
            total += outcome.bytes;
            match outcome.stop {
                ReadStop::BufferFull => prop_assert_eq!(outcome.bytes, buffer_bytes),
                ReadStop::BudgetSpent => prop_assert!(outcome.calls == reads_max && outcome.bytes < buffer_bytes),
                ReadStop::PeerClosed => {
                    prop_assert!(matches!(socket.steps.front(), Some(Step::End)));
                    prop_assert!(outcome.bytes < buffer_bytes, "the end was asked for with room to hear an answer");
                    let sent: usize = steps.iter().map(|step| if let Step::Bytes(n) = step { *n } else { 0 }).sum();
                    prop_assert_eq!(total, sent, "the end comes after the last byte");
                    break;
                }
                ReadStop::Failed(kind) => {
                    prop_assert_eq!(kind, ErrorKind::ConnectionReset);
                    prop_assert!(outcome.bytes > 0 && matches!(socket.steps.front(), Some(Step::Reset)));
                    break;
                }
                ReadStop::Empty => {
                    // Either the socket said so, or a short read did, where a short read may speak.
                    let used = steps_before.len() - socket.steps.len();
                    let said = used > 0 && matches!(steps_before[used - 1], Step::WouldBlock);
                    let ran_out = steps_before.len() == used && socket.calls - calls_before > used as u32;
                    let short = policy == DrainPolicy::UntilShortRead && short_read_is_empty && outcome.bytes < buffer_bytes
                        && used > 0 && matches!(steps_before[used - 1], Step::Bytes(_));
                    prop_assert!(said || ran_out || short, "empty: used {} of {:?}", used, steps_before);
                    if socket.steps.is_empty() {
                        return Ok(()); // The next arrival brings the next event.
                    }
                }
            }
            if buffer_bytes == 0 {
                return Ok(()); // Full before it began, for ever.
            }
        }
    }

    #[test]
    fn data_with_a_fin_behind_it_is_read_to_the_end_when_a_short_read_proves_nothing(
        bytes in prop::collection::vec(1..300usize, 0..5),
        policy in policy(),
    ) {
        // What one visit sees after an event with a close bit (netty pull request 6199).
        let mut socket = Scripted::new(bytes.iter().map(|&n| Step::Bytes(n)).chain([Step::End]));
        let mut into = vec![0; 2000];
        let outcome = drain_read(&mut socket, &mut into, 16, policy, false).unwrap();
        prop_assert_eq!(outcome.stop, ReadStop::PeerClosed);
        prop_assert_eq!(outcome.bytes, bytes.iter().sum::<usize>());
    }
}

#[test]
fn a_short_read_saves_a_call_only_where_it_may() {
    for (policy, short_read_is_empty, calls) in [
        (DrainPolicy::UntilShortRead, true, 1),
        (DrainPolicy::UntilShortRead, false, 2),
        (DrainPolicy::UntilWouldBlock, true, 2),
        (DrainPolicy::UntilWouldBlock, false, 2),
    ] {
        let mut socket = Scripted::new([Step::Bytes(10)]);
        let outcome = drain_read(&mut socket, &mut [0; 64], 16, policy, short_read_is_empty).unwrap();
        assert_eq!((outcome.stop, outcome.bytes, outcome.calls), (ReadStop::Empty, 10, calls));
    }
}

#[test]
fn a_read_that_fills_the_buffer_exactly_proves_nothing() {
    let mut socket = Scripted::new([Step::Bytes(64), Step::End]);
    let outcome = drain_read(&mut socket, &mut [0; 64], 16, DrainPolicy::UntilShortRead, true).unwrap();
    assert_eq!((outcome.stop, outcome.bytes), (ReadStop::BufferFull, 64));
    let outcome = drain_read(&mut socket, &mut [0; 64], 16, DrainPolicy::UntilShortRead, true).unwrap();
    assert_eq!((outcome.stop, outcome.bytes), (ReadStop::PeerClosed, 0));
}

#[test]
fn bytes_before_a_failure_are_returned_with_it() {
    let mut socket = Scripted::new([Step::Bytes(10), Step::Reset]);
    let outcome = drain_read(&mut socket, &mut [0; 64], 16, DrainPolicy::UntilWouldBlock, false).unwrap();
    assert_eq!((outcome.stop, outcome.bytes), (ReadStop::Failed(ErrorKind::ConnectionReset), 10));
    assert!(drain_read(&mut socket, &mut [0; 64], 16, DrainPolicy::UntilWouldBlock, false).is_err());
}

#[test]
fn a_peer_that_interrupts_every_call_spends_the_budget_and_no_more() {
    let mut socket = Scripted::new(std::iter::repeat_n(Step::Interrupted, 100));
    let outcome = drain_read(&mut socket, &mut [0; 64], 7, DrainPolicy::UntilShortRead, true).unwrap();
    assert_eq!((outcome.stop, outcome.bytes, outcome.calls), (ReadStop::BudgetSpent, 0, 7));
}
