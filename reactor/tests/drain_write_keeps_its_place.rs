//! `drain_write` against scripted sockets: the kernel gets each byte once and in order, budgets hold, and each exit means what it says.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

use proptest::prelude::*;
use reactor::policy::RestPolicy;
use reactor::{Flushed, drain_write};

/// What the socket does at one call.
#[derive(Clone, Debug)]
enum Step {
    Takes(usize),
    Interrupted,
    WouldBlock,
    Reset,
}

/// A socket that follows a script, and takes everything behind its last step.
struct Scripted {
    steps: VecDeque<Step>,
    taken: Vec<u8>,
    calls: u32,
    last_blocked: bool,
}

impl Write for Scripted {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        assert!(!from.is_empty(), "a write of nothing is a call for nothing");
        self.calls += 1;
        self.last_blocked = false;
        let n = match self.steps.pop_front() {
            None => from.len(),
            Some(Step::Takes(n)) => n.min(from.len()),
            Some(Step::Interrupted) => return Err(ErrorKind::Interrupted.into()),
            Some(Step::WouldBlock) => {
                self.last_blocked = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            Some(Step::Reset) => return Err(ErrorKind::BrokenPipe.into()),
        };
        self.taken.extend_from_slice(&from[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..200usize).prop_map(Step::Takes),
        1 => Just(Step::Interrupted),
        2 => Just(Step::WouldBlock),
    ]
}

proptest! {
    #[test]
    fn the_kernel_gets_every_byte_once_and_in_order_whatever_it_takes_at_a_time(
        mut steps in prop::collection::vec(step(), 0..30),
        reset in any::<bool>(),
        bytes in 0..2000usize,
        budget_bytes in 1..700usize,
    ) {
        let from: Vec<u8> = (0..bytes).map(|i| (i * 7) as u8).collect();
        if reset {
            steps.push(Step::Reset);
        }
        let mut socket = Scripted { steps: steps.into(), taken: Vec::new(), calls: 0, last_blocked: false };
        let mut sent = 0;
        // As the loop does it: from where it stopped, at the next event or in the next turn.
        let mut rounds = 0;
        loop {
            rounds += 1;
            prop_assert!(rounds < 4000, "no progress");
            let calls_before = socket.calls;
            let outcome = match drain_write(&mut socket, &from[sent..], budget_bytes, RestPolicy::Kept) {
                Ok(outcome) => outcome,
                Err(e) => {
                    prop_assert!(reset && e.kind() == ErrorKind::BrokenPipe);
                    prop_assert_eq!(&socket.taken[..], &from[..socket.taken.len()]);
                    return Ok(());
                }
            };
            sent += outcome.bytes;
            prop_assert_eq!(outcome.calls, socket.calls - calls_before);
            prop_assert!(outcome.bytes <= budget_bytes, "{} bytes with a budget of {}", outcome.bytes, budget_bytes);
            prop_assert_eq!(&socket.taken[..], &from[..sent], "what was counted is what was taken");
            match outcome.flushed {
                Flushed::All => {
                    prop_assert_eq!(sent, bytes);
                    break;
                }
                Flushed::Full => prop_assert!(socket.last_blocked && sent < bytes),
                Flushed::BudgetSpent => prop_assert!(outcome.bytes == budget_bytes && sent < bytes),
            }
        }
    }
}

#[test]
fn nothing_to_write_is_all_written_without_a_call() {
    let mut socket = Scripted { steps: VecDeque::new(), taken: Vec::new(), calls: 0, last_blocked: false };
    let outcome = drain_write(&mut socket, &[], 10, RestPolicy::Kept).unwrap();
    assert_eq!((outcome.flushed, outcome.bytes, outcome.calls), (Flushed::All, 0, 0));
}

#[test]
fn a_budget_of_nothing_writes_nothing() {
    let mut socket = Scripted { steps: VecDeque::new(), taken: Vec::new(), calls: 0, last_blocked: false };
    let outcome = drain_write(&mut socket, b"hello", 0, RestPolicy::Kept).unwrap();
    assert_eq!((outcome.flushed, outcome.bytes, outcome.calls), (Flushed::BudgetSpent, 0, 0));
}

#[test]
fn a_socket_that_takes_nothing_is_an_error_and_not_an_endless_loop() {
    let mut socket = Scripted { steps: [Step::Takes(0)].into(), taken: Vec::new(), calls: 0, last_blocked: false };
    assert_eq!(drain_write(&mut socket, b"hello", 10, RestPolicy::Kept).unwrap_err().kind(), ErrorKind::WriteZero);
}

#[test]
fn the_rest_of_a_short_write_is_lost_with_partial_write() {
    let mut socket = Scripted { steps: [Step::Takes(2), Step::WouldBlock].into(), taken: Vec::new(), calls: 0, last_blocked: false };
    let outcome = drain_write(&mut socket, b"hello", 10, RestPolicy::Dropped).unwrap();
    assert_eq!((outcome.flushed, outcome.bytes, outcome.calls), (Flushed::All, 5, 1), "it believes that all is sent");
    assert_eq!(socket.taken, b"he");
}
