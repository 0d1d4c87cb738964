//! The mailbox under every interleaving that loom finds with up to three preemptions, and every value that the memory model allows a
//! load to see. `RUSTFLAGS="--cfg loom" cargo test -p reactor --release loom`.

use std::io;
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU32 as StdAtomicU32, Ordering as StdOrdering};

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::*;

/// The poll of a loop that only mail wakes: an eventfd, modelled.
struct Sleep {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Sleep {
    fn new() -> StdArc<Sleep> {
        StdArc::new(Sleep { woken: Mutex::new(false), changed: Condvar::new() })
    }

    fn until_woken(&self) {
        let mut woken = self.woken.lock().expect("nobody panics with it");
        while !*woken {
            woken = self.changed.wait(woken).expect("nobody panics with it");
        }
        *woken = false;
    }

    /// Whether somebody has woken us since the last time.
    fn take_wake(&self) -> bool {
        std::mem::take(&mut *self.woken.lock().expect("nobody panics with it"))
    }
}

impl Wake for Sleep {
    fn wake(&self) -> io::Result<()> {
        *self.woken.lock().expect("nobody panics with it") = true;
        self.changed.notify_one();
        Ok(())
    }
}

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// The loop, as in `event_loop.rs`: mail waits from a wake until a look finds none, and while none waits it sleeps. It takes
/// `take_max` pieces a turn, until `wanted` have come. If one lies in the channel while it sleeps, loom reports a deadlock.
fn run_loop(inbox: &mut Inbox<u32>, sleep: &Sleep, wanted: usize, take_max: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    let mut mail_waits = false;
    while taken.len() < wanted {
        if !mail_waits {
            sleep.until_woken();
            mail_waits = true;
        }
        inbox.start_emptying();
        for _ in 0..take_max {
            match inbox.take() {
                Some(mail) => taken.push(mail),
                None => {
                    mail_waits = false;
                    break;
                }
            }
        }
    }
    taken
}

fn send_all(sender: &Sender<u32>, mails: &[u32]) {
    for &mail in mails {
        sender.reserve().expect("there is permit for all").send(mail).expect("the loop is there");
    }
}

fn two_senders_and_a_sleeping_loop(take_max: usize) {
    let sleep = Sleep::new();
    let (sender, mut inbox) = mailbox(4, sleep.clone());
    let other = sender.clone();
    let one = thread::spawn(move || send_all(&sender, &[10, 11]));
    let two = thread::spawn(move || send_all(&other, &[20]));
    let taken = run_loop(&mut inbox, &sleep, 3, take_max);
    one.join().expect("no sender panics");
    two.join().expect("no sender panics");
    assert!(inbox.take().is_none());
    assert_eq!(taken.iter().filter(|&&mail| mail < 20).collect::<Vec<_>>(), [&10, &11], "the order of one sender");
    assert_eq!(taken.iter().filter(|&&mail| mail == 20).count(), 1);
}

#[test]
fn loom_no_mail_lies_in_the_channel_while_the_loop_sleeps() {
    model(|| two_senders_and_a_sleeping_loop(usize::MAX));
}

#[test]
fn loom_no_mail_is_stranded_by_a_budget_either() {
    model(|| two_senders_and_a_sleeping_loop(1));
}

/// The same without blocking, so that what is lost is a failed assertion and not a deadlock (after which loom cannot clean up): the
/// loop looks twice while they send, and after they have ended for as long as somebody has woken it. Then it would sleep for ever.
fn two_senders_and_a_loop_that_looks(order: MailboxOrder) {
    let sleep = Sleep::new();
    let (sender, mut inbox) = mailbox(2, sleep.clone());
    inbox.set_order(order);
    let other = sender.clone();
    let one = thread::spawn(move || send_all(&sender, &[10]));
    let two = thread::spawn(move || send_all(&other, &[20]));
    let mut taken = 0;
    let mut look = || {
        let woken = sleep.take_wake();
        if woken {
            inbox.start_emptying();
            taken += std::iter::from_fn(|| inbox.take()).count();
        }
        woken
    };
    look();
    look();
    one.join().expect("no sender panics");
    two.join().expect("no sender panics");
    while look() {}
    assert_eq!(taken, 2, "mail lies in the channel, and nobody wakes the loop");
}

#[test]
fn loom_after_the_last_wake_all_mail_is_taken() {
    model(|| two_senders_and_a_loop_that_looks(MailboxOrder::ClearThenEmpty));
}

#[test]
#[should_panic(expected = "mail lies in the channel, and nobody wakes the loop")]
fn loom_finds_the_wakeup_that_draining_before_clearing_loses() {
    model(|| two_senders_and_a_loop_that_looks(MailboxOrder::EmptyThenClear));
}

#[test]
fn loom_permit_is_never_exceeded_and_never_leaks() {
    static ROOM_WAS_USED_TWICE: StdAtomicU32 = StdAtomicU32::new(0);
    model(|| {
        let sleep = Sleep::new();
        let (sender, mut inbox) = mailbox(1, sleep);
        let senders = [sender.clone(), sender.clone()].map(|sender| {
            thread::spawn(move || match sender.reserve() {
                Some(permit) => {
                    // With two permits at once the channel's one place would be taken, and `send` would panic.
                    permit.send(1u32).expect("the loop is there");
                    1
                }
                None => 0,
            })
        });
        // Takes while they send, so that a second one may get the permit of the first.
        let taken = usize::from(inbox.take().is_some());
        let sent: usize = senders.into_iter().map(|sender| sender.join().expect("no sender panics")).sum();
        let left = std::iter::from_fn(|| inbox.take()).count();
        assert!(sent >= 1, "there was permit for the first");
        ROOM_WAS_USED_TWICE.fetch_add(u32::from(sent == 2), StdOrdering::Relaxed);
        assert_eq!(taken + left, sent);
        let permit = sender.reserve();
        assert!(permit.is_some(), "a permit has leaked");
        assert!(sender.reserve().is_none(), "a permit too many");
    });
    assert!(ROOM_WAS_USED_TWICE.load(StdOrdering::Relaxed) > 0, "the model has not reached what it is there for");
}

#[test]
fn loom_a_permit_that_is_dropped_comes_back() {
    model(|| {
        let sleep = Sleep::new();
        let (sender, mut inbox) = mailbox::<u32>(1, sleep);
        let other = sender.clone();
        let dropper = thread::spawn(move || drop(other.reserve()));
        if let Some(permit) = sender.reserve() {
            permit.send(1).expect("the loop is there");
            assert_eq!(inbox.take(), Some(1));
        }
        dropper.join().expect("it does not panic");
        let permit = sender.reserve();
        assert!(permit.is_some() && sender.reserve().is_none());
    });
}

/// Mail that counts how often it is dropped.
struct Guarded(StdArc<StdAtomicU32>);

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.fetch_add(1, StdOrdering::Relaxed);
    }
}

#[test]
fn loom_mail_sent_while_the_loop_ends_is_taken_given_back_or_dropped_but_exactly_once() {
    static OUTCOMES: [StdAtomicU32; 3] = [const { StdAtomicU32::new(0) }; 3];
    model(|| {
        let drops = StdArc::new(StdAtomicU32::new(0));
        let sleep = Sleep::new();
        let (sender, mut inbox) = mailbox(2, sleep);
        let sent = Guarded(drops.clone());
        let sending = thread::spawn(move || {
            let permit = sender.reserve().expect("there is permit");
            match permit.send(sent) {
                Ok(()) => 0,
                Err(mail) => {
                    drop(mail);
                    1
                }
            }
        });
        let taken = inbox.take().is_some();
        drop(inbox);
        let given_back = sending.join().expect("the sender does not panic");
        assert!(!(taken && given_back == 1));
        assert_eq!(drops.load(StdOrdering::Relaxed), 1);
        let outcome = if taken { 0 } else { 1 + given_back };
        OUTCOMES[outcome].fetch_add(1, StdOrdering::Relaxed);
    });
    assert!(OUTCOMES.iter().all(|reached| reached.load(StdOrdering::Relaxed) > 0), "the model reaches only {OUTCOMES:?}");
}
